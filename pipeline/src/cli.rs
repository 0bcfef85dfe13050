//! The command line: types only.

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use moe_cli::shell;
use moe_cli::terminal::Color;
use moe_data::commands::{
    build, classifier, config, decontaminate, diff, dups, executor, explain, export, filters, grade, import,
    inspect, label, mix, rephrase, report, slurm, task, tokenizer, verify, where_is, why,
};

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
    pub color: Color,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// Moves the global flags in front of the verb, so that they may appear anywhere: clap takes flags
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

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Read, normalize, filter, deduplicate, tokenize, write shards
    #[command(before_long_help = "Examples:
  moe-data build                                     # configs/build.toml to out/
  moe-data build --input corpus/ --out corpus-out/   # no recipe: built-in defaults
  moe-data build --against old/out                   # without the documents of an earlier build
  moe-data build --text-only && moe-data export --jsonl text/   # curation only, without tokens
  moe-data build --recipe my.toml --dry-run          # check it, and predict the result from 1 %")]
    Build(Box<build::BuildArgs>),
    /// Run a share of the tasks that a build left for other processes, or see their progress
    #[command(subcommand)]
    Task(task::TaskVerb),
    /// Run a build on Slurm: arrays of jobs on many nodes, with the same bytes as on one machine
    #[command(subcommand)]
    Slurm(slurm::SlurmVerb),
    /// Do tasks for moe-data build --engine ballista, on this or another machine, until the build ends
    #[command(before_long_help = "Examples:
  moe-data build --engine ballista & moe-data executor --scheduler 127.0.0.1:50050
  moe-data executor --scheduler node7:50050 --listen 0.0.0.0 --vcores 16 --memory 64GiB --work-dir /nvme")]
    Executor(executor::ExecutorArgs),
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
    Decontaminate(decontaminate::DecontaminateArgs),
    /// Ask a model to rephrase the kept documents, and judge its answers
    #[command(before_long_help = "Examples:
  moe-data rephrase --base-url http://127.0.0.1:8000/v1 --model M --dry-run 20   # samples, and the cost of all
  moe-data rephrase --base-url http://127.0.0.1:8000/v1 --model M --styles plain,wikipedia --max-docs 10000
  moe-data rephrase validate                          # after changing limits in [gates]: judge again, without a server
  moe-data rephrase report -o report.html             # accepted and rejected answers, side by side")]
    Rephrase(Box<rephrase::RephraseArgs>),
    /// Have a language model grade documents from 0 to 5 by a rubric
    #[command(before_long_help = "Examples:
  moe-data grade corpus/ --max-docs 2000 --base-url http://127.0.0.1:8000/v1 --model NAME --output grades.jsonl
  moe-data grade corpus/ --max-docs 2000 --model NAME --scores scores.jsonl   # from the cache, compared with other scores")]
    Grade(Box<grade::GradeArgs>),
    /// Label some documents as good or bad, and see how far profiles and a classifier agree with you
    #[command(before_long_help = "Examples:
  moe-data label corpus/ --n 100                       # asks for each document; add more at any time
  moe-data label --compare labels.jsonl                # the published profiles and length alone
  moe-data label --compare labels.jsonl --model quality.moecls")]
    Label(label::LabelArgs),
    /// Make the multi-epoch plan of a build and show what it is worth
    #[command(before_long_help = "Examples:
  moe-data mix --epochs 4                    # configs/mix.toml if it exists, else built-in defaults
  moe-data mix --epochs 4 --seq-len 2048
  moe-data mix --mixture my.toml --dry-run   # print the table, write nothing
  moe-data mix --mixture my.toml --proxy 1/16 --out proxy/   # a small plan with the same repetition
  moe-data mix --extend --from 20000 --epochs 6              # keep samples 0 to 19999, then two more passes
  moe-data mix --extend --from 20000 --takedown ids.txt      # hide documents from sample 20000 on")]
    Mix(mix::MixArgs),
    /// Show all keys of recipes and mixtures with their defaults, or explain one
    #[command(before_long_help = "Examples:
  moe-data config                              # all of them, as TOML with comments
  moe-data config --explain mix.epochs
  moe-data config --explain filter.gopher_quality.min_words --json")]
    Config(config::ConfigArgs),
    /// Show the filter rules, and the profiles with all their limits
    #[command(before_long_help = "Examples:
  moe-data filters                             # all rules with their defaults, and the profiles
  moe-data filters --profile fineweb
  moe-data filters --profile dclm --json | jq '.filters[].limits[]'")]
    Filters(filters::FiltersArgs),
    /// Show what happened to a document in a build, and why
    #[command(before_long_help = "Examples:
  moe-data why django/5.2/intro/tutorial01     # source/name
  moe-data why 5.2/intro/tutorial01 --json     # a name in any source")]
    Why(why::WhyArgs),
    /// Show the clusters of duplicates of a build
    #[command(before_long_help = "Examples:
  moe-data dups --top 20                       # the largest clusters
  moe-data dups --cluster web/page-17          # one of them, with texts side by side")]
    Dups(dups::DupsArgs),
    /// Show the text of a sample of the plan
    #[command(before_long_help = "Examples:
  moe-data explain 1234
  moe-data explain 1234 --json | jq .pieces")]
    Explain(explain::ExplainArgs),
    /// List the samples of the plan that show a document, or say why none does
    #[command(before_long_help = "Examples:
  moe-data where web-Gen-1
  moe-data where web-Gen-1 --json | jq .documents[0].shown[].t")]
    Where(where_is::WhereArgs),
    /// Show which documents changed their fate between two builds, and from which sample two plans differ
    #[command(before_long_help = "Examples:
  moe-data diff old-out/ new-out/ --limit 20     # documents: kept -> dropped by which rule, and the other way round
  moe-data diff out/ other-out/
  moe-data diff out/ other-out/ --json | jq .first_difference")]
    Diff(diff::DiffArgs),
    /// Write shards, plans and curated text for other programs: Megatron-LM, NumPy, PyTorch, Hugging Face
    #[command(before_long_help = "Examples:
  moe-data export --megatron                        # out/shards/NAME.idx next to the same NAME.bin
  moe-data export --npy                             # out/export/NAME.npy, a copy of the tokens
  moe-data export --plan-npy                        # out/export/{plan.json,samples.npy,pieces.npy}
  moe-data export --plan-npy --range 0..1000 --rows # and the sequences themselves
  moe-data export --jsonl text/                     # the kept documents: text/NAME-00000.jsonl.zst
  moe-data export --parquet text/ --file-size 1GiB")]
    Export(export::ExportArgs),
    /// Make shards from tokens that other programs wrote: Megatron-LM, NumPy, datatrove
    #[command(before_long_help = "Examples:
  moe-data import --megatron data/pile_text_document --tokenizer tokenizer.json --out out/
  moe-data import --npy 'tokens/*.npy' --tokenizer tokenizer.json --source web
  moe-data import --datatrove tokenized/ --tokenizer tokenizer.json")]
    Import(import::ImportArgs),
    /// Show what is in an output folder, a shard or a ledger
    #[command(before_long_help = "Examples:
  moe-data inspect out/
  moe-data inspect out/shards/bible-v0-00000.mdx
  moe-data inspect out/ --json | jq .total")]
    Inspect(inspect::InspectArgs),
    /// Write a page about a build and its plan: what was kept, what was dropped and why, measured values and their limits
    #[command(before_long_help = "Examples:
  moe-data report                                   # out/report.html
  moe-data report text/ -o text.html --figures figures/
  moe-data report --compare old/ new/                # compare.html: whose documents changed their fate")]
    Report(report::ReportArgs),
    /// Check every hash and invariant of an output folder or a shard
    #[command(before_long_help = "Examples:
  moe-data verify out/
  moe-data verify out/ --samples 10000     # replay fewer samples of the plan")]
    Verify(verify::VerifyArgs),
    /// Print the completions of a shell: bash, zsh, fish, elvish, powershell
    #[command(before_long_help = "Examples:
  moe-data completions bash > ~/.local/share/bash-completion/completions/moe-data
  moe-data completions zsh > ~/.zfunc/_moe-data")]
    Completions(shell::CompletionsArgs),
    /// Print a page of the manual
    #[command(before_long_help = "Examples:
  moe-data man build | man -l -
  moe-data man > ~/.local/share/man/man1/moe-data.1")]
    Man(shell::ManArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
