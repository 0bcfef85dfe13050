//! Input of rules: a text with its metadata, and its words, which are found once, when the
//! first rule asks for them, in memory that the next text reuses.

use std::cell::{OnceCell, RefCell};

use serde::{Deserialize, Serialize};

use super::ngrams::{Counter, Grams};
use super::words::Words;
use crate::document::Metadata;

/// A normalized text being judged.
#[derive(Debug)]
pub struct Text<'a> {
    text: &'a str,
    metadata: Metadata<'a>,
    scratch: Option<&'a Scratch>,
    n_chars: OnceCell<u64>,
    spacy: OnceCell<Words>,
    uax29: OnceCell<Words>,
    between_spaces: OnceCell<Words>,
}

/// How a text is split into words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// As spaCy's English tokenizer does, punctuation included.
    #[default]
    Spacy,
    /// By UAX #29, as in [`super::words`], punctuation included.
    Uax29,
    /// Between white space.
    #[serde(skip)]
    Whitespace,
}

/// Tables that rules fill and clear for each text.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Counts of keys.
    pub counter: Counter,
    /// Hashes of n-grams of words.
    pub grams: Grams,
}

/// Memory that outlives a text, shared by all texts of a thread.
#[derive(Debug, Default)]
pub struct Scratch {
    words: RefCell<Vec<Words>>,
    tables: RefCell<Tables>,
}

impl Scratch {
    /// A text with only its metadata.
    pub fn text<'a>(&'a self, text: &'a str, metadata: Metadata<'a>) -> Text<'a> {
        Text::with(text, metadata, Some(self))
    }

    /// A text with given words, to compare rules with other programs.
    ///
    /// # Errors
    /// A word is not in the text after the previous one.
    pub fn text_with_words<'a, 'w>(
        &'a self,
        text: &'a str,
        words: impl IntoIterator<Item = &'w str>,
    ) -> Result<Text<'a>, String> {
        let mut found = self.take();
        found.set(text, words)?;
        let text = self.text(text, Metadata::default());
        text.spacy.set(found).map_err(|_| "the words are known already")?;
        Ok(text)
    }

    fn take(&self) -> Words {
        self.words.borrow_mut().pop().unwrap_or_default()
    }
}

impl<'a> Text<'a> {
    /// A text on its own, for tests and single questions; many texts share a [`Scratch`].
    pub fn new(text: &'a str) -> Text<'a> {
        Text::with(text, Metadata::default(), None)
    }

    fn with(text: &'a str, metadata: Metadata<'a>, scratch: Option<&'a Scratch>) -> Text<'a> {
        Text {
            text,
            metadata,
            scratch,
            n_chars: OnceCell::new(),
            spacy: OnceCell::new(),
            uax29: OnceCell::new(),
            between_spaces: OnceCell::new(),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Its metadata, such as `url` and `language`.
    pub fn metadata(&self) -> Metadata<'a> {
        self.metadata
    }

    /// Unicode characters.
    pub fn n_chars(&self) -> u64 {
        *self.n_chars.get_or_init(|| self.text.chars().count() as u64)
    }

    /// The words as datatrove's rules see them.
    pub fn words(&self) -> &Words {
        self.words_by(Split::Spacy)
    }

    /// The words of a split.
    pub fn words_by(&self, split: Split) -> &Words {
        let cell = match split {
            Split::Spacy => &self.spacy,
            Split::Uax29 => &self.uax29,
            Split::Whitespace => &self.between_spaces,
        };
        cell.get_or_init(|| {
            let mut words = self.scratch.map(Scratch::take).unwrap_or_default();
            match split {
                Split::Spacy => words.split_as_spacy(self.text),
                Split::Uax29 => words.split(self.text),
                Split::Whitespace => words.split_at_spaces(self.text),
            }
            words
        })
    }

    /// Tables to count in, with leftover contents.
    pub fn with_tables<T>(&self, count: impl FnOnce(&mut Tables) -> T) -> T {
        // A nested request for the tables gets new ones.
        match self.scratch.map(|scratch| scratch.tables.try_borrow_mut()) {
            Some(Ok(mut tables)) => count(&mut tables),
            _ => count(&mut Tables::default()),
        }
    }
}

impl Drop for Text<'_> {
    fn drop(&mut self) {
        let Some(scratch) = self.scratch else { return };
        scratch
            .words
            .borrow_mut()
            .extend([self.spacy.take(), self.uax29.take(), self.between_spaces.take()].into_iter().flatten());
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
