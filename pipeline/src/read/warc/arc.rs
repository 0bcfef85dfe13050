//! ARC files, the crawl format before WARC (Internet Archive, versions 1 and 2): a line with the address, the date and
//! the length, then the server's response. A record is read as the equivalent WARC record.

use super::super::stream::Stream;
use super::super::{Bad, Cause, Fault, FieldPaths, Limits, Raw, Reader, Record};
use super::EXTRA_BYTES;
use super::content;
use super::header::Header;
use crate::error::Result;

/// How the record that describes the file begins.
pub(in crate::read) const MAGIC: &[u8] = b"filedesc://";
/// A longer line is not a header.
const MAX_LINE_BYTES: usize = 1 << 16;

pub(in crate::read) struct ArcReader {
    stream: Stream,
    fields: FieldPaths,
    limits: Limits,
    offset: u64,
    is_empty: bool,
    ended: bool,
}

/// The header and the block of a record.
type Found = (Header, Vec<u8>);

/// The first bytes that were taken and their total number, or damage.
type Taken = std::result::Result<(Vec<u8>, u64), Cause>;

impl ArcReader {
    pub fn new(stream: Stream, fields: &FieldPaths, limits: Limits) -> ArcReader {
        let mut fields = fields.clone();
        // Records have no other name.
        fields.id.get_or_insert_with(|| content::URL.to_owned());
        ArcReader { stream, fields, limits, offset: 0, is_empty: true, ended: false }
    }

    /// Reads up to `n` bytes, or to the end of the line; keeps at most `keep` of them. The inner error is damage.
    fn take(&mut self, n: u64, keep: usize, line: bool) -> Result<Taken> {
        let (mut bytes, mut taken) = (Vec::new(), 0u64);
        while taken < n {
            let part = match self.stream.fill()? {
                Ok([]) => break,
                Ok(part) => &part[..usize::try_from(n - taken).map_or(part.len(), |n| part.len().min(n))],
                Err(damage) => return Ok(Err(damage)),
            };
            let end = if line { memchr::memchr(b'\n', part) } else { None };
            let part = &part[..end.map_or(part.len(), |end| end + 1)];
            bytes.extend_from_slice(&part[..part.len().min(keep.saturating_sub(bytes.len()))]);
            let used = part.len();
            self.stream.consume(used);
            self.offset += used as u64;
            taken += used as u64;
            if end.is_some() {
                break;
            }
        }
        Ok(Ok((bytes, taken)))
    }

    /// The header and the block of the next record; `None` at the end.
    fn read_record(&mut self) -> Result<std::result::Result<Option<Found>, Fault>> {
        let line = loop {
            match self.take(MAX_LINE_BYTES as u64, MAX_LINE_BYTES, true)? {
                Ok((line, 0)) if line.is_empty() => return Ok(Ok(None)),
                Ok((line, _)) if line.trim_ascii().is_empty() => {}
                Ok((line, _)) => break line,
                Err(damage) => return Ok(Err(damage.into())),
            }
        };
        let Some(mut header) = header_of(&line) else {
            self.ended = true;
            return Ok(Err(Fault::new(
                Cause::BadWarc,
                "not the header of an ARC record; the rest of the file is lost",
            )));
        };
        let length = header.content_length;
        let most = self.limits.max_doc_bytes.saturating_add(EXTRA_BYTES);
        let keep = usize::try_from(most).unwrap_or(usize::MAX);
        let block = match self.take(length, keep, false)? {
            Ok((_, taken)) if taken < length => return Ok(Err(Cause::TruncatedStream.into())),
            Ok(_) if length > most => return Ok(Err(Cause::TooLong.into())),
            Ok((block, _)) => block,
            Err(damage) => return Ok(Err(damage.into())),
        };
        if block.starts_with(b"HTTP/") {
            header.fields.push(("WARC-Type".to_owned(), "response".to_owned()));
            header.fields.retain(|(name, _)| name != "Content-Type");
            header.fields.push(("Content-Type".to_owned(), "application/http".to_owned()));
        } else {
            let kind = if line.starts_with(MAGIC) { "warcinfo" } else { "resource" };
            header.fields.push(("WARC-Type".to_owned(), kind.to_owned()));
        }
        Ok(Ok(Some((header, block))))
    }
}

/// Parses a line as a header: address, IP, date, type, in version 2 more, and the length.
fn header_of(line: &[u8]) -> Option<Header> {
    let line = String::from_utf8_lossy(line);
    let parts: Vec<&str> = line.split_ascii_whitespace().collect();
    let (&url, &length) = (parts.first()?, parts.last()?);
    if parts.len() < 5 || !url.contains(':') {
        return None;
    }
    let mut fields = vec![("WARC-Target-URI".to_owned(), url.to_owned())];
    fields.extend(date(parts[2]).map(|date| ("WARC-Date".to_owned(), date)));
    fields.push(("Content-Type".to_owned(), parts[3].to_owned()));
    Some(Header { fields, content_length: length.parse().ok()? })
}

/// `19961104142103` as ISO 8601.
fn date(digits: &str) -> Option<String> {
    let is_date = digits.len() == 14 && digits.bytes().all(|b| b.is_ascii_digit());
    let part = |from: usize, to: usize| &digits[from..to];
    is_date.then(|| {
        let (day, time) = ([part(0, 4), part(4, 6), part(6, 8)], [part(8, 10), part(10, 12), part(12, 14)]);
        format!("{}T{}Z", day.join("-"), time.join(":"))
    })
}

impl Reader for ArcReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        if self.ended {
            return Ok(None);
        }
        let start = self.offset;
        let content: std::result::Result<Raw, Bad> = match self.read_record()? {
            Ok(None) => {
                self.ended = true;
                let empty = std::mem::take(&mut self.is_empty);
                return Ok(empty.then(|| Record::bad(0, 0, Bad::new(Cause::EmptyFile, b""))));
            }
            Ok(Some((header, block))) => {
                let id = content::name(&header, &self.fields);
                let document = content::document(&header, &block, &self.fields, self.limits);
                document.map_err(|fault| Bad { id, ..fault.at(&block) })
            }
            Err(fault) => {
                // In a compressed file the next record is the next member.
                if matches!(
                    fault.cause,
                    Cause::CorruptStream | Cause::TruncatedStream | Cause::TooMuchExpansion
                ) {
                    self.ended = !self.stream.resume(|bytes| {
                        header_of(bytes.split(|b| *b == b'\n').next().unwrap_or(bytes)).is_some()
                    })?;
                }
                Err(fault.at(b""))
            }
        };
        self.is_empty = false;
        Ok(Some(Record { offset: start, n_bytes: self.offset - start, n_records: 1, content }))
    }

    fn consumed_bytes(&self) -> u64 {
        self.stream.consumed_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::super::{Slice, open};
    use super::*;

    #[test]
    fn records_of_old_crawls_are_read() {
        let page = format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body><article><p>{}</p></article></body></html>",
            "A sentence that is long enough to be the content of a page of the web. ".repeat(5)
        );
        let record = |url: &str, kind: &str, block: &str| {
            format!("{url} 1.2.3.4 19961104142103 {kind} {}\n{block}\n", block.len())
        };
        let records = [
            record(
                "filedesc://a.arc",
                "text/plain",
                "1 0 InternetArchive\nURL IP-address Archive-date Content-type Archive-length\n",
            ),
            record("http://a/", "text/html", &page),
            record("http://a/gone", "text/html", &page.replace("200 OK", "404 Not Found")),
            record("dns:a", "text/dns", "19961104142103\na. 1 IN A 1.2.3.4\n"),
        ];
        let gzip = |text: &String| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        for bytes in [records.concat().into_bytes(), records.iter().flat_map(gzip).collect()] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            let fields = FieldPaths { text: "text".into(), ..FieldPaths::default() };
            let mut reader = open(file.path(), "n", None, Slice::Whole, &fields, Limits::default()).unwrap();
            let found: Vec<Record> = std::iter::from_fn(|| reader.next_record().unwrap()).collect();
            let causes: Vec<_> =
                found.iter().map(|r| r.content.as_ref().map_err(|bad| bad.cause).err()).collect();
            assert_eq!(causes, [Some(Cause::WarcInfo), None, Some(Cause::HttpStatus), Some(Cause::NotHtml)]);
            let raw = found[1].content.as_ref().unwrap();
            assert_eq!(raw.id.as_deref(), Some("http://a/"));
            assert_eq!(raw.metadata.date.as_deref(), Some("1996-11-04T14:21:03Z"));
        }
    }
}
