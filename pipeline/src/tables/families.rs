//! Families and variants that deduplication assigns to documents of a part (`action = "family"`), instead of those of their
//! records. Lists are named by their content, so parts in which nothing changes keep their later work.

use std::path::{Path, PathBuf};

use moe_shards::{FamilyId, Hash, atomic};

use super::documents::Document;
use super::rows::{self, FamilyRow, Row};
use crate::error::Result;

/// The list of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Families(Vec<FamilyRow>);

impl Families {
    /// Writes a list of ascending rows, and returns its place in `work`.
    ///
    /// # Errors
    /// A write fails.
    pub fn write(work: &Path, rows: &[FamilyRow]) -> Result<PathBuf> {
        let mut bytes = Vec::with_capacity(rows.len() * FamilyRow::BYTES);
        rows.iter().for_each(|row| row.put(&mut bytes));
        let place = Path::new("families").join(format!("{}.rows", &Hash::of(&bytes).to_string()[..24]));
        atomic::write_file(&work.join(&place), &bytes)?;
        Ok(place)
    }

    /// Reads a list.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn read(path: &Path) -> Result<Families> {
        Ok(Families(rows::read(path)?))
    }

    /// The document with its assigned family and variant, if any.
    pub fn place<'a>(&self, row: u32, document: Document<'a>) -> Document<'a> {
        match self.0.binary_search_by_key(&row, |given| given.row) {
            Ok(i) => Document { family: FamilyId(self.0[i].family), variant: self.0[i].variant, ..document },
            Err(_) => document,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{DocumentId, Metadata, TextHash};

    #[test]
    fn only_listed_documents_change() {
        let dir = tempfile::tempdir().unwrap();
        let list = [FamilyRow { row: 3, family: 8, variant: 2 }, FamilyRow { row: 9, family: 8, variant: 1 }];
        let place = Families::write(dir.path(), &list).unwrap();
        let families = Families::read(&dir.path().join(place)).unwrap();
        let document = Document {
            id: "a",
            document_id: DocumentId(1),
            family: FamilyId(5),
            variant: 0,
            raw_bytes: 1,
            text_hash: TextHash(0),
            metadata: Metadata::default(),
            text: "a",
        };
        assert_eq!(families.place(2, document), document);
        let found = families.place(9, document);
        assert_eq!((found.family, found.variant, found.id), (FamilyId(8), 1, "a"));
    }
}
