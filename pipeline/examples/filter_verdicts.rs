//! Prints the verdicts of rules on texts, to compare them with those of another program.
//!
//! `filter_verdicts normalize < docs.jsonl` prints each `text` in the normal form that rules see, one JSON
//! string a line. `filter_verdicts words < docs.jsonl` prints the words of each `text` as rules see them, a
//! JSON list a line. `filter_verdicts RULE... < docs.jsonl` prints for each text the reasons of the rules
//! with their defaults, with tabs between them; `-` stands for none. A line may have `words`, the words of
//! the text in order, which replace our own.

use std::io::{BufRead, BufWriter, Write};

use moe_data::document::Metadata;
use moe_data::filter::{self, Filter, Rule, Scratch};
use moe_data::normalize::{NormalizeConfig, normalize};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    text: String,
    words: Option<Vec<String>>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rules: Vec<String> = std::env::args().skip(1).collect();
    let lines = std::io::stdin().lock().lines();
    let mut out = BufWriter::new(std::io::stdout().lock());
    if rules == ["normalize"] {
        for line in lines {
            let line: Line = serde_json::from_str(&line?)?;
            let text = normalize(&line.text, NormalizeConfig::default());
            writeln!(out, "{}", serde_json::to_string(&text)?)?;
        }
        return Ok(out.flush()?);
    }
    if rules == ["words"] {
        for line in lines {
            let line: Line = serde_json::from_str(&line?)?;
            let scratch = Scratch::default();
            let text = scratch.text(&line.text, Metadata::default());
            let words: Vec<&str> = text.words().all().iter().map(|word| word.of(&line.text)).collect();
            writeln!(out, "{}", serde_json::to_string(&words)?)?;
        }
        return Ok(out.flush()?);
    }
    let rules = rules.iter().map(|name| {
        let entry = filter::find(name)?;
        match (entry.build)(&(entry.defaults)())? {
            Rule::Filter(rule) => Ok(rule),
            Rule::Rewrite(_) => Err(format!("`{name}` rewrites texts")),
        }
    });
    let rules = rules.collect::<Result<Vec<Box<dyn Filter>>, String>>()?;
    let scratch = Scratch::default();
    let mut values = Vec::new();
    for line in lines {
        let line: Line = serde_json::from_str(&line?)?;
        let text = match &line.words {
            None => scratch.text(&line.text, Metadata::default()),
            Some(words) => scratch.text_with_words(&line.text, words.iter().map(String::as_str))?,
        };
        let reasons = rules.iter().map(|rule| {
            values.clear();
            rule.measure(&text, &mut values);
            let mut limits = rule.limits().into_iter().zip(&values);
            let missed = limits.find_map(|(limit, value)| limit.measured(*value).rejection());
            missed.map_or("-".to_owned(), |missed| missed.reason.into_owned())
        });
        writeln!(out, "{}", reasons.collect::<Vec<String>>().join("\t"))?;
    }
    Ok(out.flush()?)
}
