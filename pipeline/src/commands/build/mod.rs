//! `moe-data build`: the only place that knows the order of the stages. The input of each stage
//! and the handling of its reports are in [`run`].

mod args;
mod batches;
mod cuts;
mod decontaminate;
mod dedup;
mod filter;
mod forecast;
mod in_use;
mod part;
mod published;
mod quality;
mod read;
mod rephrased;
mod run;
mod sources;
mod text;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use moe_shards::memory::machine_bytes;
use serde_json::json;

pub use self::args::{BuildArgs, EngineName};
use self::run::Run;
use crate::cluster::{self, BuildEngine};
use crate::commands::engine;
#[cfg(not(feature = "cluster"))]
use crate::commands::executor;
use crate::dedup::earlier::EarlierShard;
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::lock::OutputLock;
use crate::objects;
use crate::prepare::{Goal, Prepared};
use crate::printer::Printer;
use crate::publish;
use crate::recipe::{ByteSize, LimitsConfig};

/// Runs the command. `stop` is set when the user asks to stop.
///
/// # Errors
/// Everything in [`Error`]; its exit code is the command's. [`Error::Waiting`] has been told to the user.
pub fn run(args: &BuildArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let outcome = build_and_copy(args, printer, stop);
    if let Err(waiting @ Error::Waiting { stage, n_waiting, n_tasks, n_failed, out }) = &outcome {
        if args.json {
            let summary = json!({
                "status": "waiting", "out": out, "stage": stage, "tasks": n_tasks, "waiting": n_waiting, "failed": n_failed,
            });
            printer.data(&format!("{summary}\n"));
        }
        printer.note(&waiting.to_string());
    }
    outcome
}

fn build_and_copy(args: &BuildArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    if args.text_only {
        text::check_folder(args)?;
    }
    let folder = args.folder()?;
    if args.work.is_none() {
        return build(args, printer, stop);
    }
    let url = args.out.to_string_lossy();
    // Checked now, so that a wrong bucket does not fail after hours of work.
    objects::find(&format!("{}/", url.trim_end_matches('/')))
        .map_err(|message| Error::Usage(format!("--out {url}: {message}")))?;
    build(&BuildArgs { out: folder.to_owned(), ..args.clone() }, printer, stop)?;
    if args.dry_run {
        return Ok(());
    }
    let _lock = OutputLock::acquire(folder)?;
    let n_bytes = objects::upload(folder, &url, &publish::files(folder)?, publish::is_earlier)?;
    printer.note(&format!("copied {} to {url}", ByteSize(n_bytes)));
    Ok(())
}

/// Refuses what can be refused before any work.
///
/// # Errors
/// A recipe or a folder that cannot be used.
pub fn check(args: &BuildArgs, printer: &Printer) -> Result<()> {
    if args.text_only {
        text::check_folder(args)?;
    }
    let args = &BuildArgs { out: args.folder()?.to_owned(), work: None, ..args.clone() };
    prepare(args, printer).map(drop)
}

/// Marks the folder as one of builds, so that notes about a build can be put there before it starts.
///
/// # Errors
/// The folder cannot be used, or a build is at work there.
pub fn mark(args: &BuildArgs) -> Result<()> {
    let folder = args.folder()?;
    let _lock = OutputLock::acquire(folder)?;
    publish::mark(folder)
}

/// Refuses what can be refused before any work.
fn prepare(args: &BuildArgs, printer: &Printer) -> Result<Prepared> {
    let goal = if args.text_only { Goal::Texts } else { Goal::Shards };
    let mut prepared =
        Prepared::new(args.recipe.as_deref(), &args.input, &args.against, goal, &args.filters)?;
    if let Some(verify_every) = args.verify_every {
        prepared.recipe.tokenizer.verify_every = verify_every;
    }
    prepared.warnings.iter().for_each(|warning| printer.warn(warning));
    check_memory(args.memory, &prepared.recipe.limits, machine_bytes())?;
    publish::check_folder(&args.out)?;
    check_against(&args.out, &prepared)?;
    Ok(prepared)
}

fn build(args: &BuildArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let mut prepared = prepare(args, printer)?;
    if args.dry_run {
        return dry_run(args, &mut prepared, printer, &stop);
    }
    let started = Instant::now();
    let _lock = OutputLock::acquire(&args.out)?;
    publish::mark(&args.out)?;
    if args.fresh {
        publish::remove_all(&args.out)?;
    } else if publish::is_finished(&args.out, prepared.fingerprint()) {
        let ledger = Ledger::read(&args.out)?;
        check_bad(args, &prepared, &ledger, None)?;
        printer.note(&format!(
            "nothing changed: {} is up to date with {}",
            args.out.display(),
            prepared.origin
        ));
        say_result(args, printer, &ledger, "unchanged");
        return Ok(());
    }
    prepared.check_fields()?;

    let engine = build_engine(args)?;
    let whom = match &engine {
        #[cfg(feature = "cluster")]
        BuildEngine::Ballista(engine) => {
            format!("executors; start some: moe-data executor --scheduler {}", engine.address())
        }
        engine => format!("{} threads", engine.threads()),
    };
    printer.note(&format!("building {} from {} with {whom}", args.out.display(), prepared.origin));
    let mut run = Run::new(&prepared, &args.out, engine, printer, stop)?;
    run.decontamination_self_test()?;
    let mut parts = run.read()?;
    warn_of_bad(args, &prepared, &run, printer);
    run.filter(&mut parts)?;
    run.dedup(&mut parts, true)?;
    run.cut(&mut parts)?;
    run.decontaminate(&mut parts)?;
    run.drop_orphans(&mut parts)?;
    run.quality(&mut parts)?;
    run.write_parts(&parts)?;
    if part::left(&parts).docs == 0 {
        publish::write_reports(&args.out, &prepared, &run.results, &run.ledger)?;
        run.ledger.check()?;
        let message =
            "no document is left; quarantine/ and audit/ in this folder say why each was refused or dropped";
        return Err(Error::data(&args.out, format!("{message}\n{}", run.ledger.table(&args.out))));
    }
    if args.text_only {
        return text::finish(args, &prepared, run, &parts, printer);
    }
    let tokenizer = run.tokenizer(&parts)?;
    run.tokenize(&mut parts, &tokenizer)?;
    run.write_parts(&parts)?;
    run.shard(&parts, &tokenizer)?;
    for name in published::keep(&args.out, &mut run.results)? {
        printer.note(&format!(
            "the plan in {} keeps its shards as they are; new documents are in {name}",
            args.out.display()
        ));
    }
    if let Some(warning) = in_use::warning(&args.out, &run.results) {
        printer.warn(&warning);
    }
    prepared.check_unchanged()?;

    publish::write_reports(&args.out, &prepared, &run.results, &run.ledger)?;
    run.ledger.check()?;
    check_bad(args, &prepared, &run.ledger, run.bad_causes().as_deref())?;
    let tokenizer_file = prepared.tokenizer.as_ref().map(|_| tokenizer.info.blake3);
    let identity = prepared.identity(tokenizer_file)?;
    let manifest = publish::manifest(&prepared, identity, tokenizer.info.clone(), &run.results);
    cluster::remove(&args.out)?;
    publish::write_data(&args.out, &prepared, &manifest, &tokenizer, &run.results)?;
    say_result(args, printer, &run.ledger, "built");
    let seconds = started.elapsed().as_secs_f64();
    if let Some(table) = forecast::compare(&args.out, &prepared, &run.ledger, seconds)? {
        printer.note(&table);
    }
    Ok(())
}

fn build_engine(args: &BuildArgs) -> Result<BuildEngine> {
    let local = engine(args.threads, args.memory)?;
    match args.engine {
        _ if args.plan_tasks => Ok(BuildEngine::Planned { local, out: args.out.clone() }),
        EngineName::Local => Ok(BuildEngine::Here(local)),
        #[cfg(feature = "cluster")]
        EngineName::Ballista => {
            let engine = cluster::BallistaEngine::listen(local, &args.out, args.address(), args.silence())?;
            Ok(BuildEngine::Ballista(Box::new(engine)))
        }
        #[cfg(not(feature = "cluster"))]
        EngineName::Ballista => Err(executor::absent()),
    }
}

/// Refuses limits that this machine cannot keep, before any work.
fn check_memory(memory: Option<ByteSize>, limits: &LimitsConfig, machine: Option<u64>) -> Result<()> {
    let Some(machine) = machine.map(ByteSize) else { return Ok(()) };
    let asked = [
        ("--memory", memory),
        ("`limits.max_doc_bytes`", Some(limits.max_doc_bytes)),
        ("`limits.max_window_bytes`", Some(limits.max_window_bytes)),
    ];
    match asked.into_iter().find_map(|(name, size)| Some((name, size.filter(|size| size.0 > machine.0)?))) {
        None => Ok(()),
        Some((name, size)) => Err(Error::Memory(format!(
            "{name} is {size}, but this machine allows the program {machine}; use less"
        ))),
    }
}

/// Prints the plan and the prediction from a sample.
fn dry_run(
    args: &BuildArgs,
    prepared: &mut Prepared,
    printer: &Printer,
    stop: &Arc<AtomicBool>,
) -> Result<()> {
    prepared.check_fields()?;
    let described = describe(&args.out, prepared);
    let _lock = OutputLock::acquire(&args.out)?;
    publish::mark(&args.out)?;
    let predicted =
        forecast::run(&args.out, prepared, args.sample, || engine(args.threads, args.memory), printer, stop)?;
    match args.json {
        true => printer.data(&format!("{}\n", json!(predicted))),
        false => printer.data(&format!("{described}\n{}", predicted.table())),
    }
    Ok(())
}

/// A build cannot be compared with itself: it would remove everything.
fn check_against(out: &Path, prepared: &Prepared) -> Result<()> {
    let Ok(own) = std::fs::canonicalize(out) else { return Ok(()) };
    let same =
        |shard: &EarlierShard| std::fs::canonicalize(&shard.mdx).is_ok_and(|mdx| mdx.starts_with(&own));
    match prepared.against.iter().find(|other| other.shards.iter().any(same)) {
        None => Ok(()),
        Some(other) => Err(Error::Usage(format!(
            "`{}` of `dedup.against` is the output folder of this build; build into another one with --out",
            other.name
        ))),
    }
}

/// Allowed share of bad records.
fn allowed(args: &BuildArgs, prepared: &Prepared) -> f64 {
    if args.strict { 0.0 } else { prepared.recipe.limits.max_bad_fraction }
}

/// Warns early about what will fail the build at its end.
fn warn_of_bad(args: &BuildArgs, prepared: &Prepared, run: &Run<'_>, printer: &Printer) {
    let (read, bad) = run.ledger.bad();
    if let Some(causes) = run.bad_causes() {
        let fails = bad as f64 > allowed(args, prepared) * read as f64;
        let verdict = if fails { "the build will fail at its end" } else { "within the limit" };
        printer.warn(&format!("{bad} of {read} records are bad ({verdict}), such as {causes}"));
    }
}

fn check_bad(args: &BuildArgs, prepared: &Prepared, ledger: &Ledger, first_bad: Option<&str>) -> Result<()> {
    let (read, bad) = ledger.bad();
    let limit = allowed(args, prepared);
    if bad as f64 <= limit * read as f64 {
        return Ok(());
    }
    Err(Error::TooManyBad {
        bad,
        read,
        allowed: match args.strict {
            true => "--strict allows".to_owned(),
            false => format!("`limits.max_bad_fraction` = {limit} allows"),
        },
        worst: first_bad.unwrap_or("ledger.json counts the causes").to_owned(),
        quarantine: args.out.join("quarantine"),
    })
}

/// Prints what was made, where, and the next command.
fn say_result(args: &BuildArgs, printer: &Printer, ledger: &Ledger, status: &str) {
    if args.json {
        let summary = json!({ "status": status, "out": args.out, "sources": ledger.sources });
        printer.data(&format!("{summary}\n"));
    }
    printer.note(&ledger.table(&args.out));
    let out =
        if args.out == Path::new("out") { String::new() } else { format!(" --out {}", args.out.display()) };
    let next = if args.text_only { "export --jsonl text/" } else { "mix --epochs 4" };
    printer.note(&format!("next: moe-data {next}{out}"));
}

fn describe(out: &Path, prepared: &Prepared) -> String {
    let recipe = &prepared.recipe;
    let mut lines = vec![format!("would build {} from {}", out.display(), prepared.origin)];
    for (source, files) in recipe.source.iter().zip(&prepared.inputs) {
        let size = ByteSize(files.iter().map(|file| file.n_bytes).sum());
        let filters = recipe.filter.iter().filter(|filter| filter.applies_to(&source.name));
        let filters: Vec<&str> = filters.map(|filter| filter.name.as_str()).collect();
        lines.push(format!(
            "  {:<12} {} files, {size}, filters: {}",
            source.name,
            files.len(),
            filters.join(", ")
        ));
    }
    for benchmark in &prepared.benchmarks {
        let (n_files, fields) = (benchmark.files.len(), benchmark.fields.join(", "));
        lines.push(format!("  evaluation set {}: {n_files} files, {fields}", benchmark.name));
    }
    let tokenizer = match (&recipe.tokenizer.file, &recipe.tokenizer.train) {
        (Some(file), _) => file.display().to_string(),
        (None, train) => format!("trained, {} tokens", train.clone().unwrap_or_default().vocab_size),
    };
    lines.push(format!("  tokenizer    {tokenizer}\n"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_above_the_memory_of_the_machine_are_refused() {
        let limits = LimitsConfig::default();
        let check = |memory: Option<u64>, machine| check_memory(memory.map(ByteSize), &limits, machine);
        assert!(check(None, Some(1 << 30)).is_ok());
        assert!(check(Some(1 << 40), None).is_ok());
        let error = check(Some(1 << 40), Some(1 << 30)).unwrap_err();
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().starts_with("--memory is "), "{error}");
        let error = check(None, Some(100_000_000)).unwrap_err().to_string();
        assert!(error.starts_with("`limits.max_window_bytes` is "), "{error}");
    }
}
