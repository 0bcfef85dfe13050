//! Variants made by `moe-data rephrase`: reading them into a build, and checking their originals after deduplication.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::part::Part;
use super::run::Run;
use crate::dedup;
use crate::error::Result;
use crate::ledger::SourceLedger;
use crate::printer::StageLine;
use crate::rephrase::{orphans, stage::RephrasedParams};
use crate::stage::Task;
use crate::tables;
use crate::tables::rows::{self, RemovedRow};

impl Run<'_> {
    /// The task that reads the variants of a source, if there are any.
    pub fn rephrased_task(&self, source: usize, number: usize) -> Option<(PathBuf, Task)> {
        let input = self.prepared.rephrased.get(source)?.clone()?;
        let params = RephrasedParams {
            source: self.prepared.recipe.source[source].name.clone(),
            variants: self.prepared.variants(source),
            normalize: self.prepared.recipe.normalize,
            input: input.clone(),
        };
        Some((input.path, Task::new(&self.work, number, input.n_bytes, params, ())))
    }

    /// Drops variants whose original is not kept or has another text.
    pub fn drop_orphans(&mut self, parts: &mut [Part]) -> Result<()> {
        let accepted = |i: usize| Some((i, parts[i].accepted.clone()?));
        let rephrased: Vec<(usize, PathBuf)> = (0..parts.len()).filter_map(accepted).collect();
        if rephrased.is_empty() {
            return Ok(());
        }
        let line = StageLine::start("parents");
        let tasks = rephrased.iter().map(|(i, accepted)| {
            let part = &parts[*i];
            let of_source =
                parts.iter().filter(|other| other.source == part.source && other.accepted.is_none());
            let inputs = orphans::OrphansInputs {
                accepted: accepted.clone(),
                variants: part.cut_documents(),
                originals: of_source.map(Part::placed_documents).collect(),
            };
            let params = orphans::OrphansParams { source: self.source_name(part) };
            Task::new(&self.work, *i, part.left.bytes, params, inputs)
        });
        let tasks: Vec<Task> = tasks.collect();
        let (mut n_left, mut reasons) = (0, BTreeSet::new());
        for ((i, _), (task, report)) in rephrased.into_iter().zip(self.map("parents", tasks)?) {
            let part = &mut parts[i];
            let removed: Vec<u32> = rows::read::<RemovedRow>(&task.file(tables::REMOVED))?
                .into_iter()
                .map(|row| row.row)
                .collect();
            part.removed = self.work.join(dedup::write_list(&self.work, &removed)?);
            self.results.used.push(part.removed.clone());
            for (reason, dropped) in &report.dropped {
                part.left = part.left.minus(*dropped);
                reasons.insert(format!("{} {reason}", dropped.docs));
            }
            n_left += part.left.docs;
            let audit = format!("drops-parents-{}.parquet", part.label);
            self.results.add_audit(task.file(tables::DROPS), audit);
            SourceLedger::add(&mut self.entry(&parts[i]).dropped, &report.dropped);
        }
        let reasons: Vec<String> = reasons.into_iter().collect();
        let dropped =
            if reasons.is_empty() { String::new() } else { format!(", dropped {}", reasons.join(", ")) };
        line.done(self.printer, &format!("{n_left} variants of rephrasing kept{dropped}"));
        Ok(())
    }
}
