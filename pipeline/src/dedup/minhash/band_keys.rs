//! The band keys of a part's documents as a distributed engine compares them. Writes `keys.parquet`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dedup::rows::{RankRow, SketchKeyRow};
use crate::error::{Error, Result};
use crate::stage::inputs::inputs;
use crate::stage::{Report, Stage};
use crate::tables::KEY_TABLE;
use crate::tables::keys::KeyTable;
use crate::tables::rows;
use crate::tables::sort::run::RunReader;
use crate::watch::Watch;

/// Band keys with the ranks of their documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandKeys {}

const COLUMNS: [&str; 2] = ["key0", "id"];
const READ_BYTES: usize = 1 << 20;

inputs! {
    /// A part's sketches.
    pub struct BandKeysInputs {
        /// `keys.run` of the sketches.
        keys: PathBuf,
        /// The rank of each document that was sketched.
        ranks: PathBuf,
    }
}

impl Stage for BandKeys {
    const NAME: &'static str = "band_keys";
    type Inputs = BandKeysInputs;

    /// # Errors
    /// A file is damaged or the disk refuses.
    fn run(&self, inputs: &BandKeysInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let ranks = rows::read::<RankRow>(&inputs.ranks)?;
        let mut bands = RunReader::<SketchKeyRow>::open(&inputs.keys, READ_BYTES)?;
        let mut keys = KeyTable::create(&folder.join(KEY_TABLE), COLUMNS)?;
        let mut last = 0;
        while let Some(row) = bands.next_row()? {
            let rank = ranks.get(row.index as usize).ok_or_else(|| {
                let message = "has fewer documents than the part has sketches; delete its folder and rerun";
                Error::data(&inputs.ranks, message)
            })?;
            keys.push([row.key, rank.rank])?;
            if row.index >= last + 4096 {
                watch.advance(0)?;
                last = row.index;
            }
        }
        keys.commit()?;
        Ok(Report::default())
    }
}
