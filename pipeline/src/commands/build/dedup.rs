//! The deduplication step of a build: the methods that the recipe switches on, one after the other. Each
//! replaces the removal lists of the parts by longer ones; what it removed is booked under its reason.

use super::run::{Part, Run};
use crate::dedup::{self, PartReport, exact, minhash};
use crate::document::Count;
use crate::error::Result;
use crate::ledger::VariantLedger;
use crate::printer::StageLine;
use crate::recipe::MinhashConfig;
use crate::watch::Watch;
use crate::work;

impl Run<'_> {
    pub fn dedup(&mut self, parts: &mut [Part]) -> Result<()> {
        let nothing = dedup::write_list(&self.work, &[])?;
        for part in parts.iter_mut() {
            part.removed = self.work.join(&nothing);
            self.results.used.push(part.removed.clone());
        }
        if self.prepared.recipe.dedup.exact {
            self.dedup_exact(parts)?;
        }
        if let Some(config) = self.prepared.recipe.dedup.minhash {
            self.dedup_minhash(parts, &config)?;
        }
        Ok(())
    }

    fn dedup_exact(&mut self, parts: &mut [Part]) -> Result<()> {
        let line = StageLine::start("dedup");
        let watch = Watch::new(self.stop.clone(), self.printer.bar("dedup", 0));
        let inputs: Vec<exact::Part> = (parts.iter())
            .map(|part| exact::Part {
                source: self.source_name(part),
                documents: part.documents.clone(),
                keys: part.keys.clone(),
            })
            .collect();
        let report = exact::run(&self.work, &inputs, &self.engine, &watch);
        watch.finish();
        let report = report?;
        let folder = exact::folder(&self.work, &inputs);
        self.results.add_audit(folder.join(work::DUPLICATES), "dups-exact.parquet".to_owned());
        self.results.used.push(folder);
        let removed = self.book(parts, &report.parts, exact::REASON);
        line.done(self.printer, &format!("{} exact duplicates removed", removed.docs));
        Ok(())
    }

    fn dedup_minhash(&mut self, parts: &mut [Part], config: &MinhashConfig) -> Result<()> {
        let line = StageLine::start("minhash");
        let weight = parts.iter().map(|part| part.left.bytes).sum();
        let watch = Watch::new(self.stop.clone(), self.printer.bar("minhash", weight));
        let sources = &self.prepared.recipe.source;
        let inputs: Vec<minhash::Part> = (parts.iter())
            .map(|part| minhash::Part {
                source: sources[part.source].name.clone(),
                source_index: part.source as u16,
                has_family: sources[part.source].family.is_some(),
                n_bytes: part.left.bytes,
                documents: part.documents.clone(),
                kept: part.kept.clone(),
                removed: part.removed.clone(),
            })
            .collect();
        let outcome = minhash::run(&self.work, &inputs, config, &self.engine, &watch);
        watch.finish();
        let (report, folder, used) = outcome?;
        self.results.add_audit(folder.join(work::DUPLICATES), "dups-minhash.parquet".to_owned());
        self.results.used.extend(used);
        let estimate = minhash::estimate::run(&self.work, &inputs, config, &report, &self.engine, &watch)?;
        if let Some((estimate, used)) = estimate {
            self.ledger.minhash_estimate = Some(estimate);
            self.results.used.extend(used);
        }
        let removed = self.book(parts, &report.parts, minhash::REASON);
        for (name, source) in &report.sources {
            if source.variants > 0 {
                let variants = VariantLedger { documents: source.variants, copies: source.variant_copies };
                self.ledger.source(name).variants = Some(variants);
            }
        }
        let what = format!(
            "{} near-duplicates removed, {} clusters of {} candidates",
            removed.docs, report.clusters, report.candidates
        );
        line.done(self.printer, &what);
        Ok(())
    }

    /// Replaces the removal lists and moves what is new in them from the kept to the dropped.
    fn book(&mut self, parts: &mut [Part], reports: &[PartReport], reason: &str) -> Count {
        let mut sum = Count::default();
        for (part, found) in parts.iter_mut().zip(reports) {
            part.removed = self.work.join(&found.list);
            self.results.used.push(part.removed.clone());
            part.left = part.left.minus(found.removed);
            if found.removed.docs > 0 {
                sum += found.removed;
                *self.entry(part).dropped.entry(reason.to_owned()).or_default() += found.removed;
            }
        }
        sum
    }
}
