//! The deduplication step of a build: the methods that the recipe switches on, one after the other. Each
//! replaces the removal lists of the parts by longer ones; what it removed is booked under its reason.

use super::run::{Part, Run};
use crate::dedup::{self, PartReport, exact};
use crate::document::Count;
use crate::error::Result;
use crate::printer::StageLine;
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
