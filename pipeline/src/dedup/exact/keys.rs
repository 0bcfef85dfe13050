//! The keys of a part's documents as a distributed engine compares them. Writes `keys.parquet`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::stage::{Report, Stage};
use crate::tables::KEY_TABLE;
use crate::tables::keys::KeyTable;
use crate::tables::rows::{KeyRow, Table};
use crate::watch::Watch;

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExactKeys {
    /// Position of the part's table among all tables.
    pub run: u32,
}

/// The key, then the fields of a [`KeyRow`] in their order, then the row's place.
const COLUMNS: [&str; 9] = ["key0", "key1", "order0", "order1", "order2", "order3", "order4", "order5", "id"];
/// Rows that are read at once.
const READ_ROWS: u64 = 1 << 16;

/// What a row is known by: the position of its table, and its row in the part's documents.
pub(super) fn id(run: u32, row: u32) -> u64 {
    u64::from(run) << 32 | u64::from(row)
}

impl Stage for ExactKeys {
    const NAME: &'static str = "exact_keys";
    type Inputs = PathBuf;

    /// # Errors
    /// The table is damaged or the disk refuses.
    fn run(&self, inputs: &PathBuf, folder: &Path, watch: &Watch) -> Result<Report> {
        let rows = Table::<KeyRow>::open(inputs)?;
        let mut keys = KeyTable::create(&folder.join(KEY_TABLE), COLUMNS)?;
        let mut start = 0;
        while start < rows.len() {
            let end = rows.len().min(start + READ_ROWS);
            for row in rows.read(start, end)? {
                keys.push([
                    (row.key >> 64) as u64,
                    row.key as u64,
                    u64::from(row.source) << 8 | u64::from(row.variant),
                    row.document_id,
                    row.family,
                    u64::from(row.raw_bytes),
                    row.metadata_hash,
                    u64::from(row.row),
                    id(self.run, row.row),
                ])?;
            }
            start = end;
            watch.advance(0)?;
        }
        keys.commit()?;
        Ok(Report::default())
    }
}
