//! Applies rules of a recipe to documents, for comparison with other tools:
//!
//! ```text
//! apply_rules RULES.json < documents.jsonl > verdicts.jsonl
//! ```
//!
//! RULES is a list of `{"name": ..., "action": ..., "settings": {...}}`, settings that differ from the
//! defaults; a document is `{"text": ..., "url": ...}`. A verdict is `{"dropped": reason or null, "text":
//! what is left, "language": ..., "values": [...]}`; the last line on standard error is the CPU time of the
//! rules. With the word `pii` instead of rules it prints the personal data that it finds, one item per line.

use std::error::Error;
use std::io::{BufRead, Write};

use moe_data::document::Metadata;
use moe_data::filter::chain::Workspace;
use moe_data::filter::pii::{self, Pii};
use moe_data::filter::{Chain, FilterConfig, find};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    id: Value,
    text: String,
    url: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1).ok_or("usage: apply_rules RULES.json|pii < documents.jsonl")?;
    let lists_pii = argument == "pii";
    let chain = if lists_pii { Chain::new([])? } else { chain(&std::fs::read_to_string(argument)?)? };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let documents = std::io::stdin().lock().lines().map(|line| Ok(serde_json::from_str(&line?)?));
    let documents = documents.collect::<Result<Vec<Document>, Box<dyn Error>>>()?;
    if lists_pii {
        for Document { id, text, .. } in &documents {
            for found in pii::find(text, &Pii::default().kinds) {
                let end = found.start + found.len;
                let from = text[..found.start].char_indices().rev().nth(30).map_or(0, |(at, _)| at);
                let to = text[end..].char_indices().nth(30).map_or(text.len(), |(at, _)| end + at);
                let kind = format!("{:?}", found.kind).to_lowercase();
                let row = json!({"kind": kind, "found": &text[found.start..end], "id": id, "around": &text[from..to]});
                writeln!(out, "{row}")?;
            }
        }
        return Ok(out.flush()?);
    }
    let mut work = Workspace::default();
    let measure = |document: &Document, work: &mut Workspace| {
        let metadata = Metadata { url: document.url.as_deref(), ..Metadata::default() };
        chain.measure(&document.text, metadata, document.text.len() as u32, work)
    };
    // Once for the time, which is too short for the clock document by document, and once for the verdicts.
    let before = busy_seconds()?;
    documents.iter().try_for_each(|document| measure(document, &mut work))?;
    let seconds = busy_seconds()? - before;
    for document in &documents {
        measure(document, &mut work)?;
        let verdict = chain.judge(work.values())?;
        let dropped = verdict.dropped.map(|rejection| rejection.reason);
        let row = json!({
            "dropped": dropped,
            "text": work.rewritten().unwrap_or(&document.text),
            "language": work.language(),
            "values": work.values(),
        });
        writeln!(out, "{row}")?;
    }
    out.flush()?;
    let n_bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    eprintln!("{}", json!({"bytes": n_bytes, "seconds": seconds}));
    Ok(())
}

/// CPU time of this thread in nanoseconds, as counted by the system.
fn busy_seconds() -> Result<f64, Box<dyn Error>> {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(counts.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e9)
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
