//! Fuzzy deduplication, third task: which candidates are near-duplicates, decided by comparing their
//! sets of shingles with those of survivors.
//!
//! Writes `verdicts.run`. The rule is in `docs/dedup.md`: within a connected set documents are taken in the order of
//! their ranks; one that is like an earlier survivor is removed in favor of the first such, any other survives.
//!
//! Survivors are held in memory as a block of bounded size. When it is full, documents that neither match it nor fit wait
//! for the next pass, which starts with the first of them. As every document meets all earlier survivors in
//! order of rank, the size of the block changes nothing in the result.

mod block;
mod sets;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::block::{Block, Candidate, Rule};
use self::sets::Sets;
use super::signature;
use crate::dedup::rows::{CandidateRow, Verdict, VerdictRow};
use crate::document::Count;
use crate::error::Result;
use crate::stage::inputs::inputs;
use crate::stage::{Report, Stage};
use crate::tables::VERDICTS;
use crate::tables::sort::Sorter;
use crate::tables::sort::run::{RunReader, RunWriter};
use crate::watch::Watch;

/// How to decide.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyParams {
    /// Test for near-duplicates; without it, sharing a band is enough.
    pub similarity: Option<Similarity>,
    /// Whether a removed document removes others in turn.
    pub transitive: bool,
    /// Jaccard index from which a variant is a copy of another of its family.
    pub variant_copy: f64,
    /// Parts of this build; the parts after them are shards of other builds, whose documents always stay.
    pub n_parts: u32,
}

/// A measure of two sets of shingles with its lowest accepted value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// What both share, of all that either has.
    Jaccard(f64),
    /// What both share, of what the removed one has.
    Containment(f64),
}

impl Similarity {
    /// Whether a document with `n` shingles, `overlap` of them among the survivor's `kept_n`, is to be removed.
    pub fn holds(self, overlap: usize, n: usize, kept_n: usize) -> bool {
        match self {
            Similarity::Jaccard(least) => signature::jaccard(overlap, n, kept_n) >= least,
            Similarity::Containment(least) => n > 0 && overlap as f64 / n as f64 >= least,
        }
    }
}

inputs! {
    /// Candidates, and where their sets of shingles are.
    pub struct VerifyInputs {
        /// A sorted run of [`CandidateRow`]s with whole connected sets.
        members: PathBuf,
        /// The folder of the members of each part.
        folders: Vec<PathBuf>,
    }
}

impl Stage for VerifyParams {
    const NAME: &'static str = "verify";
    type Inputs = VerifyInputs;

    /// # Errors
    /// A file of an earlier task is damaged or a write fails.
    fn run(&self, inputs: &VerifyInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let VerifyInputs { members, folders } = inputs;
        let mut sorter = Sorter::new(&folder.join("sort"), watch.memory_bytes() / 2, watch)?;
        let mut report = Report::default();
        let mut sets = Sets::new(folders);
        let mut rows = RunReader::<CandidateRow>::open(members, 0)?;
        let mut next = rows.next_row()?;
        let mut connected = Vec::new();
        while let Some(first) = next {
            connected.clear();
            while let Some(row) = next.filter(|row| row.root == first.root) {
                report.kept += Count::one(u64::from(row.raw_bytes));
                connected.push(row);
                next = rows.next_row()?;
            }
            let mut deciding =
                Deciding { params: self, sets: &mut sets, watch, block_bytes: watch.memory_bytes() / 2 };
            let verdicts = match self.transitive {
                true => deciding.transitively(&connected)?,
                false => deciding.by_survivors(&connected)?,
            };
            verdicts.into_iter().try_for_each(|verdict| sorter.push(verdict))?;
            watch.advance(connected.len() as u64)?;
        }
        let mut verdicts = RunWriter::create(&folder.join(VERDICTS))?;
        let mut sorted = sorter.finish()?;
        while let Some(row) = sorted.next_row()? {
            verdicts.push(row)?;
        }
        verdicts.commit()?;
        Ok(report)
    }
}

struct Deciding<'a, 'b> {
    params: &'a VerifyParams,
    sets: &'a mut Sets<'b>,
    watch: &'a Watch,
    block_bytes: u64,
}

impl Deciding<'_, '_> {
    /// The rule of the module's documentation.
    fn by_survivors(&mut self, connected: &[CandidateRow]) -> Result<Vec<VerdictRow>> {
        let mut verdicts = Vec::new();
        let mut copies = vec![false; connected.len()];
        let n_parts = self.params.n_parts;
        self.passes(connected, |row, block, candidate| {
            if row.part >= n_parts {
                return true;
            }
            let found = block.first_match(candidate);
            if let Some(copy) = found.variant_copy
                && !std::mem::replace(&mut copies[candidate.position], true)
            {
                let kept = &connected[copy.position];
                let row = verdict(&connected[candidate.position], kept, Verdict::VariantCopy, copy.overlap);
                verdicts.push(row);
            }
            let Some(found) = found.near_duplicate else { return true };
            let kept = &connected[found.position];
            let row = verdict(&connected[candidate.position], kept, Verdict::NearDuplicate, found.overlap);
            verdicts.push(row);
            false
        })?;
        // Removed documents are no longer variants.
        let removed: Vec<u64> =
            verdicts.iter().filter(|v| v.verdict == Verdict::NearDuplicate as u8).map(|v| v.rank).collect();
        let removed: std::collections::BTreeSet<u64> = removed.into_iter().collect();
        verdicts.retain(|v| v.verdict == Verdict::NearDuplicate as u8 || !removed.contains(&v.rank));
        Ok(verdicts)
    }

    /// Single linkage: every near-duplicate pair joins two clusters, and the lowest rank of a cluster survives.
    fn transitively(&mut self, connected: &[CandidateRow]) -> Result<Vec<VerdictRow>> {
        let mut roots: Vec<usize> = (0..connected.len()).collect();
        let mut copies: Vec<Option<block::Match>> = vec![None; connected.len()];
        self.passes(connected, |_, block, candidate| {
            for found in block.all_matches(candidate, &mut copies[candidate.position]) {
                let (a, b) = (find(&mut roots, candidate.position), find(&mut roots, found));
                roots[a.max(b)] = a.min(b);
            }
            true
        })?;
        let mut verdicts = Vec::new();
        for position in 0..connected.len() {
            let root = find(&mut roots, position);
            let (row, kept) = (&connected[position], &connected[root]);
            if row.part >= self.params.n_parts {
                continue;
            }
            if root != position && !is_one_family(row, kept) {
                let overlap = self.sets.overlap(row, kept)?;
                verdicts.push(verdict(row, kept, Verdict::NearDuplicate, overlap));
            } else if let Some(copy) = copies[position] {
                verdicts.push(verdict(row, &connected[copy.position], Verdict::VariantCopy, copy.overlap));
            }
        }
        Ok(verdicts)
    }

    /// Shows each document, in order of rank, the block of earlier documents; `stays` says whether it is to meet later
    /// ones in turn.
    fn passes(
        &mut self,
        connected: &[CandidateRow],
        mut stays: impl FnMut(&CandidateRow, &mut Block, &Candidate<'_>) -> bool,
    ) -> Result<()> {
        let rule = Rule::new(self.params);
        let mut waiting: Vec<usize> = (0..connected.len()).collect();
        let common = self.common_shingles(connected)?;
        while !waiting.is_empty() {
            let mut block = Block::new(rule, connected.len(), common.as_ref());
            let mut later = Vec::new();
            for position in std::mem::take(&mut waiting) {
                let row = &connected[position];
                let set = self.sets.read(row)?;
                let candidate = Candidate { position, row, set: &set };
                if !stays(row, &mut block, &candidate) {
                    continue;
                }
                // The first one always fits, so every pass gets further. After one that waits all wait, small ones
                // too: they are to meet it.
                let fits = block.is_empty() || block.n_bytes() + block.cost(&set) <= self.block_bytes;
                if fits && later.is_empty() {
                    block.push(position, row, set);
                } else {
                    later.push(position);
                }
                self.watch.advance(0)?;
            }
            waiting = later;
        }
        Ok(())
    }

    /// How often shingles occur in the first documents of a large connected set: those of a template occur in most,
    /// and comparing rare ones first avoids comparing every document with every other.
    fn common_shingles(&mut self, connected: &[CandidateRow]) -> Result<Option<block::Frequencies>> {
        if connected.len() < block::INDEXED_FROM || self.params.similarity.is_none() {
            return Ok(None);
        }
        let mut frequencies = block::Frequencies::default();
        for row in connected.iter().take(block::SAMPLED) {
            frequencies.add(&self.sets.read(row)?);
        }
        Ok(Some(frequencies))
    }
}

fn find(roots: &mut [usize], mut position: usize) -> usize {
    while roots[position] != position {
        roots[position] = roots[roots[position]];
        position = roots[position];
    }
    position
}

/// Whether two documents are texts of one declared family, which never remove each other.
fn is_one_family(a: &CandidateRow, b: &CandidateRow) -> bool {
    a.has_family == 1 && b.has_family == 1 && a.family == b.family
}

fn verdict(row: &CandidateRow, kept: &CandidateRow, verdict: Verdict, overlap: usize) -> VerdictRow {
    VerdictRow {
        kept_rank: kept.rank,
        rank: row.rank,
        verdict: verdict as u8,
        variant: row.variant,
        // Not more than the shingles of one document.
        overlap: overlap as u32,
        n_shingles: row.n_shingles,
        kept_n_shingles: kept.n_shingles,
        part: row.part,
        row: row.row,
        n_bytes: row.n_bytes,
        raw_bytes: row.raw_bytes,
        has_family: row.has_family,
        id_start: row.id_start,
        id_bytes: row.id_bytes,
        kept_part: kept.part,
        kept_row: kept.row,
        kept_n_bytes: kept.n_bytes,
        kept_raw_bytes: kept.raw_bytes,
        kept_family: kept.family,
        kept_has_family: kept.has_family,
        kept_variant: kept.variant,
        kept_id_start: kept.id_start,
        kept_id_bytes: kept.id_bytes,
    }
}

#[cfg(test)]
mod tests;
