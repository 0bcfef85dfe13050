//! Examples of what was dropped, for each reason, so that a rule can be judged by what it does.

use std::collections::BTreeMap;
use std::path::Path;

use maud::html;
use moe_report::number;
use moe_shards::terminal;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::{Part, texts};
use crate::error::Result;
use crate::provenance::audit::{self, str_of};
use crate::watch::Watch;

/// Examples of each reason.
const N_EXAMPLES: usize = 3;
/// Letters of an example to show.
const MAX_LETTERS: usize = 600;

struct Example {
    /// Order: a hash of the name, so that examples do not depend on the order of documents.
    rank: u64,
    source: String,
    id: String,
    measured: Option<f64>,
    threshold: Option<f64>,
}

pub(super) fn part(out: &Path, watch: &Watch) -> Result<Part> {
    let mut by_reason: BTreeMap<String, Vec<Example>> = BTreeMap::new();
    audit::for_each(out, "drops-", &[], |row| {
        let (source, id) = (str_of(&row, "source"), str_of(&row, "id"));
        let value = |column: &str| row.get(column).and_then(Value::as_f64);
        let examples = by_reason.entry(str_of(&row, "reason").to_owned()).or_default();
        let rank = xxh3_64(format!("{source}\0{id}").as_bytes());
        if examples.len() == N_EXAMPLES && examples.last().is_some_and(|last| last.rank <= rank) {
            return;
        }
        let example = Example {
            rank,
            source: source.to_owned(),
            id: id.to_owned(),
            measured: value("measured"),
            threshold: value("threshold"),
        };
        examples.push(example);
        examples.sort_by_key(|example| example.rank);
        examples.truncate(N_EXAMPLES);
    })?;
    let mut part = Part::new("dropped", "Examples of what was dropped", "wide", Vec::new());
    if by_reason.is_empty() {
        return Ok(part);
    }
    watch.advance(0)?;
    let name = |example: &Example| (example.source.clone(), example.id.clone());
    let texts = texts(out, &by_reason.values().flatten().map(name).collect())?;
    let mut shown = Vec::new();
    for (reason, examples) in &by_reason {
        let with_text = |example| (example, texts.get(&name(example)).map(|text| beginning(text)));
        shown.push((reason, examples.iter().map(with_text).collect::<Vec<_>>()));
    }
    part.more = html! {
        p { "Chosen by a hash of their names. " code { "moe-data why ID" } " shows everything measured about a document." }
        @for (reason, examples) in &shown {
            h3 { (reason) }
            @for (example, text) in examples {
                article class="dropped" {
                    h4 {
                        (visible(&format!("{}/{}", example.source, example.id)))
                        @if let Some(measured) = example.measured {
                            small { "measured " (number::digits(measured)) @if let Some(limit) = example.threshold { ", limit " (number::digits(limit)) } }
                        }
                    }
                    @if let Some(text) = text { p { (text) } }
                }
            }
        }
    };
    Ok(part)
}

fn beginning(text: &str) -> String {
    match text.char_indices().nth(MAX_LETTERS) {
        Some((end, _)) => format!("{}…", visible(&text[..end])),
        None => visible(text),
    }
}

/// Makes control characters and direction marks visible.
fn visible(text: &str) -> String {
    terminal::escape(text).into_owned()
}
