use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::read::{self, Format, Slice};

/// A record with a correct length.
fn raw(kind: &str, n: usize, more: &str, block: &[u8]) -> Vec<u8> {
    let head = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{n}>\r\nWARC-Target-URI: http://a.example/{n}\r\n\
         WARC-Date: 2024-05-17T00:00:0{}Z\r\n{more}Content-Length: {}\r\n\r\n",
        n % 10,
        block.len()
    );
    [head.as_bytes(), block, b"\r\n\r\n"].concat()
}

fn conversion(n: usize) -> Vec<u8> {
    raw(
        "conversion",
        n,
        "Content-Type: text/plain\r\n",
        format!("Text of page {n}.\n\n\nWARC/1.0 is named in it.").as_bytes(),
    )
}

fn response(n: usize, head: &str, body: &str) -> Vec<u8> {
    let message = format!("HTTP/1.1 {head}\r\n\r\n{body}");
    raw("response", n, "Content-Type: application/http; msgtype=response\r\n", message.as_bytes())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn page(n: usize) -> String {
    let sentence = format!(
        "This is sentence number {n} of a page, long enough to be taken for its content by any extractor. "
    );
    let nav = "<nav><ul><li><a href=/>Home</a></li><li><a href=/about>About us</a></li></ul></nav>";
    let text = format!("<p>{}</p>", sentence.repeat(3)).repeat(4);
    format!(
        "<!DOCTYPE html><html><head><title>Page {n}</title></head><body>{nav}<article><h1>Page</h1>{text}</article></body></html>"
    )
}

fn records_of(bytes: &[u8], limits: Limits) -> (Vec<Record>, Unit) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let fields = FieldPaths { text: "text".into(), ..FieldPaths::default() };
    let mut reader = read::open(file.path(), "n", Some(Format::Warc), Slice::Whole, &fields, limits).unwrap();
    let records = std::iter::from_fn(|| reader.next_record().unwrap()).collect();
    (records, reader.unit())
}

fn records(bytes: &[u8]) -> Vec<Record> {
    records_of(bytes, Limits::default()).0
}

/// The ids of documents, and the offsets and causes of all else.
fn summary(records: &[Record]) -> Vec<String> {
    let one = |record: &Record| match &record.content {
        Ok(raw) => raw.id.clone().unwrap().replace("<urn:uuid:", "").replace('>', ""),
        Err(bad) => format!("{}@{}", bad.cause.name(), record.offset),
    };
    records.iter().map(one).collect()
}

#[test]
fn conversions_are_documents() {
    let bytes = [raw("warcinfo", 0, "", b"software: x\r\n"), conversion(1), conversion(2)].concat();
    for bytes in [bytes.clone(), gzip(&bytes), zstd::encode_all(&bytes[..], 1).unwrap()] {
        let found = records(&bytes);
        assert_eq!(summary(&found), ["warc_warcinfo@0", "1", "2"]);
        let document = found[1].content.clone().unwrap();
        assert_eq!(document.text, "Text of page 1.\n\n\nWARC/1.0 is named in it.");
        assert_eq!(document.metadata.date.as_deref(), Some("2024-05-17T00:00:01Z"));
        assert_eq!(document.metadata.url.as_deref(), Some("http://a.example/1"));
    }
}

#[test]
fn pages_of_responses_are_extracted() {
    let bytes = [
        response(1, "200 OK\r\nContent-Type: text/html; charset=utf-8", &page(1)),
        response(2, "404 Not Found\r\nContent-Type: text/html", &page(2)),
        response(3, "200 OK\r\nContent-Type: image/png", "png"),
        response(4, "200 OK", &page(4)),
        raw("request", 5, "Content-Type: application/http\r\n", b"GET / HTTP/1.1\r\n\r\n"),
        raw("metadata", 6, "", b""),
        raw("revisit", 7, "", b""),
        raw("continuation", 8, "", b""),
        raw("resource", 9, "Content-Type: text/html\r\n", page(9).as_bytes()),
        raw("response", 10, "Content-Type: application/http\r\n", b"not HTTP at all"),
        raw("response", 11, "Content-Type: text/dns\r\n", b"a.example 1.2.3.4"),
        response(12, "200 OK\r\nContent-Type: text/html", "<html><body></body></html>"),
    ]
    .concat();
    let found = records(&bytes);
    let causes: Vec<String> =
        summary(&found).iter().map(|one| one.split('@').next().unwrap().to_owned()).collect();
    let expected = [
        "1",
        "http_status",
        "not_html",
        "not_html",
        "warc_request",
        "warc_metadata",
        "warc_revisit",
        "warc_other",
        "9",
        "bad_http",
        "not_html",
        "empty_text",
    ];
    assert_eq!(causes, expected);
    let text = &found[0].content.as_ref().unwrap().text;
    assert!(text.contains("This is sentence number 1 of a page") && !text.contains("About us"), "{text}");
}

#[test]
fn the_recipe_may_choose_other_fields() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let more = "Content-Type: text/plain\r\nWARC-Identified-Content-Language: eng\r\n";
    file.write_all(&raw("conversion", 1, more, b"text")).unwrap();
    let mut fields = FieldPaths { id: Some("url".into()), text: "text".into(), ..FieldPaths::default() };
    fields.metadata.language = Some("WARC-Identified-Content-Language".into());
    let mut reader = read::open(file.path(), "n", None, Slice::Whole, &fields, Limits::default()).unwrap();
    let document = reader.next_record().unwrap().unwrap().content.unwrap();
    assert_eq!(document.id.as_deref(), Some("http://a.example/1"));
    assert_eq!(document.metadata.language.as_deref(), Some("eng"));
    let stream = Stream::open(file.path(), Limits::default()).unwrap();
    let names = WarcReader::field_names(stream, 9).unwrap();
    assert!(names.contains("url") && names.contains("WARC-Identified-Content-Language"), "{names:?}");
}

#[test]
fn a_bad_record_costs_one_record() {
    let (a, b, c) = (conversion(1), conversion(2), conversion(3));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let longer = text(&b).replace("Content-Length: 4", "Content-Length: 14");
    let shorter = text(&b).replace("Content-Length: 4", "Content-Length: ");
    let huge = text(&b).replace("Content-Length: 4", "Content-Length: 99999999999999");
    let nameless = text(&b).replace("Content-Length", "Length");
    let garbled = text(&b).replace("WARC-Record-ID: ", "WARC-Record-ID ").replace("<urn:uuid:2>", "x");
    for bad in [longer, shorter, huge, nameless, garbled, "some noise between records\r\n".to_owned()] {
        for pack in [|bytes: &[u8]| bytes.to_vec(), gzip] {
            // As one stream, and record by record.
            let whole = pack(&[&a[..], bad.as_bytes(), &c].concat());
            let apart = [pack(&a), pack(bad.as_bytes()), pack(&c)].concat();
            for (bytes, at) in [(whole, a.len()), (apart, pack(&a).len())] {
                let found = summary(&records(&bytes));
                assert_eq!(found, ["1".to_owned(), format!("bad_warc@{at}"), "3".to_owned()], "{bad}");
            }
        }
    }
}

/// A length that was off by the blank lines, or by a byte order mark, lost the record.
#[test]
fn a_length_that_is_off_by_a_few_bytes_costs_nothing() {
    let (a, b, c) = (conversion(1), conversion(2), conversion(3));
    let length = "Text of page 2.\n\n\nWARC/1.0 is named in it.".len() as i64;
    for off in [-16, -4, -3, -1, 1, 2, 4, 16] {
        let wrong = String::from_utf8(b.clone())
            .unwrap()
            .replace(&format!("Content-Length: {length}"), &format!("Content-Length: {}", length + off));
        for pack in [|bytes: &[u8]| bytes.to_vec(), gzip] {
            let whole = pack(&[&a[..], wrong.as_bytes(), &c].concat());
            let apart = [pack(&a), pack(wrong.as_bytes()), pack(&c)].concat();
            let last = pack(&[&a[..], &c, wrong.as_bytes()].concat());
            for (bytes, at, expected) in
                [(whole, 1, ["1", "2", "3"]), (apart, 1, ["1", "2", "3"]), (last, 2, ["1", "3", "2"])]
            {
                let found = records(&bytes);
                assert_eq!(summary(&found), expected, "{off}");
                let text = &found[at].content.as_ref().unwrap().text;
                assert_eq!(text, "Text of page 2.\n\n\nWARC/1.0 is named in it.", "{off}");
            }
        }
    }
}

#[test]
fn a_record_without_an_id_is_named_by_its_address() {
    let nameless = String::from_utf8(conversion(1)).unwrap().replace("WARC-Record-ID: <urn:uuid:1>\r\n", "");
    assert_eq!(summary(&records(nameless.as_bytes())), ["http://a.example/1"]);
}

#[test]
fn a_damaged_member_costs_one_record() {
    let members: Vec<Vec<u8>> = (1..5).map(|n| gzip(&conversion(n))).collect();
    for flip in 0..members[1].len() {
        let mut damaged = members.clone();
        damaged[1][flip] ^= 0x24;
        let (found, unit) = records_of(&damaged.concat(), Limits::default());
        let found = summary(&found);
        // A flipped bit of a name or a date in the gzip header harms nothing.
        let good = ["1", "2", "3", "4"];
        if found != good {
            assert_eq!([&found[0], &found[2], &found[3]], ["1", "3", "4"], "byte {flip}: {found:?}");
            let at = format!("@{}", members[0].len());
            assert!(found[1].ends_with(&at), "byte {flip}: {found:?}");
        }
        assert_eq!(unit, Unit::FileByte);
    }
    for cut in 1..members[3].len() {
        let bytes = members.concat();
        let found = summary(&records(&bytes[..bytes.len() - cut]));
        assert_eq!(found[..3], ["1", "2", "3"]);
        let at = members[..3].concat().len();
        assert!(found.len() == 4 && found[3].ends_with(&format!("@{at}")), "cut {cut}: {found:?}");
    }
}

#[test]
fn records_may_lie_across_members() {
    let bytes = [conversion(1), conversion(2), conversion(3)].concat();
    let packed: Vec<u8> = bytes.chunks(37).flat_map(gzip).collect();
    assert_eq!(summary(&records(&packed)), ["1", "2", "3"]);
}

#[test]
fn long_records_are_passed_over() {
    let long = raw("conversion", 2, "", &vec![b'x'; 200_000]);
    let limits = Limits { max_doc_bytes: 1000, ..Limits::default() };
    for pack in [|bytes: &[u8]| bytes.to_vec(), gzip] {
        let bytes = [pack(&conversion(1)), pack(&long), pack(&conversion(3))].concat();
        let (found, _) = records_of(&bytes, limits);
        assert_eq!(
            summary(&found),
            ["1".to_owned(), format!("too_long@{}", pack(&conversion(1)).len()), "3".to_owned()]
        );
    }
}

#[test]
fn the_end_may_be_missing() {
    let bytes = [conversion(1), conversion(2)].concat();
    let first = conversion(1).len();
    for end in 0..bytes.len() {
        let found = summary(&records(&bytes[..end]));
        match end {
            0 => assert_eq!(found, ["empty_file@0"]),
            // The blank lines after a record may be missing.
            _ if end >= bytes.len() - 4 => assert_eq!(found, ["1", "2"], "{end}"),
            _ if (first - 4..=first).contains(&end) => assert_eq!(found, ["1"], "{end}"),
            _ if end > first => {
                assert_eq!(found[0], "1", "{end}");
                assert!(found.len() == 2 && found[1].ends_with(&format!("@{first}")), "{end}: {found:?}");
            }
            _ => assert!(found.len() == 1 && found[0].ends_with("@0"), "{end}: {found:?}"),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_give_records_or_causes(
        parts in prop::collection::vec(
            prop_oneof![
                (0..9usize).prop_map(conversion),
                (0..9usize).prop_map(|n| gzip(&conversion(n))),
                "(WARC/1.0|Content-Length: [0-9]{1,9}|WARC-Type: [a-z]{1,9}|\r\n|[ -~]{0,9}){0,9}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..40),
            ],
            0..6,
        ),
    ) {
        let bytes = parts.concat();
        let found = records(&bytes);
        prop_assert!(found.len() <= bytes.len() + 1);
        prop_assert!(!found.is_empty() || bytes.iter().all(|b| b"\r\n\0".contains(b)));
    }
}
