//! The HTTP response in a `response` record (RFC 9112): its head, and its body with the encodings of the
//! transfer undone.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::super::Cause;
use super::header::header_bytes;

/// A response with its decoded body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub status: u16,
    /// Value of `Content-Type`, empty when there is none.
    pub content_type: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    /// Parses the head.
    pub fn parse(message: &[u8]) -> Result<Response, Cause> {
        let n = header_bytes(message).unwrap_or(message.len());
        let head = String::from_utf8_lossy(&message[..n]);
        let mut lines = head.lines();
        let status_line = lines.next().and_then(|line| line.strip_prefix("HTTP/")).ok_or(Cause::BadHttp)?;
        let status = status_line.split_ascii_whitespace().nth(1).and_then(|code| code.parse().ok());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Response {
            status: status.ok_or(Cause::BadHttp)?,
            content_type: String::new(),
            headers,
            body: message[n..].to_vec(),
        };
        response.content_type = response.header("content-type").to_owned();
        Ok(response)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// The body without chunks and compression. Crawlers often undo both without changing the header, so a body that does not
    /// look encoded is used as is.
    ///
    /// # Errors
    /// The body is damaged, longer than `max_bytes`, or its compression is unknown.
    pub fn into_body(self, max_bytes: u64) -> Result<Vec<u8>, Cause> {
        let is_chunked = self.header("transfer-encoding").to_ascii_lowercase().contains("chunked");
        let encodings = self.header("content-encoding").to_ascii_lowercase();
        let mut body = self.body;
        if is_chunked && let Some(whole) = without_chunks(&body) {
            body = whole;
        }
        // The last one was applied last.
        for encoding in encodings.split(',').map(str::trim).rev() {
            body = match encoding {
                "" | "identity" => body,
                _ if is_markup(&body) => body,
                "gzip" | "x-gzip" => unpack(MultiGzDecoder::new(&body[..]), max_bytes)?,
                "deflate" => unpack(ZlibDecoder::new(&body[..]), max_bytes)
                    .or_else(|_| unpack(DeflateDecoder::new(&body[..]), max_bytes))?,
                "br" => unpack(brotli_decompressor::Decompressor::new(&body[..], BROTLI_BYTES), max_bytes)?,
                "zstd" => {
                    let decoder = zstd::Decoder::new(&body[..]).map_err(|_| Cause::BadHttp)?;
                    unpack(decoder, max_bytes)?
                }
                _ => return Err(Cause::UnknownEncoding),
            };
        }
        Ok(body)
    }
}

/// Bytes of a body that brotli reads at a time.
const BROTLI_BYTES: usize = 1 << 14;

fn is_markup(body: &[u8]) -> bool {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    text.is_empty() || text[0] == b'<'
}

fn unpack(decoder: impl Read, max_bytes: u64) -> Result<Vec<u8>, Cause> {
    let mut out = Vec::new();
    decoder.take(max_bytes.saturating_add(1)).read_to_end(&mut out).map_err(|_| Cause::BadHttp)?;
    if out.len() as u64 > max_bytes { Err(Cause::TooLong) } else { Ok(out) }
}

/// The bytes of a chunked body (RFC 9112, section 7.1), up to where it breaks off; `None` when it does not start with a chunk.
fn without_chunks(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut is_first = true;
    loop {
        let line_end = memchr::memchr(b'\n', &body[..body.len().min(1000)]);
        let size = line_end.and_then(|end| {
            let line = std::str::from_utf8(&body[..end]).ok()?;
            let digits = line.split(';').next()?.trim();
            u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
        });
        let (Some(line_end), Some(size)) = (line_end, size) else {
            return (!is_first).then_some(out);
        };
        is_first = false;
        body = &body[line_end + 1..];
        if size == 0 {
            return Some(out);
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(body.len());
        out.extend_from_slice(&body[..size]);
        body = &body[size..];
        body = body.strip_prefix(b"\r").unwrap_or(body);
        body = body.strip_prefix(b"\n").unwrap_or(body);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn body(head: &str, body: &[u8]) -> Result<String, Cause> {
        let message = [format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes(), body].concat();
        let body = Response::parse(&message)?.into_body(100)?;
        Ok(String::from_utf8(body).unwrap())
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bodies_are_decoded() {
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(body("", b"text").unwrap(), "text");
        assert_eq!(body(chunked, b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n").unwrap(), "abc0123456789");
        assert_eq!(body(chunked, b"3\r\nabc\r\nfff\r\ncut").unwrap(), "abccut");
        assert_eq!(body(chunked, b"<p>not chunked").unwrap(), "<p>not chunked");
        let zipped = "Content-Encoding: gzip\r\n";
        assert_eq!(body(zipped, &gzip(b"text")).unwrap(), "text");
        assert_eq!(body(zipped, b"<p>not zipped").unwrap(), "<p>not zipped");
        let both = format!("{chunked}{zipped}");
        let text = gzip(b"text");
        let packed = [format!("{:x}\r\n", text.len()).as_bytes(), &text, b"\r\n0\r\n\r\n"].concat();
        assert_eq!(body(&both, &packed).unwrap(), "text");
        assert_eq!(
            body("Content-Encoding: zstd\r\n", &zstd::encode_all(&b"text"[..], 1).unwrap()).unwrap(),
            "text"
        );
        // `text` by the reference encoder, level 5, and as a browser would get it in chunks.
        let brotli = b"\x8b\x01\x80text\x03";
        assert_eq!(body("Content-Encoding: br\r\n", brotli).unwrap(), "text");
        let packed = [&b"8\r\n"[..], brotli, b"\r\n0\r\n\r\n"].concat();
        assert_eq!(body(&format!("{chunked}Content-Encoding: br\r\n"), &packed).unwrap(), "text");
        assert_eq!(body("Content-Encoding: br\r\n", &brotli[..5]), Err(Cause::BadHttp));
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        deflate.write_all(b"text").unwrap();
        assert_eq!(body("Content-Encoding: deflate\r\n", &deflate.finish().unwrap()).unwrap(), "text");
    }

    #[test]
    fn bodies_that_cannot_be_decoded() {
        let zipped = "Content-Encoding: gzip\r\n";
        assert_eq!(body(zipped, &gzip(&[b'a'; 101])), Err(Cause::TooLong));
        assert_eq!(body(zipped, b"garbage"), Err(Cause::BadHttp));
        assert_eq!(body("Content-Encoding: br\r\n", b"garbage"), Err(Cause::BadHttp));
        assert_eq!(body("Content-Encoding: compress\r\n", b"garbage"), Err(Cause::UnknownEncoding));
        assert_eq!(Response::parse(b"GET / HTTP/1.1\r\n\r\n"), Err(Cause::BadHttp));
        assert_eq!(Response::parse(b"HTTP/1.1\r\n\r\n"), Err(Cause::BadHttp));
    }
}
