//! One JSON object, parsed as leniently as its meaning allows: half surrogate pairs become U+FFFD, `NaN` and infinities in
//! unused fields are skipped, and raw control characters are kept for normalization. For everything
//! else the error says what is wrong and in which column.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::dotted::lookup;
use super::{Cause, Fault, charset};

/// The parts of an object to read.
pub(super) struct Wanted {
    /// Keys that hold the fields.
    pub keys: Vec<String>,
    /// Dotted paths of the fields whose numbers are names, such as the id.
    pub names: Vec<String>,
    /// Keys whose values are wanted verbatim.
    pub sources: Vec<String>,
}

/// An object as it was read.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed {
    pub object: Value,
    /// Numbers at the paths of [`Wanted::names`] that are not 64-bit integers, as written.
    pub digits: Vec<(String, String)>,
    /// The values of [`Wanted::sources`] that are present, verbatim.
    pub sources: Vec<(String, String)>,
    /// Leniently accepted non-JSON, for the message if a field turns out bad.
    pub note: String,
}

/// The object in `line`, with all its keys or only the wanted ones; other values are skipped without being stored.
pub(super) fn parse(line: &[u8], wanted: Option<&Wanted>) -> Result<Parsed, Fault> {
    let text = match std::str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mended = charset::without_surrogates(line);
            Cow::Owned(mended.ok_or_else(|| Fault::new(Cause::InvalidUtf8, charset::advice(line)))?)
        }
    };
    let first = match object(&text, wanted) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    let mended = Mended::of(&text);
    if mended.text == text {
        return Err(Fault::new(Cause::BadJson, explain(&text, &first, &mended)));
    }
    match object(&mended.text, wanted) {
        Ok(parsed) => Ok(Parsed { note: mended.note, ..parsed }),
        Err(error) => Err(Fault::new(Cause::BadJson, explain(&text, &error, &mended))),
    }
}

fn object(text: &str, wanted: Option<&Wanted>) -> serde_json::Result<Parsed> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut object = Value::Object(Keys(wanted).deserialize(&mut deserializer)?);
    deserializer.end()?;
    let mut digits = Vec::new();
    for name in wanted.into_iter().flat_map(|wanted| &wanted.names) {
        // Integers are exact; other numbers are rounded to 64 bits.
        if lookup(&mut object, name).is_some_and(|value| value.is_f64()) {
            digits.extend(source_of(text, name).map(|number| (name.clone(), number.to_owned())));
        }
    }
    let wanted = wanted.into_iter().flat_map(|wanted| &wanted.sources);
    let sources = wanted.filter_map(|key| Some((key.clone(), member(text, key)?.to_owned()))).collect();
    Ok(Parsed { object, digits, sources, note: String::new() })
}

/// The source of the value at a dotted path in a valid object; as everywhere, a key that itself contains dots is
/// found first.
fn source_of<'t>(object: &'t str, path: &str) -> Option<&'t str> {
    if let Some(found) = member(object, path) {
        return Some(found);
    }
    let (head, rest) = path.split_once('.')?;
    source_of(member(object, head)?, rest)
}

/// The source of the value under a key.
fn member<'t>(object: &'t str, key: &str) -> Option<&'t str> {
    let mut rest = object.trim_start().strip_prefix('{')?.trim_start();
    while rest.starts_with('"') {
        let (name, behind) = rest.split_at(value_bytes(rest));
        let value = behind.trim_start().strip_prefix(':')?.trim_start();
        let (value, behind) = value.split_at(value_bytes(value));
        if serde_json::from_str::<String>(name).is_ok_and(|name| name == key) {
            return Some(value);
        }
        rest = behind.trim_start().trim_start_matches(',').trim_start();
    }
    None
}

/// Length of the value at the start of valid JSON.
fn value_bytes(text: &str) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, b) in text.bytes().enumerate() {
        if in_string {
            in_string = b != b'"' || escaped;
            escaped = b == b'\\' && !escaped;
            if !in_string && depth == 0 {
                return at + 1;
            }
            continue;
        }
        match b {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' if depth == 1 => return at + 1,
            b',' | b'}' | b']' if depth == 0 => return at,
            b if depth == 0 && b.is_ascii_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// Reads an object, and of it only these keys.
struct Keys<'a>(Option<&'a Wanted>);

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = access.next_key_seed(Key(self.0))? {
            match key {
                // It is unclear which of the two is meant.
                Some(key) if self.0.is_some() && object.contains_key(&key) => {
                    return Err(A::Error::custom(format!("the key `{key}` is there twice")));
                }
                Some(key) => {
                    object.insert(key, access.next_value()?);
                }
                None => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(object)
    }
}

/// Reads a key; `None` when it is not wanted.
struct Key<'a>(Option<&'a Wanted>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        let is_wanted = self.0.is_none_or(|wanted| wanted.keys.iter().any(|name| name == key));
        Ok(is_wanted.then(|| key.to_owned()))
    }
}

/// Numbers that programs write but JSON lacks. An object replaces them, since no named field can be one.
const NOT_A_NUMBER: [(&str, &str); 3] =
    [("-Infinity", "{       }"), ("Infinity", "{      }"), ("NaN", "{ }")];

/// A text in which unambiguous non-JSON has been replaced.
struct Mended {
    text: String,
    /// The first number that is none.
    note: String,
    /// Positions in `text` after which it is this many bytes longer than the original.
    longer: Vec<(usize, usize)>,
}

impl Mended {
    fn of(text: &str) -> Mended {
        let mut mended =
            Mended { text: String::with_capacity(text.len()), note: String::new(), longer: Vec::new() };
        let (mut in_string, mut at, mut grown) = (false, 0, 0);
        while let Some(c) = text[at..].chars().next() {
            let rest = &text[at..];
            let mut n = c.len_utf8();
            match c {
                '\\' if in_string => {
                    n = match half_surrogate(rest) {
                        true => {
                            mended.text.push_str("\\ufffd");
                            6
                        }
                        // A whole pair is skipped at once, so that its second half is not seen alone.
                        false => {
                            let pair =
                                if unit(rest).is_some_and(|unit| unit & 0xfc00 == 0xd800) { 12 } else { 1 };
                            let n = pair
                                + if pair == 1 {
                                    rest[1..].chars().next().map_or(0, char::len_utf8)
                                } else {
                                    0
                                };
                            mended.text.push_str(&rest[..n]);
                            n
                        }
                    };
                }
                '\0'..'\x20' if in_string => {
                    mended.text.push_str(&format!("\\u{:04x}", u32::from(c)));
                    grown += 5;
                    mended.longer.push((mended.text.len(), grown));
                }
                '\0'..'\x20' if !matches!(c, '\n' | '\r' | '\t') => mended.text.push(' '),
                'N' | 'I' | '-' if !in_string => {
                    match NOT_A_NUMBER.iter().find(|(name, _)| rest.starts_with(name)) {
                        Some((name, instead)) => {
                            if mended.note.is_empty() {
                                mended.note =
                                    format!("column {}: JSON has no {name}", text[..at].chars().count() + 1);
                            }
                            mended.text.push_str(instead);
                            n = name.len();
                        }
                        None => mended.text.push(c),
                    }
                }
                _ => {
                    in_string ^= c == '"';
                    mended.text.push(c);
                }
            }
            at += n;
        }
        mended
    }

    /// Position in the original of a byte of the text.
    fn place(&self, at: usize) -> usize {
        let grown = self.longer.iter().rev().find(|(from, _)| *from <= at).map_or(0, |(_, grown)| *grown);
        at.saturating_sub(grown)
    }
}

/// The code unit of the escape at the start.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Whether the escape at the start is half of a surrogate pair without its other half.
fn half_surrogate(text: &str) -> bool {
    match unit(text).map(|unit| unit & 0xfc00) {
        Some(0xdc00) => true,
        Some(0xd800) => text.get(6..).and_then(unit).is_none_or(|next| next & 0xfc00 != 0xdc00),
        _ => false,
    }
}

/// What is wrong, and in which column of the original.
fn explain(text: &str, error: &serde_json::Error, mended: &Mended) -> String {
    let said = error.to_string();
    let what = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
    let lines_before: usize =
        mended.text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = mended.place(lines_before + error.column().saturating_sub(1)).min(text.len());
    let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let column = text[..at].chars().count() + 1;
    let hint = match &text[at..] {
        rest if rest.starts_with('\'') => "; JSON takes double quotes, not single ones",
        rest if ["True", "False", "None"].iter().any(|word| rest.starts_with(word)) => {
            "; `True`, `False` and `None` are Python, JSON has `true`, `false` and `null`"
        }
        rest if rest.starts_with("//") || rest.starts_with("/*") || rest.starts_with('#') => {
            "; JSON has no comments"
        }
        rest if what == "trailing characters" && rest.starts_with('{') => "; one object a line is expected",
        _ => "",
    };
    format!("column {column}: {what}{hint}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(keys: &[&str], names: &[&str]) -> Wanted {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Wanted { keys: owned(keys), names: owned(names), sources: Vec::new() }
    }

    #[test]
    fn only_the_wanted_keys_are_stored_but_the_whole_line_is_checked() {
        let wanted = wanted(&["a", "m"], &[]);
        let line = br#"{"a":"x\ny","b":[1,{"a":2}],"m":{"b":1},"c":"\"\u00e9","c":"z"}"#;
        assert_eq!(parse(line, Some(&wanted)).unwrap().object, json!({"a": "x\ny", "m": {"b": 1}}));
        for line in [r#"{"a":1,"b":}"#, r#"{"a":1,"b":[}"#, r#"{"a":1} x"#, r#"{"a":1,"b":"x}"#, "[1]"] {
            assert_eq!(parse(line.as_bytes(), Some(&wanted)).unwrap_err().cause, Cause::BadJson, "{line}");
        }
    }

    fn check(line: &[u8], text: &str) {
        assert_eq!(parse(line, None).unwrap().object["t"], text, "{}", String::from_utf8_lossy(line));
    }

    #[test]
    fn what_is_clear_is_read() {
        check(br#"{"t":"a"}"#, "a");
        check(b"{\"t\":\"a\0b\tc\x0cd\\\"\x01\"}", "a\0b\tc\x0cd\"\x01");
        check(br#"{"t":"\ud83d\ude00 \ud83d"}"#, "\u{1f600} \u{fffd}");
        check(br#"{"t":"\ude00\ud83d."}"#, "\u{fffd}\u{fffd}.");
        check(br#"{"t":"\ud83d\ud83d\ude00\\ud83d"}"#, "\u{fffd}\u{1f600}\\ud83d");
        check(b"{\"t\":\"a \xed\xa0\xbd. \xed\xa0\xbd\xed\xb8\x80\"}", "a \u{fffd}. \u{1f600}");
        check(br#"{"t":"NaN \"Infinity","x":NaN,"y":[-Infinity,{"z":Infinity}]}"#, "NaN \"Infinity");
        check(b"\x1e{\"t\":\"a\"}", "a");
    }

    #[test]
    fn numbers_that_are_none_are_noted() {
        let parsed = parse("{\"é\":1,\"score\":NaN}".as_bytes(), None).unwrap();
        assert_eq!(
            (parsed.object["score"].clone(), parsed.note.as_str()),
            (json!({}), "column 16: JSON has no NaN")
        );
    }

    #[test]
    fn digits_of_names_stay_as_they_were_written() {
        let wanted = wanted(&["id", "m", "m.x", "f"], &["id", "m.x.id", "f"]);
        for number in ["12345678901234567890124", "1e3", "-0", "1.0"] {
            let line = format!("{{\"id\":{number},\"m\":{{\"x\":{{\"id\":{number}}}}},\"f\":\"x\"}}");
            let digits = parse(line.as_bytes(), Some(&wanted)).unwrap().digits;
            let expected = [("id".to_owned(), number.to_owned()), ("m.x.id".to_owned(), number.to_owned())];
            assert_eq!(digits, expected);
        }
    }

    #[test]
    fn errors_say_column_and_cause() {
        let wanted = wanted(&["t"], &[]);
        for (line, detail) in [
            (&br#"{"t":"a""#[..], "column 8: EOF while parsing an object"),
            (br#"{"t":"a",}"#, "column 10: trailing comma"),
            (b"{\"t\":\"\tb\",}", "column 11: trailing comma"),
            (br#"{'t':"a"}"#, "column 2: key must be a string; JSON takes double quotes, not single ones"),
            (
                br#"{"t":"a","b":None}"#,
                "column 14: expected value; `True`, `False` and `None` are Python, JSON has `true`, `false` and `null`",
            ),
            (br#"{"t":"a","t":"b"}"#, "column 12: the key `t` is there twice"),
            (br#"{"t":"a"}{"t":"b"}"#, "column 10: trailing characters; one object a line is expected"),
            (
                b"{\"t\":\"\xe9t\xe9\"}",
                "byte 6 is not UTF-8; if the text is windows-1252, say so by `encoding` in the [[source]]",
            ),
        ] {
            let fault = parse(line, Some(&wanted)).unwrap_err();
            assert_eq!(fault.detail, detail, "{}", String::from_utf8_lossy(line));
        }
    }
}
