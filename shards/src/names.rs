//! The names of the languages and tags of a shard. Records hold numbers; the names are stored once in
//! the shard's `names` section, so that a shard is self-contained and does not change when another
//! part of the data set brings a new language.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Sorted names of languages and tags, without repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    languages: Vec<String>,
    tags: Vec<String>,
}

impl Names {
    /// Maximum tags: a record has one bit for each.
    pub const MAX_TAGS: usize = 8;
    /// Maximum languages: a record has their number, from 1, in 16 bits.
    pub const MAX_LANGUAGES: usize = u16::MAX as usize;

    /// The names in use.
    ///
    /// # Errors
    /// [`Error::Names`]: more than [`Names::MAX_TAGS`] tags or [`Names::MAX_LANGUAGES`] languages.
    pub fn new(languages: BTreeSet<String>, tags: BTreeSet<String>) -> Result<Names> {
        let names = Names { languages: languages.into_iter().collect(), tags: tags.into_iter().collect() };
        names.check().map_err(Error::Names)?;
        Ok(names)
    }

    /// Languages; number `i` is `i + 1` in a record.
    pub fn languages(&self) -> &[String] {
        &self.languages
    }

    /// Tags; number `i` is bit `i` in a record.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// The name of a record's language; `None` for 0, which is unknown, and for a number past the end.
    pub fn language(&self, code: u16) -> Option<&str> {
        self.languages.get(usize::from(code).checked_sub(1)?).map(String::as_str)
    }

    /// The number of this language in records; `None` if no document has it.
    pub fn language_code(&self, name: &str) -> Option<u16> {
        let at = self.languages.binary_search_by(|other| other.as_str().cmp(name)).ok()?;
        // At most `MAX_LANGUAGES`, as `check` ensures.
        Some(at as u16 + 1)
    }

    /// The bit of this tag in records, as a mask; `None` if no document has it.
    pub fn tag_mask(&self, name: &str) -> Option<u8> {
        let at = self.tags.binary_search_by(|other| other.as_str().cmp(name)).ok()?;
        Some(1 << at)
    }

    /// Names of the bits that are set, sorted.
    pub fn tags_of(&self, bits: u8) -> impl Iterator<Item = &str> {
        let is_set = move |i: usize| bits & (1 << i) != 0;
        self.tags.iter().enumerate().filter(move |(i, _)| is_set(*i)).map(|(_, name)| name.as_str())
    }

    /// The section's bytes: JSON without spaces.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Lists of strings always become JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Names> {
        let bad = |found: String| Error::format(path, "names section", "sorted names as JSON", found);
        let names: Names = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        names.check().map_err(bad)?;
        Ok(names)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.tags.len() > Names::MAX_TAGS {
            let all = self.tags.join("`, `");
            return Err(format!(
                "{} tags, at most {} are supported: `{all}`",
                self.tags.len(),
                Names::MAX_TAGS
            ));
        }
        if self.languages.len() > Names::MAX_LANGUAGES {
            let n = self.languages.len();
            return Err(format!("{n} languages, at most {} are supported", Names::MAX_LANGUAGES));
        }
        let unsorted = |names: &[String]| names.windows(2).any(|pair| pair[0] >= pair[1]);
        match unsorted(&self.languages) || unsorted(&self.tags) {
            true => Err("names out of order".to_owned()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn numbers_follow_the_sorted_names() {
        let names = Names::new(set(&["fr", "de", "eng-Latn"]), set(&["news", "faq"])).unwrap();
        assert_eq!(names.languages(), ["de", "eng-Latn", "fr"]);
        assert_eq!(names.language_code("eng-Latn"), Some(2));
        assert_eq!((names.language(2), names.language(0), names.language(4)), (Some("eng-Latn"), None, None));
        assert_eq!(
            (names.tag_mask("faq"), names.tag_mask("news"), names.tag_mask("x")),
            (Some(1), Some(2), None)
        );
        assert_eq!(names.tags_of(0b10).collect::<Vec<_>>(), ["news"]);
        assert_eq!(names.tags_of(0b11).collect::<Vec<_>>(), ["faq", "news"]);
        assert_eq!(Names::parse(Path::new("x"), &names.to_bytes()).unwrap(), names);
    }

    #[test]
    fn too_many_and_unsorted_names_are_refused() {
        let nine: Vec<String> = (0..9).map(|i| format!("t{i}")).collect();
        let error = Names::new(BTreeSet::new(), nine.into_iter().collect()).unwrap_err().to_string();
        assert!(error.contains("9 tags, at most 8 are supported: `t0`"), "{error}");
        for bad in [
            r#"{"languages":["b","a"],"tags":[]}"#,
            r#"{"languages":[],"tags":["a","a"]}"#,
            r#"{"languages":[]}"#,
            r#"{"languages":[],"tags":[],"x":1}"#,
            "",
        ] {
            let error = Names::parse(Path::new("s.mdx"), bad.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("s.mdx: names section: "), "{error}");
        }
    }
}
