//! Strings of special tokens in what people say. They must not become tokens, so before a conversation is rendered each
//! of them is replaced by private-use characters, which a template passes through; afterward they are restored,
//! and their positions are known.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

/// Around the number of a hidden string.
const HIDDEN: char = '\u{10fffb}';
/// Before what the assistant generates, in a template that marks it.
pub(super) const BEGIN: char = '\u{10fffc}';
/// After what the assistant generates.
pub(super) const END: char = '\u{10fffd}';
/// Number 0, as a private-use character; there are 65,531 before the three above.
const FIRST: u32 = 0x10_0000;

/// Found in a rendered text when hidden strings are restored and the marks removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Restored {
    pub text: String,
    /// Stretches that were hidden, in bytes.
    pub plain: Vec<(usize, usize)>,
    /// Stretches between marks.
    pub generated: Vec<(usize, usize)>,
}

/// The strings that are hidden: those of special tokens, and the three characters themselves. Where a text ends like the
/// beginning of a special token, or begins like the end of one, a template that joins texts could make the token of two of
/// them; so the last or first character of such a text is hidden, too.
#[derive(Debug)]
pub(super) struct Hidden {
    automaton: AhoCorasick,
    /// What the automaton finds, then the characters of special tokens.
    strings: Vec<String>,
    n_found: usize,
    n_specials: usize,
    /// Special tokens in order, and with their characters reversed.
    beginnings: Vec<String>,
    endings: Vec<String>,
}

impl Hidden {
    /// `specials` are the strings of the special tokens; a message if they are too many.
    pub fn new(specials: &[String]) -> Result<Hidden, String> {
        let own = [HIDDEN, BEGIN, END].map(String::from);
        let strings: Vec<String> = specials.iter().filter(|name| !name.is_empty()).cloned().collect();
        let n_specials = strings.len();
        let reversed = |text: &String| text.chars().rev().collect::<String>();
        let in_order = |texts: BTreeSet<String>| texts.into_iter().collect::<Vec<_>>();
        let beginnings = in_order(strings.iter().cloned().collect());
        let endings = in_order(strings.iter().map(reversed).collect());
        let chars: BTreeSet<char> = strings.iter().flat_map(|name| name.chars()).collect();
        let mut strings: Vec<String> = strings.into_iter().chain(own).collect();
        let n_found = strings.len();
        strings.extend(chars.into_iter().map(String::from));
        if strings.len() as u32 > u32::from(HIDDEN) - FIRST {
            return Err(format!(
                "{n_specials} special tokens are more than can be told apart from text in a chat template"
            ));
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&strings[..n_found])
            .map_err(|e| format!("the special tokens cannot be searched for: {e}"))?;
        Ok(Hidden { automaton, strings, n_found, n_specials, beginnings, endings })
    }

    /// The text with its special strings hidden; `None` where it has none.
    pub fn hide(&self, text: &str) -> Option<String> {
        let found = self.automaton.find_iter(text);
        let mut places: Vec<(usize, usize, usize)> =
            found.map(|found| (found.start(), found.end(), found.pattern().as_usize())).collect();
        // A template may trim what it joins, so white space at the ends does not count.
        let first = places.first().map_or(text.len(), |place| place.0);
        let start = text.len() - text.trim_start().len();
        let head = text[..first].get(start..).unwrap_or_default();
        let last = places.last().map_or(0, |place| place.1);
        let tail = text[last..].trim_end();
        if is_part(&self.endings, head.chars()) {
            places.extend(head.chars().next().and_then(|c| self.place_of(c, start)));
        }
        if is_part(&self.beginnings, tail.chars().rev()) {
            let c = tail.chars().next_back();
            places.extend(c.and_then(|c| self.place_of(c, last + tail.len() - c.len_utf8())));
        }
        places.sort_unstable();
        places.dedup();
        let mut hidden = String::new();
        let mut at = 0;
        for &(start, end, string) in &places {
            hidden.push_str(&text[at..start]);
            let number = char::from_u32(FIRST + string as u32).unwrap_or(HIDDEN);
            hidden.extend([HIDDEN, number, HIDDEN]);
            at = end;
        }
        hidden.push_str(&text[at..]);
        (!places.is_empty()).then_some(hidden)
    }

    /// A character of special tokens at `start`, as a stretch to hide.
    fn place_of(&self, c: char, start: usize) -> Option<(usize, usize, usize)> {
        let chars = &self.strings[self.n_found..];
        let number = chars.binary_search_by(|one| one.as_str().cmp(c.encode_utf8(&mut [0; 4]))).ok()?;
        Some((start, start + c.len_utf8(), self.n_found + number))
    }

    /// Restores hidden strings and removes marks; a message if the template has split them.
    pub fn restore(&self, rendered: &str) -> Result<Restored, String> {
        let mut restored = Restored::default();
        let mut begin = None;
        let mut chars = rendered.chars();
        while let Some(c) = chars.next() {
            let at = restored.text.len();
            match c {
                HIDDEN => {
                    let number = chars.next().and_then(|c| u32::from(c).checked_sub(FIRST));
                    let string = number.and_then(|number| self.strings.get(number as usize));
                    let (Some(string), Some(HIDDEN)) = (string, chars.next()) else {
                        return Err(
                            "the template splits the strings of special tokens that occur in a message"
                                .to_owned(),
                        );
                    };
                    restored.text.push_str(string);
                    restored.plain.push((at, restored.text.len()));
                }
                BEGIN if begin.is_none() => begin = Some(at),
                END => {
                    let start = begin.take().ok_or("the template ends a `generation` block twice")?;
                    restored.generated.push((start, at));
                }
                BEGIN => return Err("the template has a `generation` block in another one".to_owned()),
                c => restored.text.push(c),
            }
        }
        match begin {
            None => Ok(restored),
            Some(_) => Err("the template cuts a `generation` block".to_owned()),
        }
    }

    /// Ends of the special tokens in a rendered text in which those of messages are hidden, in order.
    pub fn special_ends(&self, rendered: &str) -> Vec<usize> {
        let found = self.automaton.find_iter(rendered);
        found.filter(|found| found.pattern().as_usize() < self.n_specials).map(|found| found.end()).collect()
    }

    /// A rendered text without its special tokens.
    pub fn without_specials(&self, rendered: &str) -> String {
        let (mut text, mut at) = (String::new(), 0);
        for found in self.automaton.find_iter(rendered) {
            if found.pattern().as_usize() < self.n_specials {
                text.push_str(&rendered[at..found.start()]);
                at = found.end();
            }
        }
        text + &rendered[at..]
    }
}

/// Whether the first of these characters, read backwards, begin one of `specials` and are not all of it. A single letter
/// or digit does not count: too many words end like that.
fn is_part(specials: &[String], chars: impl Iterator<Item = char>) -> bool {
    let longest = specials.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let chars: Vec<char> = chars.take(longest).collect();
    (1..=chars.len()).any(|n| {
        let part: String = chars[..n].iter().rev().collect();
        let next = specials.partition_point(|name| *name <= part);
        specials.get(next).is_some_and(|name| name.starts_with(&part))
            && (n > 1 || !chars[0].is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_that_could_be_joined_to_a_special_token_are_hidden() {
        let hidden = Hidden::new(&["<|end|>".to_owned(), "Stop".to_owned()]).unwrap();
        let is_hidden = |text: &str| hidden.hide(text).is_some();
        for text in ["x<", "x<|", "a <|end|", "a<|en \n", ">b", " end|>b", "|>", "<", "Sto", "op"] {
            assert!(is_hidden(text), "{text}");
        }
        for text in ["x", "S", "p", "< b", "a >", "x<|b", "nd|", "a|"] {
            assert!(!is_hidden(text), "{text}");
        }
        // One character of each text is enough, and it comes back.
        let joined = format!("{}{}", hidden.hide("x<|").unwrap(), hidden.hide("end|>").unwrap());
        let restored = hidden.restore(&joined).unwrap();
        assert_eq!((restored.text.as_str(), restored.plain), ("x<|end|>", vec![(2, 3), (3, 4)]));
        let both = hidden.hide("n|>x<|end|>y<|e").unwrap();
        let restored = hidden.restore(&both).unwrap();
        assert_eq!(restored.plain, [(4, 11), (14, 15)]);
        assert_eq!(hidden.restore(&hidden.hide("d|><").unwrap()).unwrap().plain, [(0, 1), (3, 4)]);
    }

    #[test]
    fn what_was_hidden_comes_back_with_its_place() {
        let hidden = Hidden::new(&["<e>".to_owned(), "<e><e>".to_owned()]).unwrap();
        assert_eq!(hidden.hide("plain e"), None);
        let said = format!("é<e>{HIDDEN}<e><e>");
        let message = hidden.hide(&said).unwrap();
        assert!(!message.contains("<e>"));
        let restored = hidden.restore(&format!("U{BEGIN}{message}<e>{END}")).unwrap();
        assert_eq!(restored.text, format!("U{said}<e>"));
        // é is two bytes, the private-use character four.
        assert_eq!(restored.plain, [(3, 6), (6, 10), (10, 16)]);
        assert_eq!(restored.generated, [(1, 19)]);
        assert_eq!(hidden.special_ends(&format!("a<e>{message}<e>")).len(), 2);
    }

    #[test]
    fn what_a_template_takes_apart_is_refused() {
        let hidden = Hidden::new(&["<e>".to_owned()]).unwrap();
        let message = hidden.hide("<e>").unwrap();
        let cut: String = message.chars().take(2).collect();
        assert!(hidden.restore(&cut).is_err());
        assert!(hidden.restore(&format!("{BEGIN}a")).is_err());
        assert!(hidden.restore(&format!("a{END}")).is_err());
        assert!(hidden.restore(&format!("{BEGIN}{BEGIN}a{END}{END}")).is_err());
    }
}
