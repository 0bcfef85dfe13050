//! Which documents of the parts are in the data set: those left by deduplication, except those without any
//! tokens, and of several with the same family and variant, the one in the shards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::document::DocumentId;
use crate::error::{Error, Result};
use crate::tables::TOKEN_ROWS;
use crate::tables::documents;
use crate::tables::kept::{Kept, KeptReader};
use crate::tables::parts::{PartPlace, Parts};
use crate::tables::rows::{self, Table, TokenRow};
use crate::watch::Watch;

/// Metadata that any document has; the rest has no column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// A quality bucket.
    pub quality: bool,
    /// A language.
    pub language: bool,
    /// A score.
    pub score: bool,
    /// An address.
    pub url: bool,
    /// A date.
    pub date: bool,
    /// Fields that the recipe carries.
    pub kept: BTreeSet<String>,
}

impl Columns {
    fn see(&mut self, kept: &Kept<'_>) -> Result<()> {
        let metadata = &kept.document.metadata;
        for (name, _) in kept_fields(metadata.kept, kept.document.id)? {
            if !self.kept.contains(&name) {
                self.kept.insert(name);
            }
        }
        self.add(Columns {
            quality: kept.quality.is_some(),
            language: metadata.language.is_some(),
            score: metadata.score.or(kept.score).is_some(),
            url: metadata.url.is_some(),
            date: metadata.date.is_some(),
            kept: BTreeSet::new(),
        });
        Ok(())
    }

    fn add(&mut self, other: Columns) {
        self.quality |= other.quality;
        self.language |= other.language;
        self.score |= other.score;
        self.url |= other.url;
        self.date |= other.date;
        self.kept.extend(other.kept);
    }
}

/// The fields of a document that the recipe carries.
pub(super) fn kept_fields(kept: &str, id: &str) -> Result<Map<String, Value>> {
    if kept.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(kept).map_err(|e| {
        Error::Usage(format!("document `{id}` has damaged fields ({e}); run moe-data build --fresh"))
    })
}

/// A document whose family has another text of the same variant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duplicate {
    /// Number of its part.
    pub part: usize,
    /// Its row there.
    pub row: u32,
    /// Its name.
    pub id: String,
    /// Its id.
    pub document_id: DocumentId,
    /// Remaining bytes, as read.
    pub left_bytes: u32,
}

/// The documents of a data set.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// For each part the survivors of deduplication that are not in the data set, ascending.
    left_out: Vec<Vec<u32>>,
    /// Those represented by another document of their family, by part and row.
    pub duplicates: Vec<Duplicate>,
    /// What any document says.
    pub columns: Columns,
    /// Documents of each source.
    pub n_docs: BTreeMap<String, u64>,
}

impl Selection {
    /// Finds the documents. `watch` is moved by the bytes of all parts' documents, as read.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`], or a table is missing or damaged.
    pub fn of(work: &Path, parts: &Parts, watch: &Watch) -> Result<Selection> {
        let mut selection =
            Selection { left_out: vec![Vec::new(); parts.parts.len()], ..Selection::default() };
        for source in parts.sources() {
            let numbers: Vec<usize> =
                (0..parts.parts.len()).filter(|number| parts.parts[*number].source == source).collect();
            selection.add_source(work, parts, &numbers, watch)?;
            let n_docs = numbers.iter().map(|number| Ok(selection.rows(work, parts, *number)?.len() as u64));
            selection.n_docs.insert(source.to_owned(), n_docs.sum::<Result<u64>>()?);
        }
        Ok(selection)
    }

    /// Rows of a part's documents in the data set.
    ///
    /// # Errors
    /// A table is missing or damaged.
    pub fn rows(&self, work: &Path, parts: &Parts, number: usize) -> Result<Vec<u32>> {
        let part = &parts.parts[number];
        let survivors = rows::survivors(&work.join(&part.kept), &work.join(&part.removed))?;
        let left_out = &self.left_out[number];
        let rows = survivors.into_iter().map(|kept| kept.row);
        Ok(rows.filter(|row| left_out.binary_search(row).is_err()).collect())
    }

    fn add_source(&mut self, work: &Path, parts: &Parts, numbers: &[usize], watch: &Watch) -> Result<()> {
        let untokenized = numbers.par_iter().map(|number| self.untokenized(work, parts, *number));
        for (number, rows) in numbers.iter().zip(untokenized.collect::<Result<Vec<_>>>()?) {
            self.left_out[*number] = rows;
        }
        let seen = numbers.par_iter().map(|number| {
            let (mut slots, mut columns) = (Vec::new(), Columns::default());
            let part = &parts.parts[*number];
            let rows = self.rows(work, parts, *number)?;
            reader(work, parts, part, documents::Columns::Ids, rows)?.for_each(|kept| {
                slots.push(slot(&kept));
                columns.see(&kept)?;
                watch.advance_by_document(u64::from(kept.document.raw_bytes))
            })?;
            Ok((slots, columns))
        });
        let mut slots = Vec::new();
        for (of_part, columns) in seen.collect::<Result<Vec<(Vec<u64>, Columns)>>>()? {
            slots.extend(of_part);
            self.columns.add(columns);
        }
        slots.par_sort_unstable();
        let mut repeated: Vec<u64> =
            slots.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated.dedup();
        if repeated.is_empty() {
            return Ok(());
        }
        let rivals = numbers.par_iter().map(|number| {
            let rows = self.rows(work, parts, *number)?;
            let mut rivals = Vec::new();
            reader(work, parts, &parts.parts[*number], documents::Columns::All, rows)?.for_each(|kept| {
                if repeated.binary_search(&slot(&kept)).is_ok() {
                    let duplicate = Duplicate {
                        part: *number,
                        row: kept.row,
                        id: kept.document.id.to_owned(),
                        document_id: kept.document.document_id,
                        left_bytes: kept.left_bytes(),
                    };
                    rivals.push((place(&kept), duplicate));
                }
                Ok(())
            })?;
            Ok(rivals)
        });
        let mut rivals = rivals.collect::<Result<Vec<_>>>()?.concat();
        rivals.sort_unstable();
        let mut duplicates: Vec<Duplicate> = (rivals.windows(2))
            .filter(|pair| (pair[0].0.variant, pair[0].0.family) == (pair[1].0.variant, pair[1].0.family))
            .map(|pair| pair[1].1.clone())
            .collect();
        duplicates.sort_unstable();
        for duplicate in &duplicates {
            self.left_out[duplicate.part].push(duplicate.row);
        }
        numbers.iter().for_each(|number| self.left_out[*number].sort_unstable());
        self.duplicates.extend(duplicates);
        Ok(())
    }

    /// Survivors that have no tokens.
    fn untokenized(&self, work: &Path, parts: &Parts, number: usize) -> Result<Vec<u32>> {
        let part = &parts.parts[number];
        let survivors = self.rows(work, parts, number)?;
        let Some(tokens) = &part.tokens else { return Ok(Vec::new()) };
        let table = Table::<TokenRow>::open(&work.join(tokens).join(TOKEN_ROWS))?;
        if table.len() == survivors.len() as u64 {
            return Ok(Vec::new());
        }
        let mut tokenized: Vec<Place> = table.read(0, table.len())?.iter().map(Place::of_row).collect();
        tokenized.sort_unstable();
        let mut rows = Vec::new();
        reader(work, parts, part, documents::Columns::All, survivors)?.for_each(|kept| {
            if tokenized.binary_search(&place(&kept)).is_err() {
                rows.push(kept.row);
            }
            Ok(())
        })?;
        Ok(rows)
    }
}

fn reader(
    work: &Path,
    parts: &Parts,
    part: &PartPlace,
    columns: documents::Columns,
    rows: Vec<u32>,
) -> Result<KeptReader> {
    KeptReader::open(work, part, &parts.quality_edges, columns, rows)
}

/// A number shared by documents with the same family and variant.
fn slot(kept: &Kept<'_>) -> u64 {
    kept.document.family.0.rotate_left(u32::from(kept.document.variant))
}

/// What puts a document among those of its source, as in the table of tokens: the first of one variant and family is
/// the one in the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    variant: u8,
    family: u64,
    document_id: u64,
    text_hash: u128,
    left_bytes: u32,
    metadata_hash: u64,
}

impl Place {
    fn of_row(row: &TokenRow) -> Place {
        let TokenRow { variant, family, document_id, text_hash, raw_bytes, metadata_hash, .. } = *row;
        Place { variant, family, document_id, text_hash, left_bytes: raw_bytes, metadata_hash }
    }
}

fn place(kept: &Kept<'_>) -> Place {
    let document = &kept.document;
    Place {
        variant: document.variant,
        family: document.family.0,
        document_id: document.document_id.0,
        text_hash: document.text_hash.0,
        left_bytes: kept.left_bytes(),
        metadata_hash: document.metadata.hash(),
    }
}
