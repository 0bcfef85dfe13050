//! `--dry-run N`: runs a few documents, shows them side by side with their sources, and estimates the cost of all.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use moe_llm::{Cache, Summary};
use moe_shards::terminal::escape_line;

use super::{Setup, judge};
use crate::error::Result;
use crate::printer::Printer;
use crate::rephrase::assemble::Fate;
use crate::rephrase::choice::Selection;
use crate::watch::Watch;

/// Characters of a text to show.
const SHOWN: usize = 600;
/// Samples to show.
const SAMPLES: usize = 6;

/// Prints samples, what was accepted, and the projected cost.
pub(super) fn show(
    setup: &Setup,
    selection: &Selection,
    n_chosen: u64,
    cache: &Cache,
    summary: &Summary,
    printer: &Printer,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    let watch = Watch::new(stop, printer.work_bar("judge", 0, "variants"));
    let (mut judged, mut accepted, mut shown) = (0u64, 0u64, Vec::new());
    let (mut prompt, mut written) = (0u64, 0u64);
    judge::assembly(setup, selection, cache).for_each(&watch, |outcome| {
        let id = escape_line(&outcome.parent.id);
        let name = format!("{}/{id} as {}", outcome.parent.source, outcome.style.name());
        let verdict = match &outcome.fate {
            Fate::Waiting => return Ok(()),
            Fate::Poisoned(reason) => format!("given up: {reason}"),
            Fate::Judged(found) => {
                judged += 1;
                for answer in &outcome.answers {
                    prompt += answer.completion.usage.prompt_tokens;
                    written += answer.completion.usage.completion_tokens;
                }
                match &found.refusal {
                    None => {
                        accepted += 1;
                        "accepted".to_owned()
                    }
                    Some(refusal) => {
                        format!("rejected: {} = {:.4}, limit {}", refusal.rule, refusal.value, refusal.limit)
                    }
                }
            }
        };
        if shown.len() < SAMPLES {
            let text = match &outcome.fate {
                Fate::Judged(found) => shorten(&found.text),
                _ => String::new(),
            };
            shown.push(format!("--- {name}: {verdict}\n{}\n>>>\n{text}\n", shorten(&outcome.parent.text)));
        }
        Ok(())
    })?;
    watch.finish();
    printer.data(&format!("{}\n", shown.join("\n")));
    let n_pairs: u64 = selection.chosen.iter().map(|chosen| chosen.styles.len() as u64).sum();
    // Scaled from the few to all chosen documents.
    let factor = n_chosen as f64 / selection.chosen.len().max(1) as f64;
    let answered = judged.max(1) as f64;
    let (prompt, written) = (prompt as f64 / answered, written as f64 / answered);
    let all = n_pairs as f64 * factor;
    let hours = match summary.completion_tokens {
        0 => "all answers came from the cache, so the time is not known".to_owned(),
        _ => format!(
            "about {:.1} hours at {:.0} tokens a second",
            all * written / summary.tokens_per_second() / 3600.0,
            summary.tokens_per_second()
        ),
    };
    printer.note(&format!(
        "{accepted} of {judged} variants accepted; a variant takes {prompt:.0} tokens to ask and {written:.0} to answer"
    ));
    printer.note(&format!(
        "all {n_chosen} chosen documents: {all:.0} variants, {:.0} tokens to ask, {:.0} to answer, {hours}",
        all * prompt,
        all * written
    ));
    Ok(())
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}
