//! What a driver job does: as much of the build as possible without tasks, then the next array and the next driver.

use std::path::Path;

use super::settings::job_name;
use super::{Outcome, Round, State, absolute, driver_script, queue, refuse_twice, tasks_script};
use crate::cluster::{FailedTask, Failure, Progress, TaskList};
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::stage::Task;

/// When a driver starts after an array that seems to have done nothing: NFS may show the files of other machines a minute late.
const LATER: &str = "--begin=now+70seconds";
/// Failed tasks that a message names.
const MAX_NAMED: usize = 3;

/// Goes on with a build that was submitted. `build` runs `moe-data build` with these words after it.
///
/// # Errors
/// What the build ran into, Slurm refuses, or tasks failed too often; `status` shows the reason.
pub fn drive(out: &Path, printer: &Printer, build: impl FnOnce(&[String]) -> Result<()>) -> Result<()> {
    let out = &absolute(out)?;
    let mut state = State::read(out)?;
    let own = std::env::var("SLURM_JOB_ID").ok();
    if let Some(reason) = has_successor(out, &mut state, own.as_deref())? {
        printer.note(&reason);
        return Ok(());
    }
    std::env::set_current_dir(&state.folder).map_err(Error::io(&state.folder, "enter"))?;
    let outcome = build(&state.build);
    match outcome {
        Ok(()) => {
            state.outcome = Some(Outcome::Finished);
            state.write(out)
        }
        Err(Error::Waiting { stage, n_waiting, n_tasks, .. }) => {
            let round = next_round(&state, stage, n_waiting, n_tasks);
            let progress = Progress::read(out)?.map(Progress::with_nobody_at_work);
            let Some(progress) = progress else { return Err(gone(out)) };
            match hopeless(out, &state, &round, &progress) {
                Some(error) => stop(out, state, error),
                None => submit_round(out, &mut state, round, progress.failed.is_empty(), printer),
            }
        }
        // Slurm ended it and may start it again.
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => stop(out, state, error),
    }
}

fn stop(out: &Path, mut state: State, error: Error) -> Result<()> {
    state.outcome = Some(Outcome::Stopped(error.to_string()));
    state.write(out)?;
    Err(error)
}

/// Whether other jobs go on with the build: this one may have been killed and started again after its last act. Submits the
/// driver that it had no time to submit.
fn has_successor(out: &Path, state: &mut State, own: Option<&str>) -> Result<Option<String>> {
    let jobs = queue::jobs(&job_name(out))?;
    let others: Vec<&queue::Job> = jobs.iter().filter(|job| Some(&job.array[..]) != own).collect();
    let driver = others.iter().find(|job| job.index.is_none());
    if let Some(element) = others.iter().find(|job| job.index.is_some()) {
        if driver.is_none() {
            submit_driver(out, state, &element.array, false)?;
        }
        return Ok(Some(format!("array {} is not done; the driver behind it goes on", element.array)));
    }
    // Of two drivers, the one submitted last continues.
    Ok(match driver {
        Some(job) if state.driver.as_deref() == Some(&job.id[..]) => Some(format!("job {} goes on", job.id)),
        _ => None,
    })
}

fn next_round(state: &State, stage: &str, n_waiting: usize, n_tasks: usize) -> Round {
    let before = state.rounds.last().filter(|round| round.stage == stage && round.n_tasks == n_tasks);
    let n_fruitless = match before {
        Some(before) if before.n_waiting == n_waiting => before.n_fruitless + 1,
        _ => 0,
    };
    let n_jobs = state.settings.jobs(n_waiting, before.is_some());
    Round { stage: stage.to_owned(), n_tasks, n_waiting, array: String::new(), n_jobs, n_fruitless }
}

/// Why more tries would be in vain: all that is left has failed too often, or array after array got nothing done.
fn hopeless(out: &Path, state: &State, round: &Round, progress: &Progress) -> Option<Error> {
    let max_tries = state.settings.max_tries;
    let has_failed_often = |failed: &FailedTask| failed.failure.n_tries >= max_tries;
    let is_given_up =
        progress.waiting == 0 && !progress.failed.is_empty() && progress.failed.iter().all(has_failed_often);
    if !is_given_up && round.n_fruitless < max_tries {
        return None;
    }
    let mut message =
        format!("{} of {} tasks of `{}` cannot be done", round.n_waiting, round.n_tasks, round.stage);
    for failed in progress.failed.iter().take(MAX_NAMED) {
        message.push_str(&format!("\n  {}", failed.text()));
    }
    if progress.failed.len() > MAX_NAMED {
        message.push_str(&format!("\n  and {} others failed", progress.failed.len() - MAX_NAMED));
    }
    if progress.waiting > 0 {
        let arrays: Vec<&str> =
            state.rounds.iter().rev().take(max_tries as usize).map(|round| &round.array[..]).collect();
        message.push_str(&format!(
            "\n  {} ended without a word, as when memory or time runs out; logs: {}/{{{}}}_*.log",
            progress.waiting,
            super::logs(out).display(),
            arrays.join(",")
        ));
    }
    message.push_str(&format!("\n  hint: when the cause is mended, moe-data slurm retry {}", out.display()));
    let code = progress.failed.first().map_or(7, |failed| failed.failure.exit_code);
    Some(Error::Tasks { message, code })
}

fn submit_round(
    out: &Path,
    state: &mut State,
    mut round: Round,
    is_silent: bool,
    printer: &Printer,
) -> Result<()> {
    let list = TaskList::read(out, |_| false)?.ok_or_else(|| gone(out))?.head.blake3.short();
    let Round { n_jobs, n_waiting, n_fruitless, .. } = round;
    let array = format!("--array=0-{}%{}", n_jobs - 1, state.settings.nodes);
    round.array = queue::submit(&[array], &tasks_script(out), &[n_jobs.to_string(), list])?;
    let (id, stage) = (round.array.clone(), round.stage.clone());
    state.rounds.push(round);
    state.write(out)?;
    let driver = submit_driver(out, state, &id, n_fruitless > 0 && is_silent)?;
    printer.note(&format!(
        "array {id}: {n_waiting} tasks of `{stage}` in {n_jobs} jobs; driver {driver} behind it"
    ));
    Ok(())
}

/// Submits the next driver; `is_late` if the file system may not show finished work yet.
fn submit_driver(out: &Path, state: &mut State, array: &str, is_late: bool) -> Result<String> {
    let mut options = vec![format!("--dependency=afterany:{array}")];
    options.extend(is_late.then(|| LATER.to_owned()));
    let driver = queue::submit(&options, &driver_script(out), &[])?;
    state.driver = Some(driver.clone());
    state.write(out)?;
    Ok(driver)
}

fn gone(out: &Path) -> Error {
    Error::data(out, "has no list of tasks, though some are waiting; another build is at work here")
}

/// Goes on with a build that stopped, or whose jobs are gone: forgets how often tasks failed. Returns the number of the driver;
/// `None` when the build is finished.
///
/// # Errors
/// Its jobs are in the queue, Slurm refuses, or the disk does.
pub fn retry(out: &Path) -> Result<Option<String>> {
    let out = &absolute(out)?;
    let mut state = State::read(out)?;
    if state.outcome == Some(Outcome::Finished) {
        return Ok(None);
    }
    refuse_twice(out)?;
    if let Some(TaskList { head, tasks }) = TaskList::read(out, |_| true)? {
        for task in tasks {
            Failure::forget(&Task { output: head.folder.join(&task.output), ..task })?;
        }
    }
    state.rounds.clear();
    state.outcome = None;
    state.write(out)?;
    let id = queue::submit(&[], &driver_script(out), &[])?;
    state.driver = Some(id.clone());
    state.write(out)?;
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::slurm::{Settings, VERSION};

    fn state() -> State {
        let settings = Settings {
            nodes: 2,
            cpus: 4,
            mem: None,
            time: None,
            partition: None,
            account: None,
            sbatch: Vec::new(),
            driver_sbatch: Vec::new(),
            max_array: 1000,
            tasks_per_job: None,
            max_tries: 3,
        };
        let (folder, build) = ("/".into(), Vec::new());
        State { version: VERSION, folder, build, settings, driver: None, rounds: Vec::new(), outcome: None }
    }

    #[test]
    fn rounds_without_progress_are_counted_by_stage() {
        let mut state = state();
        // Stage, tasks left, elements of the array, rounds in vain.
        for (stage, n_waiting, n_jobs, n_fruitless) in [
            ("read", 40, 8, 0),
            ("read", 7, 7, 0),
            ("read", 7, 7, 1),
            ("read", 7, 7, 2),
            ("read", 6, 6, 0),
            ("measure", 40, 8, 0),
            ("measure", 40, 40, 1),
        ] {
            let round = next_round(&state, stage, n_waiting, 40);
            assert_eq!((round.n_jobs, round.n_fruitless), (n_jobs, n_fruitless), "{stage} {n_waiting}");
            state.rounds.push(round);
        }
    }
    #[test]
    fn a_build_stops_when_all_that_is_left_has_failed_too_often_or_nothing_gets_done() {
        let state = state();
        let reason = |n_fruitless: u32, n_tries: &[u32], waiting: usize| {
            let failed = n_tries.iter().enumerate().map(|(part, &n_tries)| {
                let reason = "no space".to_owned();
                let failure = Failure { n_tries, reason, exit_code: 7, host: "n1".to_owned(), log: None };
                FailedTask { part: part as u32, output: "o".into(), failure }
            });
            let failed: Vec<FailedTask> = failed.collect();
            let (stage, n_waiting) = ("read".to_owned(), failed.len() + waiting);
            let done = 40 - n_waiting;
            let progress = Progress { stage: stage.clone(), tasks: 40, done, running: 0, waiting, failed };
            let array = "17".to_owned();
            let round = Round { stage, n_tasks: 40, n_waiting, array, n_jobs: 1, n_fruitless };
            hopeless(Path::new("/out"), &state, &round, &progress).map(|error| error.to_string())
        };
        assert_eq!(reason(0, &[2, 3], 0), None);
        assert_eq!(reason(0, &[3, 3], 1), None);
        assert_eq!(reason(2, &[1], 1), None);
        let given_up = reason(0, &[3, 4], 0).unwrap();
        assert!(given_up.starts_with("2 of 40 tasks of `read` cannot be done\n"), "{given_up}");
        assert!(given_up.contains("task 1 failed 4 times, last on n1: no space"), "{given_up}");
        assert!(given_up.ends_with("moe-data slurm retry /out"), "{given_up}");
        let silent = reason(3, &[], 2).unwrap();
        assert!(silent.contains("2 ended without a word"), "{silent}");
    }
}
