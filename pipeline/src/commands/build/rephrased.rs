//! Variants that `moe-data rephrase` made: their way into a build, and the check of their originals behind deduplication.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::run::{Part, Run};
use crate::dedup;
use crate::error::Result;
use crate::ledger::SourceLedger;
use crate::printer::StageLine;
use crate::stage::{Params, Task, parents, rephrased};
use crate::work;
use crate::work::rows::{self, RemovedRow};

impl Run<'_> {
    /// The task that reads the variants of a source, if there are any.
    pub fn rephrased_task(&self, source: usize, number: usize) -> Option<(PathBuf, Task)> {
        let input = self.prepared.rephrased.get(source)?.clone()?;
        let params = rephrased::RephrasedParams {
            source: self.prepared.recipe.source[source].name.clone(),
            variants: self.prepared.variants(source),
            normalize: self.prepared.recipe.normalize,
            input: input.clone(),
        };
        let params = Params::Rephrased(Box::new(params));
        Some((input.path, Task::new(&self.work, number, input.n_bytes, Vec::new(), params)))
    }

    /// Drops variants whose original is not kept or has another text.
    pub fn check_parents(&mut self, parts: &mut [Part]) -> Result<()> {
        let rephrased: Vec<usize> = (0..parts.len()).filter(|&i| parts[i].accepted.is_some()).collect();
        if rephrased.is_empty() {
            return Ok(());
        }
        let line = StageLine::start("parents");
        let tables =
            |part: &Part| [&part.documents, &part.kept, &part.removed, &part.cuts].map(PathBuf::clone);
        let with_families = |part: &Part| tables(part).into_iter().chain([part.families.clone()]);
        let tasks = rephrased.iter().map(|&i| {
            let part = &parts[i];
            let of_source =
                parts.iter().filter(|other| other.source == part.source && other.accepted.is_none());
            let inputs =
                part.accepted.iter().cloned().chain(tables(part)).chain(of_source.flat_map(with_families));
            let params = parents::ParentsParams { source: self.source_name(part) };
            Task::new(&self.work, i, part.left.bytes, inputs.collect(), Params::Parents(params))
        });
        let tasks: Vec<Task> = tasks.collect();
        let (mut n_left, mut reasons) = (0, BTreeSet::new());
        for (i, (task, report)) in rephrased.into_iter().zip(self.map("parents", tasks)?) {
            let part = &mut parts[i];
            let removed: Vec<u32> =
                rows::read::<RemovedRow>(&task.file(work::REMOVED))?.into_iter().map(|row| row.row).collect();
            part.removed = self.work.join(dedup::write_list(&self.work, &removed)?);
            self.results.used.push(part.removed.clone());
            for (reason, dropped) in &report.dropped {
                part.left = part.left.minus(*dropped);
                reasons.insert(format!("{} {reason}", dropped.docs));
            }
            n_left += part.left.docs;
            let audit = format!("drops-parents-{}.parquet", part.label);
            self.results.add_audit(task.file(work::DROPS), audit);
            SourceLedger::add(&mut self.entry(&parts[i]).dropped, &report.dropped);
        }
        let reasons: Vec<String> = reasons.into_iter().collect();
        let dropped =
            if reasons.is_empty() { String::new() } else { format!(", dropped {}", reasons.join(", ")) };
        line.done(self.printer, &format!("{n_left} variants of rephrasing kept{dropped}"));
        Ok(())
    }
}
