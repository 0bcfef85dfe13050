//! Gathers the segments of a part whose anchors are shared: their bytes in `segments.bytes`, and for each bucket
//! of anchors the sorted `segments-N.run` that says where they are and what they belong to.

use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};

use super::cut_rows::{AnchorRow, SegmentRow, SharedRow};
use super::{PartParams, anchor, for_each_left};
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

/// The anchors are dealt out to this many buckets, which are compared independently.
pub const BUCKETS: u64 = 16;

/// File of a bucket.
pub fn bucket_file(bucket: u64) -> String {
    format!("segments-{bucket:02}.run")
}

const READ_BYTES: usize = 1 << 20;

inputs! {
    /// A part with its anchors.
    pub struct SegmentInputs {
        /// The part.
        part: PlacedDocuments,
        /// The folder of its anchors.
        anchors: PathBuf,
        /// The folder of the anchors that are shared.
        shared: PathBuf,
    }
}

impl Stage for SegmentParams {
    const NAME: &'static str = "segments";
    type Inputs = SegmentInputs;

    /// # Errors
    /// The part is damaged or a write fails.
    fn run(&self, inputs: &SegmentInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let SegmentInputs { part, anchors, shared } = inputs;
        let mut chosen = choose(
            RunReader::open(&anchors.join(ANCHORS), READ_BYTES)?,
            RunReader::open(&shared.join(SHARED), READ_BYTES)?,
        )?;
        chosen.sort_unstable_by_key(|segment| (segment.row, segment.start));
        let mut chosen = chosen.into_iter().peekable();
        let mut bytes = AtomicFile::create(&folder.join(SEGMENT_BYTES))?;
        let mut offset = 0;
        let mut buckets: Vec<Vec<SegmentRow>> = vec![Vec::new(); BUCKETS as usize];
        for_each_left(part, watch, |row, document, _| {
            while let Some(segment) = chosen.next_if(|segment| segment.row == row) {
                let place = segment.start as usize..segment.end as usize;
                let text = document.text.as_bytes().get(place);
                let text = text.ok_or_else(|| {
                    Error::data(anchors, "does not belong to its part; delete this folder and rerun")
                })?;
                bytes.write(text)?;
                buckets[(anchor::mix(!segment.key) % BUCKETS) as usize].push(SegmentRow {
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
        for (bucket, mut rows) in buckets.into_iter().enumerate() {
            rows.sort_unstable();
            let mut run = RunWriter::create(&folder.join(bucket_file(bucket as u64)))?;
            rows.into_iter().try_for_each(|row| run.push(row))?;
            run.commit()?;
        }
        Ok(Report::default())
    }
}

/// Segments whose anchors are shared; both runs are sorted by anchor.
fn choose(mut anchors: RunReader<AnchorRow>, mut shared: RunReader<SharedRow>) -> Result<Vec<AnchorRow>> {
    let mut chosen = Vec::new();
    let mut next = shared.next_row()?;
    while let Some(row) = anchors.next_row()? {
        while next.is_some_and(|shared| shared.key < row.key) {
            next = shared.next_row()?;
        }
        if next.is_some_and(|shared| shared.key == row.key) {
            chosen.push(row);
        }
    }
    Ok(chosen)
}
