use std::io::Write;

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc};

use super::super::{FieldPaths, Slice, open};
use super::*;

type Files<'a> = &'a [(&'a str, &'a [u8])];

fn tar(files: Files<'_>) -> Vec<u8> {
    let mut out = ::tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        out.append_data(&mut header, name, *bytes).unwrap();
    }
    out.into_inner().unwrap()
}

/// A zip archive; files whose names end in `.stored` are not deflated.
fn zip(files: Files<'_>) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let stored = name.ends_with(".stored");
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
        deflate.write_all(bytes).unwrap();
        let packed = if stored { bytes.to_vec() } else { deflate.finish().unwrap() };
        let mut crc = Crc::new();
        crc.update(bytes);
        let offset = out.len() as u32;
        // Version, flags, method, time and date; then CRC, sizes, and the lengths of name and extra field.
        let mut head = vec![20, 0, 0, 0, if stored { 0 } else { 8 }, 0, 0, 0, 0, 0];
        for size in [crc.sum(), packed.len() as u32, bytes.len() as u32] {
            head.extend(size.to_le_bytes());
        }
        head.extend((name.len() as u16).to_le_bytes());
        head.extend([0, 0]);
        out.extend([&b"PK\x03\x04"[..], &head[..], name.as_bytes(), &packed].concat());
        directory.extend([&b"PK\x01\x02\x14\0"[..], &head[..], &[0; 10]].concat());
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, n) = (out.len() as u32, files.len() as u16);
    out.extend(&directory);
    out.extend([&b"PK\x05\x06\0\0\0\0"[..], &n.to_le_bytes(), &n.to_le_bytes()].concat());
    out.extend([(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Each record's member, and its id or cause.
fn records(bytes: &[u8]) -> Vec<(String, std::result::Result<String, Cause>)> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let fields = FieldPaths { text: "text".into(), ..FieldPaths::default() };
    let mut reader = open(file.path(), "a", None, Slice::Whole, &fields, Limits::default()).unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        let content = record.content.map(|raw| raw.id.unwrap_or(raw.text)).map_err(|bad| bad.cause);
        found.push((reader.member().unwrap_or_default().to_owned(), content));
    }
    found
}

const LINES: &[u8] = b"{\"text\":\"one\"}\n{\"text\":\"two\"}\n";

#[test]
fn archives_are_folders_of_files() {
    let long = format!("{}/long.txt", "folder/".repeat(30));
    let packed = gzip(LINES);
    let nested = tar(&[("x", b"y")]);
    let files: Files<'_> = &[
        ("a.jsonl", LINES),
        ("b/c.txt", b"some words"),
        ("d.jsonl.gz", &packed),
        ("e.txt.stored", b"stored"),
        ("f.png", b"\x89PNG\r\n\x1a\n\0\0\0"),
        ("g.tar", &nested),
        (".hidden", b"hidden"),
        (&long, b"words"),
    ];
    let good = |member: &str, id: &str| (member.to_owned(), Ok(id.to_owned()));
    let long = format!("{}long.txt", "folder/".repeat(30));
    let expected = [
        good("a.jsonl", "one"),
        good("a.jsonl", "two"),
        good("b/c.txt", "a/b/c.txt"),
        good("d.jsonl.gz", "one"),
        good("d.jsonl.gz", "two"),
        good("e.txt.stored", "a/e.txt.stored"),
        ("f.png".to_owned(), Err(Cause::UnreadableFormat)),
        ("g.tar".to_owned(), Err(Cause::UnreadableFormat)),
        good(&long, &format!("a/{long}")),
    ];
    for bytes in [tar(files), gzip(&tar(files)), zip(files)] {
        assert_eq!(records(&bytes), expected);
    }
    assert_eq!(records(&gzip(&zip(files)))[0].1, Err(Cause::UnreadableFormat));
}

#[test]
fn damage_is_named_and_costs_the_rest() {
    let files: Files<'_> = &[("a.txt", b"one"), ("b.txt", b"two"), ("c.txt", b"three")];
    let mut bytes = tar(files);
    bytes[1024 + 5] ^= 1;
    let found = records(&bytes);
    assert_eq!(found[0].1, Ok("a/a.txt".to_owned()));
    assert_eq!(found[1], (String::new(), Err(Cause::CorruptArchive)));
    assert_eq!(found.len(), 2);
    // A file that is cut is not a document.
    assert_eq!(records(&tar(files)[..1024 + 513])[1].1, Err(Cause::TruncatedStream));

    let bytes = zip(files);
    assert_eq!(records(&bytes[..bytes.len() - 9])[0].1, Err(Cause::CorruptArchive));
    let mut damaged = bytes.clone();
    // Of the CRC of the first file in the directory.
    let at = memchr::memmem::find(&bytes, b"PK\x01\x02").unwrap() + 16;
    damaged[at] ^= 1;
    let found = records(&damaged);
    assert_eq!((&found[0].1, &found[1].1), (&Err(Cause::CorruptStream), &Ok("a/b.txt".to_owned())));
}

#[test]
fn documents_that_are_zip_archives_are_no_folders() {
    let office = zip(&[("[Content_Types].xml", b"<x/>"), ("word/document.xml", b"<x/>")]);
    assert_eq!(records(&office), [(String::new(), Err(Cause::UnreadableFormat))]);
    assert_eq!(records(&zip(&[])), [(String::new(), Err(Cause::EmptyFile))]);
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = gzip(&vec![b' '; 100 << 20]);
    for bytes in [
        tar(&[("a.txt", &zeros)]),
        zip(&[("a.txt.stored", &zeros)]),
        gzip(&tar(&[("a.txt", &vec![b' '; 100 << 20])])),
    ] {
        let found = records(&bytes);
        assert_eq!(found.len(), 1);
        assert!(matches!(found[0].1, Err(Cause::TooLong | Cause::TooMuchExpansion)), "{:?}", found[0].1);
    }
}
