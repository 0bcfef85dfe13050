//! Flags of `task`, `slurm` and `executor`: types only.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use moe_data::cluster::Conditions;
use moe_data::cluster::slurm::Settings;
use moe_data::commands::executor::ExecutorArgs;
use moe_data::commands::task::TaskArgs;
use moe_data::recipe::ByteSize;

/// The verbs of `task`.
#[derive(Debug, Subcommand)]
pub enum TaskVerb {
    /// Run a share of the waiting tasks; finished ones are left alone
    #[command(before_long_help = "Examples:
  moe-data build --plan-tasks; moe-data task run --array 0/2 & moe-data task run --array 1/2 & wait
  moe-data task run --out /shared/out --array 16     # share number $JOB_COMPLETION_INDEX or $SLURM_ARRAY_TASK_ID of 16")]
    Run(Run),
    /// Show how many tasks are done, running, waiting and failed, and why
    Status(OnOut),
}

/// Flags of `task run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Folder of the build: its --out, or its --work if it has one
    #[arg(long, visible_alias = "work", value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Which share of how many, such as 3/16, from 0; a missing number is that of the array of Slurm or of the indexed job of
    /// Kubernetes that this runs in
    #[arg(long, value_name = "[I/]N", value_parser = parse_array)]
    pub array: Option<(Option<usize>, usize)>,
    /// Tasks at once [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Memory for data that tasks could also keep on disk, at least 1MiB [default: 1GiB]; the result does not depend on it
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Digest of the list that this share is of: another list is refused, after two minutes in which the file system may show it
    #[arg(long, value_name = "DIGEST")]
    pub list: Option<String>,
    /// File that holds the output of this process, which the reason of a failed task then names
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Print a summary as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

impl From<Run> for TaskArgs {
    fn from(flags: Run) -> TaskArgs {
        TaskArgs {
            out: flags.out,
            array: flags.array,
            threads: flags.threads.map(usize::from),
            memory: flags.memory,
            conditions: Conditions { list: flags.list, log: flags.log },
            json: flags.json,
        }
    }
}

/// Flags of verbs that inspect the tasks of a build.
#[derive(Debug, Args)]
pub struct OnOut {
    /// Folder of the build: its --out, or its --work if it has one
    #[arg(long, visible_alias = "work", value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// The verbs of `slurm`.
#[derive(Debug, Subcommand)]
pub enum SlurmVerb {
    /// Submit a build, which then continues on its own until it is finished
    #[command(before_long_help = "Examples:
  moe-data slurm submit recipe.toml --out /shared/out --nodes 8 --cpus 16 --mem 60G --time 4:00:00
  moe-data slurm submit recipe.toml --out /shared/out --nodes 8 --dry-run       # print the scripts
  moe-data slurm submit recipe.toml --out s3://bucket/run --work /shared/work -- --memory 8GiB")]
    Submit(Box<Submit>),
    /// Show the status of a submitted build: what is done, running, waiting or failed, why, and where the logs are
    Status(OnBuild),
    /// Continue a build that stopped, or whose jobs are gone
    Retry(Retry),
    /// What driver jobs run
    #[command(hide = true)]
    Drive(Retry),
}

/// Flags of `slurm submit`.
#[derive(Debug, Args)]
pub struct Submit {
    /// Recipe file
    #[arg(value_name = "RECIPE")]
    pub recipe: String,
    /// Output folder, on a file system shared by all nodes, or a URL in an object store
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: String,
    /// Folder, on a file system shared by all nodes, in which the output for a URL is made
    #[arg(long, value_name = "DIR")]
    pub work: Option<String>,
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
    /// Print the scripts and submit nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Other flags of moe-data build, after `--`
    #[arg(last = true, value_name = "FLAGS")]
    pub build: Vec<String>,
}

impl Submit {
    /// The arguments after `moe-data build`.
    pub fn words(&self) -> Vec<String> {
        let words = ["--plan-tasks", "--recipe", &self.recipe[..], "--out", &self.out[..]];
        let mut words = words.map(str::to_owned).to_vec();
        words.extend(self.work.iter().flat_map(|work| ["--work".to_owned(), work.clone()]));
        if !self.build.iter().any(|word| word.starts_with("--threads")) {
            words.extend(["--threads".to_owned(), self.cpus.to_string()]);
        }
        words.extend(self.build.iter().cloned());
        words
    }
}

impl From<Submit> for Settings {
    fn from(flags: Submit) -> Settings {
        Settings {
            nodes: flags.nodes,
            cpus: flags.cpus,
            mem: flags.mem,
            time: flags.time,
            partition: flags.partition,
            account: flags.account,
            sbatch: flags.sbatch,
            driver_sbatch: flags.driver_sbatch,
            max_array: flags.max_array,
            tasks_per_job: flags.tasks_per_job,
            max_tries: flags.max_tries,
        }
    }
}

/// Flags of `slurm status`.
#[derive(Debug, Args)]
pub struct OnBuild {
    /// Folder of the build: its --out, or its --work if it has one
    #[arg(value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `slurm retry`.
#[derive(Debug, Args)]
pub struct Retry {
    /// Folder of the build: its --out, or its --work if it has one
    #[arg(value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
}

/// Flags of `executor`.
#[derive(Debug, Args)]
pub struct Executor {
    /// Where the build is: host and port of its --listen
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    pub scheduler: (String, u16),
    /// Tasks at once [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub vcores: Option<u16>,
    /// Folder on a fast disk of this machine for rows on their way between executors [default: that for temporary files]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Memory for what tasks could as well leave on the disk, at least 14MB for each [default: 1GiB]; the result does not depend on it
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Address of this machine at which the build and other executors fetch rows: 0.0.0.0 for all of them, and only on a network
    /// that you trust
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen: IpAddr,
    /// How long to wait for a build that does not answer, at the start and at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u64,
}

impl From<Executor> for ExecutorArgs {
    fn from(flags: Executor) -> ExecutorArgs {
        ExecutorArgs {
            scheduler: flags.scheduler,
            listen: flags.listen,
            vcores: flags.vcores.map(usize::from),
            memory: flags.memory,
            work_dir: flags.work_dir,
            patience: Duration::from_secs(flags.patience),
        }
    }
}

/// `HOST:PORT`.
fn parse_address(text: &str) -> Result<(String, u16), String> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parsed {
        Some((host, port)) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(format!("`{text}` is no address; expected HOST:PORT, such as node7:50050")),
    }
}

/// `I/N` or `N`.
fn parse_array(text: &str) -> Result<(Option<usize>, usize), String> {
    let number = |text: &str| text.parse::<usize>().ok();
    let parsed = match text.split_once('/') {
        Some((index, of)) => number(index).zip(number(of)).map(|(index, of)| (Some(index), of)),
        None => number(text).map(|of| (None, of)),
    };
    parsed.ok_or_else(|| {
        format!("`{text}` is not a share; expected I/N, such as 0/16, or the number of shares")
    })
}
