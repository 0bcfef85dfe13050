//! Documents that a build kept, after all rules and cuts: with the family from deduplication, the quality
//! from their score, the tags from filters, and the rest of their text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::path::Path;
use std::vec::IntoIter;

use super::cuts::{Cuts, DocumentCuts};
use super::documents::{Columns, Document, DocumentBatches};
use super::families::Families;
use super::parts::PartPlace;
use super::scores;
use super::tags::Tags;
use crate::error::Result;

/// A document of a part.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// Its row in the part.
    pub row: u32,
    /// The document with its family; its text is from before cuts.
    pub document: Document<'a>,
    /// What is cut from it.
    pub cuts: DocumentCuts<'a>,
    /// Its quality, from the record or the score.
    pub quality: Option<u8>,
    /// The classifier's score that decides the quality, if there is one.
    pub score: Option<f64>,
    filter_tags: &'a Tags,
}

impl<'a> Kept<'a> {
    /// What is left of the text.
    ///
    /// # Errors
    /// The list of cuts is damaged.
    pub fn text(&self) -> Result<Cow<'a, str>> {
        self.cuts.apply(self.document.text)
    }

    /// Bytes as read that are left of the text.
    pub fn left_bytes(&self) -> u32 {
        let Document { raw_bytes, text, .. } = self.document;
        let cut: u64 = self.cuts.raw_bytes(raw_bytes, text.len()).values().sum();
        // Cuts are a share of the document.
        raw_bytes - cut as u32
    }

    /// Tags of its record and of filters, sorted, each once.
    pub fn tags(&self) -> Vec<&'a str> {
        let mut tags: Vec<&str> =
            self.document.metadata.tags().chain(self.filter_tags.of(self.row)).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }
}

/// Reads kept documents of a part.
pub struct KeptReader {
    batches: DocumentBatches,
    cuts: Cuts,
    families: Families,
    scores: BTreeMap<u32, u32>,
    edges: Vec<f64>,
    tags: Tags,
    rows: Peekable<IntoIter<u32>>,
}

impl KeptReader {
    /// Opens a part, to read the documents of these ascending rows. `edges` are those of the quality buckets of scores.
    ///
    /// # Errors
    /// A table is missing or damaged.
    pub fn open(
        work: &Path,
        part: &PartPlace,
        edges: &[f64],
        columns: Columns,
        rows: Vec<u32>,
    ) -> Result<KeptReader> {
        let first_row = rows.first().copied().unwrap_or(0);
        Ok(KeptReader {
            batches: DocumentBatches::open_at(&work.join(&part.documents), columns, first_row)?,
            cuts: Cuts::read(&work.join(&part.cuts))?,
            families: Families::read(&work.join(&part.families))?,
            scores: match &part.scores {
                Some(scores) => scores::read(&work.join(scores))?,
                None => BTreeMap::new(),
            },
            edges: edges.to_vec(),
            tags: part
                .tags
                .as_ref()
                .map_or_else(|| Ok(Tags::default()), |tags| Tags::read(&work.join(tags)))?,
            rows: rows.into_iter().peekable(),
        })
    }

    /// Calls `see` with the wanted documents of the next batch; false when none is left.
    ///
    /// # Errors
    /// The part is damaged; what `see` returns.
    pub fn next_batch(&mut self, see: &mut dyn FnMut(Kept<'_>) -> Result<()>) -> Result<bool> {
        if self.rows.peek().is_none() {
            return Ok(false);
        }
        let Some(batch) = self.batches.next() else { return Ok(false) };
        for (row, document) in batch?.documents() {
            if self.rows.next_if_eq(&row).is_none() {
                continue;
            }
            let document = self.families.place(row, document);
            let score = self.scores.get(&row).and_then(|bits| scores::from_bits(*bits));
            let of_score = || {
                let score = score?;
                u8::try_from(self.edges.partition_point(|edge| *edge <= score)).ok()
            };
            let quality = document.metadata.quality.or_else(of_score);
            see(Kept { row, document, cuts: self.cuts.of(row), quality, score, filter_tags: &self.tags })?;
        }
        Ok(true)
    }

    /// Calls `see` with all wanted documents.
    ///
    /// # Errors
    /// As [`KeptReader::next_batch`].
    pub fn for_each(mut self, mut see: impl FnMut(Kept<'_>) -> Result<()>) -> Result<()> {
        while self.next_batch(&mut see)? {}
        Ok(())
    }
}
