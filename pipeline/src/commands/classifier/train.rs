//! `moe-data classifier train`: a classifier from positive and negative documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use moe_shards::Hash;
use rayon::prelude::*;

use super::{is_held_out, value, words};
use crate::classifier::calibrate::{self, Calibration};
use crate::classifier::features::{BUCKET_BITS, Features};
use crate::classifier::train::{Examples, TrainSettings, train};
use crate::commands::documents::for_each_batch;
use crate::error::{Error, Result};
use crate::printer::{Printer, StageLine};
use crate::read::FieldPaths;

/// Flags of `train`.
#[derive(Clone, Debug, Args)]
pub struct TrainArgs {
    /// Files, folders or globs with documents of the wanted kind; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub positive: Vec<PathBuf>,
    /// Files, folders or globs with other documents; may be repeated
    #[arg(long, value_name = "PATH", required_unless_present = "rest", num_args = 1..)]
    pub negative: Vec<PathBuf>,
    /// Files, folders or globs with documents of all kinds, such as the corpus itself: four per positive document are drawn
    /// as others, never one of the positive ones; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub rest: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// 1: words; 2: pairs of neighbors too
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub word_ngrams: u32,
    /// The model has 2^N buckets of 4 bytes each
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub bits: u32,
    /// Passes over the documents
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub epochs: u32,
    /// Learning rate at the start
    #[arg(long, value_name = "X", default_value_t = 0.5)]
    pub learning_rate: f64,
    /// Width of the embeddings used in training, 0 for none; size and speed of the model stay the same
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub dim: u32,
    /// Seed of the order and of the held-out documents
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Share of the documents held out for evaluation, by a hash of the text
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    pub held_out: f64,
    /// Leave scores uncalibrated; otherwise the held-out documents make them probabilities
    #[arg(long)]
    pub no_calibration: bool,
    /// Model to write
    #[arg(long, value_name = "FILE", default_value = "quality.moecls")]
    pub output: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
    /// Print the figures as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Buckets of calibration that are shown.
const SHOWN_BUCKETS: usize = 10;
/// Documents drawn from the rest for each positive one; more do not help.
const REST_OF_A_POSITIVE: usize = 4;

impl TrainArgs {
    fn settings(&self) -> TrainSettings {
        TrainSettings {
            features: Features { word_ngrams: self.word_ngrams, bucket_bits: self.bits },
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            dim: self.dim,
            seed: self.seed,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Settings out of range, files that cannot be read, or no document of one kind.
pub fn run(args: &TrainArgs, printer: &Printer) -> Result<()> {
    check(args)?;
    let line = StageLine::start("read");
    let settings = args.settings();
    let (features, seed) = (settings.features, settings.seed);
    let mut examples = Examples::default();
    let mut held_out: Vec<(String, bool)> = Vec::new();
    let mut n_bad = 0;
    let fields = FieldPaths { text: args.text.clone(), ..FieldPaths::default() };
    let mut learn = |texts: Vec<String>, is_positive: bool| {
        let (out, learn): (Vec<_>, Vec<_>) =
            texts.into_iter().partition(|text| is_held_out(text, seed, args.held_out));
        held_out.extend(out.into_iter().map(|text| (text, is_positive)));
        let buckets: Vec<Vec<u32>> = learn.par_iter().map(|text| features.of(text)).collect();
        buckets.iter().for_each(|buckets| examples.push(buckets, is_positive));
    };
    let mut known = BTreeSet::new();
    for (paths, is_positive) in [(&args.positive, true), (&args.negative, false)] {
        if !paths.is_empty() {
            n_bad += for_each_batch(paths, &fields, &printer.bar("read", 0), |documents| {
                let texts: Vec<String> = documents.into_iter().map(|document| document.text).collect();
                if is_positive {
                    known.extend(texts.iter().map(|text| Hash::of(text.as_bytes())));
                }
                learn(texts, is_positive);
                Ok(())
            })?;
        }
    }
    if !args.rest.is_empty() {
        // The texts with the lowest hashes, so that the draw does not depend on the files' order.
        let (most, mut drawn) = (known.len() * REST_OF_A_POSITIVE, BTreeMap::new());
        n_bad += for_each_batch(&args.rest, &fields, &printer.bar("read", 0), |documents| {
            for document in documents {
                let hash = Hash::of(document.text.as_bytes());
                if !known.contains(&hash) {
                    drawn.insert(hash, document.text);
                }
                if drawn.len() > most {
                    drawn.pop_last();
                }
            }
            Ok(())
        })?;
        learn(drawn.into_values().collect(), false);
    }
    let [positive, negative] = examples.counts();
    let what = format!("{positive} positive, {negative} negative documents, {} held out", held_out.len());
    line.done(printer, &what);
    if n_bad > 0 {
        printer.warn(&format!("{n_bad} records are not documents and were left out"));
    }
    if positive == 0 || negative == 0 {
        let message = format!(
            "there are {positive} positive and {negative} negative documents to learn from; both are needed"
        );
        return Err(Error::Usage(message));
    }
    let line = StageLine::start("train");
    let bar = printer.work_bar("train", u64::from(settings.epochs), "epochs");
    let mut model = train(&examples, &settings, |epoch, loss| {
        bar.inc(1);
        printer.detail(&format!("  epoch {}: mean loss {loss:.5}", epoch + 1));
    });
    bar.finish_and_clear();
    if !args.no_calibration && !held_out.is_empty() {
        let odds: Vec<(f64, bool)> =
            held_out.par_iter().map(|(text, is_positive)| (model.log_odds(text), *is_positive)).collect();
        match calibrate::fit(&odds) {
            Some(calibration) => {
                let Calibration { error_before: before, error_after: after, .. } = calibration;
                let helps = after < before;
                let said = if helps { "" } else { ": scores stay uncalibrated" };
                printer.detail(&format!(
                    "  calibration error {before:.4} before, {after:.4} after, each half by the other{said}"
                ));
                if helps {
                    model.calibrate(calibration);
                }
            }
            None => printer.note(
                "scores are not calibrated: that takes 60 held-out documents of each kind, and scores that separate them; raise --held-out, or give more documents",
            ),
        }
    }
    let scored: Vec<(f64, u64, bool)> = held_out
        .par_iter()
        .map(|(text, is_positive)| (model.score(text), text.chars().count() as u64, *is_positive))
        .collect();
    let by_score: Vec<_> = scored.iter().map(|(score, _, positive)| (*score, *positive)).collect();
    let n_positive = held_out.iter().filter(|(_, is_positive)| *is_positive).count() as u64;
    model.training.held_out = [n_positive, held_out.len() as u64 - n_positive];
    model.training.held_out_share = args.held_out;
    model.training.auc = crate::classifier::evaluate::auc(&by_score);
    if !scored.is_empty() {
        model.training.accuracy = Some(crate::classifier::evaluate::accuracy(&by_score, 0.5));
    }
    model.write(&args.output)?;
    line.done(printer, &format!("wrote {}", args.output.display()));
    if args.json {
        let figures = serde_json::json!({
            "model": args.output, "training": model.training, "held_out": value(&scored, SHOWN_BUCKETS),
        });
        printer.data(&format!("{figures}\n"));
    } else if !scored.is_empty() {
        printer.note(&format!(
            "\non the {} held-out documents:\n{}",
            scored.len(),
            words(&scored, SHOWN_BUCKETS)
        ));
    }
    printer.note(&format!("next: moe-data classifier apply --model {} FILES", args.output.display()));
    Ok(())
}

fn check(args: &TrainArgs) -> Result<()> {
    let TrainSettings { features, epochs, learning_rate, dim, .. } = args.settings();
    let mut wrong = Vec::new();
    if !BUCKET_BITS.contains(&features.bucket_bits) {
        wrong.push(format!("--bits is {}; expected {BUCKET_BITS:?}", features.bucket_bits));
    }
    if !(1..=2).contains(&features.word_ngrams) {
        wrong.push(format!("--word-ngrams is {}; expected 1 or 2", features.word_ngrams));
    }
    if !(1..=1000).contains(&epochs) {
        wrong.push(format!("--epochs is {epochs}; expected 1 to 1000"));
    }
    if !(learning_rate > 0.0 && learning_rate <= 100.0) {
        wrong.push(format!("--learning-rate is {learning_rate}; expected more than 0, up to 100"));
    }
    if dim > 1000 {
        wrong.push(format!("--dim is {dim}; expected 0 to 1000"));
    }
    if !(0.0..=0.9).contains(&args.held_out) {
        wrong.push(format!("--held-out is {}; expected 0 to 0.9", args.held_out));
    }
    if args.output.exists() && !args.force {
        wrong.push(format!("{} already exists; replace it with --force", args.output.display()));
    }
    // Better now than after training.
    if let Some(folder) =
        args.output.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
    {
        wrong.push(format!("{} is not a folder", folder.display()));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Usage(wrong.join("\n"))) }
}
