//! Stage 2: what the rules measure in the documents of a part, and the texts left by rewriting rules. It
//! knows no threshold, so moving one does not read a text again.
//!
//! Writes `measures.rows`, and `documents.parquet` where a rule changed one:
//! text, bytes as read and text hash then describe the rest, and the language is the detected one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::inputs::inputs;
use super::{Report, Stage};
use crate::document::{Count, Metadata, TextHash};
use crate::error::{Error, Result};
use crate::filter::Chain;
use crate::filter::chain::{Measuring, Workspace};
use crate::tables::documents::{Columns, Document, DocumentBatches, DocumentWriter};
use crate::tables::measures::MeasuresWriter;
use crate::tables::{DOCUMENTS, MEASURES};
use crate::watch::Watch;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureParams {
    /// The rules that apply to the source, in order.
    pub rules: Vec<Measuring>,
}

inputs! {
    /// What is measured.
    pub struct MeasureInputs {
        /// `documents.parquet`.
        documents: PathBuf,
    }
}

impl Stage for MeasureParams {
    const NAME: &'static str = "measure";
    type Inputs = MeasureInputs;

    /// # Errors
    /// The part is damaged, a rule breaks its contract, or a write fails.
    fn run(&self, inputs: &MeasureInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let chain = Chain::measuring(&self.rules).map_err(Error::Usage)?;
        let mut measures = MeasuresWriter::create(&folder.join(MEASURES), chain.n_columns())?;
        let mut rewritten = match chain.rewrites() {
            true => Some(DocumentWriter::create(&folder.join(DOCUMENTS))?),
            false => None,
        };
        let mut report = Report::default();
        let mut work = Workspace::default();
        let mut is_changed = false;
        for batch in DocumentBatches::open(&inputs.documents, Columns::All)? {
            for (_, document) in batch?.documents() {
                let Document { text, metadata, raw_bytes, .. } = document;
                let broken = |message| Error::data(folder, format!("document `{}`: {message}", document.id));
                chain.measure(text, metadata, raw_bytes, &mut work).map_err(broken)?;
                measures.push(work.values())?;
                if let Some(writer) = &mut rewritten {
                    is_changed |= work.rewritten().is_some() || work.language().is_some();
                    let metadata = Metadata { language: work.language().or(metadata.language), ..metadata };
                    let raw_bytes = work.left_bytes();
                    writer.append(&match work.rewritten() {
                        None => Document { metadata, raw_bytes, ..document },
                        Some(text) => {
                            Document { metadata, raw_bytes, text, text_hash: TextHash::of(text), ..document }
                        }
                    })?;
                }
                report.kept += Count::one(u64::from(raw_bytes));
                watch.advance_by_document(u64::from(raw_bytes))?;
            }
        }
        measures.finish()?;
        // An unfinished writer leaves no file.
        if let Some(writer) = rewritten.filter(|_| is_changed) {
            writer.finish()?;
        }
        Ok(report)
    }
}
