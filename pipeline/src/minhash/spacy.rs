//! Words as spaCy's English tokenizer makes them of a simplified text: exceptions (`cannot` is two words), then characters that
//! are a word of their own at the edges of a word or inside it. The order of the steps is that of spaCy's
//! `Tokenizer._split_affixes` and `_attach_tokens`; the data is in [`super::spacy_data`].

use super::spacy_data::{CURRENCIES, EDGES, EXCEPTIONS, SYMBOLS, UNITS};

/// Splits chunks between spaces into words.
pub(super) struct Splitter {
    /// Exceptions without their cuts, by [`bucket`].
    buckets: Vec<Vec<(String, &'static str)>>,
}

const N_BUCKETS: usize = 1 << 11;

/// From the length and the edges of a chunk, so that few words are compared with any exception.
fn bucket(chunk: &str) -> usize {
    let bytes = chunk.as_bytes();
    let edge = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or_default()) & 31;
    let middle = bytes.get(bytes.len() / 2);
    (edge(bytes.first()) * 37 + edge(bytes.last()) * 7 + edge(middle) * 331 + bytes.len()) % N_BUCKETS
}

/// Where a character is a word of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nowhere.
    Plain,
    /// Everywhere.
    Symbol,
    /// At the start and at the end.
    Edge,
    /// At the start, and at the end after a digit.
    Currency,
    /// At the start.
    Start,
}

fn kind(c: char) -> Kind {
    if c.is_ascii_alphanumeric() {
        return Kind::Plain;
    }
    match c {
        '=' | '§' => Kind::Start,
        c if EDGES.contains(&c) => Kind::Edge,
        c if CURRENCIES.contains(c) => Kind::Currency,
        c => {
            let code = u32::from(c);
            let after = SYMBOLS.partition_point(|(_, last)| *last < code);
            match SYMBOLS.get(after) {
                Some((first, _)) if *first <= code => Kind::Symbol,
                _ => Kind::Plain,
            }
        }
    }
}

impl Splitter {
    pub(super) fn new() -> Splitter {
        let mut buckets = vec![Vec::new(); N_BUCKETS];
        for pieces in EXCEPTIONS {
            let chunk = pieces.replace(' ', "");
            buckets[bucket(&chunk)].push((chunk, *pieces));
        }
        Splitter { buckets }
    }

    fn exception(&self, chunk: &str) -> Option<&'static str> {
        let bucket = &self.buckets[bucket(chunk)];
        bucket.iter().find(|(whole, _)| whole == chunk).map(|(_, pieces)| *pieces)
    }

    /// Hands the words of a chunk without spaces to `each`, in order.
    pub(super) fn split(&self, chunk: &str, each: &mut impl FnMut(&str)) {
        if let Some(pieces) = self.exception(chunk) {
            pieces.split(' ').for_each(each);
            return;
        }
        if chunk.is_ascii() && !chunk.contains('0') {
            // Nothing of ASCII that survives the simplification is split but units after a digit; `=`, `;` and `<`
            // come from the decomposition of rare characters and are in chunks of their own kind below.
            if !chunk.contains([';', '<', '=', '>', '`']) {
                each(chunk);
                return;
            }
        }
        self.split_affixes(chunk, each);
    }

    fn split_affixes(&self, chunk: &str, each: &mut impl FnMut(&str)) {
        let mut rest = chunk;
        let mut suffixes = Vec::new();
        while !rest.is_empty() && self.exception(rest).is_none() {
            let prefix = rest.chars().next().filter(|c| kind(*c) != Kind::Plain).map_or(0, char::len_utf8);
            if prefix > 0 && self.exception(&rest[prefix..]).is_some() {
                each(&rest[..prefix]);
                rest = &rest[prefix..];
                break;
            }
            let suffix = suffix_len(&rest[prefix..]);
            let without = &rest[..rest.len() - suffix];
            if suffix > 0 && self.exception(without).is_some() {
                suffixes.push(&rest[without.len()..]);
                rest = without;
                break;
            }
            if prefix == 0 && suffix == 0 {
                break;
            }
            if prefix > 0 {
                each(&rest[..prefix]);
            }
            if suffix > 0 {
                suffixes.push(&rest[without.len()..]);
            }
            rest = &without[prefix..];
        }
        match self.exception(rest) {
            Some(pieces) => pieces.split(' ').for_each(&mut *each),
            None => split_infixes(rest, each),
        }
        suffixes.iter().rev().for_each(|suffix| each(suffix));
    }
}

/// Bytes of the longest suffix that is a word of its own.
fn suffix_len(text: &str) -> usize {
    // Everything that can follow a digit here follows a 0.
    let unit = text.rfind('0').map(|zero| &text[zero + 1..]).filter(|unit| UNITS.contains(unit));
    if let Some(unit) = unit {
        return unit.len();
    }
    let mut chars = text.chars().rev();
    let Some(last) = chars.next() else { return 0 };
    match kind(last) {
        Kind::Symbol | Kind::Edge => last.len_utf8(),
        Kind::Currency if chars.next() == Some('0') => last.len_utf8(),
        _ => 0,
    }
}

fn split_infixes(text: &str, each: &mut impl FnMut(&str)) {
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        // A match at the very start is skipped, as spaCy does.
        if at > 0 && is_infix(&text[..at], c, &text[end..]) {
            if at > start {
                each(&text[start..at]);
            }
            each(&text[at..end]);
            start = end;
        }
    }
    if start < text.len() {
        each(&text[start..]);
    }
}

fn is_infix(before: &str, c: char, after: &str) -> bool {
    match c {
        '<' | '=' | '>' => {
            let left = before.chars().next_back().is_some_and(|c| c == '0' || c.is_alphabetic());
            left && after.chars().next().is_some_and(char::is_alphabetic)
        }
        c => kind(c) == Kind::Symbol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunk: &str, expected: &[&str]) {
        let mut words = Vec::new();
        Splitter::new().split(chunk, &mut |word| words.push(word.to_owned()));
        assert_eq!(words, expected, "{chunk}");
    }

    /// Answers of spaCy 3.8.18, `spacy.blank("en")`.
    #[test]
    fn chunks_split_as_in_spacy() {
        check("word", &["word"]);
        check("cannot", &["can", "not"]);
        check("theyllve", &["they", "ll", "ve"]);
        check("goin", &["goin"]);
        check("0km", &["0", "km"]);
        check("0am", &["0am"]);
        check("x0mm²", &["x0", "mm²"]);
        check("€0", &["€", "0"]);
        check("0€", &["0", "€"]);
        check("a€", &["a€"]);
        check("‘cannot", &["‘", "can", "not"]);
        check("©x©y©", &["©", "x", "©", "y", "©"]);
        check("§0", &["§", "0"]);
        check("a=b", &["a", "=", "b"]);
        check("ಠ︵ಠ", &["ಠ︵ಠ"]);
    }
}
