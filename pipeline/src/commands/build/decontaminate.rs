//! Decontamination in a build: the self-test before any work, the search after deduplication, the report.

use super::part::Part;
use super::run::Run;
use crate::decontaminate::config::Action;
use crate::decontaminate::load;
use crate::decontaminate::report::Decontamination;
use crate::decontaminate::selftest;
use crate::decontaminate::stage::{DecontaminateInputs, DecontaminateParams, read_matches};
use crate::document::Count;
use crate::error::{Error, Result};
use crate::printer::StageLine;
use crate::recipe::ByteSize;
use crate::stage::Task;
use crate::tables;
use crate::tables::tags::too_many_tags;

impl Run<'_> {
    /// Reads the evaluation sets and looks for canaries made of them.
    ///
    /// # Errors
    /// An evaluation set cannot be read, or too few canaries are found.
    pub fn decontamination_self_test(&mut self) -> Result<()> {
        let Some(config) = &self.prepared.recipe.decontaminate else { return Ok(()) };
        let line = StageLine::start("self-test");
        let loaded = load::shared(&self.prepared.benchmarks, &config.settings())?;
        let recalls: Vec<selftest::Recalls> = (loaded.canaries.iter())
            .map(|canaries| {
                let canaries: Vec<_> = canaries.iter().map(|(id, text)| (*id, text.as_str())).collect();
                selftest::run(&loaded.index, &canaries)
            })
            .collect();
        let report = Decontamination::new(config, loaded.index.counts(), &recalls);
        let planted: u64 = recalls.iter().flatten().map(|recall| recall.planted).sum();
        let found: u64 = recalls.iter().flatten().map(|recall| recall.found).sum();
        let n_texts = loaded.index.texts().len();
        let what = format!("{n_texts} evaluation texts, {found} of {planted} canaries found");
        line.done(self.printer, &what);
        let missed = report.missed();
        if !missed.is_empty() {
            let message = format!(
                "the self-test of decontamination finds too few of its canaries (`decontaminate.min_recall` = {}):\n  {}\n  hint: a lower `decontaminate.threshold` or a higher `max_misses` finds more",
                config.min_recall,
                missed.join("\n  ")
            );
            return Err(Error::Check(message));
        }
        self.ledger.decontamination = Some(report.summaries());
        self.results.decontamination = Some(report);
        Ok(())
    }

    /// Takes evaluation text out of the documents that are left.
    pub fn decontaminate(&mut self, parts: &mut [Part]) -> Result<()> {
        let Some(config) = &self.prepared.recipe.decontaminate else { return Ok(()) };
        let line = StageLine::start("decontaminate");
        let is_tag = config.action == Action::Tag;
        let mut tags = self.tags.clone();
        let wanted = |part: &Part| config.applies_to(&self.source_name(part));
        let mut parts: Vec<&mut Part> = parts.iter_mut().filter(|part| wanted(part)).collect();
        let tasks = parts.iter().enumerate().map(|(i, part)| {
            let inputs = DecontaminateInputs {
                part: part.cut_documents(),
                tags: part.tags.clone().filter(|_| is_tag),
            };
            let params = DecontaminateParams {
                source: self.source_name(part),
                settings: config.settings(),
                action: config.action,
                tag: is_tag.then(|| config.tag.clone()),
                min_chars_left: config.min_chars_left,
                benchmarks: self.prepared.benchmarks.clone(),
            };
            Task::new(&self.work, i, part.left.bytes, params, inputs)
        });
        let tasks = tasks.collect();
        let (mut n_cut, mut n_dropped, mut matches) = (Count::default(), 0, Vec::new());
        for (part, (task, report)) in parts.iter_mut().zip(self.map("decontaminate", tasks)?) {
            let (cut, dropped) = self.book_cuts(part, &task, &report)?;
            n_cut += cut;
            n_dropped += dropped;
            if is_tag && !report.tags.is_empty() {
                part.tags = Some(task.output.clone());
                tags.extend(report.tags.iter().cloned());
                if tags.len() > moe_shards::Names::MAX_TAGS {
                    let tags: Vec<String> = tags.into_iter().collect();
                    return Err(too_many_tags(&self.source_name(part), &tags));
                }
            }
            matches.extend(read_matches(&task.file(tables::MATCHES))?);
            let name = format!("{}.parquet", part.label);
            self.results.add_audit(task.file(tables::CONTAMINATION_AUDIT), format!("contamination-{name}"));
            self.results.add_audit(task.file(tables::DROPS), format!("drops-decontaminate-{name}"));
        }
        let what = format!(
            "{} matches; {n_dropped} documents dropped, {} cut from {}",
            matches.len(),
            ByteSize(n_cut.bytes),
            n_cut.docs
        );
        line.done(self.printer, &what);
        self.tags = tags;
        if let Some(report) = &mut self.results.decontamination {
            report.add(matches);
            self.ledger.decontamination = Some(report.summaries());
        }
        Ok(())
    }
}
