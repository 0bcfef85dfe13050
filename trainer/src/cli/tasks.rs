//! Arguments for evaluation tasks.

use std::path::PathBuf;

use clap::Args;

/// Tasks to evaluate.
#[derive(Debug, Clone, Args)]
pub struct TaskArgs {
    /// Evaluate tasks instead: FILE.toml, or NAME=FILE with one of the definitions ai2_arc, arc_easy, blimp,
    /// gsm8k, humaneval, lambada or text; FILE is JSONL, optionally gzipped, or a quoted pattern matching
    /// such files. docs/evaluation.md defines all numbers.
    #[arg(long, value_name = "TASK", num_args = 1..,
          conflicts_with_all = ["capacity", "per_token", "logits", "samples"])]
    pub tasks: Vec<String>,
    /// Solved examples before each question [default: the definition's].
    #[arg(long, value_name = "N", requires = "tasks", value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub shots: Option<u64>,
    /// Use only the first N questions of each task [default: all].
    #[arg(long, value_name = "N", requires = "tasks", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Tokens per forward pass.
    #[arg(long, value_name = "N", requires = "tasks", default_value_t = 16_384, value_parser = super::at_least_one)]
    pub pass_tokens: usize,
    /// Also write the likelihoods of all answers, one JSON object per question; the file must not exist.
    #[arg(long, value_name = "FILE.jsonl", requires = "tasks")]
    pub answers: Option<PathBuf>,
}
