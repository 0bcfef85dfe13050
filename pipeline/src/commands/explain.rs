//! `moe-data explain T`: shows the text of sample `T`.

use std::path::PathBuf;

use clap::Args;
use moe_shards::terminal::escape_line;

use crate::error::{Error, Result};
use crate::mix::explain::{Explanation, explain};
use crate::printer::Printer;

/// Characters of a piece's text that are shown without `--full`.
const EXCERPT_CHARS: usize = 240;

/// Names of a piece's tokens that are shown without `--full`.
const EXCERPT_TOKENS: usize = 60;

/// Flags of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
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

/// Runs the command.
///
/// # Errors
/// `t` is past the end of the plan, or its files are missing or damaged.
pub fn run(args: &ExplainArgs, printer: &Printer) -> Result<()> {
    let explanation = explain(&args.out, args.t)?;
    if args.json {
        let text = serde_json::to_string(&explanation).map_err(|e| Error::Usage(e.to_string()))?;
        printer.data(&format!("{text}\n"));
    } else {
        printer.data(&words(&explanation, args.full));
    }
    Ok(())
}

fn words(e: &Explanation, full: bool) -> String {
    let mut text = format!(
        "sample {} of {} in plan {}\npool {}, pass {}, bin {} of {}: {} trained tokens, {} padding\n",
        e.t,
        e.n_samples,
        e.plan.short(),
        e.pool,
        e.pass,
        e.bin,
        e.n_bins,
        e.trained_tokens,
        e.padding
    );
    let mut segment = None;
    for piece in &e.pieces {
        let end = piece.offset + piece.len;
        let kind = if piece.variant == 0 { "the original" } else { "a variant" };
        text.push_str(&format!(
            "\n{}: tokens {} to {end} of {}\n  family {}, variant {} `{}` ({kind}), shard {}\n",
            escape_line(&piece.document),
            piece.offset,
            piece.document_tokens,
            piece.family,
            piece.variant,
            piece.variant_name,
            piece.shard
        ));
        if segment.replace(piece.segment) == Some(piece.segment) {
            text.push_str("  stitched: attends to the texts of its family before it\n");
        }
        let shown: String =
            if full { piece.text.clone() } else { piece.text.chars().take(EXCERPT_CHARS).collect() };
        for line in shown.lines() {
            text.push_str(&format!("  | {line}\n"));
        }
        if shown.len() < piece.text.len() {
            text.push_str("  | ... (--full shows all)\n");
        }
        if !piece.tokens.is_empty() {
            let n = if full { piece.tokens.len() } else { piece.tokens.len().min(EXCERPT_TOKENS) };
            let more = if n < piece.tokens.len() { " ..." } else { "" };
            let names = piece.tokens[..n].join(" ");
            text.push_str(&format!("  tokens: {}{more}\n", escape_line(&names)));
        }
    }
    text
}
