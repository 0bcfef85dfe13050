//! `moe-data classifier ...`: train, evaluate and apply classifiers of documents.

pub mod apply;
pub mod eval;
pub mod train;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::classifier::Scorer;
use crate::classifier::evaluate::{self, Scored};
use crate::error::Result;
use crate::printer::Printer;

/// The verbs of `moe-data classifier`.
#[derive(Debug, Subcommand)]
pub enum ClassifierVerb {
    /// Train a classifier on documents of a wanted kind and of others
    #[command(before_long_help = "Examples:
  moe-data classifier train --positive good.jsonl.gz --rest web/*.jsonl.gz     # good texts against all others: quality.moecls
  moe-data classifier train --positive a.jsonl --negative b.jsonl --dim 100 --learning-rate 0.5   # embeddings, as fastText")]
    Train(train::TrainArgs),
    /// Measure how well a model separates documents, compared with length alone
    #[command(before_long_help = "Examples:
  moe-data classifier eval --model quality.moecls --positive good.jsonl.gz --negative bad.jsonl.gz
  moe-data classifier eval --model fasttext.bin --label hq --positive good.jsonl.gz --negative bad.jsonl.gz")]
    Eval(eval::EvalArgs),
    /// Print the score of each document as JSONL
    #[command(before_long_help = "Examples:
  moe-data classifier apply --model quality.moecls web/*.jsonl.gz > scores.jsonl
  moe-data classifier apply --model lid.176.ftz --label en --id url web.jsonl.gz")]
    Apply(apply::ApplyArgs),
}

/// What line ends become for a fastText model.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Newlines {
    /// A space
    #[default]
    Space,
    /// Nothing: words of two lines are glued, as datatrove's classifier filter does
    Join,
}

impl From<Newlines> for crate::classifier::Newlines {
    fn from(newlines: Newlines) -> Self {
        match newlines {
            Newlines::Space => crate::classifier::Newlines::Space,
            Newlines::Join => crate::classifier::Newlines::Join,
        }
    }
}

/// A model and how to use it.
#[derive(Clone, Debug, Args)]
pub struct ModelFlags {
    /// Model from `classifier train`, or fastText (.bin, .ftz)
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// fastText label whose probability is the score
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,
    /// What line ends become for a fastText model
    #[arg(long, value_enum, default_value_t)]
    pub newlines: Newlines,
}

impl ModelFlags {
    fn open(&self) -> Result<Scorer> {
        Scorer::open(&self.model, self.label.as_deref(), self.newlines.into())
    }
}

/// Runs the verb.
///
/// # Errors
/// Those of the verb.
pub fn run(verb: &ClassifierVerb, printer: &Printer) -> Result<()> {
    match verb {
        ClassifierVerb::Train(args) => train::run(args, printer),
        ClassifierVerb::Eval(args) => eval::run(args, printer),
        ClassifierVerb::Apply(args) => apply::run(args, printer),
    }
}

/// Whether a document is held out of the training: a hash of seed and text, so that equal texts are on one side.
fn is_held_out(text: &str, seed: u64, share: f64) -> bool {
    (xxh3_64_with_seed(text.as_bytes(), seed) >> 11) as f64 / (1u64 << 53) as f64 > 1.0 - share
}

/// Scores compared with document length alone, in words; `scored` has score, length in characters and class.
fn words(scored: &[(f64, u64, bool)], n_buckets: usize) -> String {
    let by_score: Vec<Scored> = scored.iter().map(|(score, _, positive)| (*score, *positive)).collect();
    let by_length: Vec<Scored> =
        scored.iter().map(|(_, length, positive)| (*length as f64, *positive)).collect();
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let mut lines = vec![
        format!("{:<22}{:>10}{:>10}", "", "AUC", "accuracy"),
        format!(
            "{:<22}{:>10}{:>10.4}",
            "score (at 0.5)",
            show(evaluate::auc(&by_score)),
            evaluate::accuracy(&by_score, 0.5)
        ),
        format!(
            "{:<22}{:>10}{:>10.4}",
            "length (best)",
            show(evaluate::auc(&by_length)),
            evaluate::best_accuracy(&by_length)
        ),
        format!("\n{:>10}{:>10}{:>10}{:>10}", "threshold", "kept", "precision", "recall"),
    ];
    lines.extend(THRESHOLDS.iter().map(|threshold| {
        let at = evaluate::at_threshold(&by_score, *threshold);
        let (precision, recall) = (show(at.precision), show(at.recall));
        format!("{:>10.2}{:>10.4}{precision:>10}{recall:>10}", at.threshold, at.kept)
    }));
    let buckets = evaluate::calibration(&by_score, n_buckets);
    lines.push(format!("\n{:>22}{:>10}{:>10}{:>10}", "scores", "documents", "expected", "positive"));
    lines.extend(buckets.iter().map(|bucket| {
        let range = format!("{:.4} to {:.4}", bucket.from, bucket.to);
        format!("{range:>22}{:>10}{:>10.4}{:>10.4}", bucket.documents, bucket.expected, bucket.positive)
    }));
    lines.push(format!("calibration error {:.4}\n", evaluate::calibration_error(&buckets)));
    lines.join("\n")
}

/// Thresholds that tables show.
const THRESHOLDS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// The same as JSON.
fn value(scored: &[(f64, u64, bool)], n_buckets: usize) -> serde_json::Value {
    let by_score: Vec<Scored> = scored.iter().map(|(score, _, positive)| (*score, *positive)).collect();
    let by_length: Vec<Scored> =
        scored.iter().map(|(_, length, positive)| (*length as f64, *positive)).collect();
    let buckets = evaluate::calibration(&by_score, n_buckets);
    let n_positive = scored.iter().filter(|(_, _, positive)| *positive).count();
    serde_json::json!({
        "positive": n_positive,
        "negative": scored.len() - n_positive,
        "auc": evaluate::auc(&by_score),
        "accuracy": evaluate::accuracy(&by_score, 0.5),
        "length_auc": evaluate::auc(&by_length),
        "length_best_accuracy": evaluate::best_accuracy(&by_length),
        "thresholds": THRESHOLDS.map(|threshold| evaluate::at_threshold(&by_score, threshold)),
        "calibration_error": evaluate::calibration_error(&buckets),
        "buckets": buckets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_asked_share_is_held_out_and_a_seed_chooses_others() {
        let chosen =
            |seed| (0..10_000).filter(|i| is_held_out(&i.to_string(), seed, 0.1)).collect::<Vec<_>>();
        // Five standard deviations of 1000 are 150.
        assert!((850..=1150).contains(&chosen(1).len()), "{}", chosen(1).len());
        assert_ne!(chosen(1), chosen(2));
        assert!(!is_held_out("x", 1, 0.0));
    }
}
