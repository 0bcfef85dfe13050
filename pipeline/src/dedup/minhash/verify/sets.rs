//! The sets of shingles of a connected set's documents, read from the files of their parts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::dedup::minhash::shingles::{self, Extent};
use crate::dedup::minhash::signature;
use crate::dedup::rows::CandidateRow;
use crate::error::{Error, Result};
use crate::tables::SHINGLES;
use crate::tables::rows::Blob;

/// Systems allow 1024 open files and several tasks run at once.
const MAX_OPEN: usize = 32;

pub(super) struct Sets<'a> {
    folders: &'a [PathBuf],
    open: BTreeMap<u32, (PathBuf, Blob)>,
}

impl Sets<'_> {
    pub(super) fn new(folders: &[PathBuf]) -> Sets<'_> {
        Sets { folders, open: BTreeMap::new() }
    }

    pub(super) fn read(&mut self, row: &CandidateRow) -> Result<Vec<u64>> {
        let mut set = Vec::new();
        if row.n_shingles == 0 {
            return Ok(set);
        }
        if !self.open.contains_key(&row.part) {
            if self.open.len() >= MAX_OPEN {
                self.open.pop_first();
            }
            let folder = self.folders.get(row.part as usize).ok_or_else(|| {
                let message = format!("a member names part {}, which is none", row.part);
                Error::data(&PathBuf::from("members.run"), message)
            })?;
            let path = folder.join(SHINGLES);
            let blob = Blob::open(&path)?;
            self.open.insert(row.part, (path, blob));
        }
        if let Some((path, blob)) = self.open.get(&row.part) {
            let extent =
                Extent { start: row.shingle_start, n_shingles: row.n_shingles, hash: row.shingle_hash };
            shingles::read(path, blob, extent, &mut set)?;
        }
        Ok(set)
    }

    /// Shingles that two documents share.
    pub(super) fn overlap(&mut self, a: &CandidateRow, b: &CandidateRow) -> Result<usize> {
        Ok(signature::overlap(&self.read(a)?, &self.read(b)?))
    }
}
