//! `moe-data decontaminate`: looks for text of evaluation sets in files, without a build.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use rayon::prelude::*;
use serde_json::json;

use super::documents::for_each_batch;
use crate::decontaminate::audit::Match;
use crate::decontaminate::config::BenchmarkConfig;
use crate::decontaminate::load::{self, Benchmark};
use crate::decontaminate::report::Decontamination;
use crate::decontaminate::{Scanner, Settings, selftest};
use crate::error::{Error, Problem, Result};
use crate::printer::Printer;
use crate::read::FieldPaths;
use crate::recipe::DecontaminateConfig;
use crate::recipe::inputs;
use crate::strict_toml::Section;

/// `NAME=PATH:FIELD,FIELD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchmarkFlag(pub BenchmarkConfig);

impl FromStr for BenchmarkFlag {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<BenchmarkFlag, String> {
        let wrong = || "expected NAME=PATH:FIELD[,FIELD], such as gsm8k=test.jsonl.gz:question".to_owned();
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (path, fields) = rest.rsplit_once(':').ok_or_else(wrong)?;
        if name.is_empty() || path.is_empty() || fields.split(',').any(str::is_empty) {
            return Err(wrong());
        }
        Ok(BenchmarkFlag(BenchmarkConfig {
            name: name.to_owned(),
            paths: vec![path.to_owned()],
            fields: fields.split(',').map(str::to_owned).collect(),
            ..BenchmarkConfig::default()
        }))
    }
}

/// Flags of `decontaminate`.
#[derive(Clone, Debug, Args)]
pub struct DecontaminateArgs {
    /// Evaluation set: its name, its file, and the fields to look for; may be repeated
    #[arg(long, value_name = "NAME=PATH:FIELD[,FIELD]", required = true)]
    pub benchmark: Vec<BenchmarkFlag>,
    /// Files, folders or globs to search
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Field with the name of the document [default: file and offset]
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Evaluation texts with fewer words must be found whole
    #[arg(long, value_name = "N", default_value_t = 13)]
    pub ngram: u32,
    /// Share of an evaluation text's weight that counts as a match
    #[arg(long, value_name = "X", default_value_t = 0.7)]
    pub threshold: f64,
    /// Words in a row that may differ inside a match
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub max_misses: u32,
    /// Evaluation texts with fewer words are not looked for
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub min_words: u32,
    /// Threads [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Print the report as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Matches shown per benchmark.
const SHOWN: usize = 10;

/// Runs the command.
///
/// # Errors
/// Settings out of range, or a file that cannot be read.
pub fn run(args: &DecontaminateArgs, printer: &Printer) -> Result<()> {
    let DecontaminateArgs { ngram, threshold, max_misses, min_words, .. } = *args;
    let settings = Settings { ngram, threshold, max_misses, min_words };
    let benchmark: Vec<BenchmarkConfig> = args.benchmark.iter().map(|flag| flag.0.clone()).collect();
    let config = DecontaminateConfig {
        ngram,
        threshold,
        max_misses,
        min_words,
        benchmark,
        ..DecontaminateConfig::default()
    };
    let wrong: Vec<String> =
        config.check().into_iter().map(|(key, message)| format!("{key} {message}")).collect();
    if !wrong.is_empty() {
        return Err(Error::Usage(wrong.join("\n")));
    }
    let benchmarks = find(&config.benchmark)?;
    let start = Instant::now();
    let loaded = load::load(&benchmarks, &settings)?;
    let recalls: Vec<selftest::Recalls> = (loaded.canaries.iter())
        .map(|canaries| {
            let canaries: Vec<_> = canaries.iter().map(|(id, text)| (*id, text.as_str())).collect();
            selftest::run(&loaded.index, &canaries)
        })
        .collect();
    let n_texts = loaded.index.texts().len();
    printer.note(&format!(
        "{n_texts} evaluation texts, read and tested in {:.2} s",
        start.elapsed().as_secs_f64()
    ));
    let mut report = Decontamination::new(&config, loaded.index.counts(), &recalls);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads.map_or(0, usize::from))
        .build()
        .map_err(|e| Error::Machine(format!("cannot start threads: {e}")))?;
    let (mut matches, mut n_docs, mut n_bytes, mut n_words, mut seconds) =
        (Vec::new(), 0u64, 0u64, 0u64, 0.0);
    let fields = FieldPaths { text: args.text.clone(), id: args.id.clone(), ..FieldPaths::default() };
    let n_bad = pool.install(|| {
        for_each_batch(&args.paths, &fields, &printer.bar("search", 0), |documents| {
            let start = Instant::now();
            let found: Vec<_> = documents
                .par_iter()
                .map_init(Scanner::default, |scanner, document| {
                    let found = scanner.scan(&loaded.index, &document.text);
                    (found, scanner.n_words() as u64)
                })
                .collect();
            seconds += start.elapsed().as_secs_f64();
            for (document, (found, words)) in documents.iter().zip(found) {
                n_docs += 1;
                n_bytes += document.text.len() as u64;
                n_words += words;
                for one in found {
                    let eval = &loaded.index.texts()[one.text as usize];
                    let benchmark = &benchmarks[usize::from(eval.benchmark)];
                    let span = &document.text[one.start as usize..one.end as usize];
                    matches.push(Match {
                        benchmark: benchmark.name.clone(),
                        record: eval.record,
                        field: benchmark.fields[usize::from(eval.field)].clone(),
                        source: document.file.clone(),
                        id: document.id.clone(),
                        document_id: 0,
                        start: one.start,
                        end: one.end,
                        n_words: one.n_words,
                        score: one.score,
                        text: span.chars().take(crate::decontaminate::stage::SAMPLE_CHARS).collect(),
                    });
                }
            }
            Ok(())
        })
    })?;
    if n_bad > 0 {
        printer.warn(&format!("{n_bad} records are not documents and were left out"));
    }
    report.add(matches);
    if args.json {
        printer.data(&format!("{}\n", json!(report)));
    } else {
        printer.data(&words(&report));
    }
    let per_core = seconds.max(1e-9) * pool.current_num_threads() as f64;
    printer.note(&format!(
        "{n_docs} documents of {:.0} bytes and {:.0} words, searched at {:.0} documents/s/core ({:.0} MB/s/core)",
        n_bytes as f64 / n_docs.max(1) as f64,
        n_words as f64 / n_docs.max(1) as f64,
        n_docs as f64 / per_core,
        n_bytes as f64 / 1e6 / per_core
    ));
    Ok(())
}

/// Finds the files of the evaluation sets.
fn find(benchmarks: &[BenchmarkConfig]) -> Result<Vec<Benchmark>> {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for benchmark in benchmarks {
        let files = inputs::find(Path::new(""), &benchmark.paths).unwrap_or_else(|messages| {
            let key = format!("--benchmark {}", benchmark.name);
            problems.extend(messages.into_iter().map(|message| Problem {
                file: None,
                line: None,
                key: key.clone(),
                message,
            }));
            Vec::new()
        });
        let BenchmarkConfig { name, fields, prefix, .. } = benchmark.clone();
        found.push(Benchmark { name, files, fields, prefix });
    }
    if problems.is_empty() { Ok(found) } else { Err(Error::Recipe { problems }) }
}

fn words(report: &Decontamination) -> String {
    let mut lines = Vec::new();
    for (name, benchmark) in &report.benchmarks {
        lines.push(format!("{name}: {}", benchmark.summary));
        lines
            .extend(benchmark.documents_by_source.iter().map(|(file, n)| format!("  {file}: {n} documents")));
        lines.extend(benchmark.matches.iter().take(SHOWN).map(|found| {
            let sample: String = found.text.chars().take(100).collect();
            format!(
                "    record {} {} in {} ({} words, {:.2}): {sample:?}",
                found.record, found.field, found.id, found.n_words, found.score
            )
        }));
        if benchmark.summary.matches > SHOWN as u64 {
            lines.push(format!("    and {} more", benchmark.summary.matches - SHOWN as u64));
        }
    }
    format!("{}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_is_a_name_a_path_and_fields() {
        let flag: BenchmarkFlag = "he=a/b:c.jsonl:prompt,test".parse().unwrap();
        assert_eq!(flag.0.name, "he");
        assert_eq!(flag.0.paths, ["a/b:c.jsonl"]);
        assert_eq!(flag.0.fields, ["prompt", "test"]);
        for wrong in ["a", "a=b", "a=b:", "=b:c", "a=:c", "a=b:c,"] {
            assert!(wrong.parse::<BenchmarkFlag>().is_err(), "{wrong}");
        }
    }
}
