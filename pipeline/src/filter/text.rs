//! What rules look at: a text with what its record says, and its words, which are found once, when the
//! first rule asks for them, in memory that the next text uses again.

use std::cell::{OnceCell, RefCell};

use super::words::Words;
use crate::document::Metadata;

/// A normalised text under judgement.
#[derive(Debug)]
pub struct Text<'a> {
    text: &'a str,
    metadata: Metadata<'a>,
    scratch: Option<&'a Scratch>,
    n_chars: OnceCell<u64>,
    words: OnceCell<Words>,
}

/// Memory that outlives a text: one for all texts of a thread.
#[derive(Debug, Default)]
pub struct Scratch {
    words: RefCell<Vec<Words>>,
}

impl Scratch {
    /// A text of which nothing is known yet but what its record says.
    pub fn text<'a>(&'a self, text: &'a str, metadata: Metadata<'a>) -> Text<'a> {
        Text { text, metadata, scratch: Some(self), n_chars: OnceCell::new(), words: OnceCell::new() }
    }
}

impl<'a> Text<'a> {
    /// A text on its own, for tests and single questions; many texts share a [`Scratch`].
    pub fn new(text: &'a str) -> Text<'a> {
        Text {
            text,
            metadata: Metadata::default(),
            scratch: None,
            n_chars: OnceCell::new(),
            words: OnceCell::new(),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// What its record says beside the text, such as `url` and `language`.
    pub fn metadata(&self) -> Metadata<'a> {
        self.metadata
    }

    /// Unicode characters.
    pub fn n_chars(&self) -> u64 {
        *self.n_chars.get_or_init(|| self.text.chars().count() as u64)
    }

    /// The words; see [`super::words`] for what a word is.
    pub fn words(&self) -> &Words {
        self.words.get_or_init(|| {
            let used = self.scratch.and_then(|scratch| scratch.words.borrow_mut().pop());
            let mut words = used.unwrap_or_default();
            words.split(self.text);
            words
        })
    }
}

impl Drop for Text<'_> {
    fn drop(&mut self) {
        if let (Some(scratch), Some(words)) = (self.scratch, self.words.take()) {
            scratch.words.borrow_mut().push(words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_text_uses_the_memory_of_the_one_before() {
        let scratch = Scratch::default();
        let first = scratch.text("one two three", Metadata::default());
        assert_eq!(first.words().len(), 3);
        drop(first);
        assert_eq!(scratch.words.borrow().len(), 1);
        let second = scratch.text("four", Metadata { url: Some("http://a.example/"), ..Metadata::default() });
        assert_eq!((second.words().len(), second.n_chars()), (1, 4));
        assert_eq!(second.metadata().url, Some("http://a.example/"));
        assert_eq!(scratch.words.borrow().len(), 0);
    }
}
