//! Tags from filters for the documents of a part: `tags.rows` with a bit for each tag, and `tags.json`
//! with their names. Neither exists if no document has one.

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::Names;

use super::names::PartNames;
use super::rows::{self, TagRow};
use super::{TAG_NAMES, TAGS};
use crate::error::{Error, Result};

/// Collects the tags of a part.
#[derive(Debug, Default)]
pub struct TagsWriter {
    names: PartNames,
    rows: Vec<TagRow>,
}

impl TagsWriter {
    /// Records the tags of a document; documents come in ascending order.
    ///
    /// # Errors
    /// All tags so far, if there are more than a data set can have.
    pub fn add(&mut self, row: u32, tags: &[String]) -> std::result::Result<(), Vec<String>> {
        let mut bits = 0u8;
        for tag in tags {
            let known = self.names.tags.iter().position(|name| name == tag);
            let number = known.unwrap_or(self.names.tags.len());
            if known.is_none() {
                self.names.tags.push(tag.clone());
            }
            if number >= Names::MAX_TAGS {
                return Err(self.names.tags.clone());
            }
            bits |= 1 << number;
        }
        if bits != 0 {
            self.rows.push(TagRow { row, bits });
        }
        Ok(())
    }

    /// Writes the tags into the folder of a task, if there are any.
    ///
    /// # Errors
    /// A write fails.
    pub fn write(&self, folder: &Path) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.names.write(&folder.join(TAG_NAMES))?;
        rows::write(&folder.join(TAGS), &self.rows)
    }
}

/// The tags that filters gave to the documents of a part.
#[derive(Debug, Default)]
pub struct Tags {
    names: PartNames,
    by_row: BTreeMap<u32, u8>,
}

impl Tags {
    /// Reads the tags from the folder of a task that wrote them.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn read(folder: &Path) -> Result<Tags> {
        let rows = rows::read::<TagRow>(&folder.join(TAGS))?;
        let by_row = rows.into_iter().map(|tag| (tag.row, tag.bits)).collect();
        Ok(Tags { names: PartNames::read(&folder.join(TAG_NAMES))?, by_row })
    }

    /// The tags of a document.
    pub fn of(&self, row: u32) -> impl Iterator<Item = &str> {
        self.names.tags_of(self.by_row.get(&row).copied().unwrap_or(0)).map(String::as_str)
    }
}

/// A data set has at most eight tags, those of its records and those of its filters together.
pub fn too_many_tags(source: &str, tags: &[String]) -> Error {
    Error::Usage(format!(
        "source `{source}`: more than {} tags in the data set (`{}`); give filters with `action = \"tag\"` one name with `tag = \"name\"`, or let `tags` name a field with fewer",
        Names::MAX_TAGS,
        tags.join("`, `")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_disk_and_a_ninth_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = TagsWriter::default();
        writer.write(dir.path()).unwrap();
        assert!(!dir.path().join(TAGS).exists());
        let tags = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        writer.add(3, &tags(&["b", "a"])).unwrap();
        writer.add(4, &[]).unwrap();
        writer.add(9, &tags(&["a"])).unwrap();
        writer.write(dir.path()).unwrap();
        let read = Tags::read(dir.path()).unwrap();
        assert_eq!(read.of(3).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!((read.of(4).count(), read.of(9).collect::<Vec<_>>()), (0, vec!["a"]));
        let six = tags(&["c", "d", "e", "f", "g", "h"]);
        writer.add(10, &six).unwrap();
        assert_eq!(writer.add(11, &tags(&["i"])).unwrap_err().len(), 9);
    }
}
