//! The rules of a build: first measuring and rewriting, then the verdicts.

use std::collections::BTreeSet;

use super::part::{Part, left};
use super::run::Run;
use crate::document::Count;
use crate::error::Result;
use crate::filter::FilterConfig;
use crate::filter::chain::Measuring;
use crate::ledger::SourceLedger;
use crate::printer::StageLine;
use crate::recipe::ByteSize;
use crate::stage::{Task, filter, measure};
use crate::tables;
use crate::tables::tags::too_many_tags;

impl Run<'_> {
    /// The filters of a part's source, in order.
    pub fn filters(&self, part: &Part) -> Vec<FilterConfig> {
        let source = self.source_name(part);
        self.prepared.recipe.filter.iter().filter(|filter| filter.applies_to(&source)).cloned().collect()
    }

    pub fn filter(&mut self, parts: &mut [Part]) -> Result<()> {
        let line = StageLine::start("filter");
        self.measure(parts)?;
        let tasks = parts.iter().enumerate().map(|(i, part)| {
            let params = filter::FilterParams {
                source: self.source_name(part),
                source_index: part.source as u16,
                filters: self.filters(part),
            };
            let (documents, measures) = (part.documents.clone(), part.measures.clone());
            let inputs = filter::FilterInputs { documents, measures };
            Task::new(&self.work, i, part.left.bytes, params, inputs)
        });
        let tasks = tasks.collect();
        let before = left(parts).docs;
        let mut cut = Count::default();
        let mut tags: BTreeSet<String> = self.tags.clone();
        for (part, (task, report)) in parts.iter_mut().zip(self.map("filter", tasks)?) {
            (part.kept, part.keys) = (task.file(tables::KEPT), task.file(tables::KEYS));
            part.left = report.kept;
            part.tags = (!report.tags.is_empty()).then(|| task.output.clone());
            tags.extend(report.tags);
            if tags.len() > moe_shards::Names::MAX_TAGS {
                let tags: Vec<String> = tags.into_iter().collect();
                return Err(too_many_tags(&self.source_name(part), &tags));
            }
            report.cut.values().for_each(|count| cut += *count);
            let entry = self.entry(part);
            SourceLedger::add(&mut entry.dropped, &report.dropped);
            SourceLedger::add(&mut entry.cut, &report.cut);
            self.results.add_audit(task.file(tables::DROPS), format!("drops-filter-{}.parquet", part.label));
        }
        self.tags = tags;
        let kept = left(parts).docs;
        let cut = match cut.bytes {
            0 => String::new(),
            bytes => format!(", {} cut", ByteSize(bytes)),
        };
        line.done(self.printer, &format!("{kept} documents kept, {} dropped{cut}", before - kept));
        Ok(())
    }

    /// Measures the parts whose sources have filters.
    fn measure(&mut self, parts: &mut [Part]) -> Result<()> {
        let (mut measured, mut tasks) = (Vec::new(), Vec::new());
        for (i, part) in parts.iter().enumerate() {
            let rules: Vec<Measuring> = self.filters(part).iter().map(Measuring::of).collect();
            if rules.is_empty() {
                continue;
            }
            let inputs = measure::MeasureInputs { documents: part.documents.clone() };
            measured.push(i);
            let params = measure::MeasureParams { rules };
            tasks.push(Task::new(&self.work, i, part.left.bytes, params, inputs));
        }
        for (i, (task, _)) in measured.into_iter().zip(self.map("measure", tasks)?) {
            parts[i].measures = Some(task.file(tables::MEASURES));
            let rewritten = task.file(tables::DOCUMENTS);
            if rewritten.exists() {
                parts[i].documents = rewritten;
            }
        }
        Ok(())
    }
}
