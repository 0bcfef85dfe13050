//! Flags of `moe-data build`.

use std::ffi::OsString;
use std::net::SocketAddr;
#[cfg(feature = "cluster")]
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
#[cfg(feature = "cluster")]
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use crate::commands::parse_memory;
use crate::error::{Error, Result};
use crate::objects;
use crate::prepare::InputFilters;
use crate::recipe::ByteSize;

/// Flags of `build`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Recipe file [default: configs/build.toml]
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// File, folder or glob to read instead of the recipe's sources; may be repeated, each is a
    /// source named after its stem
    #[arg(long, value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// Which files and records are read
    #[command(flatten)]
    pub filters: InputFilters,
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
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
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
    #[arg(long, value_name = "ENGINE", value_enum, default_value_t = EngineName::Local, conflicts_with_all = ["dry_run", "plan_tasks"])]
    pub engine: EngineName,
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
pub enum EngineName {
    /// This process.
    Local,
    /// Executors of Apache Ballista.
    Ballista,
}

/// Where executors look for a build that does not say.
#[cfg(feature = "cluster")]
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50050);
#[cfg(feature = "cluster")]
const EXECUTOR_TIMEOUT_SECONDS: u64 = 20;

impl BuildArgs {
    /// The flags that these words are, without `moe-data build` in front.
    ///
    /// # Errors
    /// [`Error::Usage`]: they are not flags of `build`.
    pub fn parse(words: impl IntoIterator<Item = impl Into<OsString>>) -> Result<BuildArgs> {
        #[derive(Parser)]
        #[command(bin_name = "moe-data build", no_binary_name = true, disable_help_flag = true)]
        struct Build {
            #[command(flatten)]
            args: BuildArgs,
        }
        let words = words.into_iter().map(Into::into);
        Build::try_parse_from(words).map(|build| build.args).map_err(|answer| {
            Error::Usage(answer.render().to_string().trim_start_matches("error: ").trim_end().to_owned())
        })
    }

    /// The folder in which the output is made.
    ///
    /// # Errors
    /// [`Error::Usage`]: a URL without a folder, or an unexpected folder.
    pub fn folder(&self) -> Result<&Path> {
        match (objects::is_url(&self.out), &self.work) {
            (false, None) => Ok(&self.out),
            (true, Some(folder)) => Ok(folder),
            (true, None) => Err(Error::Usage(format!(
                "--out {} needs --work DIR: a folder on this machine, in which the output is made",
                self.out.display()
            ))),
            (false, Some(_)) => {
                let message = "--work only applies to --out URL; a folder given as --out also holds the work";
                Err(Error::Usage(message.to_owned()))
            }
        }
    }

    /// Where executors find the build.
    #[cfg(feature = "cluster")]
    pub(super) fn address(&self) -> SocketAddr {
        self.listen.unwrap_or(LISTEN)
    }

    /// How long an executor may be silent before others do its tasks.
    #[cfg(feature = "cluster")]
    pub(super) fn silence(&self) -> Duration {
        Duration::from_secs(self.executor_timeout.unwrap_or(EXECUTOR_TIMEOUT_SECONDS))
    }
}

/// A number above 0, up to 1.
fn parse_share(text: &str) -> std::result::Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("`{text}` is not a number such as 0.01"))?;
    match share > 0.0 && share <= 1.0 {
        true => Ok(share),
        false => Err(format!("{share} is out of range; expected more than 0, up to 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_flags_of_a_build_and_nothing_else() {
        let args = BuildArgs::parse(["--plan-tasks", "--out", "o", "--threads", "2"]).unwrap();
        assert_eq!((args.plan_tasks, args.threads, args.out), (true, Some(2), PathBuf::from("o")));
        let refused = |words: &[&str]| BuildArgs::parse(words).unwrap_err().to_string();
        assert!(refused(&["--thread", "2"]).starts_with("unexpected argument '--thread'"));
        assert!(refused(&["--sample", "2"]).contains("out of range"));
        assert!(refused(&["--listen", "127.0.0.1:1"]).contains("--engine"));
        assert!(refused(&["--limit", "0", "--input", "x"]).contains("expected 1 record or more"));
        assert!(refused(&["--help"]).starts_with("unexpected argument '--help'"));
        assert!(refused(&["--memory", "1KB"]).contains("expected 1MiB or more"));
    }
}
