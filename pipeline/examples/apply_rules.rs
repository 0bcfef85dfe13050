//! Applies rules of a recipe to documents, for comparison with other tools:
//!
//! ```text
//! apply_rules RULES.json < documents.jsonl > verdicts.jsonl
//! ```
//!
//! RULES is a list of `{"name": ..., "action": ..., "settings": {...}}`, settings beside the defaults; a document is
//! `{"text": ..., "url": ...}`. A verdict is `{"dropped": reason or null, "text": what is left, "language": ...,
//! "values": [...]}`; the last line of the errors says how long the rules took. With the one word `pii` instead of rules it prints what is found of personal data, one a line.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use moe_data::document::Metadata;
use moe_data::filter::chain::Workspace;
use moe_data::filter::pii::{self, Pii};
use moe_data::filter::{Chain, FilterConfig, find};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1).ok_or("usage: apply_rules RULES.json|pii < documents.jsonl")?;
    let lists_pii = argument == "pii";
    let chain = if lists_pii { Chain::new([])? } else { chain(&std::fs::read_to_string(argument)?)? };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut work = Workspace::default();
    let (mut n_bytes, mut spent) = (0, Duration::ZERO);
    for line in std::io::stdin().lock().lines() {
        let document: Value = serde_json::from_str(&line?)?;
        let text = document["text"].as_str().ok_or("a document has no text")?;
        if lists_pii {
            for found in pii::find(text, &Pii::default().kinds) {
                let end = found.start + found.len;
                let from = text[..found.start].char_indices().rev().nth(30).map_or(0, |(at, _)| at);
                let to = text[end..].char_indices().nth(30).map_or(text.len(), |(at, _)| end + at);
                let kind = format!("{:?}", found.kind).to_lowercase();
                let row = json!({"kind": kind, "found": &text[found.start..end], "id": document["id"], "around": &text[from..to]});
                writeln!(out, "{row}")?;
            }
            continue;
        }
        let metadata = Metadata { url: document["url"].as_str(), ..Metadata::default() };
        let start = Instant::now();
        chain.measure(text, metadata, text.len() as u32, &mut work)?;
        (n_bytes, spent) = (n_bytes + text.len(), spent + start.elapsed());
        let verdict = chain.judge(work.values())?;
        let dropped = verdict.dropped.map(|rejection| rejection.reason);
        let row = json!({
            "dropped": dropped,
            "text": work.rewritten().unwrap_or(text),
            "language": work.language(),
            "values": work.values(),
        });
        writeln!(out, "{row}")?;
    }
    out.flush()?;
    // Reading and writing JSON take longer than most rules.
    eprintln!("{}", json!({"bytes": n_bytes, "seconds": spent.as_secs_f64()}));
    Ok(())
}

fn chain(rules: &str) -> Result<Chain, Box<dyn Error>> {
    let mut configs = Vec::new();
    for rule in serde_json::from_str::<Vec<Value>>(rules)? {
        let mut config =
            FilterConfig::with_defaults(find(rule["name"].as_str().ok_or("a rule has no name")?)?);
        if !rule["action"].is_null() {
            config.action = serde_json::from_value(rule["action"].clone())?;
        }
        for (key, value) in rule["settings"].as_object().into_iter().flatten() {
            config.settings.insert(key.clone(), value.clone());
        }
        configs.push(config);
    }
    Ok(Chain::new(&configs)?)
}
