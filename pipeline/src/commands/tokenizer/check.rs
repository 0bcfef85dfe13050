//! `moe-data tokenizer check FILE`: which engine a tokenizer gets, and what forces the slow one.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use rayon::prelude::*;
use serde_json::json;

use super::{TextArgs, Use};
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::recipe::ByteSize;
use crate::tokenizer::Encoder;

/// Flags of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// tokenizer.json
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// File, folder or glob whose documents are encoded by both engines and compared; may be repeated
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// Field with the text of those documents
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// How the file is used.
    #[command(flatten)]
    pub usage: Use,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Differences to report.
const SHOWN: usize = 5;

/// Runs the command.
///
/// # Errors
/// The file is not a tokenizer, the texts cannot be read, or ([`Error::Check`]) an engine that passed the probe
/// gives different ids from the reference for one of them.
pub fn run(args: &CheckArgs, printer: &Printer) -> Result<()> {
    let start = Instant::now();
    let encoder = Encoder::load(&args.file, &args.usage.options())?;
    let load_secs = start.elapsed().as_secs_f64();
    let mut data = Data::default();
    let unknown = encoder.unknown().map(|id| id.0);
    if !args.data.is_empty() {
        let texts = TextArgs { paths: args.data.clone(), text: args.text.clone(), group: None };
        data.n_bad = texts.for_each_batch(&printer.bar("check", 0), |texts| {
            let found = texts
                .par_iter()
                .map(|text| {
                    let ids = match encoder.encode(&text.text) {
                        Err(Error::Tokenizer { message, .. }) => return Ok(Err(message)),
                        ids => ids?,
                    };
                    let difference = encoder.difference(&text.text, &ids)?;
                    let n_unknown = ids.iter().filter(|id| Some(**id) == unknown).count() as u64;
                    Ok(Ok((text.text.len() as u64, ids.len() as u64, n_unknown, difference)))
                })
                .collect::<Result<Vec<_>>>()?;
            for found in found {
                data.n_docs += 1;
                let (n_bytes, n_tokens, n_unknown, difference) = match found {
                    Ok(found) => found,
                    Err(message) => {
                        data.n_refused += 1;
                        data.first_refused.get_or_insert(message);
                        continue;
                    }
                };
                data.n_unknown += n_unknown;
                data.n_bytes += n_bytes;
                data.n_tokens += n_tokens;
                if let Some(difference) = difference {
                    data.n_different += 1;
                    if data.differences.len() < SHOWN {
                        data.differences.push(difference);
                    }
                }
            }
            Ok(())
        })?;
    }
    let verdict = encoder.verdict();
    if args.json {
        let value = json!({
            "file": args.file,
            "engine": verdict.engine,
            "family": verdict.family,
            "reason": verdict.reason,
            "probe_strings": verdict.n_probes,
            "vocab_size": encoder.vocab_size(),
            "eod": encoder.eod(),
            "bos": encoder.bos(),
            "load_seconds": load_secs,
            "data": (!args.data.is_empty()).then(|| json!({
                "documents": data.n_docs,
                "bytes": data.n_bytes,
                "tokens": data.n_tokens,
                "bad_records": data.n_bad,
                "unknown_tokens": data.n_unknown,
                "not_encodable": data.n_refused,
                "by_reference": encoder.n_by_reference(),
                "different": data.n_different,
                "differences": data.differences,
            })),
        });
        printer.data(&format!("{value}\n"));
    } else {
        printer.data(&format!(
            "{}\n  encoder       {verdict}\n  vocabulary    {} tokens, end of document is {}\n  loaded in     {load_secs:.2} s\n{}",
            args.file.display(),
            encoder.vocab_size(),
            encoder.eod().0,
            if args.data.is_empty() { String::new() } else { data.words(&encoder) }
        ));
    }
    if let Some(first) = &data.first_refused {
        printer.warn(&format!("{} documents cannot be encoded: {first}", data.n_refused));
    }
    match data.n_different {
        0 => Ok(()),
        n => Err(Error::Check(format!(
            "{n} of {} documents have other ids than in the reference\n  hint: set `tokenizer.engine = \"reference\"` in the recipe",
            data.n_docs
        ))),
    }
}

/// Statistics of the comparison.
#[derive(Default)]
struct Data {
    n_docs: u64,
    n_bytes: u64,
    n_tokens: u64,
    n_bad: u64,
    n_different: u64,
    differences: Vec<String>,
    n_unknown: u64,
    n_refused: u64,
    first_refused: Option<String>,
}

impl Data {
    fn words(&self, encoder: &Encoder) -> String {
        let mut text = format!(
            "  compared      {} documents, {}, {} tokens; {} different\n",
            self.n_docs,
            ByteSize(self.n_bytes),
            self.n_tokens,
            self.n_different
        );
        if encoder.n_by_reference() > 0 {
            let n = encoder.n_by_reference();
            text.push_str(&format!("  passed on     {n} documents that only the reference encodes\n"));
        }
        if self.n_unknown > 0 {
            text.push_str(&format!("  unknown       {} tokens\n", self.n_unknown));
        }
        if self.n_bad > 0 {
            text.push_str(&format!("  left out      {} records that are not documents\n", self.n_bad));
        }
        for difference in &self.differences {
            text.push_str(&format!("  different     {difference}\n"));
        }
        text
    }
}
