//! `moe-data slurm`: a build as jobs of Slurm.

use std::path::Path;

use serde_json::json;

use super::build::{self, BuildArgs};
use crate::cluster::slurm::{self, Settings, Standing, Status, Submission};
use crate::error::{Error, Result};
use crate::printer::Printer;

/// Flags of `slurm submit`.
#[derive(Clone, Debug)]
pub struct SubmitArgs {
    /// Arguments after `moe-data build`.
    pub words: Vec<String>,
    /// Their parsed form.
    pub build: BuildArgs,
    /// Resources, and how tasks are dealt.
    pub settings: Settings,
    /// Print the scripts and submit nothing.
    pub dry_run: bool,
}

/// Submits a build.
///
/// # Errors
/// The recipe or the folder cannot be used, the build is in the queue already, or Slurm refuses.
pub fn submit(args: &SubmitArgs, printer: &Printer) -> Result<()> {
    if args.build.dry_run {
        return Err(Error::Usage(
            "--dry-run of a build needs no cluster; run moe-data build --dry-run".to_owned(),
        ));
    }
    let out = build::folder(&args.build)?;
    let memory = args.build.memory.map(|memory| memory.0);
    let submission = Submission { out, build: &args.words, memory, settings: &args.settings };
    if args.dry_run {
        let [driver, tasks] = submission.scripts()?;
        printer.data(&format!("{driver}\n{tasks}"));
        return Ok(());
    }
    build::check(&args.build, printer)?;
    let id = submission.submit()?;
    let out = out.display();
    printer.note(&format!("submitted: driver job {id}\nnext: moe-data slurm status {out}"));
    Ok(())
}

/// Prints the status of a build.
///
/// # Errors
/// It was not submitted, Slurm cannot be asked, or [`Error::Check`] if it stopped or was abandoned.
pub fn status(out: &Path, as_json: bool, printer: &Printer) -> Result<()> {
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
pub fn retry(out: &Path, printer: &Printer) -> Result<()> {
    printer.note(&match slurm::retry(out)? {
        Some(id) => format!("submitted: driver job {id}\nnext: moe-data slurm status {}", out.display()),
        None => format!("nothing to do: the build in {} is finished", out.display()),
    });
    Ok(())
}
