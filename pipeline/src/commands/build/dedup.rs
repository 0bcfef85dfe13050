//! The deduplication step of a build: the methods that the recipe switches on, one after another. Each
//! replaces the removal lists of the parts by longer ones; removals are recorded under its reason.

use super::part::Part;
use super::run::Run;
use crate::dedup::earlier::{EarlierShard, EarlierShards};
use crate::dedup::minhash::signature::SketchConfig;
use crate::dedup::{self, PartReport, exact, minhash};
use crate::document::Count;
use crate::error::Result;
use crate::ledger::VariantLedger;
use crate::printer::StageLine;
use crate::recipe::MinhashConfig;
use crate::recipe::dedup::Action;
use crate::stage::Task;
use crate::tables;
use crate::tables::families::Families;
use crate::watch::Watch;

impl Run<'_> {
    /// `with_near`: whether to look for near-duplicates, if the recipe asks for it.
    pub fn dedup(&mut self, parts: &mut [Part], with_near: bool) -> Result<()> {
        let nothing = dedup::write_list(&self.work, &[])?;
        let no_families = Families::write(&self.work, &[])?;
        for part in parts.iter_mut() {
            part.removed = self.work.join(&nothing);
            part.families = self.work.join(&no_families);
            self.results.used.extend([part.removed.clone(), part.families.clone()]);
        }
        let shards = self.prepared.against.iter().flat_map(|other| other.shards.clone()).collect::<Vec<_>>();
        let minhash = self.prepared.recipe.dedup.minhash.filter(|_| with_near);
        let keys = self.read_others(&shards, minhash.map(|config| config.sketch()))?;
        let others = EarlierShards { shards: &shards, keys: &keys };
        if self.prepared.recipe.dedup.exact {
            self.dedup_exact(parts, others)?;
        }
        if let Some(config) = minhash {
            self.dedup_minhash(parts, others, &config)?;
        }
        Ok(())
    }

    /// Reads the documents of other builds.
    fn read_others(&mut self, shards: &[EarlierShard], sketch: Option<SketchConfig>) -> Result<Vec<Task>> {
        if shards.is_empty() {
            return Ok(Vec::new());
        }
        let line = StageLine::start("against");
        let tasks =
            shards.iter().enumerate().map(|(i, shard)| shard.keys_task(&self.work, i, sketch)).collect();
        let done = self.map("against", tasks)?;
        let n_docs: u64 = done.iter().map(|(_, report)| report.kept.docs).sum();
        let n_builds = self.prepared.against.len();
        line.done(self.printer, &format!("{n_docs} documents of {n_builds} other builds"));
        Ok(done.into_iter().map(|(task, _)| task).collect())
    }

    fn dedup_exact(&mut self, parts: &mut [Part], others: EarlierShards<'_>) -> Result<()> {
        let line = StageLine::start("dedup");
        let watch = Watch::new(self.stop.clone(), self.printer.bar("dedup", 0));
        let inputs: Vec<exact::Part> = (parts.iter())
            .map(|part| exact::Part {
                source: self.source_name(part),
                documents: part.documents.clone(),
                keys: part.keys.clone(),
            })
            .collect();
        let report = exact::run(&self.work, &inputs, others, &self.engine, &watch);
        watch.finish();
        let report = report?;
        let folder = exact::folder(&self.work, &inputs, others);
        self.results.add_audit(folder.join(tables::DUPLICATES), "dups-exact.parquet".to_owned());
        self.results.used.push(folder);
        let [removed, in_against] = self.book(parts, &report.parts, [exact::REASON, exact::REASON_AGAINST]);
        let what = format!("{} exact duplicates removed{}", removed.docs, in_others(in_against));
        line.done(self.printer, &what);
        Ok(())
    }

    fn dedup_minhash(
        &mut self,
        parts: &mut [Part],
        others: EarlierShards<'_>,
        config: &MinhashConfig,
    ) -> Result<()> {
        let line = StageLine::start("minhash");
        let weight = parts.iter().map(|part| part.left.bytes).sum();
        let watch = Watch::new(self.stop.clone(), self.printer.bar("minhash", weight));
        let sources = &self.prepared.recipe.source;
        let inputs: Vec<minhash::Part> = (parts.iter())
            .map(|part| minhash::Part {
                source: sources[part.source].name.clone(),
                source_index: part.source as u16,
                has_family: self.prepared.has_families(part.source),
                n_variants: self.prepared.variants(part.source).len() as u32,
                n_bytes: part.left.bytes,
                documents: part.survivors(),
            })
            .collect();
        let outcome = minhash::run(&self.work, &inputs, others, config, &self.engine, &watch);
        watch.finish();
        let (report, folder, used) = outcome?;
        self.results.add_audit(folder.join(tables::DUPLICATES), "dups-minhash.parquet".to_owned());
        self.results.used.extend(used);
        let estimate = minhash::estimate::run(&self.work, &inputs, config, &report, &self.engine, &watch)?;
        if let Some((estimate, used)) = estimate {
            self.ledger.minhash_estimate = Some(estimate);
            self.results.used.extend(used);
        }
        let reasons = [minhash::REASON, minhash::REASON_AGAINST];
        let [removed, in_against] = self.book(parts, &report.parts, reasons);
        for (name, source) in &report.sources {
            if source.variants > 0 {
                let variants = VariantLedger { documents: source.variants, copies: source.variant_copies };
                self.ledger.source(name).variants = Some(variants);
            }
        }
        let joined: u64 = report.sources.values().map(|source| source.joined).sum();
        let in_families = match config.action {
            Action::Remove => String::new(),
            Action::Family => format!(", {joined} put into the family of their survivor"),
        };
        let what = format!(
            "{} near-duplicates removed{in_families}{}, {} clusters of {} candidates",
            removed.docs,
            in_others(in_against),
            report.clusters,
            report.candidates
        );
        line.done(self.printer, &what);
        Ok(())
    }

    /// Replaces the removal lists and moves new entries from the kept to the dropped. The reasons are for what
    /// this build has otherwise, and for what another one has.
    fn book(&mut self, parts: &mut [Part], reports: &[PartReport], reasons: [&str; 2]) -> [Count; 2] {
        let mut sums = [Count::default(); 2];
        for (part, found) in parts.iter_mut().zip(reports) {
            part.removed = self.work.join(&found.list);
            self.results.used.push(part.removed.clone());
            if let Some(families) = &found.families {
                part.families = self.work.join(families);
                self.results.used.push(part.families.clone());
            }
            self.results.used.extend(found.list_in_against.iter().map(|list| self.work.join(list)));
            for ((sum, reason), count) in sums.iter_mut().zip(reasons).zip([found.removed, found.in_against])
            {
                part.left = part.left.minus(count);
                if count.docs > 0 {
                    *sum += count;
                    *self.entry(part).dropped.entry(reason.to_owned()).or_default() += count;
                }
            }
        }
        sums
    }
}

fn in_others(count: Count) -> String {
    match count.docs {
        0 => String::new(),
        n => format!(", {n} that other builds have"),
    }
}
