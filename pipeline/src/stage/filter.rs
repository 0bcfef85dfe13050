//! Stage 2: verdicts of the filters over the documents of a part, and the sorted keys of the kept
//! ones for deduplication.
//!
//! Input: `documents.parquet`. Writes `kept.rows`, `keys.rows`, and `drops.parquet` when there is any.

use serde::{Deserialize, Serialize};

use super::{Report, Task};
use crate::document::Count;
use crate::error::{Error, Result};
use crate::filter::{self, Text};
use crate::recipe::FilterConfig;
use crate::watch::Watch;
use crate::work::audit::{Drop, Drops};
use crate::work::documents::{Columns, DocumentBatches};
use crate::work::rows::{self, KeptRow, KeyRow};
use crate::work::{DROPS, KEPT, KEYS};

/// What to judge by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterParams {
    /// Name of the source.
    pub source: String,
    /// Its position in the recipe, which decides between duplicates.
    pub source_index: u16,
    /// The filters that apply to the source, in order.
    pub filters: Vec<FilterConfig>,
}

/// Runs the stage.
///
/// # Errors
/// The part is damaged or the disk refuses.
pub fn run(task: &Task, params: &FilterParams, watch: &Watch) -> Result<Report> {
    let documents = &task.inputs[0];
    let filters = params
        .filters
        .iter()
        .map(|config| filter::build_named(&config.name, &config.settings))
        .collect::<std::result::Result<Vec<_>, String>>()
        .map_err(Error::Usage)?;
    let mut report = Report::default();
    let mut drops = Drops::default();
    let (mut kept, mut keys) = (Vec::new(), Vec::new());
    // Without filters nobody asks for the text.
    let columns = if filters.is_empty() { Columns::Ids } else { Columns::All };
    for batch in DocumentBatches::open(documents, columns)? {
        for (row, document) in batch?.documents() {
            let count = Count::one(u64::from(document.raw_bytes));
            let text = Text::new(document.text);
            match filters.iter().find_map(|filter| filter.judge(&text)) {
                Some(rejection) => {
                    *report.dropped.entry(rejection.reason.to_owned()).or_default() += count;
                    drops.push(&Drop {
                        id: document.id,
                        document_id: document.document_id,
                        source: &params.source,
                        stage: "filter",
                        reason: rejection.reason,
                        measured: rejection.measured,
                        threshold: rejection.threshold,
                        raw_bytes: count.bytes,
                    });
                }
                None => {
                    report.kept += count;
                    let (document_id, raw_bytes) = (document.document_id.0, document.raw_bytes);
                    kept.push(KeptRow { row, document_id, raw_bytes });
                    keys.push(KeyRow {
                        key: document.text_hash.0,
                        source: params.source_index,
                        variant: document.variant,
                        document_id,
                        family: document.family.0,
                        raw_bytes,
                        metadata_hash: document.metadata.hash(),
                        row,
                    });
                }
            }
            watch.advance(count.bytes)?;
        }
    }
    keys.sort_unstable();
    rows::write(&task.file(KEPT), &kept)?;
    rows::write(&task.file(KEYS), &keys)?;
    drops.write(&task.file(DROPS))?;
    Ok(report)
}
