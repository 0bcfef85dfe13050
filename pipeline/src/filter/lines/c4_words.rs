//! C4 drops pages with any word of a list (Raffel et al. 2020, section 2.2), as datatrove's `C4BadWordsFilter` does. The
//! list is the user's; we include none.

use std::sync::Arc;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::super::lists::{self, Cache, List};
use super::super::{Built, Filter, Limit, Rule, Settings, Text, decode};
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// Settings of `c4_words`.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct C4Words {
        /// Lists of words or phrases, one per line.
        pub lists: Vec<String>,
        /// A word counts only between characters that are neither letters nor digits; `false` for languages
        /// written without spaces, such as Japanese, Thai and Chinese.
        pub whole_words: bool,
        /// Most words of the list that a document may have.
        pub max_words: u64,
    }
}

/// Keys of `c4_words` that are thresholds.
pub const THRESHOLDS: &[&str] = &["max_words"];

/// Keys of `c4_words` that name files.
pub const FILES: &[&str] = &["lists"];

impl Default for C4Words {
    fn default() -> C4Words {
        C4Words { lists: Vec::new(), whole_words: true, max_words: 0 }
    }
}

impl Section for C4Words {
    fn docs() -> Docs {
        C4Words::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        match self.lists.is_empty() {
            true => vec![("lists", "is missing; name text files with one word a line".to_owned())],
            false => Vec::new(),
        }
    }
}

/// The rule with its list.
struct Words {
    words: Arc<AhoCorasick>,
    whole_words: bool,
    max_words: u64,
}

/// Builds the rule.
///
/// # Errors
/// A list that cannot be read or holds no word.
pub fn build(settings: &Settings) -> Built {
    static CACHE: Cache<AhoCorasick> = Cache::new();
    let C4Words { lists, whole_words, max_words } = decode(settings)?;
    let words = CACHE.get(lists::key_of(&lists), || {
        let list = List::read(&lists, str::to_lowercase)?;
        if list.is_empty() {
            return Err(format!("{}: holds no word", lists.join(", ")));
        }
        AhoCorasick::new(list.iter()).map_err(|e| format!("{}: {e}", lists.join(", ")))
    })?;
    Ok(Rule::Filter(Box::new(Words { words, whole_words, max_words })))
}

impl Filter for Words {
    fn limits(&self) -> Vec<Limit> {
        vec![Limit::most("c4_words", self.max_words as f64)]
    }

    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        let text = text.as_str().to_lowercase();
        let is_word = |c: char| {
            let group = c.general_category_group();
            c == '_' || matches!(group, GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number)
        };
        let n = self.words.find_overlapping_iter(&text).filter(|hit| {
            let before = text[..hit.start()].chars().next_back();
            let after = text[hit.end()..].chars().next();
            !self.whole_words || !(before.is_some_and(is_word) || after.is_some_and(is_word))
        });
        values.push(n.count() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(whole_words: bool, text: &str, expected: f64) {
        let words = Arc::new(AhoCorasick::new(["bad", "very bad", "übel"]).unwrap());
        let mut values = Vec::new();
        Words { words, whole_words, max_words: 0 }.measure(&Text::new(text), &mut values);
        assert_eq!(values, [expected], "{text}");
    }

    #[test]
    fn words_count_as_wholes() {
        check(true, "Bad! badge, not_bad, ÜBEL", 2.0);
        check(true, "very bad", 2.0);
        check(true, "badly übelst", 0.0);
        check(false, "badly übelst", 2.0);
    }

    #[test]
    fn a_list_is_needed() {
        assert_eq!(C4Words::default().check()[0].0, "lists");
    }
}
