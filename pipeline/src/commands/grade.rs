//! `moe-data grade`: a language model grades documents from 0 to 5, and the grades can be compared with other scores.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_llm::{Cache, Client};
use moe_shards::atomic::AtomicFile;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::cluster::Share;
use crate::commands::server::{ServerArgs, lead, remove_shares, sound, take_shares, warn_of_shares};
use crate::commands::share::{Array, share_of};
use crate::error::{Error, Result};
use crate::grade::agreement::{Agreement, GOOD};
use crate::grade::documents::{Document, Files};
use crate::grade::judge::{Grade, Judge, MAX_SCORE, ResponseFormat};
use crate::grade::rubric::Rubric;
use crate::listing;
use crate::printer::Printer;

/// Flags of `grade`.
#[derive(Clone, Debug, Args)]
pub struct GradeArgs {
    /// Files, folders or globs
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "FIELD", default_value = "text")]
    pub text: String,
    /// Field with the name of the document [default: file and offset]
    #[arg(long, value_name = "FIELD")]
    pub id: Option<String>,
    /// Grade N documents, drawn by the hash of their texts [default: all]
    #[arg(long, value_name = "N")]
    pub max_docs: Option<usize>,
    /// Seed of the draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// File that says what the scores mean [default: configs/rubrics/educational.toml]
    #[arg(long, value_name = "FILE")]
    pub rubric: Option<PathBuf>,
    /// Without --base-url only the cache is used
    #[command(flatten)]
    pub server: ServerArgs,
    /// Name of the model on the server
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Distinguishes files of that name, such as a commit or a quantization; part of every key
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub revision: String,
    /// How to request JSON from the server
    #[arg(long, value_enum, default_value_t)]
    pub response_format: ResponseFormat,
    /// Folder of the answers
    #[arg(long, value_name = "DIR", default_value = "out/grade/cache")]
    pub cache: PathBuf,
    /// Ask about a share of the documents only, such as 3/16, counted from 0, at the same time as other processes ask about the other
    /// shares; a missing number is that of the array of Slurm or of the indexed job of Kubernetes. Then grade with --collect
    #[arg(long, value_name = "[I/]N", requires = "base_url", conflicts_with_all = ["collect", "scores", "output", "with_text"])]
    pub array: Option<Array>,
    /// Take the answers of the shares that --array asked into the cache first
    #[arg(long)]
    pub collect: bool,
    /// Compare with these scores: JSON lines with `id` and `score`, as `classifier apply` prints them
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// File for the grades [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the texts next to the grades
    #[arg(long)]
    pub with_text: bool,
    /// Print the summary as JSON on stdout
    #[arg(long, requires = "output")]
    pub json: bool,
}

/// Results over all documents.
#[derive(Debug, Default)]
struct Counts {
    /// Documents by score.
    scored: BTreeMap<u8, u64>,
    unreadable: u64,
    given_up: u64,
    /// Open questions, because no server was given.
    open: u64,
    /// Documents that took more than one answer.
    asked_again: u64,
}

impl Counts {
    fn n_scored(&self) -> u64 {
        self.scored.values().sum()
    }
}

/// Runs the command. `stop` is set when the user asks to stop.
///
/// # Errors
/// Everything in [`Error`]; [`Error::Check`] when not a single document got a grade.
pub fn run(args: &GradeArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    if args.json && args.output.is_none() {
        let message = "--json prints the summary where the grades would go; give them a file with --output";
        return Err(Error::Usage(message.to_owned()));
    }
    if let Some(output) = &args.output {
        let is_grade = |line: &str| {
            let value = serde_json::from_str::<Value>(line).unwrap_or_default();
            value.get("id").is_some() && value.get("score").is_some()
        };
        listing::check_single(output, |start| start.lines().next().is_some_and(is_grade))?;
    }
    let rubric = Rubric::read(args.rubric.as_deref())?;
    let scores = args.scores.as_deref().map(read_scores).transpose()?;
    let files = Files::find(&args.paths, &args.text, args.id.as_deref())?;
    let judge = Judge::new(args.model.clone(), args.revision.clone(), rubric, args.response_format);
    let server = args.server.base_url.as_deref();
    let client = server.map(|url| args.server.client(url)).transpose()?;
    let share = args.array.map(|array| share_of(Some(array))).transpose()?;
    let chosen = args.max_docs.map(|n| files.choose(n, args.seed)).transpose()?;
    let draw = Draw { files, chosen };
    let mut cache = open_cache(args, share, printer)?;

    if let (Some(url), Some(client)) = (server, &client) {
        let (model, rubric) = (&args.model, &judge.rubric.name);
        let which = share.map_or_else(String::new, |Share { index, of }| format!("share {index} of {of}: "));
        printer.note(&format!("{which}asking {model} at {url} by the rubric `{rubric}`"));
        ask(&judge, &draw, share, client, &mut cache, printer, &stop)?;
    }
    if share.is_some() {
        printer.note(
            "next: when all shares are done, the same with --collect instead of --array and --base-url",
        );
        return Ok(());
    }

    // A separate pass, so that the grades are a function of the cache, in the order of the files.
    let mut counts = Counts::default();
    let mut pairs = Vec::new();
    let mut output = args.output.as_deref().map(AtomicFile::create).transpose()?;
    let mut n_docs = 0;
    draw.each(printer, |document| {
        n_docs += 1;
        let grade = judge.grade(&document.text, &cache)?;
        if let (Some(Grade::Scored { score, .. }), Some(scores)) = (&grade, &scores) {
            pairs.extend(scores.get(&document.id).map(|other| (*score, *other)));
        }
        let line = format!("{}\n", line(&document, grade.as_ref(), args.with_text));
        count(&mut counts, grade);
        match &mut output {
            Some(file) => Ok(file.write(line.as_bytes())?),
            None => {
                printer.data(&line);
                Ok(())
            }
        }
    })?;
    let accounted = counts.n_scored() + counts.unreadable + counts.given_up + counts.open;
    if accounted != n_docs {
        return Err(Error::Check(format!("{n_docs} documents were read, {accounted} are accounted for")));
    }
    if let Some(file) = output {
        file.commit()?;
    }
    let agreement = scores.map(|_| Agreement::of(&pairs));
    if args.json {
        printer.data(&format!("{}\n", summary_json(n_docs, &counts, agreement.as_ref())));
    }
    say(args, n_docs, &counts, agreement.as_ref(), printer);
    match counts.n_scored() {
        0 => Err(Error::Check(format!("none of {n_docs} documents has a grade"))),
        _ => Ok(()),
    }
}

/// The cache, or that of a share.
fn open_cache(args: &GradeArgs, share: Option<Share>, printer: &Printer) -> Result<Cache> {
    let cache = match (share, &args.server.base_url) {
        (Some(Share { index, of }), _) => {
            warn_of_shares(&args.cache, Some(of), printer)?;
            Cache::open_share(&args.cache, index, of)?
        }
        (None, _) if args.collect && !Cache::shares(&args.cache)?.is_empty() => {
            let mut cache = Cache::open(&args.cache)?;
            let taken = take_shares(&mut cache, &args.cache, printer)?;
            // The cache has everything now.
            remove_shares(taken, None, printer)?;
            Cache::clear_shares(&args.cache, None)?;
            cache
        }
        (None, server) => {
            if args.collect {
                printer.note(&format!("{}: there are no shares to collect", args.cache.display()));
            }
            warn_of_shares(&args.cache, None, printer)?;
            match server {
                Some(_) => Cache::open(&args.cache)?,
                None => Cache::open_read_only(&args.cache)?,
            }
        }
    };
    Ok(sound(cache, printer))
}

/// Documents of files, all or some.
struct Draw {
    files: Files,
    /// Positions of the drawn documents; all when absent.
    chosen: Option<BTreeSet<usize>>,
}

impl Draw {
    fn has(&self, place: usize) -> bool {
        self.chosen.as_ref().is_none_or(|chosen| chosen.contains(&place))
    }

    fn each(&self, printer: &Printer, mut see: impl FnMut(Document) -> Result<()>) -> Result<()> {
        let mut documents = self.files.documents();
        let mut n_docs = 0;
        for document in documents.by_ref() {
            let document = document?;
            if self.has(n_docs) {
                see(document)?;
            }
            n_docs += 1;
        }
        if let Some(first) = &documents.first_bad {
            let n_bad = documents.n_bad;
            printer.warn(&format!("{n_bad} records are not documents and have no grade; the first: {first}"));
        }
        match n_docs {
            0 => Err(Error::Usage("these files hold no documents".to_owned())),
            _ => Ok(()),
        }
    }
}

/// Runs all conversations to their ends.
fn ask(
    judge: &Judge,
    draw: &Draw,
    share: Option<Share>,
    client: &Client,
    cache: &mut Cache,
    printer: &Printer,
    stop: &AtomicBool,
) -> Result<()> {
    let broken = RefCell::new(None);
    // By the text, so that equal texts are asked about once.
    let is_in_share = |text: &str| {
        share.is_none_or(|share| xxh3_64(text.as_bytes()) % share.of as u64 == share.index as u64)
    };
    let is_asked = |place: usize, document: &Result<Document>| match document {
        Ok(document) => draw.has(place) && is_in_share(&document.text),
        Err(_) => true,
    };
    let documents = draw.files.documents().enumerate();
    let hearings =
        documents.filter(|(place, document)| is_asked(*place, document)).map_while(|(_, document)| {
            match document {
                Ok(document) => Some(judge.hear(&document.text)),
                Err(error) => {
                    broken.replace(Some(error));
                    None
                }
            }
        });
    let n_chosen = draw.chosen.as_ref().map_or(0, BTreeSet::len);
    let n_asked = share.map_or(n_chosen, |share| n_chosen.div_ceil(share.of));
    let bar = printer.work_bar("grade", n_asked as u64, "documents");
    if draw.chosen.is_none() {
        bar.unset_length();
    }
    lead(client, hearings, &broken, cache, &bar, printer, stop).map(drop)
}

fn count(counts: &mut Counts, grade: Option<Grade>) {
    match grade {
        Some(Grade::Scored { score, attempts, .. }) => {
            *counts.scored.entry(score).or_default() += 1;
            counts.asked_again += u64::from(attempts > 1);
        }
        Some(Grade::Unreadable { attempts, .. }) => {
            counts.unreadable += 1;
            counts.asked_again += u64::from(attempts > 1);
        }
        Some(Grade::GivenUp { .. }) => counts.given_up += 1,
        None => counts.open += 1,
    }
}

fn line(document: &Document, grade: Option<&Grade>, with_text: bool) -> Value {
    let mut line = match grade {
        Some(Grade::Scored { score, reason, attempts, key }) => {
            json!({ "id": document.id, "score": score, "reason": reason, "attempts": attempts, "key": key.to_string() })
        }
        Some(Grade::Unreadable { problem, attempts }) => {
            json!({ "id": document.id, "score": null, "problem": problem, "attempts": attempts })
        }
        Some(Grade::GivenUp { problem }) => json!({ "id": document.id, "score": null, "problem": problem }),
        None => json!({ "id": document.id, "score": null, "problem": "not asked yet" }),
    };
    if with_text {
        line["text"] = Value::from(document.text.as_str());
    }
    line
}

/// Scores by id.
fn read_scores(path: &Path) -> Result<BTreeMap<String, f64>> {
    let file = BufReader::new(File::open(path).map_err(Error::io(path, "open"))?);
    let mut scores = BTreeMap::new();
    for (number, line) in file.lines().enumerate() {
        let line = line.map_err(Error::io(path, "read"))?;
        if line.trim().is_empty() {
            continue;
        }
        let value: Option<Value> = serde_json::from_str(&line).ok();
        let entry = value.as_ref().and_then(|value| Some((value["id"].as_str()?, value["score"].as_f64()?)));
        let (id, score) = entry.ok_or_else(|| {
            let number = number + 1;
            Error::data(path, format!("line {number}: expected {{\"id\": \"...\", \"score\": 0.5}}"))
        })?;
        scores.insert(id.to_owned(), score);
    }
    Ok(scores)
}

fn summary_json(n_docs: u64, counts: &Counts, agreement: Option<&Agreement>) -> Value {
    json!({
        "documents": n_docs,
        "scored": (0..=MAX_SCORE).map(|score| counts.scored.get(&score).copied().unwrap_or(0)).collect::<Vec<_>>(),
        "asked_again": counts.asked_again,
        "unreadable": counts.unreadable,
        "given_up": counts.given_up,
        "open": counts.open,
        "agreement": agreement,
    })
}

fn say(args: &GradeArgs, n_docs: u64, counts: &Counts, agreement: Option<&Agreement>, printer: &Printer) {
    let by_score: Vec<String> = (0..=MAX_SCORE)
        .map(|score| format!("{score}: {}", counts.scored.get(&score).copied().unwrap_or(0)))
        .collect();
    let n_scored = counts.n_scored();
    printer.note(&format!("{n_scored} of {n_docs} documents graded; by score {}", by_score.join(", ")));
    if counts.asked_again + counts.unreadable + counts.given_up + counts.open > 0 {
        printer.note(&format!(
            "{} were asked again, {} gave no readable answer, {} were given up, {} are open",
            counts.asked_again, counts.unreadable, counts.given_up, counts.open
        ));
    }
    if let Some(agreement) = agreement {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        printer.note(&format!(
            "agreement on {} documents: Spearman {}, AUC of grade >= {GOOD} {}",
            agreement.documents,
            number(agreement.spearman),
            number(agreement.auc)
        ));
        for (grade, (n, mean)) in agreement.by_grade.iter().enumerate() {
            printer.note(&format!("  grade {grade}: {n} documents, mean score {}", number(*mean)));
        }
    }
    if let Some(output) = &args.output {
        printer.note(&format!("grades are in {}, answers in {}", output.display(), args.cache.display()));
    }
}
