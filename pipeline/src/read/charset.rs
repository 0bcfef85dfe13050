//! The text of a web page in whatever encoding it came. The order of evidence is that of the HTML standard (section 13.2.3.2):
//! byte order mark, `Content-Type`, `<meta>`; without any, UTF-8 where it is valid and windows-1252 where it is not.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// How far into a page its encoding may be named (HTML standard, section 4.2.5.4).
const META_BYTES: usize = 1024;

/// Decodes a page; `content_type` is the value of the HTTP header. What is wrong in its encoding becomes U+FFFD, as in browsers.
pub(super) fn decode<'b>(bytes: &'b [u8], content_type: &str) -> Cow<'b, str> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return encoding.decode_without_bom_handling(&bytes[mark..]).0;
    }
    let label = label_in(content_type.as_bytes()).and_then(Encoding::for_label);
    let encoding = label.or_else(|| in_meta(bytes));
    match encoding {
        Some(encoding) => encoding.decode_without_bom_handling(bytes).0,
        None => match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => WINDOWS_1252.decode_without_bom_handling(bytes).0,
        },
    }
}

/// The encoding that a `<meta>` at the start names.
fn in_meta(bytes: &[u8]) -> Option<&'static Encoding> {
    let start = bytes[..bytes.len().min(META_BYTES)].to_ascii_lowercase();
    let metas = memchr::memmem::find_iter(&start, b"<meta").filter_map(|at| {
        let tag = &start[at..];
        label_in(&tag[..memchr::memchr(b'>', tag).unwrap_or(tag.len())]).and_then(Encoding::for_label)
    });
    // A page whose `<meta>` could be read is no UTF-16, whatever it says.
    metas.map(|found| if [UTF_16BE, UTF_16LE].contains(&found) { UTF_8 } else { found }).next()
}

/// The value behind `charset=`.
fn label_in(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii();
    let at = text.windows(7).position(|word| word.eq_ignore_ascii_case(b"charset"))? + 7;
    let value = text[at..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let value = value.strip_prefix(b"\"").or(value.strip_prefix(b"'")).unwrap_or(value);
    let end = value.iter().position(|b| b.is_ascii_whitespace() || b"\"';,/>".contains(b));
    Some(&value[..end.unwrap_or(value.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], content_type: &str, expected: &str) {
        assert_eq!(decode(bytes, content_type), expected, "{:?}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn evidence_is_taken_in_order() {
        check("é".as_bytes(), "", "é");
        check(b"\xe9\x80", "", "é€");
        check(b"\xe9", "text/html; charset=ISO-8859-1", "é");
        check(b"\xcf\xf0\xe8\xe2\xe5\xf2", "text/html;Charset=\"windows-1251\"", "Привет");
        check(b"<meta charset=koi8-r>\xf0", "", "<meta charset=koi8-r>П");
        check(
            b"<META http-equiv=x content='text/html; charset=Shift_JIS'>\x83e",
            "",
            "<META http-equiv=x content='text/html; charset=Shift_JIS'>テ",
        );
        check("<meta charset=utf-16>é".as_bytes(), "", "<meta charset=utf-16>é");
        // The header wins over the page, the mark over both, and an unknown name counts for nothing.
        check(b"<meta charset=koi8-r>\xe9", "text/html; charset=latin1", "<meta charset=koi8-r>é");
        check(b"\xef\xbb\xbf\xc3\xa9", "text/html; charset=latin1", "é");
        check(b"\xff\xfea\0", "text/html; charset=latin1", "a");
        check("<meta charset=gbk>".as_bytes(), "charset=nonsense", "<meta charset=gbk>");
        check(b"a\xffb", "charset=utf-8", "a\u{fffd}b");
    }
}
