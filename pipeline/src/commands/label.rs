//! `moe-data label`: a person labels some documents as good or bad, and the published profiles and classifiers are compared with the labels.

mod page;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use moe_report::Page;
use moe_shards::Hash;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::classifier::evaluate::{self, Scored};
use crate::classifier::{Newlines, Scorer};
use crate::document::Metadata;
use crate::error::{Error, Result};
use crate::filter::Chain;
use crate::filter::chain::Workspace;
use crate::grade::documents::{Document, Files};
use crate::listing::check_single;
use crate::mix::count;
use crate::printer::Printer;
use crate::recipe::profile;

/// Characters of a text to show.
const SHOWN_CHARS: usize = 1500;

/// Flags of `label`.
#[derive(Clone, Debug, Args)]
pub struct LabelArgs {
    /// Files, folders or globs
    #[arg(required_unless_present = "compare", conflicts_with = "compare", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "FIELD", default_value = "text")]
    pub text: String,
    /// Field with the name of the document [default: file and offset]
    #[arg(long, value_name = "FIELD")]
    pub id: Option<String>,
    /// Documents to draw, by the hash of their texts
    #[arg(long, value_name = "N", default_value = "100", value_parser = count::parse_u32)]
    pub n: u32,
    /// Seed of the draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// File of labels; answers are appended, and documents already in it are not asked about again
    #[arg(short, long, value_name = "FILE", default_value = "labels.jsonl")]
    pub output: PathBuf,
    /// Compare the published profiles, length and a classifier with the labels of a file
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// The classifier, from `moe-data classifier train` or fastText
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub model: Option<PathBuf>,
    /// Label of a model of fastText
    #[arg(long, value_name = "LABEL", requires = "model")]
    pub label: Option<String>,
    /// Write the comparison as a page too
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub page: Option<PathBuf>,
    /// Print the comparison as JSON on stdout
    #[arg(long, requires = "compare")]
    pub json: bool,
}

/// A line of a file of labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    id: String,
    good: bool,
    text: String,
}

/// Runs the command; `answers` is standard input.
///
/// # Errors
/// A file or the model cannot be read, the file of labels is not one or cannot be written, or the labels to compare with are all good
/// or all bad.
pub fn run(args: &LabelArgs, answers: impl BufRead, printer: &Printer) -> Result<()> {
    match &args.compare {
        Some(labels) => compare(args, labels, printer),
        None => ask(args, answers, printer),
    }
}

/// Shows documents and asks whether each is good.
fn ask(args: &LabelArgs, answers: impl BufRead, printer: &Printer) -> Result<()> {
    let known: BTreeSet<Hash> =
        read(&args.output, true)?.iter().map(|label| Hash::of(label.text.as_bytes())).collect();
    let files = Files::find(&args.paths, &args.text, args.id.as_deref())?;
    let chosen = files.choose(args.n as usize, args.seed)?;
    let mut documents: Vec<Document> = Vec::new();
    for (place, document) in files.documents().enumerate() {
        let document = document?;
        if chosen.contains(&place) && !known.contains(&Hash::of(document.text.as_bytes())) {
            documents.push(document);
        }
    }
    // In the order of the draw, so that stopping early still leaves a sample.
    documents.sort_by_key(|document| Hash::of(document.text.as_bytes()));
    let opened = File::options().create(true).append(true).open(&args.output);
    let mut out = opened.map_err(Error::io(&args.output, "open"))?;
    let mut answers = answers.lines();
    let (n, mut n_labeled) = (documents.len(), 0);
    'documents: for (i, document) in documents.into_iter().enumerate() {
        let n_chars = document.text.chars().count();
        let shown: String = document.text.chars().take(SHOWN_CHARS).collect();
        let more = if n_chars > SHOWN_CHARS { "\n..." } else { "" };
        printer.data(&format!("\n[{} of {n}] {}, {n_chars} characters\n{shown}{more}\n", i + 1, document.id));
        loop {
            printer.data("good, bad, skip or quit? [g/b/s/q]\n");
            let answer = match answers.next() {
                None => break 'documents,
                Some(answer) => answer.map_err(Error::io(Path::new("standard input"), "read"))?,
            };
            let good = match answer.trim().to_lowercase().as_str() {
                "g" | "good" => true,
                "b" | "bad" => false,
                "s" | "skip" => break,
                "q" | "quit" => break 'documents,
                _ => continue,
            };
            let label = Label { id: document.id.clone(), good, text: document.text.clone() };
            let line = serde_json::to_string(&label).map_err(|e| Error::Usage(e.to_string()))?;
            out.write_all(format!("{line}\n").as_bytes()).map_err(Error::io(&args.output, "write"))?;
            n_labeled += 1;
            break;
        }
    }
    let file = args.output.display();
    printer.note(&format!(
        "{n_labeled} labeled now, {} in {file}\nnext: moe-data label --compare {file}",
        known.len() + n_labeled,
    ));
    Ok(())
}

/// Reads a file of labels.
fn read(path: &Path, may_be_missing: bool) -> Result<Vec<Label>> {
    let text = match fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && may_be_missing => return Ok(Vec::new()),
        text => text.map_err(Error::io(path, "read"))?,
    };
    let line = |(i, line): (usize, &str)| {
        let wrong = |e| Error::data(path, format!("line {}: is not a label of `moe-data label`: {e}", i + 1));
        serde_json::from_str(line).map_err(wrong)
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}

/// Verdicts of a profile or a classifier on the labeled documents.
#[derive(Clone, Debug, Serialize)]
struct Judge {
    name: String,
    /// Area under the ROC curve, of scores.
    auc: Option<f64>,
    /// Share of the documents on which it agrees with the person.
    accuracy: f64,
    /// Share of the good documents that it keeps.
    keeps_good: Option<f64>,
    /// Share of the bad documents that it keeps.
    keeps_bad: Option<f64>,
    /// Share of the documents on which it agrees with the classifier at its best threshold.
    agrees: Option<f64>,
}

/// Compares profiles, length and a classifier with labels.
fn compare(args: &LabelArgs, file: &Path, printer: &Printer) -> Result<()> {
    let labels = read(file, false)?;
    let n_good = labels.iter().filter(|label| label.good).count();
    if n_good == 0 || n_good == labels.len() {
        let message = format!(
            "{} has {n_good} good and {} bad documents; label some of both kinds",
            file.display(),
            labels.len() - n_good
        );
        return Err(Error::Usage(message));
    }
    let scores = match &args.model {
        None => None,
        Some(path) => {
            let scorer = Scorer::open(path, args.label.as_deref(), Newlines::Space)?;
            Some(labels.iter().map(|label| scorer.score(&label.text)).collect::<Vec<f64>>())
        }
    };
    let by_score = scores.as_ref().map(|scores| kept_at_best(scores, &labels));
    let mut judges = Vec::new();
    let mut skipped = Vec::new();
    for profile in profile::all()?.into_iter().filter(|profile| !profile.filters.is_empty()) {
        // Some rules need files or addresses, which labels do not have.
        let Ok(chain) = Chain::new(profile.filters.iter().map(|filter| &filter.config)) else {
            skipped.push(profile.name);
            continue;
        };
        let mut work = Workspace::default();
        let kept = labels.iter().map(|label| {
            let bytes = u32::try_from(label.text.len()).unwrap_or(u32::MAX);
            chain.measure(&label.text, Metadata::default(), bytes, &mut work)?;
            Ok(chain.judge(work.values())?.dropped.is_none())
        });
        let kept = kept.collect::<std::result::Result<Vec<bool>, String>>().map_err(Error::Usage)?;
        judges.push(judge(format!("profile {}", profile.name), &labels, &kept, None, by_score.as_deref()));
    }
    let lengths: Vec<f64> = labels.iter().map(|label| label.text.chars().count() as f64).collect();
    let kept = kept_at_best(&lengths, &labels);
    judges.push(judge("length, best limit".to_owned(), &labels, &kept, Some(&lengths), by_score.as_deref()));
    if let (Some(scores), Some(kept)) = (&scores, &by_score) {
        judges.push(judge("classifier, best limit".to_owned(), &labels, kept, Some(scores), None));
    }
    if let Some(path) = &args.page {
        let scored = scores.iter().flatten().zip(&labels).map(|(score, label)| (*score, label.good));
        let scored: Vec<Scored> = scored.collect();
        check_single(path, |start| Page::is_by(start, page::GENERATOR))?;
        let page = page::page(file, &judges, [n_good, labels.len() - n_good], &scored);
        moe_shards::atomic::write_file(path, page.html().as_bytes())?;
        printer.note(&format!("page     {}", path.display()));
    }
    if args.json {
        let (n, n_bad) = (labels.len(), labels.len() - n_good);
        printer.data(&format!(
            "{}\n",
            json!({ "documents": n, "good": n_good, "bad": n_bad, "judges": judges })
        ));
    } else {
        printer.data(&table(&judges, n_good, labels.len() - n_good));
    }
    if !skipped.is_empty() {
        printer.note(&format!("left out, since their rules need files: {}", skipped.join(", ")));
    }
    Ok(())
}

/// The documents kept by the score limit that agrees best with the labels; high scores are good.
fn kept_at_best(scores: &[f64], labels: &[Label]) -> Vec<bool> {
    let scored: Vec<Scored> = scores.iter().zip(labels).map(|(score, label)| (*score, label.good)).collect();
    let mut limits: Vec<f64> = scores.to_vec();
    limits.push(f64::INFINITY);
    limits.sort_by(f64::total_cmp);
    let best = limits.into_iter().fold((f64::NEG_INFINITY, f64::INFINITY), |(most, best), limit| {
        let accuracy = evaluate::accuracy(&scored, limit);
        if accuracy > most { (accuracy, limit) } else { (most, best) }
    });
    scores.iter().map(|score| *score >= best.1).collect()
}

fn judge(
    name: String,
    labels: &[Label],
    kept: &[bool],
    scores: Option<&[f64]>,
    others: Option<&[bool]>,
) -> Judge {
    let share = |of: &dyn Fn(&Label) -> bool, holds: &dyn Fn(&Label, bool) -> bool| {
        let (mut n, mut hits) = (0u64, 0u64);
        for (label, kept) in labels.iter().zip(kept).filter(|(label, _)| of(label)) {
            n += 1;
            hits += u64::from(holds(label, *kept));
        }
        (n > 0).then(|| hits as f64 / n as f64)
    };
    let scored = |scores: &[f64]| -> Vec<Scored> {
        scores.iter().zip(labels).map(|(score, label)| (*score, label.good)).collect()
    };
    let same = others.map(|others| kept.iter().zip(others).filter(|(a, b)| a == b).count());
    Judge {
        name,
        auc: scores.and_then(|scores| evaluate::auc(&scored(scores))),
        accuracy: share(&|_| true, &|label, kept| label.good == kept).unwrap_or(0.0),
        keeps_good: share(&|label| label.good, &|_, kept| kept),
        keeps_bad: share(&|label| !label.good, &|_, kept| kept),
        agrees: same.map(|same| same as f64 / kept.len().max(1) as f64),
    }
}

fn table(judges: &[Judge], n_good: usize, n_bad: usize) -> String {
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let mut text = format!(
        "{n_good} good and {n_bad} bad documents\n{:<24}{:>10}{:>8}{:>14}{:>14}{:>26}\n",
        "", "accuracy", "AUC", "keeps of good", "keeps of bad", "agrees with the classifier"
    );
    for judge in judges {
        text.push_str(&format!(
            "{:<24}{:>10.3}{:>8}{:>14}{:>14}{:>26}\n",
            judge.name,
            judge.accuracy,
            show(judge.auc),
            show(judge.keeps_good),
            show(judge.keeps_bad),
            show(judge.agrees)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(good: &[bool]) -> Vec<Label> {
        good.iter().map(|good| Label { id: String::new(), good: *good, text: String::new() }).collect()
    }

    #[test]
    fn shares_are_counted_by_hand() {
        let labels = labels(&[true, true, false, false]);
        // Best at 0.3: keeps both good ones and one bad.
        let scores = [0.9, 0.3, 0.5, 0.1];
        let kept = kept_at_best(&scores, &labels);
        assert_eq!(kept, [true, true, true, false]);
        let judge = judge("x".to_owned(), &labels, &kept, Some(&scores), Some(&[true, false, true, false]));
        assert_eq!((judge.accuracy, judge.keeps_good, judge.keeps_bad), (0.75, Some(1.0), Some(0.5)));
        // The good 0.9 beats both bad ones, the good 0.3 one of them.
        assert_eq!((judge.auc, judge.agrees), (Some(0.75), Some(0.75)));
    }
}
