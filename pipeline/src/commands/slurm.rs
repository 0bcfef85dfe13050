//! `moe-data slurm`: a build as jobs of Slurm.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand};
use serde_json::json;

use super::build::{self, BuildArgs};
use crate::cluster::slurm::{self, Settings, Standing, Status, Submission};
use crate::error::{Error, Result};
use crate::printer::Printer;

/// The verbs of `slurm`.
#[derive(Clone, Debug, Subcommand)]
pub enum SlurmVerb {
    /// Submit a build, which then continues on its own until it is finished
    #[command(before_long_help = "Examples:
  moe-data slurm submit recipe.toml --out /shared/out --nodes 8 --cpus 16 --mem 60G --time 4:00:00
  moe-data slurm submit recipe.toml --out /shared/out --nodes 8 --dry-run       # print the scripts
  moe-data slurm submit recipe.toml --out s3://bucket/run --work /shared/work -- --memory 8GiB")]
    Submit(Box<SubmitArgs>),
    /// Show the status of a submitted build: what is done, running, waiting or failed, why, and where the logs are
    Status(StatusArgs),
    /// Continue a build that stopped, or whose jobs are gone
    Retry(RetryArgs),
    /// What driver jobs run
    #[command(hide = true)]
    Drive(RetryArgs),
}

/// Flags of `slurm submit`.
#[derive(Clone, Debug, Args)]
pub struct SubmitArgs {
    /// Recipe file
    #[arg(value_name = "RECIPE")]
    pub recipe: String,
    /// Output folder, on a file system shared by all nodes, or a URL in an object store
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: String,
    /// Folder, on a file system shared by all nodes, in which the output for a URL is made
    #[arg(long, value_name = "DIR")]
    pub work: Option<String>,
    /// Resources, and how tasks are dealt
    #[command(flatten)]
    pub settings: Settings,
    /// Print the scripts and submit nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Other flags of moe-data build, after `--`
    #[arg(last = true, value_name = "FLAGS")]
    pub build: Vec<String>,
}

/// Flags of `slurm status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Folder of the build: its --out, or its --work if it has one
    #[arg(value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `slurm retry`.
#[derive(Clone, Debug, Args)]
pub struct RetryArgs {
    /// Folder of the build: its --out, or its --work if it has one
    #[arg(value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
}

/// Runs one of the verbs. `stop` is set when the user asks to stop.
///
/// # Errors
/// Those of the verb.
pub fn run(verb: &SlurmVerb, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    match verb {
        SlurmVerb::Submit(args) => submit(args, printer),
        SlurmVerb::Status(args) => status(&args.out, args.json, printer),
        SlurmVerb::Retry(args) => retry(&args.out, printer),
        SlurmVerb::Drive(args) => {
            slurm::drive(&args.out, printer, |words| build::run(&BuildArgs::parse(words)?, printer, stop))
        }
    }
}

impl SubmitArgs {
    /// The arguments after `moe-data build`.
    fn words(&self) -> Vec<String> {
        let words = ["--plan-tasks", "--recipe", &self.recipe[..], "--out", &self.out[..]];
        let mut words = words.map(str::to_owned).to_vec();
        words.extend(self.work.iter().flat_map(|work| ["--work".to_owned(), work.clone()]));
        if !self.build.iter().any(|word| word.starts_with("--threads")) {
            words.extend(["--threads".to_owned(), self.settings.cpus.to_string()]);
        }
        words.extend(self.build.iter().cloned());
        words
    }
}

/// Submits a build.
///
/// # Errors
/// The recipe or the folder cannot be used, the build is in the queue already, or Slurm refuses.
fn submit(args: &SubmitArgs, printer: &Printer) -> Result<()> {
    let words = args.words();
    let build = BuildArgs::parse(&words)?;
    if build.dry_run {
        return Err(Error::Usage(
            "--dry-run of a build needs no cluster; run moe-data build --dry-run".to_owned(),
        ));
    }
    let out = build.folder()?;
    build::check(&build, printer)?;
    let memory = build.memory.map(|memory| memory.0);
    let submission = Submission { out, build: &words, memory, settings: &args.settings };
    if args.dry_run {
        let [driver, tasks] = submission.scripts()?;
        printer.data(&format!("{driver}\n{tasks}"));
        return Ok(());
    }
    build::mark(&build)?;
    let id = submission.submit()?;
    let out = out.display();
    printer.note(&format!("submitted: driver job {id}\nnext: moe-data slurm status {out}"));
    Ok(())
}

/// Prints the status of a build.
///
/// # Errors
/// It was not submitted, Slurm cannot be asked, or [`Error::Check`] if it stopped or was abandoned.
fn status(out: &Path, as_json: bool, printer: &Printer) -> Result<()> {
    let status = Status::read(out)?;
    match as_json {
        true => printer.data(&format!("{}\n", json!(status))),
        false => printer.data(&status.text()),
    }
    match status.standing {
        Standing::AtWork | Standing::Finished => Ok(()),
        Standing::Stopped | Standing::Abandoned => {
            Err(Error::Check("the build is not finished, and nothing is running".to_owned()))
        }
    }
}

/// Continues a build that stopped.
///
/// # Errors
/// Its jobs are in the queue, or Slurm refuses.
fn retry(out: &Path, printer: &Printer) -> Result<()> {
    printer.note(&match slurm::retry(out)? {
        Some(id) => format!("submitted: driver job {id}\nnext: moe-data slurm status {}", out.display()),
        None => format!("nothing to do: the build in {} is finished", out.display()),
    });
    Ok(())
}
