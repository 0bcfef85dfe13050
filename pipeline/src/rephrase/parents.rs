//! The documents to rephrase: originals that a finished build kept, with their text after all cuts.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use moe_shards::FamilyId;

use crate::document::{DocumentId, OwnedMetadata, TextHash};
use crate::error::{Error, Result};
use crate::tables::documents::Columns;
use crate::tables::kept::{Kept, KeptReader};
use crate::tables::parts::{PartPlace, Parts};
use crate::tables::rows;

/// An original with its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    /// Its source.
    pub source: String,
    /// Its name there.
    pub id: String,
    /// Its id.
    pub document_id: DocumentId,
    /// Its family.
    pub family: FamilyId,
    /// Hash of `text`: a later build uses a variant only if this is unchanged.
    pub text_hash: TextHash,
    /// Its metadata.
    pub metadata: OwnedMetadata,
    /// The text after all cuts.
    pub text: String,
}

/// Position of a document in a build. Order is the order of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the part.
    pub part: u32,
    /// Row in it.
    pub row: u32,
}

/// The parts of a build that hold originals.
pub struct Originals {
    work: PathBuf,
    parts: Vec<PartPlace>,
    /// Edges of the quality buckets of scores.
    edges: Vec<f64>,
}

impl Originals {
    /// Opens the folder of a build.
    ///
    /// # Errors
    /// It is not a build, or its work folder was deleted.
    pub fn open(out: &Path) -> Result<Originals> {
        let work = out.join("work");
        if !work.join(crate::tables::parts::FILE).exists() || !out.join(moe_shards::Manifest::FILE).exists() {
            let message = "is not a finished build with its work folder; run moe-data build first (texts are taken from the work folder)";
            return Err(Error::Usage(format!("{} {message}", out.display())));
        }
        let Parts { parts, quality_edges, .. } = Parts::read(&work)?;
        let parts = parts.into_iter().filter(|part| !part.is_rephrased).collect();
        Ok(Originals { work, parts, edges: quality_edges })
    }

    /// Names of the sources, each once, sorted.
    pub fn sources(&self) -> Vec<String> {
        let mut names: Vec<String> = self.parts.iter().map(|part| part.source.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Calls `see` with every original that was kept, in the order of reading.
    ///
    /// # Errors
    /// A table is missing or damaged; what `see` returns.
    pub fn for_each(&self, mut see: impl FnMut(Place, Parent) -> Result<()>) -> Result<()> {
        for (number, part) in self.parts.iter().enumerate() {
            let mut reader = PartReader::open(self, part)?;
            let mut found = VecDeque::new();
            while reader.next_batch(part, None, &mut found)? {
                for (row, parent) in found.drain(..) {
                    see(Place { part: number as u32, row }, parent)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the documents at these places, which are sorted, one after another.
    pub fn at<'a>(&'a self, places: &'a [Place]) -> ParentsAt<'a> {
        ParentsAt { originals: self, places, reader: None, found: VecDeque::new() }
    }
}

/// Documents at places, in their order.
pub struct ParentsAt<'a> {
    originals: &'a Originals,
    places: &'a [Place],
    reader: Option<(u32, PartReader)>,
    found: VecDeque<(u32, Parent)>,
}

impl Iterator for ParentsAt<'_> {
    type Item = Result<Parent>;

    fn next(&mut self) -> Option<Result<Parent>> {
        let place = *self.places.first()?;
        self.places = &self.places[1..];
        Some(self.read(place))
    }
}

impl ParentsAt<'_> {
    fn read(&mut self, place: Place) -> Result<Parent> {
        let gone = || Error::data(&self.originals.work, "changed while it was read; run the command again");
        let part = self.originals.parts.get(place.part as usize).ok_or_else(gone)?;
        if self.reader.as_ref().is_none_or(|(number, _)| *number != place.part) {
            self.found.clear();
            self.reader = Some((place.part, PartReader::open(self.originals, part)?));
        }
        loop {
            // Only wanted rows are in the queue, and positions ascend.
            if let Some((row, parent)) = self.found.pop_front() {
                if row == place.row {
                    return Ok(parent);
                }
                continue;
            }
            let Some((_, reader)) = &mut self.reader else { return Err(gone()) };
            let wanted = |row: u32| {
                row == place.row || self.places.binary_search(&Place { part: place.part, row }).is_ok()
            };
            if !reader.next_batch(part, Some(&wanted), &mut self.found)? {
                return Err(gone());
            }
        }
    }
}

struct PartReader(KeptReader);

impl PartReader {
    fn open(originals: &Originals, part: &PartPlace) -> Result<PartReader> {
        let work = &originals.work;
        let survivors = rows::survivors(&work.join(&part.kept), &work.join(&part.removed))?;
        let survivors = survivors.into_iter().map(|row| row.row).collect();
        Ok(PartReader(KeptReader::open(work, part, &originals.edges, Columns::All, survivors)?))
    }

    /// Appends the originals of the next batch that are wanted; false at the end. Documents that deduplication moved to other
    /// families are no longer originals.
    fn next_batch(
        &mut self,
        part: &PartPlace,
        wanted: Option<&dyn Fn(u32) -> bool>,
        found: &mut VecDeque<(u32, Parent)>,
    ) -> Result<bool> {
        self.0.next_batch(&mut |kept| {
            let Kept { row, document, cuts, .. } = kept;
            if document.variant != 0 || wanted.is_some_and(|wanted| !wanted(row)) {
                return Ok(());
            }
            let text = kept.text()?.into_owned();
            let text_hash = if cuts.is_empty() { document.text_hash } else { TextHash::of(&text) };
            let metadata = &document.metadata;
            let parent = Parent {
                source: part.source.clone(),
                id: document.id.to_owned(),
                document_id: document.document_id,
                family: document.family,
                text_hash,
                metadata: OwnedMetadata {
                    quality: kept.quality,
                    language: metadata.language.map(str::to_owned),
                    tags: metadata.tags.to_owned(),
                    date: metadata.date.map(str::to_owned),
                    score: metadata.score,
                    url: metadata.url.map(str::to_owned),
                    kept: metadata.kept.to_owned(),
                    marks: metadata.marks.to_owned(),
                },
                text,
            };
            found.push_back((row, parent));
            Ok(())
        })
    }
}
