//! Flags of `build`: types only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use moe_data::commands::build::{BuildArgs, EngineArgs};
use moe_data::mix::count;
use moe_data::prepare::InputFilters;
use moe_data::recipe::ByteSize;

/// Flags of `build`.
#[derive(Debug, Args)]
pub struct Build {
    /// Recipe file [default: configs/build.toml]
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// File, folder or glob to read instead of the recipe's sources; may be repeated, each is a
    /// source named after its stem
    #[arg(long, value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// Read only the files of --input that match this pattern, as in a .gitignore; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "input")]
    pub include: Vec<String>,
    /// Skip files of --input that match this pattern, as in a .gitignore; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "input")]
    pub exclude: Vec<String>,
    /// Skip files of --input that a .gitignore in its folders covers
    #[arg(long, requires = "input")]
    pub gitignore: bool,
    /// Read at most N records of each source, such as 10K, to try out a recipe
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub limit: Option<u64>,
    /// Output folder of another build, whose documents are left out; may be repeated
    #[arg(long, value_name = "DIR")]
    pub against: Vec<PathBuf>,
    /// Output folder, or a URL in an object store (s3://, gs://, az://)
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// The folder on this machine in which the output for a URL is made and kept
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Threads [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Memory for deduplication, at least 1MiB [default: 1GiB]; the result does not depend on it
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Fail on any bad record, regardless of limits.max_bad_fraction
    #[arg(long)]
    pub strict: bool,
    /// Discard all earlier work in the output folder
    #[arg(long)]
    pub fresh: bool,
    /// Encode one of N documents with the reference tokenizer too, and stop at a difference
    /// [default: the recipe's tokenizer.verify_every]
    #[arg(long, value_name = "N")]
    pub verify_every: Option<u64>,
    /// Do no task of the build: where tasks are left, list them for moe-data task run, and end with exit code 8; where all are
    /// done, go on
    #[arg(long, visible_alias = "collect", conflicts_with_all = ["dry_run", "fresh"])]
    pub plan_tasks: bool,
    /// Who does the tasks of the build: this process, or executors of Apache Ballista, which are moe-data executor
    #[arg(long, value_name = "ENGINE", value_enum, default_value_t = Engine::Local, conflicts_with_all = ["dry_run", "plan_tasks"])]
    pub engine: Engine,
    /// Where executors find this build; only on a network that you trust: whoever reaches the port can have executors run tasks
    /// [default: 127.0.0.1:50050]
    #[arg(long, value_name = "IP:PORT", requires = "engine")]
    pub listen: Option<SocketAddr>,
    /// How long an executor may be silent before others do its tasks; busy ones speak every 5 seconds [default: 20]
    #[arg(long, value_name = "SECONDS", requires = "engine", value_parser = clap::value_parser!(u64).range(8..))]
    pub executor_timeout: Option<u64>,
    /// Stop before the tokenizer: curated text only, for moe-data export --jsonl or --parquet
    #[arg(long, conflicts_with_all = ["dry_run", "verify_every"])]
    pub text_only: bool,
    /// Check everything, print the plan, and predict from a sample the kept documents, tokens, disk space and time
    #[arg(long)]
    pub dry_run: bool,
    /// Share of the texts that a dry run reads, at least a few hundred
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, requires = "dry_run", value_parser = parse_share)]
    pub sample: f64,
    /// Print a summary as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Who does the tasks of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// This process.
    Local,
    /// Executors of Apache Ballista.
    Ballista,
}

/// Where executors look for a build.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50050);
const EXECUTOR_TIMEOUT_SECONDS: u64 = 20;

impl From<Build> for BuildArgs {
    fn from(flags: Build) -> BuildArgs {
        BuildArgs {
            recipe: flags.recipe,
            input: flags.input,
            filters: InputFilters {
                include: flags.include,
                exclude: flags.exclude,
                gitignore: flags.gitignore,
                limit: flags.limit,
            },
            against: flags.against,
            out: flags.out,
            threads: flags.threads.map(usize::from),
            memory: flags.memory,
            strict: flags.strict,
            fresh: flags.fresh,
            work: flags.work,
            verify_every: flags.verify_every,
            plan_tasks: flags.plan_tasks,
            engine: match flags.engine {
                Engine::Local => EngineArgs::Local,
                Engine::Ballista => EngineArgs::Ballista {
                    listen: flags.listen.unwrap_or(LISTEN),
                    executor_timeout: Duration::from_secs(
                        flags.executor_timeout.unwrap_or(EXECUTOR_TIMEOUT_SECONDS),
                    ),
                },
            },
            text_only: flags.text_only,
            dry_run: flags.dry_run,
            sample: flags.sample,
            json: flags.json,
        }
    }
}

/// A count above 0.
fn parse_limit(text: &str) -> Result<u64, String> {
    match count::parse_u64(text)? {
        0 => Err("expected 1 record or more".to_owned()),
        n => Ok(n),
    }
}

/// A number above 0, up to 1.
fn parse_share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("`{text}` is not a number such as 0.01"))?;
    match share > 0.0 && share <= 1.0 {
        true => Ok(share),
        false => Err(format!("{share} is out of range; expected more than 0, up to 1")),
    }
}
