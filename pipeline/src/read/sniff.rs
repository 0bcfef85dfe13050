//! Detects a file's format from its contents; its name decides if they are ambiguous, or if damage
//! hides the start.

use std::path::Path;

use encoding_rs::{Encoding, UTF_8};

use super::stream::Stream;
use super::warc::arc;
use super::{Form, Format, arrow_ipc, charset, input, magic};
use crate::error::Result;

const PARQUET_MAGIC: &[u8] = b"PAR1";
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An opened file of known kind. Parquet is read from its end, so it is not a stream.
pub(super) struct Sniffed {
    pub kind: Kind,
    pub stream: Stream,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Format(Format),
    Archive(Archive),
    /// No readable text: what it is and what to do.
    Refused(&'static str),
}

/// A file of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    Tar,
    Zip,
}

/// Detects the format of a newly opened stream. `name` is that of the file.
pub(super) fn sniff(mut stream: Stream, name: &Path, form: Form) -> Result<Sniffed> {
    let start = stream.peek(magic::START_BYTES)?.unwrap_or_default();
    let by_name = of_name(name);
    // A book about formats may start with magic bytes.
    let is_prose = by_name == Some(Format::Text) && magic::looks_like_text(start);
    let archive = match () {
        () if is_prose => None,
        () if magic::is_tar(start) => Some(Archive::Tar),
        () if magic::is_zip(start) => Some(Archive::Zip),
        () => None,
    };
    if let Some(archive) = archive {
        return Ok(Sniffed { kind: Kind::Archive(archive), stream });
    }
    if let (false, Some(what)) = (is_prose, magic::refused(start)) {
        return Ok(Sniffed { kind: Kind::Refused(what), stream });
    }
    // Pages and text files reveal their encoding themselves, and are held whole.
    let wide = form.encoding.map(|named| named.0).filter(|e| *e != UTF_8).or_else(|| wide(start));
    let decoded = wide.map(|encoding| encoding.decode(start).0.into_owned());
    let text = decoded.as_deref().map_or(start, str::as_bytes);
    let format = match form.format {
        Some(format) => Some(format),
        None if wide.is_some() => of_content(text).filter(|format| is_lines(*format)),
        None => of_content(text),
    };
    let format = match (format, by_name) {
        // Prose may start like anything, and an error page may be the first line of a JSONL file.
        (_, Some(Format::Text)) if form.format.is_none() && is_prose => Format::Text,
        (Some(format), _) => format,
        (None, Some(by_name)) => by_name,
        (None, None) if starts_like_html(text) => Format::Html,
        (None, None) => Format::Text,
    };
    if form.format.is_none()
        && matches!(format, Format::Text | Format::Html)
        && let Some(what) = magic::is_binary(start)
    {
        return Ok(Sniffed { kind: Kind::Refused(what), stream });
    }
    if let (true, Some(encoding)) = (is_lines(format), wide) {
        stream.recode(encoding);
    }
    Ok(Sniffed { kind: Kind::Format(format), stream })
}

/// Whether a file is Parquet, without reading more of it than the first bytes.
pub(super) fn is_parquet(path: &Path, format: Option<Format>) -> Result<bool> {
    if let Some(format) = format {
        return Ok(format == Format::Parquet);
    }
    let magic = input::first_bytes(path, 4)?;
    Ok(magic == PARQUET_MAGIC || (of_name(path) == Some(Format::Parquet) && magic.first() != Some(&0x1f)))
}

/// Formats whose records are found in text as it is read.
fn is_lines(format: Format) -> bool {
    matches!(format, Format::Jsonl | Format::Json | Format::Csv | Format::Tsv)
}

/// UTF-16, which is recognizable.
fn wide(start: &[u8]) -> Option<&'static Encoding> {
    let marked = Encoding::for_bom(start).map(|(encoding, _)| encoding).filter(|encoding| *encoding != UTF_8);
    marked.or_else(|| charset::without_mark(start))
}

fn of_content(start: &[u8]) -> Option<Format> {
    match start {
        _ if start.starts_with(PARQUET_MAGIC) => Some(Format::Parquet),
        _ if arrow_ipc::is_arrow(start) => Some(Format::Arrow),
        _ if start.starts_with(b"WARC/") => Some(Format::Warc),
        _ if start.starts_with(arc::MAGIC) => Some(Format::Arc),
        _ => of_json(start),
    }
}

/// By the extension, compression suffixes aside.
fn of_name(path: &Path) -> Option<Format> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let packed = [".gz", ".zst", ".zstd", ".bz2", ".xz"];
    let stem = packed.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
    match stem.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" | "json" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        "arrow" | "arrows" | "feather" | "ipc" => Some(Format::Arrow),
        "warc" | "wet" => Some(Format::Warc),
        "html" | "htm" | "xhtml" => Some(Format::Html),
        "csv" => Some(Format::Csv),
        "tsv" | "tab" => Some(Format::Tsv),
        "txt" | "text" | "md" | "markdown" | "rst" | "tex" => Some(Format::Text),
        _ => None,
    }
}

/// `{`, then a key or the end of the object: `{% templates %}` are text. An array of objects, and an object that continues after its
/// first line, are not JSONL.
fn of_json(start: &[u8]) -> Option<Format> {
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start);
    let mut solid = text.iter().filter(|b| !b.is_ascii_whitespace());
    match (solid.next(), solid.next(), solid.next()) {
        (Some(b'['), Some(b'{'), Some(b'"' | b'}')) => Some(Format::Json),
        (Some(b'{'), Some(b'"' | b'}'), _) => {
            let mut lines = text.trim_ascii_start().split(|b| *b == b'\n');
            let mut line = || lines.next().unwrap_or_default().trim_ascii();
            let (first, second) = (line(), line());
            let goes_on = first.ends_with(b"{") || first.ends_with(b",") || first.ends_with(b"[");
            let is_key = second.starts_with(b"\"") || (first.ends_with(b"[") && !second.is_empty());
            Some(if goes_on && is_key { Format::Json } else { Format::Jsonl })
        }
        _ => None,
    }
}

fn starts_like_html(start: &[u8]) -> bool {
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start).trim_ascii_start();
    [&b"<!doctype html"[..], b"<html"].iter().any(|tag| {
        let end = text.get(tag.len());
        text.len() >= tag.len()
            && text[..tag.len()].eq_ignore_ascii_case(tag)
            && end.is_none_or(|b| b.is_ascii_whitespace() || *b == b'>')
    })
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    #[test]
    fn formats_are_told_apart_by_content() {
        for (bytes, format) in [
            (&b"{\"a\":1}"[..], Some(Format::Jsonl)),
            (b"\xef\xbb\xbf \n{ \"a\":1}", Some(Format::Jsonl)),
            (b"{}", Some(Format::Jsonl)),
            (b"{\"a\":1,\n{\"a\":2}\n", Some(Format::Jsonl)),
            (b"{\n  \"a\": 1\n}", Some(Format::Json)),
            (b"{\"a\": 1,\n \"b\": 2\n}", Some(Format::Json)),
            (b"[\n {\"a\": 1}, {\"a\": 2}]", Some(Format::Json)),
            (b"[1, 2]", None),
            (b"[{link}](x)", None),
            (b"{% extends %}", None),
            (b"Some {\"text\"}", None),
            (b"", None),
            (b"WARC/1.0\r\n", Some(Format::Warc)),
            (b"<html>", None),
            (b"ARROW1\0\0", Some(Format::Arrow)),
            (b"\xff\xff\xff\xff\x00\x01\0\0\x10\0\0\0\0\0\x0a\0", Some(Format::Arrow)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"PAR1", Some(Format::Parquet)),
        ] {
            assert_eq!(of_content(bytes), format, "{bytes:?}");
        }
    }

    fn kind(name: &str, bytes: &[u8]) -> Kind {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let stream = Stream::open(&path, Limits::default()).unwrap();
        sniff(stream, &path, Form::default()).unwrap().kind
    }

    #[test]
    fn pages_are_known_by_their_first_tag() {
        for (bytes, is_html) in [
            (&b"\xef\xbb\xbf\n<!DOCTYPE html>\n<p>"[..], true),
            (b"<HTML lang=en>", true),
            (b"<html", true),
            (b"<htmlish>", false),
            (b"text <html>", false),
            (b"", false),
        ] {
            assert_eq!(starts_like_html(bytes), is_html, "{bytes:?}");
        }
        let page = b"<html>502 Bad Gateway</html>\n{\"text\":\"a\"}\n";
        assert_eq!(kind("a.jsonl", page), Kind::Format(Format::Jsonl));
        assert_eq!(kind("a", page), Kind::Format(Format::Html));
    }

    #[test]
    fn prose_is_text_by_its_name_whatever_it_starts_with() {
        for start in [
            &b"{\"a quoted beginning\" of a text}\n"[..],
            b"<!DOCTYPE html> is the line that every page starts with.",
            b"WARC/1.0 is a format",
            b"PAR1 is the magic of Parquet",
            b"%PDF-1.7 is another",
            b"[{\"a\": 1}]",
        ] {
            assert_eq!(kind("a.html.txt", start), Kind::Format(Format::Text), "{start:?}");
        }
        assert!(matches!(kind("a.txt", b"%PDF-1.7\n\xe2\xe3\xcf\xd3\0\x01\x02\x03"), Kind::Refused(_)));
        assert!(matches!(kind("a.bin", &[1, 0, 2, 0, 0xff, 0xfe, 0x80, 0]), Kind::Refused(_)));
        assert_eq!(kind("a.csv", b"id,text\n"), Kind::Format(Format::Csv));
        assert_eq!(kind("empty", b""), Kind::Format(Format::Text));
    }

    #[test]
    fn extensions_ignore_compression() {
        for (name, format) in [
            ("a/b.jsonl.gz", Some(Format::Jsonl)),
            ("B.JSONL", Some(Format::Jsonl)),
            ("jsonl", None),
            ("a.jsonl.txt", Some(Format::Text)),
            ("a.csv.xz", Some(Format::Csv)),
            ("CC-MAIN.warc.wet.gz", Some(Format::Warc)),
            ("data-00000-of-00001.arrow", Some(Format::Arrow)),
        ] {
            assert_eq!(of_name(Path::new(name)), format, "{name}");
        }
    }
}
