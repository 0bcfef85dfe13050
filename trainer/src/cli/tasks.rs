//! Arguments of tasks.

use std::path::PathBuf;

use clap::Args;

/// Tasks to be answered.
#[derive(Debug, Clone, Args)]
pub struct TaskArgs {
    /// Answer tasks instead: FILE.toml, or NAME=FILE with the definition ai2_arc, arc_easy, blimp, gsm8k, humaneval, lambada or
    /// text; FILE is JSONL, also compressed by gzip, or a pattern of such files in quotes. docs/evaluation.md defines all
    /// numbers.
    #[arg(long, value_name = "TASK", num_args = 1..,
          conflicts_with_all = ["capacity", "per_token", "logits", "samples"])]
    pub tasks: Vec<String>,
    /// Solved examples before each question [default: those of the definition].
    #[arg(long, value_name = "N", requires = "tasks", value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub shots: Option<u64>,
    /// Questions of each task, the first ones [default: all].
    #[arg(long, value_name = "N", requires = "tasks", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Tokens of a forward pass.
    #[arg(long, value_name = "N", requires = "tasks", default_value_t = 16_384, value_parser = super::at_least_one)]
    pub pass_tokens: usize,
    /// Also write the likelihoods of all answers, a JSON object for each question; the file must not be there.
    #[arg(long, value_name = "FILE.jsonl", requires = "tasks")]
    pub answers: Option<PathBuf>,
}
