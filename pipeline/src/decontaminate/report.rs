//! `decontamination.json`: what was searched for, how well the search works, and what was found, by benchmark; and
//! the short form of it in the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::audit::Match;
use crate::decontaminate::index::BenchmarkCounts;
use crate::decontaminate::selftest::{Planting, Recall, Recalls};
use crate::recipe::DecontaminateConfig;

/// Matches of a benchmark that the report lists; all are in the audit tables.
const SHOWN: usize = 1000;

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decontamination {
    /// Version of this file's schema.
    pub version: u32,
    /// The section of the recipe.
    pub settings: DecontaminateConfig,
    /// By name of the benchmark.
    pub benchmarks: BTreeMap<String, BenchmarkReport>,
}

/// One benchmark.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkReport {
    /// Counts.
    pub summary: BenchmarkSummary,
    /// Documents that hold some of it, by source.
    pub documents_by_source: BTreeMap<String, u64>,
    /// What was found, in the order of the records; the first thousand.
    pub matches: Vec<Match>,
}

/// A benchmark in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkSummary {
    /// Its texts: one for each record and field.
    pub texts: u64,
    /// Those with too few words to be looked for.
    pub too_short: u64,
    /// Those with the same words as an earlier one.
    pub copies: u64,
    /// Different texts that were found.
    pub found_texts: u64,
    /// Documents that hold one or more.
    pub documents: u64,
    /// Matches: texts in documents.
    pub matches: u64,
    /// Canaries of the self-test, by how they were planted.
    pub recall: BTreeMap<Planting, Recall>,
}

impl Decontamination {
    /// File name in the output folder.
    pub const FILE: &'static str = "decontamination.json";
    /// Schema version written by this program.
    pub const VERSION: u32 = 1;

    /// A report before anything was looked for; counts and recalls are those of the benchmarks in the order of `settings`.
    pub fn new(
        settings: &DecontaminateConfig,
        counts: &[BenchmarkCounts],
        recalls: &[Recalls],
    ) -> Decontamination {
        let benchmarks =
            settings.benchmark.iter().zip(counts).zip(recalls).map(|((benchmark, counts), recalls)| {
                let BenchmarkCounts { texts, too_short, copies } = *counts;
                let recall = Planting::ALL.into_iter().zip(*recalls).collect();
                let summary =
                    BenchmarkSummary { texts, too_short, copies, recall, ..BenchmarkSummary::default() };
                (benchmark.name.clone(), BenchmarkReport { summary, ..BenchmarkReport::default() })
            });
        let benchmarks = benchmarks.collect();
        Decontamination { version: Decontamination::VERSION, settings: settings.clone(), benchmarks }
    }

    /// Books all matches of a build.
    pub fn add(&mut self, mut matches: Vec<Match>) {
        matches.sort_by(|a, b| a.key().cmp(&b.key()));
        for of_benchmark in matches.chunk_by(|a, b| a.benchmark == b.benchmark) {
            let report = self.benchmarks.entry(of_benchmark[0].benchmark.clone()).or_default();
            let texts: BTreeSet<(u64, &str)> =
                of_benchmark.iter().map(|found| (found.record, found.field.as_str())).collect();
            let documents: BTreeSet<(&str, &str)> =
                of_benchmark.iter().map(|found| (found.source.as_str(), found.id.as_str())).collect();
            report.summary.found_texts = texts.len() as u64;
            report.summary.documents = documents.len() as u64;
            report.summary.matches = of_benchmark.len() as u64;
            for (source, _) in documents {
                *report.documents_by_source.entry(source.to_owned()).or_default() += 1;
            }
            report.matches = of_benchmark.iter().take(SHOWN).cloned().collect();
        }
    }

    /// The short form.
    pub fn summaries(&self) -> BTreeMap<String, BenchmarkSummary> {
        self.benchmarks.iter().map(|(name, report)| (name.clone(), report.summary.clone())).collect()
    }

    /// Canaries with too few found, in words.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for (name, report) in &self.benchmarks {
            for (planting, recall) in &report.summary.recall {
                if recall.share() < self.settings.min_recall {
                    let Recall { planted, found } = *recall;
                    missed.push(format!("{name}, {}: {found} of {planted}", planting.name()));
                }
            }
        }
        missed
    }
}

impl fmt::Display for BenchmarkSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BenchmarkSummary { texts, too_short, found_texts, documents, .. } = self;
        write!(f, "{found_texts} of {texts} texts found in {documents} documents")?;
        if *too_short > 0 {
            write!(f, ", {too_short} too short")?;
        }
        let recalls = self.recall.iter().filter(|(_, recall)| recall.planted > 0);
        let recalls: Vec<String> =
            recalls.map(|(planting, recall)| format!("{} {:.2}", planting.name(), recall.share())).collect();
        if !recalls.is_empty() {
            write!(f, "; self-test: {}", recalls.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decontaminate::config::BenchmarkConfig;

    fn found(benchmark: &str, record: u64, id: &str) -> Match {
        Match {
            benchmark: benchmark.into(),
            record,
            field: "question".into(),
            source: "web".into(),
            id: id.into(),
            document_id: 0,
            start: 0,
            end: 9,
            n_words: 7,
            score: 1.0,
            text: "x".into(),
        }
    }

    #[test]
    fn matches_are_counted_by_text_and_by_document() {
        let benchmark = |name: &str| BenchmarkConfig { name: name.into(), ..BenchmarkConfig::default() };
        let settings = DecontaminateConfig {
            benchmark: vec![benchmark("a"), benchmark("b")],
            ..DecontaminateConfig::default()
        };
        let counts = BenchmarkCounts { texts: 10, too_short: 1, copies: 2 };
        let good = Recall { planted: 9, found: 9 };
        let bad = Recall { planted: 9, found: 8 };
        let mut report = Decontamination::new(&settings, &[counts; 2], &[[good; 4], [good, good, bad, good]]);
        report.add(vec![found("a", 3, "y"), found("a", 1, "x"), found("a", 1, "y"), found("a", 1, "y")]);
        let a = &report.benchmarks["a"];
        assert_eq!((a.summary.found_texts, a.summary.documents, a.summary.matches), (2, 2, 4));
        assert_eq!(a.documents_by_source, [("web".to_owned(), 2)].into());
        assert_eq!((a.matches[0].record, a.matches[0].id.as_str()), (1, "x"));
        assert_eq!(report.benchmarks["b"].summary.matches, 0);
        assert_eq!(report.missed(), ["b, changed: 8 of 9"]);
        let words = report.benchmarks["b"].summary.to_string();
        assert_eq!(
            words,
            "0 of 10 texts found in 0 documents, 1 too short; self-test: verbatim 1.00, rewrapped 1.00, changed 0.89, diluted 1.00"
        );
    }
}
