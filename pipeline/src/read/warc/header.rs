//! The header of a WARC record (ISO 28500:2017, section 4): a version line, named fields, a blank line.

/// Longest header; real ones have some hundred bytes.
pub(super) const MAX_HEADER_BYTES: usize = 1 << 16;

/// Field names as in ISO 28500; in files, case does not matter.
const NAMES: &[&str] = &[
    "WARC-Record-ID",
    "WARC-Type",
    "WARC-Date",
    "WARC-Target-URI",
    "WARC-Payload-Digest",
    "WARC-Block-Digest",
    "WARC-IP-Address",
    "WARC-Concurrent-To",
    "WARC-Refers-To",
    "WARC-Refers-To-Target-URI",
    "WARC-Refers-To-Date",
    "WARC-Warcinfo-ID",
    "WARC-Filename",
    "WARC-Profile",
    "WARC-Truncated",
    "WARC-Identified-Payload-Type",
    // Common Crawl's WET files.
    "WARC-Identified-Content-Language",
    "Content-Length",
    "Content-Type",
];

/// The named fields of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// In the order of the file.
    pub fields: Vec<(String, String)>,
    /// Bytes of the block that follows.
    pub content_length: u64,
}

impl Header {
    /// Parses the part before the blank line; `None` if it is not a header.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let version = lines.next()?.strip_prefix("WARC/")?;
        let is_version = version.split('.').all(|part| part.trim_end().parse::<u16>().is_ok());
        if !is_version {
            return None;
        }
        let mut header = Header::default();
        for line in lines.filter(|line| !line.is_empty()) {
            // A line that starts with white space continues the field before (section 4, "folding").
            if line.starts_with([' ', '\t']) {
                let (_, value) = header.fields.last_mut()?;
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            let (name, value) = line.split_once(':')?;
            header.fields.push((standard_name(name.trim_end()), value.trim().to_owned()));
        }
        let mut lengths = header.fields.iter().filter(|(name, _)| name == "Content-Length").map(|(_, v)| v);
        let first = lengths.next()?;
        // Two different lengths make the end of the record unclear.
        let is_number = first.bytes().all(|b| b.is_ascii_digit()) && lengths.all(|length| length == first);
        let content_length = first.parse().ok().filter(|_| is_number)?;
        header.get("WARC-Type")?;
        header.content_length = content_length;
        Some(header)
    }

    /// The first value of a field, by its standard name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

fn standard_name(name: &str) -> String {
    let standard = NAMES.iter().find(|standard| standard.eq_ignore_ascii_case(name));
    standard.map_or_else(|| name.to_owned(), |standard| (*standard).to_owned())
}

/// Length of the header at the start of `bytes`, its blank line included, once it is complete.
pub(super) fn header_bytes(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// A media type without its parameters, in lower case.
pub(super) fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        let text = b"WARC/1.1\r\nwarc-type: response\r\nX-Long: one\r\n  two\r\ncontent-length:7\r\n\r\nbody";
        let n = header_bytes(text).unwrap();
        assert_eq!(&text[n..], b"body");
        let header = Header::parse(&text[..n]).unwrap();
        assert_eq!(header.get("WARC-Type"), Some("response"));
        assert_eq!(header.get("X-Long"), Some("one two"));
        assert_eq!(header.content_length, 7);
        assert_eq!(header_bytes(b"WARC/1.0\nA: b\n\nx"), Some(15));
        assert_eq!(header_bytes(b"WARC/1.0\r\nA: b\r\n"), None);
    }

    #[test]
    fn what_is_no_header() {
        for text in [
            "WARC/x\r\nWARC-Type: a\r\nContent-Length: 1",
            "WARC/1.0\r\nWARC-Type: a",
            "WARC/1.0\r\nWARC-Type: a\r\nContent-Length: -1",
            "WARC/1.0\r\nWARC-Type: a\r\nContent-Length: 99999999999999999999",
            "WARC/1.0\r\nWARC-Type: a\r\nContent-Length: 1\r\nContent-Length: 2",
            "WARC/1.0\r\nContent-Length: 1",
            "WARC/1.0\r\nno field\r\nWARC-Type: a\r\nContent-Length: 1",
            "WARC/1.0\r\n folded\r\nWARC-Type: a\r\nContent-Length: 1",
        ] {
            assert_eq!(Header::parse(text.as_bytes()), None, "{text}");
        }
    }
}
