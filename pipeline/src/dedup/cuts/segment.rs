//! Gathers the segments of a part whose anchors are shared: their bytes in `segments.bytes`, and the sorted `segments.run` that says where
//! they are and what they belong to.

use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};

use super::cut_rows::{AnchorRow, SegmentRow, SharedRow};
use super::{PartParams, for_each_left};
use crate::error::{Error, Result};
use crate::stage::inputs::{PlacedDocuments, inputs};
use crate::stage::{Report, Stage};
use crate::tables::sort::run::{RunReader, RunWriter};
use crate::tables::{ANCHORS, SEGMENT_BYTES, SHARED};
use crate::watch::Watch;

/// Which part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentParams {
    /// The part.
    pub part: PartParams,
}

/// The sorted segments of a part.
pub const SEGMENTS: &str = "segments.run";

const READ_BYTES: usize = 1 << 20;

inputs! {
    /// A part with its anchors.
    pub struct SegmentInputs {
        /// The part.
        part: PlacedDocuments,
        /// The folder of its anchors.
        anchors: PathBuf,
        /// The folders of the anchors that are shared, in the order of their ranges.
        shared: Vec<PathBuf>,
    }
}

impl Stage for SegmentParams {
    const NAME: &'static str = "segments";
    type Inputs = SegmentInputs;

    /// # Errors
    /// The part is damaged or a write fails.
    fn run(&self, inputs: &SegmentInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let SegmentInputs { part, anchors, shared } = inputs;
        let mut chosen = choose(RunReader::open(&anchors.join(ANCHORS), READ_BYTES)?, shared)?;
        chosen.sort_unstable_by_key(|segment| (segment.row, segment.start));
        let mut chosen = chosen.into_iter().peekable();
        let mut bytes = AtomicFile::create(&folder.join(SEGMENT_BYTES))?;
        let mut offset = 0;
        let mut rows = Vec::new();
        for_each_left(part, watch, |row, document, _| {
            while let Some(segment) = chosen.next_if(|segment| segment.row == row) {
                let place = segment.start as usize..segment.end as usize;
                let text = document.text.as_bytes().get(place);
                let text = text.ok_or_else(|| {
                    Error::data(anchors, "does not belong to its part; delete this folder and rerun")
                })?;
                bytes.write(text)?;
                rows.push(SegmentRow {
                    key: segment.key,
                    source: self.part.source,
                    variant: document.variant,
                    document_id: document.document_id.0,
                    text_hash: document.text_hash.0 as u64,
                    part: self.part.part,
                    row,
                    start: segment.start,
                    n_bytes: text.len() as u32,
                    group: self.part.group(document),
                    offset,
                });
                offset += text.len() as u64;
            }
            Ok(())
        })?;
        bytes.commit()?;
        rows.sort_unstable();
        let mut run = RunWriter::create(&folder.join(SEGMENTS))?;
        rows.into_iter().try_for_each(|row| run.push(row))?;
        run.commit()?;
        Ok(Report::default())
    }
}

/// Segments whose anchors are shared; all runs are sorted by anchor, and the ranges of shared anchors ascend.
fn choose(mut anchors: RunReader<AnchorRow>, shared: &[PathBuf]) -> Result<Vec<AnchorRow>> {
    let mut chosen = Vec::new();
    let mut row = anchors.next_row()?;
    for folder in shared {
        let mut shared = RunReader::<SharedRow>::open(&folder.join(SHARED), READ_BYTES)?;
        while let Some(SharedRow { key }) = shared.next_row()? {
            while let Some(anchor) = row.filter(|anchor| anchor.key <= key) {
                if anchor.key == key {
                    chosen.push(anchor);
                }
                row = anchors.next_row()?;
            }
        }
    }
    Ok(chosen)
}
