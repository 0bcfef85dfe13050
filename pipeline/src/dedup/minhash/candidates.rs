//! From sketches to connected sets of candidates: the rank of every document, the edges between documents that share a
//! band key, and the sets that the edges connect.

use std::path::{Path, PathBuf};

use moe_shards::ScratchNumbers;

use super::band_keys::{BandKeys, BandKeysInputs};
use super::{Part, rule};
use crate::dedup::rows::{CandidateRow, ClusteredRow, OrderRow, RankRow, SketchKeyRow, SketchRow};
use crate::dedup::union_find::UnionFind;
use crate::engine::{Engine, Keyed, Pair};
use crate::error::Result;
use crate::recipe::dedup::Keep;
use crate::stage::Task;
use crate::tables::rows::{self, BandRow, Row};
use crate::tables::sort::Sorter;
use crate::tables::sort::run::{RunReader, RunWriter};
use crate::tables::{MEMBERS, SKETCH_KEYS, SKETCHES};
use crate::watch::Watch;

/// Fewest members of a verification task; connected sets are never cut.
const CHUNK_MEMBERS: u64 = 4096;
/// Bytes of a run of band keys that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// The rank of each document: its position among all documents in the order in which they survive.
struct Ranks {
    ranks: ScratchNumbers,
    /// Where each part starts in `ranks`.
    first: Vec<u64>,
}

impl Ranks {
    /// Rank of the document that a part sketched as number `index`.
    fn of(&self, part: usize, index: u32) -> u64 {
        self.ranks.get(self.first[part] + u64::from(index))
    }

    /// Ranks of all documents of a part.
    fn of_part(&self, part: usize) -> Vec<RankRow> {
        (self.first[part]..self.first[part + 1]).map(|i| RankRow { rank: self.ranks.get(i) }).collect()
    }
}

/// Writes for each part the list of its documents that share a band with another one; returns their places. The
/// sketches after those of the parts are of other builds: their documents are listed where the bands connect them
/// with a document of a part.
pub(super) fn find(
    work: &Path,
    folder: &Path,
    parts: &[Part],
    sketches: &[Task],
    keep: Keep,
    engine: &dyn Engine,
    watch: &Watch,
) -> Result<Vec<PathBuf>> {
    let ranks = rank(folder, parts, sketches, keep, engine, watch)?;
    let n_documents = ranks.first.last().copied().unwrap_or(0);
    let mut sets = UnionFind::new(&folder.join("links.tmp"), n_documents)?;
    let keys: Vec<PathBuf> = sketches.iter().map(|task| task.file(SKETCH_KEYS)).collect();
    engine.pairs(&Bands { work, folder, keys: &keys, ranks: &ranks }, watch, &mut |pair| {
        sets.union(pair.first, pair.other);
        Ok(())
    })?;
    let own_sets = match sketches.len() > parts.len() {
        true => Some(own_sets(parts.len(), sketches, &ranks, &mut sets, watch)?),
        false => None,
    };
    let mut places = Vec::new();
    for (i, task) in sketches.iter().enumerate() {
        let place = folder.join(format!("clustered-{i:05}.run"));
        let mut clustered = RunWriter::create(&place)?;
        let mut rows = RunReader::<SketchRow>::open(&task.file(SKETCHES), 0)?;
        let mut index = 0;
        while let Some(row) = rows.next_row()? {
            let rank = ranks.of(i, index);
            let is_asked = |root: &u64| own_sets.as_ref().is_none_or(|own| own.holds(*root));
            if let Some(root) = sets.root_of_several(rank).filter(is_asked) {
                clustered.push(ClusteredRow { row: row.row, rank, root })?;
            }
            index += 1;
        }
        clustered.commit()?;
        places.push(place);
        watch.advance(0)?;
    }
    Ok(places)
}

/// The band keys of all documents, which are known by their ranks. Of each group, the lowest rank makes a pair with each other one.
struct Bands<'a> {
    /// The work folder.
    work: &'a Path,
    /// Where files on the way may be.
    folder: &'a Path,
    /// Sorted runs of [`SketchKeyRow`]s, one a part.
    keys: &'a [PathBuf],
    ranks: &'a Ranks,
}

impl Keyed for Bands<'_> {
    fn in_order(&self) -> bool {
        false
    }

    fn pairs_here(
        &self,
        engine: &dyn Engine,
        watch: &Watch,
        each: &mut dyn FnMut(Pair) -> Result<()>,
    ) -> Result<()> {
        let (folder, memory) = (self.folder.join("bands"), engine.memory_bytes());
        let mut sorter: Sorter<BandRow> = engine.pool().install(|| Sorter::new(&folder, memory, watch))?;
        for (part, run) in self.keys.iter().enumerate() {
            let mut keys = RunReader::<SketchKeyRow>::open(run, READ_BYTES)?;
            while let Some(row) = keys.next_row()? {
                sorter.push(BandRow { key: row.key, document: self.ranks.of(part, row.index) })?;
            }
            watch.advance(0)?;
        }
        let mut groups = sorter.finish()?.groups(|row| row.key);
        while let Some(mut group) = groups.next_group()? {
            let Some(first) = group.next_row()? else { continue };
            while let Some(other) = group.next_row()? {
                each(Pair { first: first.document, other: other.document })?;
            }
        }
        Ok(())
    }

    fn tables(&self) -> Result<Vec<Task>> {
        let task = |(part, keys): (usize, &PathBuf)| {
            let ranks = self.folder.join(format!("ranks-{part:05}.rows"));
            rows::write(&ranks, &self.ranks.of_part(part))?;
            let weight = RunReader::<SketchKeyRow>::open(keys, 0)?.len() * SketchKeyRow::BYTES as u64;
            let inputs = BandKeysInputs { keys: keys.clone(), ranks };
            Ok(Task::new(self.work, part, weight, BandKeys {}, inputs))
        };
        self.keys.iter().enumerate().map(task).collect()
    }
}

/// A bit for each rank.
struct Bits(Vec<u64>);

impl Bits {
    fn holds(&self, rank: u64) -> bool {
        self.0[(rank / 64) as usize] >> (rank % 64) & 1 == 1
    }
}

/// The roots of those connected sets that hold a document of this build.
fn own_sets(
    n_parts: usize,
    sketches: &[Task],
    ranks: &Ranks,
    sets: &mut UnionFind,
    watch: &Watch,
) -> Result<Bits> {
    let n_documents = ranks.first.last().copied().unwrap_or(0);
    let mut bits = Bits(vec![0; n_documents.div_ceil(64) as usize]);
    for (i, _) in sketches.iter().enumerate().take(n_parts) {
        for document in ranks.first[i]..ranks.first[i + 1] {
            if let Some(root) = sets.root_of_several(ranks.ranks.get(document)) {
                bits.0[(root / 64) as usize] |= 1 << (root % 64);
            }
        }
        watch.advance(0)?;
    }
    Ok(bits)
}

fn rank(
    folder: &Path,
    parts: &[Part],
    sketches: &[Task],
    keep: Keep,
    engine: &dyn Engine,
    watch: &Watch,
) -> Result<Ranks> {
    let mut first = vec![0];
    let mut sorter = Sorter::new(&folder.join("order"), engine.memory_bytes(), watch)?;
    for (i, task) in sketches.iter().enumerate() {
        let part = parts.get(i);
        let mut rows = RunReader::<SketchRow>::open(&task.file(SKETCHES), 0)?;
        let mut index = 0;
        while let Some(row) = rows.next_row()? {
            let (rule_high, rule_low) = part.map_or((0, 0), |part| rule(keep, part.source_index, &row));
            sorter.push(OrderRow {
                is_own: u8::from(part.is_some()),
                rule_high,
                rule_low,
                document_id: row.document_id,
                text_hash: row.text_hash,
                raw_bytes: row.raw_bytes,
                metadata_hash: row.metadata_hash,
                part: i as u32,
                index,
            })?;
            index += 1;
        }
        first.push(first.last().copied().unwrap_or(0) + u64::from(index));
        watch.advance(0)?;
    }
    let n_documents = first.last().copied().unwrap_or(0);
    let mut ranks = ScratchNumbers::create(&folder.join("ranks.tmp"), n_documents)?;
    let mut sorted = sorter.finish()?;
    let mut rank = 0;
    while let Some(row) = sorted.next_row()? {
        ranks.set(first[row.part as usize] + u64::from(row.index), rank);
        rank += 1;
    }
    Ok(Ranks { ranks, first })
}

/// Writes the members of all parts, connected sets together, into one run for each task of verification.
pub(super) fn chunks(
    folder: &Path,
    members: &[Task],
    engine: &dyn Engine,
    watch: &Watch,
) -> Result<Vec<PathBuf>> {
    let mut sorter = Sorter::new(&folder.join("members"), engine.memory_bytes(), watch)?;
    for (part, task) in members.iter().enumerate() {
        let mut rows = RunReader::<CandidateRow>::open(&task.file(MEMBERS), 0)?;
        while let Some(row) = rows.next_row()? {
            sorter.push(CandidateRow { part: part as u32, ..row })?;
        }
        watch.advance(0)?;
    }
    let mut sets = sorter.finish()?.groups(|row| row.root);
    let mut places: Vec<PathBuf> = Vec::new();
    let mut open: Option<(RunWriter<CandidateRow, _>, u64)> = None;
    while let Some(mut set) = sets.next_group()? {
        let (mut writer, mut n_members) = match open.take() {
            Some(open) => open,
            None => {
                let place = folder.join(format!("chunk-{:05}.run", places.len()));
                places.push(place.clone());
                (RunWriter::create(&place)?, 0)
            }
        };
        while let Some(row) = set.next_row()? {
            writer.push(row)?;
            n_members += 1;
        }
        match n_members >= CHUNK_MEMBERS {
            true => drop(writer.commit()?),
            false => open = Some((writer, n_members)),
        }
    }
    if let Some((writer, _)) = open {
        writer.commit()?;
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::LocalEngine;
    use crate::tables::{KEY_TABLE, keys};

    #[test]
    fn bands_pair_the_lowest_rank_here_and_in_tables() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path();
        let runs = [[(0, 5), (0, 7), (1, 7)], [(0, 5), (0, 9), (1, 5)]].map(|rows| {
            let path = work.join(format!("{rows:?}.run"));
            let mut run = RunWriter::create(&path).unwrap();
            rows.into_iter().for_each(|(index, key)| run.push(SketchKeyRow { index, key }).unwrap());
            run.commit().unwrap();
            path
        });
        let mut ranks = ScratchNumbers::create(&work.join("ranks.tmp"), 4).unwrap();
        [2, 0, 3, 1].into_iter().enumerate().for_each(|(i, rank)| ranks.set(i as u64, rank));
        let ranks = Ranks { ranks, first: vec![0, 2, 4] };
        let bands = Bands { work, folder: work, keys: &runs, ranks: &ranks };
        let engine = LocalEngine::new(1).unwrap();
        let mut found = Vec::new();
        let mut each = |pair| {
            found.push(pair);
            Ok(())
        };
        engine.pairs(&bands, &Watch::idle(), &mut each).unwrap();
        let pair = |first, other| Pair { first, other };
        assert_eq!(found, [pair(1, 2), pair(1, 3), pair(0, 2)]);
        let tasks = bands.tables().unwrap();
        engine.map(&tasks, &Watch::idle()).unwrap();
        let tables: Vec<PathBuf> = tasks.iter().map(|task| task.file(KEY_TABLE)).collect();
        assert_eq!(keys::tests::pairs(&tables), found);
    }
}
