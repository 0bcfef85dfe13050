//! `moe-data where ID`: the samples that show a document.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_shards::PlanLock;
use moe_shards::terminal::escape_line;

use crate::error::{Error, Result};
use crate::plans::occurrences::{Answer, Occurrence, Occurrences, find};
use crate::printer::Printer;
use crate::watch::Watch;

/// Flags of `where`.
#[derive(Clone, Debug, Args)]
pub struct WhereArgs {
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

/// Runs the command.
///
/// # Errors
/// No document has this name, there is no plan, or files are damaged.
pub fn run(args: &WhereArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let WhereArgs { id, out, json } = args;
    let n_samples = PlanLock::read(out)?.n_samples();
    let watch = Watch::new(stop, printer.count_bar("where", n_samples));
    let answer = find(out, id, &watch);
    watch.finish();
    let answer = answer?;
    if *json {
        let text = serde_json::to_string(&answer).map_err(|e| Error::Usage(e.to_string()))?;
        printer.data(&format!("{text}\n"));
    } else {
        printer.data(&words(&answer));
    }
    Ok(())
}

fn words(answer: &Answer) -> String {
    let mut text = String::new();
    let id = escape_line(&answer.id);
    for document in &answer.documents {
        let Occurrences { name, source, variant, family, shard, tokens, shown, .. } = document;
        text.push_str(&format!(
            "{name}: source {source}, variant `{variant}`, family {family}, {tokens} tokens, {shard}:{}\n",
            document.document
        ));
        if document.alike > 0 {
            text.push_str(&format!(
                "  {} documents of source {source} have this name; this one is {shard}:{}\n",
                document.alike + 1,
                document.document
            ));
        }
        for Occurrence { t, phase, pool, pass, window, bin, offset, len } in shown {
            let end = offset + len;
            text.push_str(&format!(
                "  sample {t}: tokens {offset} to {end}; phase {phase}, pool {pool}, pass {pass}, window {window}, bin {bin}\n"
            ));
        }
        if let Some(down) = document.taken_down {
            let left = down.texts_left;
            text.push_str(&format!(
                "  taken down from sample {} on; {left} other texts of its family remain\n",
                down.from
            ));
        }
        if let Some(reason) = &document.reason {
            text.push_str(&format!("  never trained on: {reason}\n"));
        } else if document.other_texts > 0 {
            let n = document.other_texts;
            text.push_str(&format!("  other texts of its family: in {n} samples\n"));
        }
        for i in &document.validation {
            text.push_str(&format!("  held-out sequence {i}\n"));
        }
    }
    for dropped in &answer.dropped {
        text.push_str(&format!("{id}: source {}, {}\n", dropped.source, dropped.reason));
    }
    text
}
