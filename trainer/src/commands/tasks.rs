//! `moe-train eval --tasks`: how well a checkpoint answers questions.

use std::time::Instant;

use moe_shards::atomic::AtomicFile;
use serde_json::{Map, Value, json};

use crate::checkpoint::{self, Loaded};
use crate::cli::EvalArgs;
use crate::device;
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::tasks::metrics::{Metric, Summary};
use crate::tasks::overlap::{Documents, Overlap, WORDS, overlaps};
use crate::tasks::question::Changes;
use crate::tasks::{Reader, Suite, TaskResult};

/// Number of questions found in training data that are named on the terminal.
const NAMED: usize = 5;

pub(super) fn run(args: &EvalArgs, loaded: &Loaded, printer: &Printer) -> Result<u8> {
    if let Some(path) = args.tasks.answers.as_ref().filter(|path| path.exists()) {
        return Err(Error::Usage(format!("--answers {}: exists; name a new file", path.display())));
    }
    let state = &loaded.state;
    let number = |given: Option<u64>| given.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let changes = Changes { shots: number(args.tasks.shots), limit: number(args.tasks.limit) };
    let reader =
        Reader { tokenizer: &loaded.tokenizer, eod: state.eod, longest: state.seq_len, asked_by: "--tasks" };
    let suite = Suite::open(&args.tasks.tasks, changes, reader)?;
    let answers = args.tasks.answers.as_deref();
    let answers = answers.map(|path| Ok::<_, Error>((path, AtomicFile::create(path)?))).transpose()?;
    let documents = args.shards.as_deref().map(Documents::open).transpose()?;
    let chosen = device::open(args.device)?;
    printer.say(format!("device {}; step {}", chosen.reason, state.step));
    let model = checkpoint::load_weights(loaded, args.ema, &chosen.device)?;
    let pass_tokens = match loaded.config.model(state.vocab_size, state.seq_len).sees_later_tokens() {
        None => args.tasks.pass_tokens,
        Some(reason) => {
            printer.say(format!("every text gets its own forward pass: {reason}"));
            1
        }
    };
    let started = Instant::now();
    let results = suite.run(&model, pass_tokens)?;
    printer.say(format!("answered in {:.1} s", started.elapsed().as_secs_f64()));
    if let Some((path, file)) = answers {
        write_answers(file, &results)?;
        printer.say(format!("likelihoods of all answers: {}", path.display()));
    }
    let overlaps = match &documents {
        Some(documents) => overlaps(&suite.tasks, &results, documents)?.into_iter().map(Some).collect(),
        None => vec![None; results.len()],
    };
    if args.json {
        let tasks: Map<String, Value> = results
            .iter()
            .zip(&overlaps)
            .map(|(result, overlap)| {
                let mut value = result.to_json();
                if let Some(overlap) = overlap {
                    value.insert("overlap".into(), describe(overlap));
                }
                (result.name.clone(), value.into())
            })
            .collect();
        let record =
            json!({ "checkpoint": loaded.path, "step": state.step, "ema": args.ema, "tasks": tasks });
        printer.data(format!("{record:#}"))?;
        return Ok(0);
    }
    let mut rows = vec![["task", "questions", "metric", "value", "stderr"].map(str::to_string)];
    for (result, overlap) in results.iter().zip(&overlaps) {
        add(&mut rows, &result.name, &result.all);
        for (group, summary) in &result.groups {
            add(&mut rows, &format!("  {group}"), summary);
        }
        if let Some(overlap) = overlap.as_ref().filter(|overlap| !overlap.found.is_empty()) {
            add(&mut rows, "  not in the shards", &overlap.rest);
        }
    }
    print(&rows, printer)?;
    for (result, overlap) in results.iter().zip(&overlaps) {
        if let Some(overlap) = overlap {
            name_found(result, overlap, printer);
        }
    }
    Ok(0)
}

/// Reports which questions of a task are in the shards.
fn name_found(result: &TaskResult, overlap: &Overlap, printer: &Printer) {
    let Overlap { found, n_too_short, .. } = overlap;
    let too_short = match n_too_short {
        0 => String::new(),
        n => format!("; {n} are too short to look for"),
    };
    let n = result.all.n;
    let line = format!("{}: {} of {n} questions are in the shards{too_short}", result.name, found.len());
    if found.is_empty() {
        return printer.say(line);
    }
    printer.warn(line);
    for (question, document) in found.iter().take(NAMED) {
        printer.say(format!("  question {question}: {document}"));
    }
    if found.len() > NAMED {
        printer.say("  --json lists all");
    }
}

fn describe(overlap: &Overlap) -> Value {
    let questions: Vec<Value> = overlap
        .found
        .iter()
        .map(|(question, document)| json!({ "question": question, "document": document }))
        .collect();
    json!({ "words": WORDS, "too_short": overlap.n_too_short, "found": questions, "rest": overlap.rest.to_json() })
}

/// A row for each number.
fn add(rows: &mut Vec<[String; 5]>, name: &str, summary: &Summary) {
    for (index, metric) in summary.metrics.iter().enumerate() {
        let (name, n) = match index {
            0 => (name.to_string(), summary.n.to_string()),
            _ => (String::new(), String::new()),
        };
        let stderr = metric.stderr.map_or_else(String::new, Metric::digits);
        rows.push([name, n, metric.name.to_string(), Metric::digits(metric.value), stderr]);
    }
}

/// A table; its first and third columns are left-aligned.
fn print(rows: &[[String; 5]], printer: &Printer) -> Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(width);
    for [task, n, metric, value, stderr] in rows {
        let line = format!("{task:a$}  {n:>b$}  {metric:c$}  {value:>d$}  {stderr:>e$}");
        printer.data(line.trim_end())?;
    }
    Ok(())
}

/// Writes the result of each question, one JSON object per line.
fn write_answers(mut file: AtomicFile, results: &[TaskResult]) -> Result<()> {
    for result in results {
        for index in 0..result.outcomes.len() {
            file.write(format!("{}\n", result.outcome_json(index)).as_bytes())?;
        }
    }
    Ok(file.commit()?)
}
