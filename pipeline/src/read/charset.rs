//! Text in any encoding. For web pages the order of evidence is that of the HTML standard (section 13.2.3.2):
//! byte order mark, `Content-Type`, `<meta>` anywhere in the head; without any, UTF-8 where it is valid, and otherwise what the
//! detector of Firefox guesses. Such guesses are counted.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How far into a page to look for its encoding. Browsers stop at 1,024 bytes and start over when they meet a later
/// one; scripts before it are longer than anything else in a head.
const META_BYTES: usize = 512 << 10;
/// What is enough to guess by.
const GUESS_BYTES: usize = 1 << 20;
/// UTF-8 with this many times more good than bad characters is damaged UTF-8, not another encoding.
const GOOD_TO_BAD: usize = 10;

/// An encoding by its name, as `encoding` in a recipe has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charset(pub(super) &'static Encoding);

impl Charset {
    /// The encoding of a label in the Encoding Standard, such as `latin1`, `windows-1252`, `shift_jis` or `utf-16le`.
    pub fn of(label: &str) -> Option<Charset> {
        Encoding::for_label(label.trim().as_bytes()).map(Charset)
    }

    /// Its usual name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }
}

impl Serialize for Charset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Charset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Charset, D::Error> {
        let label = String::deserialize(deserializer)?;
        Charset::of(&label).ok_or_else(|| {
            let examples = "`windows-1252`, `iso-8859-2`, `shift_jis`, `gb18030`, `utf-16le`";
            serde::de::Error::custom(format!(
                "`{label}` is not an encoding; expected a name such as {examples}"
            ))
        })
    }
}

/// A text, and its encoding if guessed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded<'b> {
    pub text: Cow<'b, str>,
    pub guessed: Option<&'static str>,
}

/// Decodes a page; `content_type` is the value of the HTTP header, `named` the encoding in the recipe. Invalid
/// sequences become U+FFFD, as in browsers.
pub(super) fn decode<'b>(bytes: &'b [u8], content_type: &str, named: Option<Charset>) -> Decoded<'b> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return known(encoding, &bytes[mark..]);
    }
    let label = label_in(content_type.as_bytes()).and_then(Encoding::for_label);
    let encoding = named.map(|named| named.0).or(label).or_else(|| in_meta(bytes));
    match encoding {
        Some(encoding) => known(encoding, bytes),
        None => text(bytes, None).unwrap_or_else(|| known(UTF_8, bytes)),
    }
}

/// Decodes a text file; `None` if it is damaged UTF-8.
pub(super) fn text(bytes: &[u8], named: Option<Charset>) -> Option<Decoded<'_>> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return Some(known(encoding, &bytes[mark..]))
            .filter(|_| encoding != UTF_8 || is_utf8(&bytes[mark..]));
    }
    // Zeros are valid in UTF-8, so they are checked first.
    if named.is_none()
        && let Some(encoding) = without_mark(bytes)
    {
        return Some(known(encoding, bytes));
    }
    match (named, std::str::from_utf8(bytes)) {
        (Some(Charset(encoding)), _) if encoding != UTF_8 => Some(known(encoding, bytes)),
        (_, Ok(text)) => Some(Decoded { text: Cow::Borrowed(text), guessed: None }),
        (Some(_), Err(_)) => None,
        (None, Err(_)) => {
            let encoding = guess(bytes)?;
            Some(Decoded { guessed: Some(encoding.name()), ..known(encoding, bytes) })
        }
    }
}

fn known<'b>(encoding: &'static Encoding, bytes: &'b [u8]) -> Decoded<'b> {
    Decoded { text: encoding.decode_without_bom_handling(bytes).0, guessed: None }
}

fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// The most likely encoding of bytes that are not UTF-8; `None` if they are damaged UTF-8.
fn guess(bytes: &[u8]) -> Option<&'static Encoding> {
    let bytes = &bytes[..bytes.len().min(GUESS_BYTES)];
    let chunks = bytes.utf8_chunks();
    let (good, bad) = chunks.fold((0, 0), |(good, bad), chunk| {
        let wide = chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        (good + wide, bad + usize::from(!chunk.invalid().is_empty()))
    });
    if good > GOOD_TO_BAD * bad {
        return None;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    Some(detector.guess(None, Utf8Detection::Deny))
}

/// UTF-16 without a byte order mark: in most scripts every second byte is zero or nearly so in much of the text, and no
/// other text has zeros.
pub(super) fn without_mark(bytes: &[u8]) -> Option<&'static Encoding> {
    let start = &bytes[..bytes.len().min(4096) & !1];
    let zeros = |first: usize| start.iter().skip(first).step_by(2).filter(|b| **b == 0).count();
    let (even, odd, pairs) = (zeros(0), zeros(1), start.len() / 2);
    match pairs {
        0 | 1 => None,
        _ if odd * 10 >= pairs * 3 && even * 20 <= odd => Some(UTF_16LE).filter(|e| is_clean(e, start)),
        _ if even * 10 >= pairs * 3 && odd * 20 <= even => Some(UTF_16BE).filter(|e| is_clean(e, start)),
        _ => None,
    }
}

/// Whether the start of a file decodes to text: small integers in binary files do not.
fn is_clean(encoding: &'static Encoding, start: &[u8]) -> bool {
    let text = encoding.decode_without_bom_handling(start).0;
    let bad = text.chars().filter(|c| c.is_control() && !c.is_ascii_whitespace() || *c == '\u{fffd}').count();
    bad * 50 <= text.chars().count()
}

/// The encoding in a `<meta>` of the head. Scripts, styles and comments are skipped.
fn in_meta(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes[..bytes.len().min(META_BYTES)].to_ascii_lowercase();
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'<', &head[at..]) {
        at += next;
        let tag = &head[at..];
        let behind = |end: &[u8]| memchr::memmem::find(tag, end).map(|n| n + end.len());
        let passed = match tag {
            _ if tag.starts_with(b"<!--") => behind(b"-->"),
            _ if tag.starts_with(b"<script") => behind(b"</script"),
            _ if tag.starts_with(b"<style") => behind(b"</style"),
            _ if tag.starts_with(b"<body") => None,
            _ if tag.starts_with(b"<meta") => {
                let end = memchr::memchr(b'>', tag).unwrap_or(tag.len());
                if let Some(found) = label_in(&tag[..end]).and_then(Encoding::for_label) {
                    // A page whose `<meta>` could be read is not UTF-16, whatever it says.
                    return Some(if [UTF_16BE, UTF_16LE].contains(&found) { UTF_8 } else { found });
                }
                Some(end)
            }
            _ => Some(1),
        };
        at += passed?;
    }
    None
}

/// The value after `charset=`.
fn label_in(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii();
    let at = text.windows(7).position(|word| word.eq_ignore_ascii_case(b"charset"))? + 7;
    let value = text[at..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let value = value.strip_prefix(b"\"").or(value.strip_prefix(b"'")).unwrap_or(value);
    let end = value.iter().position(|b| b.is_ascii_whitespace() || b"\"';,/>".contains(b));
    Some(&value[..end.unwrap_or(value.len())])
}

/// Advice about bytes that are not UTF-8.
pub(super) fn advice(bytes: &[u8]) -> String {
    let at = std::str::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
    match guess(bytes) {
        None => format!("byte {at} is not UTF-8, though what is around it is"),
        Some(encoding) => format!(
            "byte {at} is not UTF-8; if the text is {}, say so by `encoding` in the [[source]]",
            encoding.name()
        ),
    }
}

/// The text of bytes that are UTF-8 except for surrogates: pairs become their character, halves U+FFFD. `None`
/// when anything else is wrong.
pub(super) fn without_surrogates(bytes: &[u8]) -> Option<String> {
    let unit = |bytes: &[u8]| match bytes {
        [0xed, b @ 0xa0..=0xbf, c @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u16::from(b & 0x3f) << 6 | u16::from(c & 0x3f))
        }
        _ => None,
    };
    let (mut text, mut rest) = (String::with_capacity(bytes.len()), bytes);
    loop {
        let valid = match std::str::from_utf8(rest) {
            Ok(valid) => valid,
            Err(e) => std::str::from_utf8(&rest[..e.valid_up_to()]).ok()?,
        };
        text.push_str(valid);
        rest = &rest[valid.len()..];
        if rest.is_empty() {
            return Some(text);
        }
        let first = unit(rest)?;
        let pair = rest.get(3..).and_then(unit).map(|second| [first, second]);
        match pair.and_then(|pair| char::decode_utf16(pair).next()?.ok()) {
            Some(c) => {
                text.push(c);
                rest = &rest[6..];
            }
            None => {
                text.push('\u{fffd}');
                rest = &rest[3..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], content_type: &str, expected: &str) {
        assert_eq!(decode(bytes, content_type, None).text, expected, "{:?}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn evidence_is_taken_in_order() {
        check("é".as_bytes(), "", "é");
        check(b"\xe9", "text/html; charset=ISO-8859-1", "é");
        check(b"\xcf\xf0\xe8\xe2\xe5\xf2", "text/html;Charset=\"windows-1251\"", "Привет");
        check(b"<meta charset=koi8-r>\xf0", "", "<meta charset=koi8-r>П");
        check(
            b"<META http-equiv=x content='text/html; charset=Shift_JIS'>\x83e",
            "",
            "<META http-equiv=x content='text/html; charset=Shift_JIS'>テ",
        );
        check("<meta charset=utf-16>é".as_bytes(), "", "<meta charset=utf-16>é");
        // The header wins over the page, the mark over both, and unknown names are ignored.
        check(b"<meta charset=koi8-r>\xe9", "text/html; charset=latin1", "<meta charset=koi8-r>é");
        check(b"\xef\xbb\xbf\xc3\xa9", "text/html; charset=latin1", "é");
        check(b"\xff\xfea\0", "text/html; charset=latin1", "a");
        check("<meta charset=gbk>".as_bytes(), "charset=nonsense", "<meta charset=gbk>");
        check(b"a\xffb", "charset=utf-8", "a\u{fffd}b");
    }

    #[test]
    fn a_charset_late_in_the_head_counts() {
        let script = "<script>var s = '<meta charset=gbk>';</script><!-- <meta charset=big5> -->".repeat(200);
        let page = format!("<html><head>{script}<meta charset=koi8-r></head><body>").into_bytes();
        let page = [&page[..], b"\xf0"].concat();
        let decoded = decode(&page, "", None);
        assert!(decoded.text.ends_with('П') && decoded.guessed.is_none());
        // The body of a page is not its head.
        let quoted = [&b"<html><body><pre><meta charset=koi8-r></pre> caf\xe9, na\xefve"[..]].concat();
        assert_eq!(decode(&quoted, "", None).guessed, Some("windows-1252"));
    }

    #[test]
    fn encodings_that_nobody_names_are_guessed() {
        let polish = "Żółta łódź płynęła wśród trzcin, a gęś patrzyła na śpiącego rybaka. Córka młynarza niosła dzban.";
        let russian =
            "Жёлтая лодка плыла среди камышей, а гусь смотрел на спящего рыбака у самого берега реки.";
        let japanese =
            "黄色い舟が葦の間を流れ、雁は眠る漁師を見ていた。粉屋の娘は泉の水の重い甕を運んでいた。";
        for (label, text) in [
            ("windows-1250", polish),
            ("windows-1251", russian),
            ("koi8-r", russian),
            ("shift_jis", japanese),
            ("euc-jp", japanese),
            ("utf-16le", russian),
        ] {
            let encoding = Charset::of(label).unwrap().0;
            let bytes: Vec<u8> = match label {
                "utf-16le" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                _ => encoding.encode(text).0.into_owned(),
            };
            let decoded = super::text(&bytes, Charset::of(label)).unwrap();
            assert_eq!((&*decoded.text, decoded.guessed), (text, None));
            let decoded = super::text(&bytes, None);
            let found = decoded.as_ref().map(|decoded| &*decoded.text);
            assert!(found == Some(text) || label == "utf-16le", "{label}: {found:?}");
        }
        let ascii: Vec<u8> = "Plain words in UTF-16.".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(super::text(&ascii, None).unwrap().text, "Plain words in UTF-16.");
        // One bad byte among many good characters is damage, not another encoding.
        assert_eq!(super::text(&[polish.as_bytes(), b"\xff"].concat(), None), None);
        assert!(decode(&[polish.as_bytes(), b"\xff"].concat(), "", None).text.ends_with(".\u{fffd}"));
    }
}
