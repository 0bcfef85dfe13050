//! `moe-data classifier eval`: how well a model separates positive from negative documents, compared with length alone.

use std::path::PathBuf;

use clap::Args;
use rayon::prelude::*;

use super::{ModelFlags, is_held_out, value, words};
use crate::classifier::Scorer;
use crate::commands::documents::for_each_batch;
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::read::FieldPaths;

/// Flags of `eval`.
#[derive(Clone, Debug, Args)]
pub struct EvalArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelFlags,
    /// Files, folders or globs with documents of the wanted kind; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub positive: Vec<PathBuf>,
    /// Files, folders or globs with other documents; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub negative: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Use only documents held out when this model was trained
    #[arg(long)]
    pub held_out: bool,
    /// Number of equal-sized buckets in which calibration is shown
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub buckets: u16,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// The model or a file cannot be read, or `held_out` is given for a model that held nothing out.
pub fn run(args: &EvalArgs, printer: &Printer) -> Result<()> {
    let scorer = args.model.open()?;
    let held_out = match (&scorer, args.held_out) {
        (_, false) => None,
        (Scorer::Own(model), true) if model.training.held_out_share > 0.0 => {
            Some((model.training.seed, model.training.held_out_share))
        }
        _ => {
            let message = format!("{} does not know which documents it held out", args.model.model.display());
            return Err(Error::Usage(message));
        }
    };
    let mut scored = Vec::new();
    let mut n_bad = 0;
    let fields = FieldPaths { text: args.text.clone(), ..FieldPaths::default() };
    for (paths, is_positive) in [(&args.positive, true), (&args.negative, false)] {
        n_bad += for_each_batch(paths, &fields, &printer.bar("read", 0), |documents| {
            let wanted = documents.par_iter().filter(|document| {
                held_out.is_none_or(|(seed, share)| is_held_out(&document.text, seed, share))
            });
            let scores = wanted.map(|document| {
                (scorer.score(&document.text), document.text.chars().count() as u64, is_positive)
            });
            scored.extend(scores.collect::<Vec<_>>());
            Ok(())
        })?;
    }
    if n_bad > 0 {
        printer.warn(&format!("{n_bad} records are not documents and were left out"));
    }
    if args.json {
        printer.data(&format!("{}\n", value(&scored, usize::from(args.buckets))));
    } else {
        let n_positive = scored.iter().filter(|(_, _, positive)| *positive).count();
        let head = format!("{n_positive} positive, {} negative documents", scored.len() - n_positive);
        printer.data(&format!("{head}\n{}", words(&scored, usize::from(args.buckets))));
    }
    Ok(())
}
