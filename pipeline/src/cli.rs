//! The command line: types only.

pub mod build;
pub mod classifier;
pub mod cluster;
pub mod decontaminate;
pub mod export;
pub mod grade;
pub mod import;
pub mod label;
pub mod rephrase;
pub mod server;
pub mod shell;
pub mod tokenizer;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use moe_data::mix::count;
use moe_data::printer::Color;

/// Raw text to curated, deduplicated, tokenized, memory-mapped shards and a multi-epoch plan.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// When to color labels of messages
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: When,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// Arguments with the flags that every verb has in front of the verb, so that they may stand anywhere: clap takes those
/// between two verbs (`rephrase -q validate`) for flags of the first verb, which do not go with the second.
pub fn with_global_flags_first(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut first: Vec<OsString> = args.next().into_iter().collect();
    let mut others = Vec::new();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("-q" | "--quiet" | "-v" | "--verbose") => first.push(arg),
            Some("--") => {
                others.push(arg);
                others.extend(args.by_ref());
            }
            _ => others.push(arg),
        }
    }
    first.extend(others);
    first
}

/// When to use color.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<When> for Color {
    fn from(when: When) -> Color {
        match when {
            When::Auto => Color::Auto,
            When::Always => Color::Always,
            When::Never => Color::Never,
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Read, normalise, filter, deduplicate, tokenize, write shards
    #[command(before_long_help = "Examples:
  moe-data build                                     # configs/build.toml to out/
  moe-data build --input corpus/ --out corpus-out/   # no recipe: built-in defaults
  moe-data build --against old/out                   # without the documents of an earlier build
  moe-data build --text-only && moe-data export --jsonl text/   # curation alone, without tokens
  moe-data build --recipe my.toml --dry-run          # check it, and predict from 1 % what would come of it")]
    Build(Box<build::Build>),
    /// Do a share of the tasks that a build left for other processes, or see how far they are
    #[command(subcommand)]
    Task(cluster::TaskVerb),
    /// Have Slurm do a build: arrays of jobs on many nodes, and the same bytes
    #[command(subcommand)]
    Slurm(cluster::SlurmVerb),
    /// Train, import, check and measure tokenizers
    #[command(subcommand)]
    Tokenizer(tokenizer::TokenizerVerb),
    /// Train, evaluate and apply classifiers of documents
    #[command(subcommand)]
    Classifier(classifier::ClassifierVerb),
    /// Look for text of evaluation sets in files
    #[command(before_long_help = "Examples:
  moe-data decontaminate --benchmark gsm8k=gsm8k_test.jsonl.gz:question corpus/
  moe-data decontaminate --benchmark he=HumanEval.jsonl.gz:prompt,canonical_solution web/*.jsonl.gz --json")]
    Decontaminate(decontaminate::Decontaminate),
    /// Ask a model for other texts of the kept documents, and judge what it answers
    #[command(before_long_help = "Examples:
  moe-data rephrase --base-url http://127.0.0.1:8000/v1 --model M --dry-run 20   # samples, and what all would cost
  moe-data rephrase --base-url http://127.0.0.1:8000/v1 --model M --styles plain,wikipedia --max-docs 10000
  moe-data rephrase validate                          # other limits in [gates]: judge again, ask nobody
  moe-data rephrase report -o report.html             # what passed and what did not, side by side")]
    Rephrase(Box<rephrase::Rephrase>),
    /// Have a language model grade documents from 0 to 5 by a rubric
    #[command(before_long_help = "Examples:
  moe-data grade corpus/ --max-docs 2000 --base-url http://127.0.0.1:8000/v1 --model NAME --output grades.jsonl
  moe-data grade corpus/ --max-docs 2000 --model NAME --scores scores.jsonl   # from the cache, beside other scores")]
    Grade(Box<grade::Grade>),
    /// Label some documents as good or bad, and see how far profiles and a classifier agree with you
    #[command(before_long_help = "Examples:
  moe-data label corpus/ --n 100                       # asks for each document; add more at any time
  moe-data label --compare labels.jsonl                # the published profiles and length alone
  moe-data label --compare labels.jsonl --model quality.moecls")]
    Label(label::Label),
    /// Make the multi-epoch plan of a build and say what it is worth
    #[command(before_long_help = "Examples:
  moe-data mix --epochs 4                    # configs/mix.toml if it is there, else built-in defaults
  moe-data mix --epochs 4 --seq-len 2048
  moe-data mix --mixture my.toml --dry-run   # print the table, write nothing
  moe-data mix --mixture my.toml --proxy 1/16 --out proxy/   # a small plan with the same repetition
  moe-data mix --extend --from 20000 --epochs 6              # keep samples 0 to 19999, then two more passes
  moe-data mix --extend --from 20000 --takedown ids.txt      # hide documents from sample 20000 on")]
    Mix(Mix),
    /// Show all keys of recipes and mixtures with their defaults, or what one means
    #[command(before_long_help = "Examples:
  moe-data config                              # all of them, as TOML with comments
  moe-data config --explain mix.epochs
  moe-data config --explain filter.gopher_quality.min_words --json")]
    Config(Config),
    /// Show the rules that filters can name, and the profiles with all their limits
    #[command(before_long_help = "Examples:
  moe-data filters                             # all rules with their defaults, and the profiles
  moe-data filters --profile fineweb
  moe-data filters --profile dclm --json | jq '.filters[].limits[]'")]
    Filters(Filters),
    /// Say what happened to a document in a build, and why
    #[command(before_long_help = "Examples:
  moe-data why django/5.2/intro/tutorial01     # source/name
  moe-data why 5.2/intro/tutorial01 --json     # a name in any source")]
    Why(Why),
    /// Show the clusters of duplicates of a build
    #[command(before_long_help = "Examples:
  moe-data dups --top 20                       # the largest clusters
  moe-data dups --cluster web/page-17          # one of them, with texts side by side")]
    Dups(Dups),
    /// Say which text a sample of the plan is
    #[command(before_long_help = "Examples:
  moe-data explain 1234
  moe-data explain 1234 --json | jq .pieces")]
    Explain(Explain),
    /// Say which samples of the plan show a document, or why none does
    #[command(before_long_help = "Examples:
  moe-data where web-Gen-1
  moe-data where web-Gen-1 --json | jq .documents[0].shown[].t")]
    Where(Where),
    /// Say which documents changed their fate between two builds, and from which sample on two plans differ
    #[command(before_long_help = "Examples:
  moe-data diff old-out/ new-out/ --limit 20     # documents: kept -> dropped by which rule, and the other way round
  moe-data diff out/ other-out/
  moe-data diff out/ other-out/ --json | jq .first_difference")]
    Diff(Diff),
    /// Give shards, plans and curated text to other programs: Megatron-LM, NumPy, PyTorch, Hugging Face
    #[command(before_long_help = "Examples:
  moe-data export --megatron                        # out/shards/NAME.idx beside the same NAME.bin
  moe-data export --npy                             # out/export/NAME.npy, a copy of the tokens
  moe-data export --plan-npy                        # out/export/{plan.json,samples.npy,pieces.npy}
  moe-data export --plan-npy --range 0..1000 --rows # and the sequences themselves
  moe-data export --jsonl text/                     # the kept documents: text/NAME-00000.jsonl.zst
  moe-data export --parquet text/ --file-size 1GiB")]
    Export(export::Export),
    /// Make shards of tokens that other programs wrote: Megatron-LM, NumPy, datatrove
    #[command(before_long_help = "Examples:
  moe-data import --megatron data/pile_text_document --tokenizer tokenizer.json --out out/
  moe-data import --npy 'tokens/*.npy' --tokenizer tokenizer.json --source web
  moe-data import --datatrove tokenized/ --tokenizer tokenizer.json")]
    Import(import::Import),
    /// Show what is in an output folder, a shard or a ledger
    #[command(before_long_help = "Examples:
  moe-data inspect out/
  moe-data inspect out/shards/bible-v0-00000.mdx
  moe-data inspect out/ --json | jq .total")]
    Inspect(OnPath),
    /// Draw a page about a build and its plan: what was kept, what was not and why, measured values and their limits
    #[command(before_long_help = "Examples:
  moe-data report                                   # out/report.html
  moe-data report text/ -o text.html --figures figures/
  moe-data report --compare old/ new/                # compare.html: whose documents changed their fate")]
    Report(Report),
    /// Check every hash and invariant of an output folder or a shard
    #[command(before_long_help = "Examples:
  moe-data verify out/
  moe-data verify out/ --samples 10000     # replay fewer samples of the plan")]
    Verify(Verify),
    /// Print the completions of a shell: bash, zsh, fish, elvish, powershell
    #[command(before_long_help = "Examples:
  moe-data completions bash > ~/.local/share/bash-completion/completions/moe-data
  moe-data completions zsh > ~/.zfunc/_moe-data")]
    Completions(shell::Completions),
    /// Print a page of the manual
    #[command(before_long_help = "Examples:
  moe-data man build | man -l -
  moe-data man > ~/.local/share/man/man1/moe-data.1")]
    Man(shell::Man),
}

/// Flags of `mix`.
#[derive(Debug, Args)]
pub struct Mix {
    /// Passes over every family, at most; 1.5 are one and half of a second [default: the mixture's]
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Tokens of a training sequence [default: the mixture's]
    #[arg(long, value_name = "N", value_parser = count::parse_u32)]
    pub seq_len: Option<u32>,
    /// Seed of all shuffling [default: the mixture's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Mixture file [default: configs/mix.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub mixture: Option<PathBuf>,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Threads [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Keep this share of the families and budgets: repeats, variants and phases stay as in the whole plan
    #[arg(long, value_name = "1/N", value_parser = count::parse_fraction)]
    pub proxy: Option<[u64; 2]>,
    /// Parameters of the model, such as 7B: warns when there are too many for the text
    #[arg(long, value_name = "N")]
    pub params: Option<count::Count>,
    /// Extend the plan that is there: its samples below --from stay, the mixture decides the rest
    #[arg(long, requires = "from")]
    pub extend: bool,
    /// First sample that may change
    #[arg(long, value_name = "T", requires = "extend", value_parser = count::parse_u64)]
    pub from: Option<u64>,
    /// File with names of documents, one a line, that are hidden from sample --from on, behind `family:` with all texts of their
    /// families; without --mixture and --epochs nothing else changes
    #[arg(long, value_name = "FILE", requires = "extend")]
    pub takedown: Option<PathBuf>,
    /// Replace another plan of the same shards
    #[arg(long)]
    pub force: bool,
    /// Print the table, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the table as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `config`.
#[derive(Debug, Args)]
pub struct Config {
    /// A key such as `mix.epochs` or `epochs`, or a section such as `dedup.minhash`
    #[arg(long, value_name = "KEY")]
    pub explain: Option<String>,
    /// Print JSON on stdout, a key a line
    #[arg(long)]
    pub json: bool,
}

/// Flags of `filters`.
#[derive(Debug, Args)]
pub struct Filters {
    /// The filters of a profile, with their sources
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Folder of the build
    #[arg(value_name = "DIR", default_value = "out")]
    pub path: PathBuf,
    /// Show two builds next to each other instead: whose documents changed their fate, and by which reason
    #[arg(long, value_names = ["A", "B"], num_args = 2, conflicts_with = "path")]
    pub compare: Option<Vec<PathBuf>>,
    /// Where to write the page [default: report.html in the folder of the build; of two, compare.html here]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write each figure as an SVG file into this folder, too
    #[arg(long, value_name = "DIR")]
    pub figures: Option<PathBuf>,
    /// Print the numbers of all figures as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `why`.
#[derive(Debug, Args)]
pub struct Why {
    /// Document: source/name, or a name in any source; for a record in quarantine what it starts with, or FILE:OFFSET
    #[arg(value_name = "ID")]
    pub id: String,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `dups`.
#[derive(Debug, Args)]
pub struct Dups {
    /// One cluster, as the list names it, with the texts of its documents
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// How many to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// Sample, from 0
    #[arg(value_name = "T")]
    pub t: u64,
    /// Folder of the build and its plan
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Show the whole text of each piece
    #[arg(long)]
    pub full: bool,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `where`.
#[derive(Debug, Args)]
pub struct Where {
    /// Name of the document in its source
    #[arg(value_name = "ID")]
    pub id: String,
    /// Folder of the build and its plan
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Folder of a build, with its plan if there is one
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// Folder of the other one
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Documents to list for each kind of change
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub limit: usize,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Output folder or shard (.mdx)
    #[arg(value_name = "PATH", default_value = "out")]
    pub path: PathBuf,
    /// Samples of the plan to check against its promises, chosen at random; 0 = none
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub samples: u64,
    /// Seed of that choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of verbs that look at something.
#[derive(Debug, Args)]
pub struct OnPath {
    /// Output folder, shard (.mdx) or ledger.json
    #[arg(value_name = "PATH", default_value = "out")]
    pub path: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
