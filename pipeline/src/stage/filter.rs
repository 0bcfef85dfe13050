//! Stage 3: verdicts of the rules on the documents of a part, from their measurements, and the sorted keys
//! of the kept ones for deduplication. No text is read.
//!
//! Writes `kept.rows`, `keys.rows`,
//! `drops.parquet` when there is any drop, and `tags.rows` with `tags.json` when there is any tag.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::inputs::inputs;
use super::{Report, Stage};
use crate::document::Count;
use crate::error::{Error, Result};
use crate::filter::chain::Verdict;
use crate::filter::{Chain, FilterConfig};
use crate::tables::audit::{Drop, Drops};
use crate::tables::documents::{Columns, DocumentBatches};
use crate::tables::measures::Measures;
use crate::tables::rows::{self, KeptRow, KeyRow};
use crate::tables::tags::{TagsWriter, too_many_tags};
use crate::tables::{DROPS, KEPT, KEYS};
use crate::watch::Watch;

/// What to judge by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterParams {
    /// Name of the source.
    pub source: String,
    /// Its position in the recipe, which breaks ties between duplicates.
    pub source_index: u16,
    /// The filters that apply to the source, in order.
    pub filters: Vec<FilterConfig>,
}

inputs! {
    /// What is judged.
    pub struct FilterInputs {
        /// `documents.parquet`.
        documents: PathBuf,
        /// `measures.rows`, where there are rules.
        measures: Option<PathBuf>,
    }
}

impl Stage for FilterParams {
    const NAME: &'static str = "filter";
    type Inputs = FilterInputs;

    /// # Errors
    /// The part is damaged, there are too many tags, or a write fails.
    fn run(&self, inputs: &FilterInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let FilterInputs { documents, measures } = inputs;
        let chain = Chain::new(&self.filters).map_err(Error::Usage)?;
        let open = |path: &PathBuf| Measures::open(path).map(|measures| (path.clone(), measures));
        let mut measures = measures.as_ref().map(open).transpose()?;
        let mut report = Report::default();
        let (mut drops, mut tags) = (Drops::default(), TagsWriter::default());
        let (mut kept, mut keys) = (Vec::new(), Vec::new());
        for batch in DocumentBatches::open(documents, Columns::Ids)? {
            for (row, document) in batch?.documents() {
                let verdict = match &mut measures {
                    None => Verdict::default(),
                    Some((path, measures)) => {
                        let broken =
                            |message| Error::data(path, format!("{message}; delete its folder and rerun"));
                        chain.judge(measures.row(row)?).map_err(broken)?
                    }
                };
                // Where texts were rewritten, the documents hold the remaining bytes.
                let raw_bytes = u64::from(document.raw_bytes);
                match verdict.dropped {
                    Some(rejection) => {
                        let count =
                            Count::one(raw_bytes + verdict.cut.iter().map(|(_, bytes)| bytes).sum::<u64>());
                        *report.dropped.entry(rejection.reason.to_string()).or_default() += count;
                        drops.push(&Drop {
                            id: document.id,
                            document_id: document.document_id,
                            source: &self.source,
                            stage: "filter",
                            reason: &rejection.reason,
                            measured: rejection.measured,
                            threshold: rejection.threshold,
                            raw_bytes: count.bytes,
                        });
                    }
                    None => {
                        report.kept += Count::one(raw_bytes);
                        for (method, bytes) in verdict.cut {
                            *report.cut.entry(method.into_owned()).or_default() += Count::one(bytes);
                        }
                        tags.add(row, &verdict.tags).map_err(|tags| too_many_tags(&self.source, &tags))?;
                        report.tags.extend(verdict.tags);
                        let (document_id, raw_bytes) = (document.document_id.0, document.raw_bytes);
                        kept.push(KeptRow { row, document_id, raw_bytes });
                        keys.push(KeyRow {
                            key: document.text_hash.0,
                            source: self.source_index,
                            variant: document.variant,
                            document_id,
                            family: document.family.0,
                            raw_bytes,
                            metadata_hash: document.metadata.hash(),
                            row,
                        });
                    }
                }
                watch.advance_by_document(raw_bytes)?;
            }
        }
        keys.sort_unstable();
        rows::write(&folder.join(KEPT), &kept)?;
        rows::write(&folder.join(KEYS), &keys)?;
        drops.write(&folder.join(DROPS))?;
        tags.write(folder)?;
        Ok(report)
    }
}
