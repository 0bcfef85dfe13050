//! How many faithful rephrasings pass each rule of the gates, and how many planted faults are caught:
//! `rephrase_truth FOLDER...`. `FOLDER/bible/*.jsonl.gz` has versions of the same chapters (`group`, `text`
//! with one verse per line), any two of which are faithful rephrasings by people; other `FOLDER/*.jsonl.gz`
//! have prose; faults are planted into copies of it. Writes a table with one row per text, for
//! `scripts/bench/rephrase-truth.py`: corpus, pair, kind of fault (`faithful` for none), passage, then the
//! value of each rule.

mod passages;
mod plant;

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use moe_data::rephrase::gates::{Pair, rules};
use passages::Passage;
use plant::Fault;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        return Err("name the folder with the versions, and files of prose".into());
    }
    let aliases = passages::aliases();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let names: Vec<&str> = rules().map(|rule| rule.name).collect();
    writeln!(out, "corpus\tpair\tfault\tpassage\t{}", names.join("\t"))?;
    for path in &paths {
        let passages = if path.is_dir() { passages::versions(path)? } else { passages::prose(path)? };
        let donors: Vec<&str> = passages.iter().map(|passage| passage.answer.as_str()).collect();
        for (number, passage) in passages.iter().enumerate() {
            row(&mut out, passage, "faithful", &passage.answer, &aliases)?;
            for fault in Fault::ALL {
                // A sentence or a name from elsewhere in the same corpus.
                let donors = (1..=12).map(|i| donors[(number + i * 97) % donors.len()]);
                let text =
                    donors.into_iter().find_map(|donor| plant::plant(fault, passage, donor, number as u64));
                if let Some(text) = text {
                    row(&mut out, passage, fault.name(), &text, &aliases)?;
                }
            }
        }
    }
    Ok(out.flush()?)
}

fn row(
    out: &mut impl Write,
    passage: &Passage,
    fault: &str,
    answer: &str,
    aliases: &std::collections::BTreeMap<String, String>,
) -> std::io::Result<()> {
    let pair = Pair::new(&passage.source, answer).with_aliases(aliases);
    let values: Vec<String> = rules()
        .map(|rule| (rule.measure)(&pair).map_or_else(|| "-".to_owned(), |x| format!("{x:.5}")))
        .collect();
    writeln!(out, "{}\t{}\t{fault}\t{}\t{}", passage.corpus, passage.pair, passage.name, values.join("\t"))
}
