//! Strings of special tokens in what people say. They must not become tokens, so before a conversation is rendered each
//! of them is replaced by characters of private use, which a template passes on as they are; behind it they come back,
//! and their places are known.

use aho_corasick::{AhoCorasick, MatchKind};

/// Around the number of a hidden string.
const HIDDEN: char = '\u{10fffb}';
/// Before what the assistant generates, in a template that marks it.
pub(super) const BEGIN: char = '\u{10fffc}';
/// Behind it.
pub(super) const END: char = '\u{10fffd}';
/// Number 0, as a character of private use; there are 65,531 before the three above.
const FIRST: u32 = 0x10_0000;

/// What is found in a rendered text when hidden strings come back and the marks go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Restored {
    pub text: String,
    /// Stretches that were hidden, in bytes.
    pub plain: Vec<(usize, usize)>,
    /// Stretches between marks.
    pub generated: Vec<(usize, usize)>,
}

/// The strings that are hidden: those of special tokens, and the three characters themselves.
#[derive(Debug)]
pub(super) struct Hidden {
    automaton: AhoCorasick,
    strings: Vec<String>,
    n_specials: usize,
}

impl Hidden {
    /// `specials` are the strings of the special tokens; a message if they are too many.
    pub fn new(specials: &[String]) -> Result<Hidden, String> {
        let own = [HIDDEN, BEGIN, END].map(String::from);
        let strings: Vec<String> = specials.iter().filter(|name| !name.is_empty()).cloned().collect();
        let n_specials = strings.len();
        let strings: Vec<String> = strings.into_iter().chain(own).collect();
        if strings.len() as u32 > u32::from(HIDDEN) - FIRST {
            return Err(format!(
                "{n_specials} special tokens are more than a chat template can be told from text"
            ));
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&strings)
            .map_err(|e| format!("the special tokens cannot be searched for: {e}"))?;
        Ok(Hidden { automaton, strings, n_specials })
    }

    /// The text with its special strings hidden; `None` where it has none.
    pub fn hide(&self, text: &str) -> Option<String> {
        let mut hidden = String::new();
        let mut at = 0;
        for found in self.automaton.find_iter(text) {
            hidden.push_str(&text[at..found.start()]);
            let number = char::from_u32(FIRST + found.pattern().as_u32()).unwrap_or(HIDDEN);
            hidden.extend([HIDDEN, number, HIDDEN]);
            at = found.end();
        }
        hidden.push_str(&text[at..]);
        (at > 0).then_some(hidden)
    }

    /// Puts hidden strings back and takes marks away; a message if the template has taken them apart.
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
                            "the template cuts the strings of special tokens that stand in a message"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_hidden_comes_back_with_its_place() {
        let hidden = Hidden::new(&["<e>".to_owned(), "<e><e>".to_owned()]).unwrap();
        assert_eq!(hidden.hide("plain <e"), None);
        let said = format!("é<e>{HIDDEN}<e><e>");
        let message = hidden.hide(&said).unwrap();
        assert!(!message.contains("<e>"));
        let restored = hidden.restore(&format!("U{BEGIN}{message}<e>{END}")).unwrap();
        assert_eq!(restored.text, format!("U{said}<e>"));
        // é is two bytes, the character of private use four.
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
