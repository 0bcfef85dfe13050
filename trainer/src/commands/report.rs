//! `moe-train report`: a page about runs, their figures as files, and their metrics for TensorBoard.

use std::io::Read;
use std::path::{Path, PathBuf};

use moe_report::tensorboard::{self, Events};
use moe_report::{Figure, Page, settings};

use crate::checkpoint;
use crate::cli::ReportArgs;
use crate::config::{RunConfig, Values};
use crate::error::{Error, Result};
use crate::model::size;
use crate::printer::Printer;
use crate::report::log::{AlarmLine, RunLog, SWEEPS, Sweep};
use crate::run::ALARMS;

const GENERATOR: &str = "moe-train report";
const PAGE: &str = "report.html";

pub(super) fn run(args: ReportArgs, printer: &mut Printer) -> Result<u8> {
    let names = names(&args.runs);
    let runs = args.runs.iter().zip(&names).map(|(dir, name)| read(dir, name, printer));
    let runs = runs.collect::<Result<Vec<RunLog>>>()?;
    let report = crate::report::report(&runs, GENERATOR);
    let output = args.output.unwrap_or_else(|| match args.runs.as_slice() {
        [run] => run.join(PAGE),
        _ => PathBuf::from(PAGE),
    });
    // All problems are found before anything is written.
    check_ours(&output, |start| Page::is_by(&String::from_utf8_lossy(start), GENERATOR))?;
    let mut files = vec![(output.clone(), report.page.html().into_bytes())];
    if let Some(dir) = &args.figures {
        for figure in &report.figures {
            let path = dir.join(format!("{}.svg", figure.id));
            check_ours(&path, |start| Figure::is_svg_by(&String::from_utf8_lossy(start), GENERATOR))?;
            files.push((path, figure.svg(GENERATOR).into_bytes()));
        }
    }
    if args.tensorboard {
        for (dir, run) in args.runs.iter().zip(&runs) {
            let path = dir.join("tensorboard").join(tensorboard::FILE);
            check_ours(&path, tensorboard::is_events)?;
            files.push((path, events(run)));
        }
    }
    for (path, bytes) in &files {
        write(path, bytes)?;
    }
    printer.say(format!("page     {}", output.display()));
    if let Some(dir) = &args.figures {
        printer.say(format!("figures  {} in {}", report.figures.len(), dir.display()));
    }
    if args.tensorboard {
        let dirs: Vec<String> =
            args.runs.iter().map(|dir| dir.join("tensorboard").display().to_string()).collect();
        printer.say(format!("events   {}", dirs.join(", ")));
    }
    if args.json {
        printer.data(format!("{:#}", report.json()))?;
    }
    Ok(0)
}

/// The folders' names, with their parents where two are the same.
fn names(runs: &[PathBuf]) -> Vec<String> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let short: Vec<String> =
        runs.iter().map(|path| name(path).unwrap_or_else(|| path.display().to_string())).collect();
    let is_unique = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
    let long = |(path, name): (&PathBuf, &String)| match is_unique(name) {
        true => name.clone(),
        false => path.display().to_string(),
    };
    runs.iter().zip(&short).map(long).collect()
}

/// What a run has recorded. Before the first checkpoint its model is not known, and what depends on it is
/// left out.
fn read(dir: &Path, name: &str, printer: &Printer) -> Result<RunLog> {
    let metrics = dir.join("metrics.jsonl");
    if !metrics.is_file() {
        return Err(Error::Usage(format!("{}: expected a run, found no metrics.jsonl", dir.display())));
    }
    let mut run = RunLog::read(name, &metrics)?;
    run.sweeps = Sweep::read(&dir.join(SWEEPS))?;
    run.alarms = AlarmLine::read(&dir.join(ALARMS))?;
    let lock = dir.join("config.lock.toml");
    let text = std::fs::read_to_string(&lock).map_err(Error::io(&lock, "read"))?;
    run.config = settings::flat(&text)
        .map_err(|error| Error::Data(format!("{}: is not valid TOML: {error}", lock.display())))?;
    if !checkpoint::checkpoints_dir(dir).join("latest").is_file() {
        printer.say(format!("{}: no checkpoint yet: the page lacks size, work and time", dir.display()));
        return Ok(run);
    }
    let state = checkpoint::read_state(&checkpoint::resolve(dir, None)?)?;
    let (mut values, mut problems) = (Values::default(), Vec::new());
    values.read_toml(&text, &lock.display().to_string(), &mut problems);
    let config = RunConfig::new(values, problems)?;
    let size = size::size(&config.model(state.vocab_size, state.seq_len));
    run.flops_per_token = Some(size.flops_per_token as f64);
    run.seq_len = Some(state.seq_len as f64);
    run.first_sample = state.origin.unwrap_or_default().t as f64;
    run.facts = vec![
        ("parameters".to_owned(), moe_report::number::short(size.total as f64)),
        ("active per token".to_owned(), moe_report::number::short(size.active as f64)),
        ("sequence length in tokens".to_owned(), moe_report::number::count(state.seq_len as u64)),
        ("plan".to_owned(), state.plan_id.short()),
        ("program".to_owned(), state.program.clone()),
    ];
    Ok(run)
}

/// All numbers of a run by key, in the order of its steps.
fn events(run: &RunLog) -> Vec<u8> {
    let mut events = Events::default();
    let seconds = run.seconds().unwrap_or_default();
    for columns in [&run.train, &run.validation, &run.tasks] {
        for (i, step) in columns.steps.iter().enumerate() {
            let line = run.train.steps.partition_point(|s| s <= step);
            let at = line.checked_sub(1).and_then(|line| seconds.get(line)).copied().unwrap_or(0.0);
            events.push(at, *step as u64, columns.line(i));
        }
    }
    events.into_bytes()
}

/// Refuses to replace a file that this command did not write.
fn check_ours(path: &Path, is_ours: impl Fn(&[u8]) -> bool) -> Result<()> {
    let mut start = Vec::new();
    match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(path, "read")(error)),
        Ok(file) => file.take(4096).read_to_end(&mut start).map_err(Error::io(path, "read"))?,
    };
    match is_ours(&start) {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "{}: exists, but was not written by moe-train report; move it away or choose another path",
            path.display()
        ))),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
    }
    Ok(moe_shards::atomic::write_file(path, bytes)?)
}
