//! Queries and commands to Slurm, through its own programs.

use std::path::Path;
use std::process::{Command, Output};

use serde::Serialize;

use crate::error::{Error, Result};

/// A job in the queue, or an element of an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Job {
    /// `17`, or `17_3` for an element of an array.
    pub id: String,
    /// The array's own number, which is also part of the names of logs.
    pub array: String,
    /// Number in the array; absent for a driver.
    pub index: Option<u32>,
    /// In Slurm's words: `PENDING`, `RUNNING`.
    pub state: String,
    /// Where it runs; empty while it does not.
    pub node: String,
    /// Why it waits; `None` where it does not.
    pub reason: String,
}

impl Job {
    /// Whether it still has something to do.
    pub fn is_alive(&self) -> bool {
        matches!(
            &self.state[..],
            "PENDING"
                | "RUNNING"
                | "CONFIGURING"
                | "SUSPENDED"
                | "REQUEUED"
                | "REQUEUE_HOLD"
                | "RESIZING"
                | "SIGNALING"
                | "STAGE_OUT"
                | "STOPPED"
                | "SPECIAL_EXIT"
                | "REQUEUE_FED"
        )
    }
}

/// Fields of [`Job`] as `squeue` names them.
const FORMAT: &str = "%i|%F|%K|%T|%N|%r";

/// Jobs of this name that are alive.
///
/// # Errors
/// `squeue` cannot be run, or fails.
pub fn jobs(name: &str) -> Result<Vec<Job>> {
    let args = ["--noheader", "--array", "--states=all", "--name", name, "--format", FORMAT];
    let output = run(Command::new("squeue").args(args))?;
    Ok(parse(&output).into_iter().filter(Job::is_alive).collect())
}

fn parse(text: &str) -> Vec<Job> {
    let job = |line: &str| {
        let fields: Vec<&str> = line.trim().split('|').collect();
        let &[id, array, index, state, node, reason] = &fields[..] else { return None };
        Some(Job {
            id: id.to_owned(),
            array: array.to_owned(),
            index: index.parse().ok(),
            state: state.to_owned(),
            node: node.to_owned(),
            reason: reason.to_owned(),
        })
    };
    text.lines().filter_map(job).collect()
}

/// Submits a script with arguments of `sbatch` before it and its own after it; returns the number of the job.
///
/// # Errors
/// `sbatch` cannot be run, or refuses.
pub fn submit(options: &[String], script: &Path, args: &[String]) -> Result<String> {
    let output = run(Command::new("sbatch").arg("--parsable").args(options).arg(script).args(args))?;
    // With several clusters `17;cluster`.
    let id = output.trim().split(';').next().unwrap_or_default().to_owned();
    match !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(id),
        false => {
            Err(Error::Machine(format!("sbatch --parsable gave no number of a job: `{}`", output.trim())))
        }
    }
}

fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| {
        Error::Machine(format!(
            "cannot start {name}: {e}\n  hint: this needs the programs of Slurm; docs/cluster.md says how to do without"
        ))
    })?;
    let Output { status, stdout, stderr } = output;
    match status.success() {
        true => Ok(String::from_utf8_lossy(&stdout).into_owned()),
        false => Err(Error::Machine(format!(
            "{name} failed ({status}): {}",
            String::from_utf8_lossy(&stderr).trim()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_squeue_are_understood() {
        let text = "1_2|1|2|PENDING||Resources\n1_0|1|0|RUNNING|n1|None\n4|4|N/A|COMPLETING|n2|None\n\n";
        let jobs = parse(text);
        let short: Vec<_> = jobs.iter().map(|job| (&job.id[..], job.index, &job.node[..])).collect();
        assert_eq!(short, [("1_2", Some(2), ""), ("1_0", Some(0), "n1"), ("4", None, "n2")]);
        assert_eq!(jobs.iter().map(Job::is_alive).collect::<Vec<_>>(), [true, true, false]);
    }
}
