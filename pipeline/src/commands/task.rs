//! `moe-data task`: runs a share of the tasks that a build left, or shows their progress.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand};
use serde_json::json;

use super::share::{self, Array};
use crate::cluster::{self, Conditions, Progress, Share};
use crate::error::Result;
use crate::printer::Printer;
use crate::recipe::ByteSize;

/// The verbs of `task`.
#[derive(Clone, Debug, Subcommand)]
pub enum TaskVerb {
    /// Run a share of the waiting tasks; finished ones are left alone
    #[command(before_long_help = "Examples:
  moe-data build --plan-tasks; moe-data task run --array 0/2 & moe-data task run --array 1/2 & wait
  moe-data task run --out /shared/out --array 16     # share number $JOB_COMPLETION_INDEX or $SLURM_ARRAY_TASK_ID of 16")]
    Run(TaskArgs),
    /// Show how many tasks are done, running, waiting and failed, and why
    Status(StatusArgs),
}

/// Flags of `task run`.
#[derive(Clone, Debug, Args)]
pub struct TaskArgs {
    /// Folder of the build: its --out, or its --work if it has one
    #[arg(long, visible_alias = "work", value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Which share of how many, such as 3/16, from 0; a missing number is that of the array of Slurm or of the indexed job of
    /// Kubernetes that this runs in
    #[arg(long, value_name = "[I/]N")]
    pub array: Option<Array>,
    /// Tasks at once [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Memory for data that tasks could also keep on disk, at least 1MiB [default: 1GiB]; the result does not depend on it
    #[arg(long, value_name = "SIZE", value_parser = super::parse_memory)]
    pub memory: Option<ByteSize>,
    /// Which list the share is of, and where its output goes
    #[command(flatten)]
    pub conditions: Conditions,
    /// Print a summary as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `task status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Folder of the build: its --out, or its --work if it has one
    #[arg(long, visible_alias = "work", value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs one of the verbs. `stop` is set when the user asks to stop.
///
/// # Errors
/// Those of the verb.
pub fn run(verb: &TaskVerb, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    match verb {
        TaskVerb::Run(args) => run_share(args, printer, stop),
        TaskVerb::Status(args) => status(&args.out, args.json, printer),
    }
}

/// Runs a share of the waiting tasks.
///
/// # Errors
/// [`Error::Tasks`] when any of them failed, [`Error::Interrupted`], or the share is unknown.
fn run_share(args: &TaskArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let share = share::share_of(args.array)?;
    let engine = super::engine(args.threads, args.memory)?;
    let done = cluster::run(&args.out, share, &engine, &args.conditions, printer, stop)?;
    let Share { index, of } = share;
    if args.json {
        let (stage, n_tasks) = done.as_ref().map_or((None, 0), |(stage, n)| (Some(stage), *n));
        printer
            .data(&format!("{}\n", json!({"stage": stage, "tasks": n_tasks, "share": index, "shares": of})));
    }
    printer.note(&match done {
        Some((stage, n_tasks)) => format!("share {index} of {of}: {n_tasks} tasks of `{stage}` are done"),
        None => format!(
            "no tasks are waiting in {}; moe-data build --plan-tasks leaves some there",
            args.out.display()
        ),
    });
    Ok(())
}

/// Prints the progress of the waiting tasks.
///
/// # Errors
/// The list of tasks cannot be used, or a report cannot be read.
fn status(out: &Path, as_json: bool, printer: &Printer) -> Result<()> {
    let progress = Progress::read(out)?;
    if as_json {
        printer.data(&format!("{}\n", json!(progress)));
        return Ok(());
    }
    printer.data(&match progress {
        Some(progress) => progress.text(),
        None => format!("no tasks are waiting in {}\n", out.display()),
    });
    Ok(())
}
