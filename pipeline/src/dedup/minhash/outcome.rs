//! From verdicts to the input of the next stages: lists of what is removed and of what joins another family for each part,
//! the audit table, and counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::signature::jaccard;
use super::{MinhashReport, Part, SourceReport};
use crate::dedup::audit::{NearDuplicate, NearDuplicates};
use crate::dedup::earlier::EarlierShards;
use crate::dedup::rows::{JoinRow, PlaceRow, SketchRow, Verdict, VerdictRow};
use crate::dedup::{PartReport, write_list};
use crate::document::Count;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::recipe::dedup::{Action, Keep, MinhashConfig, Verify};
use crate::stage::Task;
use crate::tables::families::Families;
use crate::tables::rows::{self, Blob, FamilyRow, RemovedRow};
use crate::tables::sort::Sorter;
use crate::tables::sort::run::RunReader;
use crate::tables::{DUPLICATES, IDS, SKETCHES, VERDICTS};
use crate::watch::Watch;

/// What an outcome is made from.
pub(super) struct Outcome<'a> {
    pub(super) work: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) parts: &'a [Part],
    pub(super) others: EarlierShards<'a>,
    pub(super) members: &'a [Task],
    pub(super) config: &'a MinhashConfig,
    pub(super) engine: &'a dyn Engine,
    pub(super) watch: &'a Watch,
}

impl Outcome<'_> {
    pub(super) fn write(&self, sketches: &[Task], verify: &[Task]) -> Result<MinhashReport> {
        let mut report = MinhashReport::default();
        for (part, task) in self.parts.iter().zip(sketches) {
            let source = report.sources.entry(part.source.clone()).or_default();
            let mut rows = RunReader::<SketchRow>::open(&task.file(SKETCHES), 0)?;
            while let Some(row) = rows.next_row()? {
                source.documents += 1;
                source.variants += u64::from(row.has_family == 1 && row.variant > 0);
            }
        }
        for task in &self.members[..self.parts.len()] {
            report.candidates += task.finished()?.map_or(0, |report| report.kept.docs);
        }
        let memory = self.engine.memory_bytes() / 3;
        let mut verdicts = Sorter::<VerdictRow>::new(&self.folder.join("verdicts"), memory, self.watch)?;
        verify.iter().for_each(|task| verdicts.add_run(&task.file(VERDICTS)));
        let mut removed = Sorter::<PlaceRow>::new(&self.folder.join("removed"), memory, self.watch)?;
        let mut counts = vec![PartReport::default(); self.parts.len()];
        let mut audit = NearDuplicates::create(&self.folder.join(DUPLICATES));
        let mut ids = Ids { members: self.members, open: BTreeMap::new() };

        let mut clusters = verdicts.finish()?.groups(|row: &VerdictRow| row.kept_rank);
        let mut joined = Sorter::<JoinRow>::new(&self.folder.join("joined"), memory, self.watch)?;
        while let Some(mut cluster) = clusters.next_group()? {
            let (mut n_similar, mut n_joined) = (0, 0);
            let mut survivor = None;
            while let Some(row) = cluster.next_row()? {
                let fate = self.fate(&row, n_joined);
                self.note(&row, fate, report.clusters, &mut report.sources, &mut audit, &mut ids)?;
                match fate {
                    Fate::Removed => {
                        let in_against = u8::from(!self.is_own(row.kept_part));
                        removed.push(PlaceRow { part: row.part, row: row.row, in_against })?;
                        let counts = &mut counts[row.part as usize];
                        let count = Count::one(u64::from(row.raw_bytes));
                        match self.is_own(row.kept_part) {
                            true => counts.removed += count,
                            false => counts.in_against += count,
                        }
                    }
                    Fate::Joins(variant) => {
                        n_joined += 1;
                        joined.push(joined_row(&row, variant))?;
                    }
                    Fate::StaysApart => {}
                    Fate::VariantCopy => continue,
                }
                n_similar += 1;
                survivor = Some(row);
            }
            let Some(row) = survivor else { continue };
            let size = n_similar + 1;
            if size > report.largest {
                let id = ids.read(row.kept_part, row.kept_id_start, row.kept_id_bytes)?;
                report.largest = size;
                let (against, source) = self.names(row.kept_part)?;
                let against = against.map_or_else(String::new, |build| format!(" in {build}"));
                report.largest_survivor = format!("{source}/{id}{against}");
            }
            if self.config.keep == Keep::None && self.is_own(row.kept_part) {
                self.note_survivor(&row, report.clusters, &mut report.sources, &mut audit, &mut ids)?;
                removed.push(PlaceRow { part: row.kept_part, row: row.kept_row, in_against: 0 })?;
                counts[row.kept_part as usize].removed += Count::one(u64::from(row.kept_raw_bytes));
            }
            report.clusters += 1;
            self.watch.advance(0)?;
        }
        report.has_audit = audit.finish()?;
        report.parts = self.lists(removed, joined, counts)?;
        Ok(report)
    }

    /// Whether a part is one of this build, and not a shard of another one.
    fn is_own(&self, part: u32) -> bool {
        (part as usize) < self.parts.len()
    }

    /// The other build that a part is of, if it is, and its source.
    fn names(&self, part: u32) -> Result<(Option<&str>, &str)> {
        match self.parts.get(part as usize) {
            Some(part) => Ok((None, &part.source)),
            None => {
                let (build, source) = self.others.names(part as usize - self.parts.len())?;
                Ok((Some(build), source))
            }
        }
    }

    /// Fate of a document when `n_joined` others have joined the survivor's family before it.
    fn fate(&self, row: &VerdictRow, n_joined: u32) -> Fate {
        if Verdict::of_number(row.verdict) != Some(Verdict::NearDuplicate) {
            return Fate::VariantCopy;
        }
        let Some(kept) = self.parts.get(row.kept_part as usize) else { return Fate::Removed };
        if self.config.action == Action::Remove {
            return Fate::Removed;
        }
        if row.has_family == 1 {
            return Fate::StaysApart;
        }
        let n_declared = if row.kept_has_family == 1 { kept.n_variants } else { 1 };
        // A variant is one byte; documents beyond the last number are removed.
        u8::try_from(n_declared + n_joined).map_or(Fate::Removed, Fate::Joins)
    }

    /// Writes the row of a document in the audit and counts it.
    fn note(
        &self,
        row: &VerdictRow,
        fate: Fate,
        cluster: u64,
        sources: &mut BTreeMap<String, SourceReport>,
        audit: &mut NearDuplicates,
        ids: &mut Ids<'_>,
    ) -> Result<()> {
        let part = &self.parts[row.part as usize];
        let (against, kept_source) = self.names(row.kept_part)?;
        let source = sources.entry(part.source.clone()).or_default();
        let (overlap, n, kept_n) =
            (row.overlap as usize, row.n_shingles as usize, row.kept_n_shingles as usize);
        let jaccard = (self.config.verify != Verify::Off).then(|| jaccard(overlap, n, kept_n));
        match fate {
            Fate::Removed => {
                source.removed += u64::from(against.is_none());
                source.in_against += u64::from(against.is_some());
                source.variants -= u64::from(row.has_family == 1 && row.variant > 0);
            }
            Fate::Joins(_) => {
                source.joined += 1;
                source.variants += 1;
                let is_copy = jaccard.is_some_and(|jaccard| jaccard >= self.config.variant_copy);
                source.variant_copies += u64::from(is_copy);
            }
            Fate::StaysApart => {}
            Fate::VariantCopy => source.variant_copies += 1,
        }
        audit.append(&NearDuplicate {
            removed: &ids.read(row.part, row.id_start, row.id_bytes)?,
            removed_source: &part.source,
            kept: &ids.read(row.kept_part, row.kept_id_start, row.kept_id_bytes)?,
            kept_source,
            against,
            method: fate.method(),
            jaccard,
            removed_bytes: Some(row.n_bytes),
            kept_bytes: Some(row.kept_n_bytes),
            cluster: (fate != Fate::VariantCopy).then_some(cluster),
        })
    }

    /// The same for the survivor of a cluster without kept documents.
    fn note_survivor(
        &self,
        row: &VerdictRow,
        cluster: u64,
        sources: &mut BTreeMap<String, SourceReport>,
        audit: &mut NearDuplicates,
        ids: &mut Ids<'_>,
    ) -> Result<()> {
        let source = &self.parts[row.kept_part as usize].source;
        let counts = sources.entry(source.clone()).or_default();
        counts.removed += 1;
        counts.variants -= u64::from(row.kept_has_family == 1 && row.kept_variant > 0);
        let id = ids.read(row.kept_part, row.kept_id_start, row.kept_id_bytes)?;
        audit.append(&NearDuplicate {
            removed: &id,
            removed_source: source,
            kept: "",
            kept_source: "",
            against: None,
            method: "minhash",
            jaccard: None,
            removed_bytes: Some(row.kept_n_bytes),
            kept_bytes: Some(0),
            cluster: Some(cluster),
        })
    }

    /// The removal lists: what earlier methods removed and what this one does.
    fn lists(
        &self,
        removed: Sorter<PlaceRow>,
        joined: Sorter<JoinRow>,
        counts: Vec<PartReport>,
    ) -> Result<Vec<PartReport>> {
        let mut removed = removed.finish()?;
        let mut joined = joined.finish()?;
        let mut next_joined = joined.next_row()?;
        let mut next = removed.next_row()?;
        let mut reports = Vec::new();
        for (i, (part, count)) in self.parts.iter().zip(counts).enumerate() {
            let mut list: Vec<u32> =
                rows::read::<RemovedRow>(&part.documents.removed)?.into_iter().map(|row| row.row).collect();
            let mut in_against = Vec::new();
            while let Some(place) = next.filter(|place| place.part as usize == i) {
                list.push(place.row);
                in_against.extend((place.in_against == 1).then_some(place.row));
                next = removed.next_row()?;
            }
            list.sort_unstable();
            let before = list.len();
            list.dedup();
            if list.len() != before {
                let message = "a document was removed twice; this is a bug, please report it";
                return Err(Error::data(&part.documents.documents, message));
            }
            let list = write_list(self.work, &list)?;
            let list_in_against = match in_against.is_empty() {
                true => None,
                false => Some(write_list(self.work, &in_against)?),
            };
            let mut families = Vec::new();
            while let Some(place) = next_joined.filter(|place| place.part as usize == i) {
                let JoinRow { row, family, variant, .. } = place;
                families.push(FamilyRow { row, family, variant });
                next_joined = joined.next_row()?;
            }
            let families = Some(Families::write(self.work, &families)?);
            reports.push(PartReport { list, list_in_against, families, ..count });
        }
        Ok(reports)
    }
}

/// Fate of a document similar to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Removed,
    /// It stays, as this variant of the other one's family.
    Joins(u8),
    /// It stays in the family that its record declares.
    StaysApart,
    /// It stays, as what it is: a variant that is a copy of another one of its family.
    VariantCopy,
}

impl Fate {
    /// Name in the audit.
    fn method(self) -> &'static str {
        match self {
            Fate::Removed => "minhash",
            Fate::Joins(_) => "family",
            Fate::StaysApart => "other_family",
            Fate::VariantCopy => "variant_copy",
        }
    }
}

fn joined_row(row: &VerdictRow, variant: u8) -> JoinRow {
    JoinRow { part: row.part, row: row.row, family: row.kept_family, variant }
}

/// Reads ids of members.
struct Ids<'a> {
    members: &'a [Task],
    open: BTreeMap<u32, (PathBuf, Blob)>,
}

/// Systems allow 1024 open files.
const MAX_OPEN: usize = 64;

impl Ids<'_> {
    fn read(&mut self, part: u32, start: u64, n_bytes: u32) -> Result<String> {
        if !self.open.contains_key(&part) {
            if self.open.len() >= MAX_OPEN {
                self.open.pop_first();
            }
            let path = self.members[part as usize].file(IDS);
            let blob = Blob::open(&path)?;
            self.open.insert(part, (path, blob));
        }
        let Some((path, blob)) = self.open.get(&part) else { return Ok(String::new()) };
        let mut bytes = vec![0; n_bytes as usize];
        blob.read_at(start, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| Error::data(path, "is damaged; delete its folder and rerun"))
    }
}
