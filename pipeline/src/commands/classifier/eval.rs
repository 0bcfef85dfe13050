//! `moe-data classifier eval`: how well a model tells positive from negative documents, beside their length alone.

use std::path::PathBuf;

use rayon::prelude::*;

use super::{is_held_out, value, words};
use crate::classifier::{Newlines, Scorer};
use crate::commands::documents::for_each_batch;
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::read::FieldPaths;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct EvalArgs {
    /// The model.
    pub model: PathBuf,
    /// Label of a model of fastText.
    pub label: Option<String>,
    /// Line ends for a model of fastText.
    pub newlines: Newlines,
    /// Files of documents of the wanted kind.
    pub positive: Vec<PathBuf>,
    /// Files of others.
    pub negative: Vec<PathBuf>,
    /// Field with the text.
    pub text: String,
    /// Look only at documents that the model's training held out.
    pub held_out: bool,
    /// Buckets of calibration.
    pub buckets: usize,
    /// Print JSON.
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// The model or a file cannot be read, or `held_out` is asked of a model that held nothing out.
pub fn run(args: &EvalArgs, printer: &Printer) -> Result<()> {
    let scorer = Scorer::open(&args.model, args.label.as_deref(), args.newlines)?;
    let held_out = match (&scorer, args.held_out) {
        (_, false) => None,
        (Scorer::Own(model), true) if model.training.held_out_share > 0.0 => {
            Some((model.training.seed, model.training.held_out_share))
        }
        _ => {
            let message = format!("{} does not know which documents it held out", args.model.display());
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
        printer.warn(&format!("{n_bad} records are no documents and were left out"));
    }
    if args.json {
        printer.data(&format!("{}\n", value(&scored, args.buckets)));
    } else {
        let n_positive = scored.iter().filter(|(_, _, positive)| *positive).count();
        let head = format!("{n_positive} positive, {} negative documents", scored.len() - n_positive);
        printer.data(&format!("{head}\n{}", words(&scored, args.buckets)));
    }
    Ok(())
}
