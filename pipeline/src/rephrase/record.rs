//! Output of rephrasing: a line for each accepted variant, a line for each rejected one, and a ledger.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use moe_llm::{Key, Sampling};
use moe_shards::Hash;
use serde::{Deserialize, Serialize};

use super::judge::Refusal;
use crate::error::{Error, Result};
use crate::listing::{Entry, Listing, Maker};

/// Version of all files of this module.
pub const VERSION: u32 = 1;
/// The ledger's file.
pub const LEDGER: &str = "ledger.json";
/// The rejected variants.
pub const REJECTED: &str = "rejected.jsonl";

/// Name of the file with the accepted variants of a source.
pub fn accepted_name(source: &str) -> String {
    format!("accepted-{source}.jsonl")
}

/// A variant that passed all gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// [`VERSION`].
    pub version: u32,
    /// Source of the original.
    pub source: String,
    /// Name of the original in its source.
    pub parent: String,
    /// Its id, 16 hexadecimal digits.
    pub parent_document: String,
    /// XXH3-128 of its text, after all cuts, when the request was made; 32 hexadecimal digits.
    pub parent_text: String,
    /// Its family, 16 hexadecimal digits.
    pub family: String,
    /// Name of the style, which is the name of the variant.
    pub style: String,
    /// The text.
    pub text: String,
    /// Quality bucket of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<u8>,
    /// Language of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Tags of the original.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Date of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Score of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Address of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The model that was asked for.
    pub model: String,
    /// Its revision, as the user gave it.
    pub revision: String,
    /// Models that answered, as the server names them.
    pub served_by: Vec<String>,
    /// Digest of the style's template; zero if unknown, as for an imported variant.
    pub template: Hash,
    /// Sampling of the answers; the seed differs for each chunk and is part of its key.
    pub sampling: Sampling,
    /// Keys of the completions, one per chunk; for an imported variant, the digest of its normalized text.
    pub keys: Vec<Key>,
    /// The worst value of each rule.
    pub gates: BTreeMap<String, f64>,
    /// Tokens of the questions, as the server counted them.
    pub prompt_tokens: u64,
    /// Tokens of the answers.
    pub completion_tokens: u64,
    /// License of what the model wrote, as the user gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// A variant that did not pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Source of the original.
    pub source: String,
    /// Name of the original.
    pub parent: String,
    /// Its id.
    pub parent_document: String,
    /// Name of the style.
    pub style: String,
    /// Why.
    pub refusal: Refusal,
    /// The first rejected chunk of the original.
    pub chunk: String,
    /// Its answer.
    pub answer: String,
    /// Keys of the completions.
    pub keys: Vec<Key>,
}

impl Accepted {
    /// The id of the original as a number, and the hash of its text.
    ///
    /// # Errors
    /// What is wrong with the record, in words.
    pub fn parent(&self) -> std::result::Result<(u64, u128), String> {
        let id = u64::from_str_radix(&self.parent_document, 16);
        let text = u128::from_str_radix(&self.parent_text, 16);
        match (id, text) {
            (Ok(id), Ok(text)) => Ok((id, text)),
            _ => Err("`parent_document` or `parent_text` is not hexadecimal".to_owned()),
        }
    }
}

/// Reads a file of accepted variants, one after another.
///
/// # Errors
/// The file cannot be opened. A bad line is an error item: these files are ours, so nothing in them is skipped.
pub fn accepted(path: &Path) -> Result<impl Iterator<Item = Result<Accepted>> + use<>> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let path = path.to_owned();
    let lines = BufReader::new(file).lines().enumerate();
    Ok(lines.map(move |(number, line)| {
        let line = line.map_err(Error::io(&path, "read"))?;
        let wrong = |message: String| {
            let hint = "run `moe-data rephrase validate`, which writes the file again";
            Error::data(&path, format!("line {}: {message}; {hint}", number + 1))
        };
        let record: Accepted = serde_json::from_str(&line).map_err(|e| wrong(e.to_string()))?;
        match record.version {
            VERSION => Ok(record),
            other => Err(wrong(format!("version {other}; this program reads {VERSION}"))),
        }
    }))
}

/// Files of accepted variants in a folder, by source.
///
/// # Errors
/// The folder cannot be read.
pub fn accepted_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
        let path = entry.map_err(Error::io(folder, "read"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = name.strip_prefix("accepted-").and_then(|rest| rest.strip_suffix(".jsonl"));
        if let Some(source) = source {
            found.insert(source.to_owned(), path);
        }
    }
    Ok(found)
}

/// Refuses a file of accepted variants that was changed after `rephrase` wrote it. An unlisted one was written by another program or an
/// earlier version, and is used as is.
///
/// # Errors
/// [`Error::Data`] naming the file and what to do.
pub fn check_accepted(path: &Path) -> Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let listing = Listing::read(folder, Maker::Rephrase)?;
    let Some(expected) = listing.as_ref().and_then(|listing| *listing.files().get(name)?) else {
        return Ok(());
    };
    let found = Entry::of_file(path)?;
    if found == expected {
        return Ok(());
    }
    Err(Error::data(
        path,
        format!(
            "was changed since moe-data rephrase wrote it: blake3 is {}, {} was written\n  hint: `moe-data rephrase validate` writes it again; to use it as it is, delete {}",
            found.blake3.short(),
            expected.blake3.short(),
            Listing::path(folder, Maker::Rephrase).display()
        ),
    ))
}

/// `ledger.json`: where every chosen pair of document and style went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// [`VERSION`].
    pub version: u32,
    /// Originals that the build kept.
    pub originals: u64,
    /// The chosen ones among them.
    pub documents: u64,
    /// Records of imported files that were unreadable or had no variant text.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
    /// By style.
    pub styles: BTreeMap<String, StyleLedger>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Pairs of a document and one style.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StyleLedger {
    /// Chosen, or texts of an import.
    pub asked: u64,
    /// Accepted, as counted from the finished files.
    pub accepted: u64,
    /// Rejected, by the first rule that was missed.
    pub rejected: BTreeMap<String, u64>,
    /// Given up by the server, or left out of an import, by reason.
    pub poisoned: BTreeMap<String, u64>,
    /// Without all answers yet.
    pub waiting: u64,
    /// Answered chunks.
    pub chunks: u64,
    /// Tokens of the questions, as the server counted them.
    pub prompt_tokens: u64,
    /// Tokens of the answers.
    pub completion_tokens: u64,
    /// Tokens of the answers of accepted variants.
    pub accepted_tokens: u64,
}

impl StyleLedger {
    /// Adds the counts of other pairs.
    pub fn add(&mut self, other: &StyleLedger) {
        self.asked += other.asked;
        self.accepted += other.accepted;
        self.waiting += other.waiting;
        self.chunks += other.chunks;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.accepted_tokens += other.accepted_tokens;
        for (own, others) in [(&mut self.rejected, &other.rejected), (&mut self.poisoned, &other.poisoned)] {
            for (reason, n) in others {
                *own.entry(reason.clone()).or_default() += n;
            }
        }
    }
}

impl Ledger {
    /// Checks that every pair went somewhere.
    ///
    /// # Errors
    /// [`Error::Check`] with the numbers of each style that does not balance.
    pub fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        for (name, style) in &self.styles {
            let rejected: u64 = style.rejected.values().sum();
            let poisoned: u64 = style.poisoned.values().sum();
            let sum = style.accepted + rejected + poisoned + style.waiting;
            if sum != style.asked {
                wrong.push(format!(
                    "style `{name}`: {} asked, but {} accepted + {rejected} rejected + {poisoned} poisoned + {} waiting are {sum}",
                    style.asked, style.accepted, style.waiting
                ));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => {
                Err(Error::Check(format!("the ledger of rephrasing does not balance: {}", wrong.join("; "))))
            }
        }
    }

    /// Reads the ledger of a folder.
    ///
    /// # Errors
    /// It is missing or of another version.
    pub fn read(folder: &Path) -> Result<Ledger> {
        let path = folder.join(LEDGER);
        let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
        let again = "`moe-data rephrase validate` writes it again";
        let ledger: Ledger = serde_json::from_slice(&bytes).map_err(|e| {
            Error::data(&path, format!("is damaged or not a ledger of rephrasing ({e}); {again}"))
        })?;
        match ledger.version {
            VERSION => Ok(ledger),
            other => {
                Err(Error::data(&path, format!("version {other}; this program reads {VERSION}; {again}")))
            }
        }
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let row = |cells: [&str; 6]| {
            let [name, rest @ ..] = cells;
            let rest: Vec<String> = rest.iter().map(|cell| format!("{cell:>10}")).collect();
            format!("{name:<20}{}", rest.join(" "))
        };
        let mut lines = vec![row(["style", "asked", "accepted", "rejected", "poisoned", "waiting"])];
        for (name, style) in &self.styles {
            let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>().to_string();
            let cells = [style.asked.to_string(), style.accepted.to_string(), sum(&style.rejected)];
            let more = [sum(&style.poisoned), style.waiting.to_string()];
            lines.push(row([&format!("  {name}"), &cells[0], &cells[1], &cells[2], &more[0], &more[1]]));
            lines.extend(style.rejected.iter().map(|(rule, n)| format!("    {rule}: {n}")));
            lines.extend(style.poisoned.iter().map(|(reason, n)| format!("    {reason}: {n}")));
        }
        lines.join("\n")
    }

    /// Pairs without all answers yet.
    pub fn waiting(&self) -> u64 {
        self.styles.values().map(|style| style.waiting).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_must_balance() {
        let mut ledger = Ledger { version: VERSION, ..Ledger::default() };
        let style = StyleLedger { asked: 5, accepted: 2, waiting: 1, ..StyleLedger::default() };
        ledger.styles.insert("plain".into(), style);
        let error = ledger.check().unwrap_err().to_string();
        assert!(
            error.contains("5 asked, but 2 accepted + 0 rejected + 0 poisoned + 1 waiting are 3"),
            "{error}"
        );
        let style = ledger.styles.get_mut("plain").unwrap();
        style.rejected.insert("names_kept".into(), 1);
        style.poisoned.insert("gone".into(), 1);
        ledger.check().unwrap();
        assert!(ledger.table().contains("names_kept: 1"), "{}", ledger.table());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LEDGER), crate::json::canonical(&ledger)).unwrap();
        assert_eq!(Ledger::read(dir.path()).unwrap(), ledger);
        fs::write(dir.path().join(LEDGER), "{").unwrap();
        let error = Ledger::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains("rephrase validate"), "{error}");
    }
}
