//! Stage 6: one shard, from all parts of a source: the documents of one variant whose families
//! start with the same bits, in the order of the families. If several documents are the same
//! variant of one family, the one with the lowest id is kept.
//!
//! Writes the shard and its table of texts, unless it would be empty.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use moe_shards::{DocumentMeta, FamilyId, Hash, Names, ShardSpec, ShardWriter, TokenId};
use serde::{Deserialize, Serialize};

use super::gather::{self, Block};
use super::inputs::inputs;
use super::{Report, Stage};
use crate::document::{Count, DocumentId, TextHash};
use crate::error::Result;
use crate::tables::audit::{Drop, Drops};
use crate::tables::names::PartNames;
use crate::tables::rows::{Blob, Table, TokenRow};
use crate::tables::scores;
use crate::tables::texts::{self, TextsWriter};
use crate::tables::{DROPS, NAMES, STORED, TOKEN_ROWS, flagged};
use crate::watch::Watch;

/// Reason for a second document with the family and variant of another.
pub const REASON: &str = "duplicate_variant";

/// What belongs in the shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardParams {
    /// File stem.
    pub name: String,
    /// Name of the source.
    pub source: String,
    /// Its position in the manifest, for the report; the files do not depend on it.
    pub source_index: u16,
    /// Variant.
    pub variant: u8,
    /// Number of leading bits of the family that choose the shard.
    pub prefix_bits: u32,
    /// Those bits.
    pub prefix: u64,
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// End of document.
    pub eod: TokenId,
    /// Digest of the tokenizer.
    pub tokenizer: Hash,
    /// Digest of what the recipe says of the source.
    pub build: Hash,
    /// Edges of the buckets of scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quality_edges: Vec<f64>,
    /// Whether the tokens carry a training mask, as those of conversations do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

inputs! {
    /// What a shard is made from.
    pub struct ShardInputs {
        /// The folders of the source's tokenized parts.
        parts: Vec<PathBuf>,
    }
}

impl Stage for ShardParams {
    const NAME: &'static str = "shard";
    type Inputs = ShardInputs;

    /// # Errors
    /// A part is damaged or a write fails.
    fn run(&self, inputs: &ShardInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let mut rows = Vec::new();
        for (part, folder) in inputs.parts.iter().enumerate() {
            let table = Table::<TokenRow>::open(&folder.join(TOKEN_ROWS))?;
            let (first, last) = family_range(self.prefix_bits, self.prefix);
            let start = table.bisect(|row| (row.variant, row.family) < (self.variant, first))?;
            let end = table.bisect(|row| (row.variant, row.family) <= (self.variant, last))?;
            rows.extend(table.read(start, end)?.into_iter().map(|row| (row, part)));
        }
        rows.sort_unstable();

        let mut report = Report::default();
        if rows.is_empty() {
            return Ok(report);
        }
        let spec = ShardSpec {
            vocab_size: self.vocab_size,
            eod: self.eod,
            tokenizer: self.tokenizer,
            build: self.build,
        };
        let numbers = Numbers::new(&inputs.parts, &rows)?;
        let mut writer = ShardWriter::create(folder, &self.name, spec)?.with_names(numbers.names.clone());
        if self.masked {
            writer = writer.with_mask();
        }
        let mut drops = Drops::default();
        let mut texts = TextsWriter::create(&folder.join(texts::file_name(&self.name)))?;
        let mut stored = Vec::new();
        let mut last_family = None;
        for rows in gather::blocks(&rows) {
            let block = Block::read(&inputs.parts, rows)?;
            for (row, part, id, tokens) in block.documents() {
                let count = Count::one(u64::from(row.raw_bytes));
                if last_family == Some(row.family) {
                    *report.dropped.entry(REASON.to_owned()).or_default() += count;
                    drops.push(&Drop {
                        id,
                        document_id: DocumentId(row.document_id),
                        source: &self.source,
                        stage: "shard",
                        reason: REASON,
                        measured: f64::NAN,
                        threshold: f64::NAN,
                        raw_bytes: count.bytes,
                    });
                } else {
                    let meta = DocumentMeta {
                        family: FamilyId(row.family),
                        variant: self.variant,
                        source: self.source_index,
                        n_bytes: row.raw_bytes,
                        quality: quality(row, &self.quality_edges),
                        language: numbers.language(part, row),
                        tags: numbers.tags(part, row),
                        style: 0,
                    };
                    match self.masked {
                        false => writer.append(id, &meta, tokens)?,
                        true => {
                            let (tokens, trained) = flagged::unpack(tokens);
                            writer.append_masked(id, &meta, &tokens, &trained)?;
                        }
                    }
                    stored.resize(row.stored_bytes as usize, 0);
                    if !stored.is_empty() {
                        Blob::open(&inputs.parts[part].join(STORED))?
                            .read_at(row.stored_start, &mut stored)?;
                    }
                    let stored = (!stored.is_empty()).then_some((row.text_bytes, &stored[..]));
                    texts.append(TextHash(row.text_hash), stored)?;
                    report.kept += count;
                    last_family = Some(row.family);
                }
                watch.advance_by_document(u64::from(row.n_tokens))?;
            }
        }
        drops.write(&folder.join(DROPS))?;
        let info = writer.finish()?;
        texts.finish(info.bin_blake3)?;
        report.shard = Some(info);
        Ok(report)
    }
}

/// The quality of the record, or else the bucket of the score.
fn quality(row: &TokenRow, edges: &[f64]) -> Option<u8> {
    let of_record = row.quality.checked_sub(1).and_then(|bucket| u8::try_from(bucket).ok());
    let of_score = || {
        let score = scores::from_bits(row.score)?;
        u8::try_from(edges.partition_point(|edge| *edge <= score)).ok()
    };
    of_record.or_else(of_score)
}

/// From the numbers of the parts to those of the shard.
struct Numbers {
    parts: Vec<PartNames>,
    names: Names,
}

impl Numbers {
    /// Of the kept documents, the first of each family.
    fn new(folders: &[PathBuf], rows: &[(TokenRow, usize)]) -> Result<Numbers> {
        let parts: Vec<PartNames> =
            folders.iter().map(|folder| PartNames::read(&folder.join(NAMES))).collect::<Result<_>>()?;
        let (mut languages, mut tags) = (BTreeSet::new(), BTreeSet::new());
        let mut last_family = None;
        for (row, part) in rows {
            if last_family.replace(row.family) != Some(row.family) {
                languages.extend(parts[*part].language(row.language).cloned());
                tags.extend(parts[*part].tags_of(row.tags).cloned());
            }
        }
        Ok(Numbers { parts, names: Names::new(languages, tags)? })
    }

    fn language(&self, part: usize, row: &TokenRow) -> u16 {
        let name = self.parts[part].language(row.language);
        name.and_then(|name| self.names.language_code(name)).unwrap_or(0)
    }

    fn tags(&self, part: usize, row: &TokenRow) -> u8 {
        self.parts[part].tags_of(row.tags).filter_map(|tag| self.names.tag_mask(tag)).fold(0, |a, b| a | b)
    }
}

/// First and last family whose first `bits` bits are `prefix`.
fn family_range(bits: u32, prefix: u64) -> (u64, u64) {
    let free = u64::BITS - bits;
    let first = prefix.checked_shl(free).unwrap_or(0);
    (first, first | u64::MAX.checked_shr(bits).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cut_the_families_without_gap() {
        assert_eq!(family_range(0, 0), (0, u64::MAX));
        assert_eq!(family_range(1, 0), (0, u64::MAX >> 1));
        assert_eq!(family_range(1, 1), (1 << 63, u64::MAX));
        for prefix in 1..16 {
            assert_eq!(family_range(4, prefix - 1).1 + 1, family_range(4, prefix).0);
        }
        assert_eq!(family_range(4, 15).1, u64::MAX);
    }
}
