//! A build as arrays of Slurm. A driver job plans the tasks of a stage, submits an array that does them and the next driver job
//! after it, and ends; so the build continues on its own through any number of stages, and no process waits. Its state
//! is in `work/slurm/` of the output folder: `state.json`, the two scripts, and the logs.

mod drive;
mod queue;
mod settings;
mod status;

pub use self::drive::{drive, retry};
pub use self::queue::Job;
pub use self::settings::Settings;
pub use self::status::{Standing, Status};

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use moe_shards::atomic;
use serde::{Deserialize, Serialize};

use self::settings::{Scripts, program};
use crate::error::{Error, Result};
use crate::json;

/// Version of `state.json`.
const VERSION: u32 = 1;

fn folder(out: &Path) -> PathBuf {
    out.join("work").join("slurm")
}

fn logs(out: &Path) -> PathBuf {
    folder(out).join("logs")
}

/// A build that Slurm does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    /// Folder in which the build was submitted; relative paths start from there.
    folder: PathBuf,
    /// Arguments after `moe-data build`.
    build: Vec<String>,
    settings: Settings,
    /// The driver job that is to go on.
    driver: Option<String>,
    /// Arrays that were submitted, in order.
    rounds: Vec<Round>,
    /// How it ended.
    outcome: Option<Outcome>,
}

/// An array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Round {
    stage: String,
    n_tasks: usize,
    n_waiting: usize,
    /// Number of the array, and how many elements it has.
    array: String,
    n_jobs: usize,
    /// Arrays just before it that got no task of the stage done.
    n_fruitless: u32,
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Finished,
    Stopped(String),
}

impl State {
    fn path(out: &Path) -> PathBuf {
        folder(out).join("state.json")
    }

    fn read(out: &Path) -> Result<State> {
        let path = State::path(out);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let message = "was not submitted to Slurm; moe-data slurm submit does that";
                return Err(Error::Usage(format!("{}: {message}", out.display())));
            }
            bytes => bytes.map_err(Error::io(&path, "read"))?,
        };
        let damaged = |e: serde_json::Error| Error::data(&path, format!("{e}; submit the build again"));
        // What every version has.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        match serde_json::from_slice::<Version>(&bytes).map_err(damaged)?.version {
            VERSION => serde_json::from_slice(&bytes).map_err(damaged),
            other => Err(Error::Usage(format!(
                "{}: has version {other}, and this program reads {VERSION}; submit the build again",
                path.display()
            ))),
        }
    }

    fn write(&self, out: &Path) -> Result<()> {
        Ok(atomic::write_file(&State::path(out), &json::canonical(self))?)
    }
}

/// What is submitted.
#[derive(Clone, Debug)]
pub struct Submission<'a> {
    /// Folder on a file system of all nodes in which the build works: `--work`, or `--out` where that is a folder.
    pub out: &'a Path,
    /// Arguments after `moe-data build`.
    pub build: &'a [String],
    /// `--memory` of the build.
    pub memory: Option<u64>,
    /// Resources, and how tasks are dealt.
    pub settings: &'a Settings,
}

impl Submission<'_> {
    /// The two scripts: of the driver, and of arrays.
    ///
    /// # Errors
    /// A path cannot be given to a shell.
    pub fn scripts(&self) -> Result<[String; 2]> {
        let (folder, out) = (current_folder()?, absolute(self.out)?);
        let scripts = Scripts {
            settings: self.settings,
            program: &program()?,
            folder: &folder,
            out: &out,
            memory: self.memory,
        };
        Ok([scripts.driver()?, scripts.tasks()?])
    }

    /// Writes the scripts and submits the first driver; returns its number.
    ///
    /// # Errors
    /// Jobs of this build are in the queue already, Slurm refuses, or the disk does.
    pub fn submit(&self) -> Result<String> {
        let out = absolute(self.out)?;
        refuse_twice(&out)?;
        let [driver, tasks] = self.scripts()?;
        std::fs::create_dir_all(logs(&out)).map_err(Error::io(&logs(&out), "create folder"))?;
        atomic::write_file(&driver_script(&out), driver.as_bytes())?;
        atomic::write_file(&tasks_script(&out), tasks.as_bytes())?;
        let mut state = State {
            version: VERSION,
            folder: current_folder()?,
            build: self.build.to_vec(),
            settings: self.settings.clone(),
            driver: None,
            rounds: Vec::new(),
            outcome: None,
        };
        state.write(&out)?;
        let id = queue::submit(&[], &driver_script(&out), &[])?;
        state.driver = Some(id.clone());
        state.write(&out)?;
        Ok(id)
    }
}

fn driver_script(out: &Path) -> PathBuf {
    folder(out).join("driver.sh")
}

fn tasks_script(out: &Path) -> PathBuf {
    folder(out).join("tasks.sh")
}

fn current_folder() -> Result<PathBuf> {
    std::env::current_dir().map_err(Error::io(Path::new("."), "find"))
}

/// The one path that a folder has, wherever the question is asked.
fn absolute(out: &Path) -> Result<PathBuf> {
    match std::fs::canonicalize(out) {
        Ok(path) => Ok(path),
        Err(_) => std::path::absolute(out).map_err(Error::io(out, "find")),
    }
}

/// Refuses to start a build that is already running.
fn refuse_twice(out: &Path) -> Result<()> {
    let name = settings::job_name(out);
    match queue::jobs(&name)?.first() {
        None => Ok(()),
        Some(job) => Err(Error::Usage(format!(
            "{}: job {} of this build is in the queue; wait for it, or end all of them with scancel --name {name}",
            out.display(),
            job.id
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_a_newer_program_is_refused_by_its_version_whatever_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder(dir.path())).unwrap();
        std::fs::write(State::path(dir.path()), format!("{{\"version\": {}}}", VERSION + 1)).unwrap();
        let error = State::read(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("has version {}, and this program reads {VERSION}", VERSION + 1)),
            "{error}"
        );
    }
}
