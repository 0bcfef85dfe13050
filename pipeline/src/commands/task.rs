//! `moe-data task`: runs a share of the tasks that a build left, or shows their progress.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use crate::cluster::{self, Conditions, Progress, Share};
use crate::engine::LocalEngine;
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::recipe::ByteSize;

/// Flags of `task run`.
#[derive(Clone, Debug)]
pub struct TaskArgs {
    /// Folder of the build.
    pub out: PathBuf,
    /// Position of the share, if given, and the number of shares.
    pub array: Option<(Option<usize>, usize)>,
    /// Threads; one for each core when absent.
    pub threads: Option<usize>,
    /// Memory for data that tasks could also keep on disk; [`LocalEngine`]'s own default when absent.
    pub memory: Option<ByteSize>,
    /// Options of the share.
    pub conditions: Conditions,
    /// Whether to print a summary as JSON.
    pub json: bool,
}

/// Runs a share of the waiting tasks.
///
/// # Errors
/// [`Error::Tasks`] when any of them failed, [`Error::Interrupted`], or the share is unknown.
pub fn run(args: &TaskArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let share = share(args.array, |name| std::env::var(name).ok())?;
    let threads =
        args.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let engine = LocalEngine::new(threads)?;
    let engine = match args.memory {
        Some(memory) => engine.with_memory(memory.0),
        None => engine,
    };
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

/// The given share, or that of this array element.
fn share(array: Option<(Option<usize>, usize)>, variable: impl Fn(&str) -> Option<String>) -> Result<Share> {
    let number = |name: &str| match variable(name) {
        None => Ok(None),
        Some(text) => text.parse::<usize>().map(Some).map_err(|_| {
            Error::Usage(format!("{name} is `{text}`, and should be a number; give --array I/N"))
        }),
    };
    let index = || -> Result<usize> {
        let found = match number("SLURM_ARRAY_TASK_ID")? {
            None => number("JOB_COMPLETION_INDEX")?,
            found => found,
        };
        let missing = "no number of a share: give --array I/N, or run this in an array of Slurm or an indexed job of Kubernetes";
        found.ok_or_else(|| Error::Usage(missing.to_owned()))
    };
    let (index, of) = match array {
        Some((Some(index), of)) => (index, of),
        Some((None, of)) => (index()?, of),
        None => {
            let index = index()?;
            let missing = "no number of shares: give it with --array N";
            let of = number("SLURM_ARRAY_TASK_COUNT")?.ok_or_else(|| Error::Usage(missing.to_owned()))?;
            (index, of)
        }
    };
    match index < of {
        true => Ok(Share { index, of }),
        false => Err(Error::Usage(format!(
            "there is no share {index} of {of}: shares count from 0 to {}; give --array I/N",
            of.saturating_sub(1)
        ))),
    }
}

/// Prints the progress of the waiting tasks.
///
/// # Errors
/// The list of tasks cannot be used, or a report cannot be read.
pub fn status(out: &Path, as_json: bool, printer: &Printer) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_flags_slurm_or_kubernetes() {
        let slurm = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "8")];
        let kubernetes = [("JOB_COMPLETION_INDEX", "2")];
        let check = |array,
                     variables: &[(&str, &str)],
                     expected: std::result::Result<(usize, usize), &str>| {
            let variable =
                |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            match (share(array, variable), expected) {
                (Ok(Share { index, of }), expected) => assert_eq!(Ok((index, of)), expected),
                (Err(error), Err(message)) => assert!(error.to_string().contains(message), "{error}"),
                (Err(error), Ok(_)) => panic!("{error}"),
            }
        };
        check(Some((Some(1), 4)), &slurm, Ok((1, 4)));
        check(Some((None, 4)), &slurm, Ok((3, 4)));
        check(None, &slurm, Ok((3, 8)));
        check(Some((None, 4)), &kubernetes, Ok((2, 4)));
        check(None, &kubernetes, Err("no number of shares"));
        check(None, &[], Err("no number of a share"));
        check(Some((Some(4), 4)), &[], Err("count from 0 to 3"));
        check(None, &[("SLURM_ARRAY_TASK_ID", "x")], Err("SLURM_ARRAY_TASK_ID is `x`"));
    }
}
