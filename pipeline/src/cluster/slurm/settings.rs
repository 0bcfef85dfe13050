//! Flags for the resources of jobs, and the scripts and numbers that follow from it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use moe_shards::Hash;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Resources of the jobs, and how tasks are dealt to them.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Jobs of an array that run at once; one per node if --cpus is a whole node
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: u32,
    /// Processors of a job, and the tasks it runs at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=u16::MAX.into()))]
    pub cpus: u32,
    /// Memory of a job, as sbatch takes it
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<String>,
    /// Time limit of a job, as sbatch takes it; the next array does what is left
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// Partition
    #[arg(long, value_name = "NAME")]
    pub partition: Option<String>,
    /// Account
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// Another argument of sbatch, such as --sbatch=--exclude=n7; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub sbatch: Vec<String>,
    /// The same for driver jobs only, which run the steps that see all documents: --driver-sbatch=--mem=500G
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub driver_sbatch: Vec<String>,
    /// Jobs of an array, at most; MaxArraySize of the cluster is one more
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_array: u32,
    /// Tasks of a job [default: four jobs for each of --nodes, and a task for each processor]; more where arrays are too small
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tasks_per_job: Option<u32>,
    /// Attempts at a task before the build stops
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tries: u32,
}

/// Elements of an array for each job that runs at once, so that fast nodes take more of them.
const WAVES: usize = 4;

impl Settings {
    /// Elements of the array for this many tasks. A stage that is tried again has one task in each, as far as arrays go, so that one
    /// that kills its job keeps no other from being done.
    pub fn jobs(&self, n_tasks: usize, is_again: bool) -> usize {
        let wanted = match (is_again, self.tasks_per_job) {
            (true, _) => n_tasks,
            (false, Some(per_job)) => n_tasks.div_ceil(per_job.max(1) as usize),
            (false, None) => n_tasks.div_ceil(self.cpus as usize).min(self.nodes as usize * WAVES),
        };
        wanted.clamp(1, (self.max_array as usize).max(1))
    }
}

/// What a script is about.
pub(super) struct Scripts<'a> {
    pub settings: &'a Settings,
    /// The program.
    pub program: &'a Path,
    /// Folder in which commands run.
    pub folder: &'a Path,
    /// Output folder of the build, absolute.
    pub out: &'a Path,
    /// `--memory` of the build.
    pub memory: Option<u64>,
}

impl Scripts<'_> {
    /// The script of an array; its arguments are the number of elements and the digest of the list.
    pub fn tasks(&self) -> Result<String> {
        let logs = super::logs(self.out);
        let mut text =
            self.head("does a share of the tasks that are waiting", &logs.join("%A_%a.log"), &[])?;
        let memory = self.memory.map_or_else(String::new, |bytes| format!(" --memory {bytes}"));
        writeln!(
            text,
            "exec {} task run --out {} --array \"$SLURM_ARRAY_TASK_ID/$1\" --list \"$2\" --threads {}{memory} \\\n    --log {}/\"${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID.log\"",
            quote(self.program)?, quote(self.out)?, self.settings.cpus, quote(&logs)?
        )
        .unwrap_or_default();
        Ok(text)
    }

    /// The script of the driver.
    pub fn driver(&self) -> Result<String> {
        let log = super::logs(self.out).join("driver-%j.log");
        let more = &self.settings.driver_sbatch;
        let mut text = self.head("goes on with the build, and submits the next jobs", &log, more)?;
        writeln!(text, "exec {} slurm drive {}", quote(self.program)?, quote(self.out)?).unwrap_or_default();
        Ok(text)
    }

    fn head(&self, what: &str, log: &Path, more: &[String]) -> Result<String> {
        let Settings { cpus, mem, time, partition, account, sbatch, .. } = self.settings;
        let mut lines = vec![
            format!("--job-name={}", job_name(self.out)),
            // Slurm reads `%` as the start of a field.
            format!(
                "--output=\"{}\"",
                shown(log)?.replacen(&shown(self.out)?, &shown(self.out)?.replace('%', "%%"), 1)
            ),
            "--open-mode=append".to_owned(),
            "--requeue".to_owned(),
            "--nodes=1".to_owned(),
            "--ntasks=1".to_owned(),
            format!("--cpus-per-task={cpus}"),
        ];
        let named = [("mem", mem), ("time", time), ("partition", partition), ("account", account)];
        let named = named.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
        lines.extend(named.map(|(name, value)| format!("--{name}={value}")));
        lines.extend(sbatch.iter().chain(more).cloned());
        if let Some(line) = lines.iter().find(|line| line.contains('\n')) {
            return Err(Error::Usage(format!(
                "`{line}` has a line end, which no argument of sbatch may have"
            )));
        }
        let mut text = format!("#!/bin/bash\n# Written by moe-data slurm submit: {what}.\n");
        lines.iter().for_each(|line| writeln!(text, "#SBATCH {line}").unwrap_or_default());
        writeln!(text, "cd {} || exit 2", quote(self.folder)?).unwrap_or_default();
        Ok(text)
    }
}

/// Name of all jobs of a build: `scancel --name` ends them.
pub(super) fn job_name(out: &Path) -> String {
    format!("moe-data-{}", &Hash::of(out.as_os_str().as_encoded_bytes()).to_string()[..8])
}

fn shown(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains(['\n', '"']));
    text.map(str::to_owned).ok_or_else(|| {
        Error::Usage(format!(
            "{}: a path of a job must be UTF-8 without line ends and quotes",
            path.display()
        ))
    })
}

/// A path as a word of a shell.
fn quote(path: &Path) -> Result<String> {
    let text = shown(path)?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(&b);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Ok(text),
        false => Ok(format!("'{}'", text.replace('\'', "'\\''"))),
    }
}

/// Absolute path of this program.
pub(super) fn program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|e| Error::Machine(format!("cannot find this program's own file: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            nodes: 8,
            cpus: 16,
            mem: Some("60G".to_owned()),
            time: None,
            partition: Some("cpu".to_owned()),
            account: None,
            sbatch: vec!["--exclude=bad1".to_owned()],
            driver_sbatch: vec!["--mem=500G".to_owned()],
            max_array: 1000,
            tasks_per_job: None,
            max_tries: 3,
        }
    }

    #[test]
    fn arrays_stay_within_their_limit_and_give_every_thread_a_task() {
        let settings = settings();
        // Tasks, and elements of the first array and of the next ones.
        for (n_tasks, first, again) in
            [(1, 1, 1), (16, 1, 16), (17, 2, 17), (500, 32, 500), (100_000, 32, 1000)]
        {
            assert_eq!(
                [settings.jobs(n_tasks, false), settings.jobs(n_tasks, true)],
                [first, again],
                "{n_tasks}"
            );
        }
        let settings = Settings { tasks_per_job: Some(10), ..settings };
        assert_eq!([95, 9_995, 100_000].map(|n_tasks| settings.jobs(n_tasks, false)), [10, 1000, 1000]);
    }

    #[test]
    fn scripts_hold_the_settings_and_survive_odd_paths() {
        let scripts = Scripts {
            settings: &settings(),
            program: Path::new("/opt/moe-data"),
            folder: Path::new("/home/it's here"),
            out: Path::new("/data/100% web"),
            memory: Some(1 << 30),
        };
        let tasks = scripts.tasks().unwrap();
        let expected = "#!/bin/bash\n\
            # Written by moe-data slurm submit: does a share of the tasks that are waiting.\n\
            #SBATCH --job-name=NAME\n\
            #SBATCH --output=\"/data/100%% web/work/slurm/logs/%A_%a.log\"\n\
            #SBATCH --open-mode=append\n#SBATCH --requeue\n#SBATCH --nodes=1\n#SBATCH --ntasks=1\n\
            #SBATCH --cpus-per-task=16\n#SBATCH --mem=60G\n#SBATCH --partition=cpu\n#SBATCH --exclude=bad1\n\
            cd '/home/it'\\''s here' || exit 2\n\
            exec /opt/moe-data task run --out '/data/100% web' --array \"$SLURM_ARRAY_TASK_ID/$1\" --list \"$2\" --threads 16 --memory 1073741824 \\\n    \
            --log '/data/100% web/work/slurm/logs'/\"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID.log\"\n";
        assert_eq!(tasks, expected.replace("NAME", &job_name(scripts.out)));
        let driver = scripts.driver().unwrap();
        assert!(driver.contains("#SBATCH --exclude=bad1\n#SBATCH --mem=500G\n"), "{driver}");
        assert!(driver.ends_with("exec /opt/moe-data slurm drive '/data/100% web'\n"), "{driver}");
        let odd = Scripts { out: Path::new("/a\nb"), ..scripts };
        assert!(odd.tasks().unwrap_err().to_string().contains("line ends"));
    }
}
