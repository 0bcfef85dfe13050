//! Formats without readable text, recognized by their first bytes, and what to do about them. Such a file would
//! otherwise become a document of header bytes.

use super::charset;

/// Bytes that are looked at.
pub(super) const START_BYTES: usize = 1024;
/// An archive in an archive.
pub(super) const NESTED: &str = "an archive inside of an archive; unpack the outer one";
/// Parquet that is compressed as a whole or in an archive: it is read from its end.
pub(super) const PACKED_PARQUET: &str = "Parquet inside of another file; unpack it";
const OFFICE: &str = "an office document; convert it to text";
const PACKED: &str = "compressed in a way we do not read; use gzip, zstd, bzip2 or xz";
const ARCHIVE: &str = "an archive of a kind we do not read; unpack it, or use tar or zip";
const PICTURE: &str = "a picture";
const SOUND: &str = "sound or video";
const PROGRAM: &str = "a program or library";
const ARRAY: &str = "an array of numbers";
const MODEL: &str = "weights of a model";
const DATABASE: &str = "a database; export its texts as JSONL or Parquet";
const TABLE: &str = "a table of a kind we do not read; convert it to Parquet, Arrow or JSONL";

/// Magic bytes that no text starts with.
const SURE: &[(&[u8], &str)] = &[
    (b"%PDF-", "a PDF document; extract its text first"),
    (b"{\\rtf", OFFICE),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OFFICE),
    (b"7z\xbc\xaf\x27\x1c", ARCHIVE),
    (b"Rar!\x1a\x07", ARCHIVE),
    (b"!<arch>\n", ARCHIVE),
    (b"MSCF\0\0\0\0", ARCHIVE),
    (b"xar!\0", ARCHIVE),
    (b"\xed\xab\xee\xdb", ARCHIVE),
    (b"\x04\x22\x4d\x18", PACKED),
    (b"\x02\x21\x4c\x18", PACKED),
    (b"\x1f\x9d", PACKED),
    (b"\x1f\xa0", PACKED),
    (b"LZIP\x01", PACKED),
    (b"\x5d\x00\x00", PACKED),
    (b"\x89LZO\0", PACKED),
    (b"\xff\x06\0\0sNaPpY", PACKED),
    (b"\x89PNG\r\n\x1a\n", PICTURE),
    (b"\xff\xd8\xff", PICTURE),
    (b"II*\0", PICTURE),
    (b"MM\0*", PICTURE),
    (b"\0\0\x01\0", PICTURE),
    (b"8BPS\0", PICTURE),
    (b"OggS\0", SOUND),
    (b"fLaC\0", SOUND),
    (b"\x1aE\xdf\xa3", SOUND),
    (b"\xff\xfb", SOUND),
    (b"\x7fELF", PROGRAM),
    (b"\0asm", PROGRAM),
    (b"\xca\xfe\xba\xbe", PROGRAM),
    (b"\xcf\xfa\xed\xfe", PROGRAM),
    (b"\xce\xfa\xed\xfe", PROGRAM),
    (b"SQLite format 3\0", DATABASE),
    (b"\x80\x02", "a Python pickle; write its texts as JSONL or Parquet"),
    (b"\x80\x03", "a Python pickle; write its texts as JSONL or Parquet"),
    (b"\x80\x04\x95", "a Python pickle; write its texts as JSONL or Parquet"),
    (b"\x80\x05\x95", "a Python pickle; write its texts as JSONL or Parquet"),
    (b"\x93NUMPY", ARRAY),
    (b"\x89HDF\r\n\x1a\n", ARRAY),
    (b"CDF\x01", ARRAY),
    (b"CDF\x02", ARRAY),
    (b"MMIDIDX\0\0", "an index of Megatron-LM: token ids and no text"),
    (b"Obj\x01", TABLE),
    (b"FEA1", TABLE),
    (b"\xff\xfe\0\0", "text in UTF-32; convert it to UTF-8"),
];

/// Magic bytes that a text may start with: they count only if the rest is not text.
const WITH_BINARY: &[(&[u8], &str)] = &[
    (b"GIF8", PICTURE),
    (b"BM", PICTURE),
    (b"RIFF", "a picture or sound"),
    (b"ID3", SOUND),
    (b"MZ", PROGRAM),
    (b"ORC", TABLE),
    (b"PK", ARCHIVE),
    (b"Salted__", "encrypted"),
    (b"GGUF", MODEL),
    (b"MATLAB 5.0 MAT-file", ARRAY),
    (b"070701", ARCHIVE),
];

/// What a file starting with these bytes is, and what to do; `None` if it may be text or a readable format.
pub(super) fn refused(start: &[u8]) -> Option<&'static str> {
    if let Some((_, what)) = SURE.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(what);
    }
    let is_text = looks_like_text(start);
    if let Some((_, what)) = WITH_BINARY.iter().find(|(magic, _)| !is_text && start.starts_with(magic)) {
        return Some(what);
    }
    match start {
        [_, _, _, _, _, 0, 0, 0, b'{', b'"', ..] => Some(MODEL),
        _ if !is_text && start.get(4..8) == Some(b"ftyp") => Some(SOUND),
        _ if start.starts_with(b"\0\0\xfe\xff") => Some("text in UTF-32; convert it to UTF-8"),
        _ => None,
    }
}

/// A file that is none of these may still not be text.
pub(super) fn is_binary(start: &[u8]) -> Option<&'static str> {
    (!looks_like_text(start)).then_some("no text; its format is not known")
}

/// Whether the start of a file is text: none or few control characters, whatever its encoding.
pub(super) fn looks_like_text(start: &[u8]) -> bool {
    let start = &start[..start.len().min(START_BYTES)];
    if charset::without_mark(start).is_some()
        || [&b"\xff\xfe"[..], b"\xfe\xff"].iter().any(|m| start.starts_with(m))
    {
        return true;
    }
    // ESC switches between character sets.
    let is_control = |b: u8| b < 0x20 && !b.is_ascii_whitespace() && !matches!(b, 0x0b | 0x1b..=0x1f);
    let (n_control, n_zero) = start.iter().fold((0, 0), |(control, zero), &b| {
        (control + usize::from(is_control(b)), zero + usize::from(b == 0))
    });
    match std::str::from_utf8(start) {
        Ok(_) => n_control * 10 <= start.len(),
        // The last character may be cut.
        Err(e) if e.error_len().is_none() => n_control * 10 <= start.len(),
        Err(_) => n_zero == 0 && n_control * 50 <= start.len(),
    }
}

/// The first block of a tar archive: its checksum is right (POSIX.1-1988 and later).
pub(super) fn is_tar(start: &[u8]) -> bool {
    let Some(block) = start.get(..512).filter(|block| block[0] != 0) else { return false };
    let declared = tar::Header::from_byte_slice(block).cksum();
    let is_field = |at: usize| (148..156).contains(&at);
    let sum =
        block.iter().enumerate().map(|(at, &b)| u32::from(if is_field(at) { b' ' } else { b })).sum::<u32>();
    declared.is_ok_and(|declared| declared == sum)
}

/// A zip archive with a file, or without any.
pub(super) fn is_zip(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06\0\0\0\0\0\0")
}

/// What a zip archive with these names is, if it is a document rather than an archive.
pub(super) fn document_of_zip<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<&'static str> {
    names
        .any(|name| ["[Content_Types].xml", "mimetype", "META-INF/container.xml"].contains(&name))
        .then_some(OFFICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_without_text_are_known() {
        for start in [
            &b"%PDF-1.7\n%\xe2\xe3\xcf\xd3"[..],
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            b"GIF89a\x10\0\x10\0\xf7",
            b"RIFF\x24\0\0\0WEBPVP8 ",
            b"7z\xbc\xaf\x27\x1c\0\x04",
            b"\x7fELF\x02\x01\x01\0",
            b"MZ\x90\0\x03\0\0\0",
            b"SQLite format 3\0",
            b"\x80\x04\x95\x10\0",
            b"\x93NUMPY\x01\0",
            b"\x40\x01\0\0\0\0\0\0{\"a\":{\"dtype\"",
            b"Obj\x01\x04\x16avro",
            b"ORC\x0a\x03\0\0\x12\x04",
            b"\0\0\0\x18ftypmp42",
        ] {
            assert!(refused(start).is_some(), "{start:?}");
        }
        for start in [
            &b"GIF89a is a format"[..],
            b"ORCs",
            b"BM 25 is a ranking",
            b"MZ",
            b"RIFF",
            b"PK",
            b"",
            b"{\"a\":1}",
        ] {
            assert_eq!(refused(start), None, "{start:?}");
        }
    }

    #[test]
    fn text_is_told_from_other_bytes() {
        let ids: Vec<u8> = (0..400u16).flat_map(|id| (id * 37).to_le_bytes()).collect();
        assert!(!looks_like_text(&ids));
        for text in [
            &b""[..],
            b"plain \x0c text\x1b(B",
            b"caf\xe9",
            "käse".as_bytes(),
            "käse".as_bytes().split_last().unwrap().1,
            b"one \0 and no more than that",
            b"\xff\xfea\0",
            b"a\0b\0c\0d\0e\0f\0",
        ] {
            assert!(looks_like_text(text), "{text:?}");
        }
    }
}
