//! Numbers for the languages and tags of a part, in the order of their first appearance. The rows
//! of a part hold numbers; the shard renumbers them over all its parts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use moe_shards::{Names, atomic};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json;

/// The names of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartNames {
    /// Languages; number `i` is `i + 1` in a row, where 0 is unknown.
    pub languages: Vec<String>,
    /// Tags; number `i` is bit `i` in a row.
    pub tags: Vec<String>,
}

impl PartNames {
    /// Reads the names of a part.
    ///
    /// # Errors
    /// They are missing or damaged.
    pub fn read(path: &Path) -> Result<PartNames> {
        let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
        let damaged = |e: serde_json::Error| Error::data(path, format!("{e}; delete its folder and rerun"));
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// Writes them.
    ///
    /// # Errors
    /// A write fails.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(atomic::write_file(path, &json::canonical(self))?)
    }

    /// Name of a row's language.
    pub fn language(&self, number: u16) -> Option<&String> {
        self.languages.get(usize::from(number).checked_sub(1)?)
    }

    /// Names of a row's tags.
    pub fn tags_of(&self, bits: u8) -> impl Iterator<Item = &String> {
        self.tags
            .iter()
            .take(Names::MAX_TAGS)
            .enumerate()
            .filter(move |(i, _)| bits & (1 << i) != 0)
            .map(|(_, tag)| tag)
    }
}

/// Numbers names as they come.
#[derive(Debug, Default)]
pub struct Numbering {
    numbers: BTreeMap<String, usize>,
    names: Vec<String>,
}

impl Numbering {
    /// The number of a name, from 0.
    pub fn number(&mut self, name: &str) -> usize {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len();
        self.numbers.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        number
    }

    /// All names, in the order of their numbers.
    pub fn into_names(self) -> Vec<String> {
        self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_first_appearance() {
        let mut numbering = Numbering::default();
        let numbers = ["de", "en", "de", "cs"].map(|name| numbering.number(name));
        assert_eq!(numbers, [0, 1, 0, 2]);
        let names = PartNames { languages: numbering.into_names(), tags: vec!["b".into(), "a".into()] };
        assert_eq!(
            (names.language(0), names.language(2).unwrap().as_str(), names.language(4)),
            (None, "en", None)
        );
        assert_eq!(names.tags_of(0b11).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(names.tags_of(0b10).collect::<Vec<_>>(), ["a"]);
        let dir = tempfile::tempdir().unwrap();
        names.write(&dir.path().join("n")).unwrap();
        assert_eq!(PartNames::read(&dir.path().join("n")).unwrap(), names);
    }
}
