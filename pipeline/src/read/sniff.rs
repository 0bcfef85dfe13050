//! The guess of a file's format, by what is in it; its name decides only where damage hides the start.

use std::path::Path;

use super::stream::Stream;
use super::{Format, Limits, arrow_ipc, input};
use crate::error::Result;

const PARQUET_MAGIC: &[u8] = b"PAR1";
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An opened file of known format. Parquet is read from its end, so it is not a stream.
pub(super) struct Sniffed {
    pub format: Format,
    pub stream: Stream,
}

/// Opens a file and finds out what it is.
pub(super) fn sniff(path: &Path, format: Option<Format>, limits: Limits) -> Result<Sniffed> {
    let mut stream = Stream::open(path, limits)?;
    if let Some(format) = format {
        return Ok(Sniffed { format, stream });
    }
    let is_plain = stream.is_plain();
    let (by_content, is_html) = match stream.fill()? {
        Ok(start) => (of_content(start, is_plain), starts_like_html(start)),
        Err(_) => (None, false),
    };
    // An error page may be the first line of a JSONL file, so here the name is the better evidence.
    let format = by_content.or_else(|| of_name(path));
    let format = format.unwrap_or(if is_html { Format::Html } else { Format::Text });
    // Of a compressed file the end cannot be read first.
    let format = if format == Format::Parquet && !is_plain { Format::Text } else { format };
    Ok(Sniffed { format, stream })
}

/// Whether a file is Parquet, without reading more of it than the first bytes.
pub(super) fn is_parquet(path: &Path, format: Option<Format>) -> Result<bool> {
    if let Some(format) = format {
        return Ok(format == Format::Parquet);
    }
    let magic = input::first_bytes(path, 4)?;
    Ok(magic == PARQUET_MAGIC || (of_name(path) == Some(Format::Parquet) && magic.first() != Some(&0x1f)))
}

fn of_content(start: &[u8], is_plain: bool) -> Option<Format> {
    match start {
        _ if is_plain && start.starts_with(PARQUET_MAGIC) => Some(Format::Parquet),
        _ if arrow_ipc::is_arrow(start) => Some(Format::Arrow),
        _ if start.starts_with(b"WARC/") => Some(Format::Warc),
        _ if starts_like_json(start) => Some(Format::Jsonl),
        _ => None,
    }
}

/// By the extension, compression suffixes aside.
fn of_name(path: &Path) -> Option<Format> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let stem = [".gz", ".zst", ".zstd"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
    match stem.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" | "json" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        "arrow" | "arrows" | "feather" | "ipc" => Some(Format::Arrow),
        "warc" | "wet" => Some(Format::Warc),
        "html" | "htm" | "xhtml" => Some(Format::Html),
        _ => None,
    }
}

/// `{`, then a key or the end of the object: `{% templates %}` are text.
fn starts_like_json(start: &[u8]) -> bool {
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start);
    let mut solid = text.iter().filter(|b| !b.is_ascii_whitespace());
    solid.next() == Some(&b'{') && matches!(solid.next(), Some(b'"' | b'}'))
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
    use super::*;

    #[test]
    fn formats_are_told_apart_by_content() {
        for (bytes, format) in [
            (&b"{\"a\":1}"[..], Some(Format::Jsonl)),
            (b"\xef\xbb\xbf \n{ \"a\":1}", Some(Format::Jsonl)),
            (b"{}", Some(Format::Jsonl)),
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
            assert_eq!(of_content(bytes, true), format, "{bytes:?}");
        }
        assert_eq!(of_content(b"PAR1", false), None);
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
        let folder = tempfile::tempdir().unwrap();
        let format = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "<html>502 Bad Gateway</html>\n{\"text\":\"a\"}\n").unwrap();
            sniff(&path, None, Limits::default()).unwrap().format
        };
        assert_eq!(format("a.jsonl"), Format::Jsonl);
        assert_eq!(format("a"), Format::Html);
    }

    #[test]
    fn extensions_ignore_compression() {
        for (name, format) in [
            ("a/b.jsonl.gz", Some(Format::Jsonl)),
            ("B.JSONL", Some(Format::Jsonl)),
            ("jsonl", None),
            ("a.jsonl.txt", None),
            ("CC-MAIN.warc.wet.gz", Some(Format::Warc)),
            ("data-00000-of-00001.arrow", Some(Format::Arrow)),
        ] {
            assert_eq!(of_name(Path::new(name)), format, "{name}");
        }
    }
}
