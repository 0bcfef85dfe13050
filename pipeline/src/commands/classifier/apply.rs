//! `moe-data classifier apply`: the scores of documents, as JSONL.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use rayon::prelude::*;

use super::ModelFlags;
use crate::commands::documents::for_each_batch;
use crate::error::Result;
use crate::printer::Printer;
use crate::read::FieldPaths;

/// Flags of `apply`.
#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelFlags,
    /// Files, folders or globs
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Field with the name of the document [default: file and offset]
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Threads [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

/// Runs the command: a line `{"id":...,"score":...}` on stdout for each document, in the order of the files.
///
/// # Errors
/// The model or a file cannot be read.
pub fn run(args: &ApplyArgs, printer: &Printer) -> Result<()> {
    let scorer = args.model.open()?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads.map_or(0, usize::from))
        .build()
        .map_err(|e| crate::Error::Machine(format!("cannot start threads: {e}")))?;
    let (mut n_docs, mut n_bytes, mut seconds) = (0u64, 0u64, 0.0);
    let fields = FieldPaths { text: args.text.clone(), id: args.id.clone(), ..FieldPaths::default() };
    let n_bad = pool.install(|| {
        for_each_batch(&args.paths, &fields, &printer.bar_beside_data("score"), |documents| {
            let start = Instant::now();
            let scores: Vec<f64> =
                documents.par_iter().map(|document| scorer.score(&document.text)).collect();
            seconds += start.elapsed().as_secs_f64();
            let mut lines = String::new();
            for (document, score) in documents.iter().zip(scores) {
                lines.push_str(&serde_json::json!({ "id": document.id, "score": score }).to_string());
                lines.push('\n');
                n_docs += 1;
                n_bytes += document.text.len() as u64;
            }
            printer.data(&lines);
            Ok(())
        })
    })?;
    if n_bad > 0 {
        printer.warn(&format!("{n_bad} records are not documents and were left out"));
    }
    let rate = n_docs as f64 / seconds.max(1e-9) / pool.current_num_threads() as f64;
    let size = n_bytes as f64 / n_docs.max(1) as f64;
    printer.note(&format!("{n_docs} documents of {size:.0} bytes, scored at {rate:.0} documents/s/core"));
    Ok(())
}
