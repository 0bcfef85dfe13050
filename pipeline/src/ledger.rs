//! `ledger.json`: where every record went. For each source, read = kept + dropped + quarantined
//! in documents, and the same with the bytes cut from documents in bytes; they are counted independently (by the reader, in the headers
//! of the finished shards, the reports of the stages), so the check can fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::decontaminate::report::BenchmarkSummary;
use crate::dedup::minhash::estimate::figures::Estimate;
use crate::document::Count;
use crate::error::{Error, Result};
use crate::recipe::ByteSize;

/// The whole ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Version of this file's schema.
    pub version: u32,
    /// What encoded the text, once known. It affects the speed of a build, not its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderNote>,
    /// By name of the source.
    pub sources: BTreeMap<String, SourceLedger>,
    /// Brute-force estimate of fuzzy deduplication from a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minhash_estimate: Option<Estimate>,
    /// Buckets of the classifier's score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<QualityNote>,
    /// What was searched and found for each benchmark; `decontamination.json` has details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decontamination: Option<BTreeMap<String, BenchmarkSummary>>,
}

/// Buckets of the classifier's score, over all documents left by decontamination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityNote {
    /// Ascending scores; a document's bucket is the number of edges at most its score.
    pub edges: Vec<f64>,
    /// Documents of each bucket and their bytes as read.
    pub buckets: Vec<Count>,
}

/// What encoded the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderNote {
    /// Name of the library.
    pub engine: String,
    /// What forced the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceLedger {
    /// Records that the reader found.
    pub read: Count,
    /// Documents in the shards.
    pub kept: Kept,
    /// Dropped documents, by reason.
    pub dropped: BTreeMap<String, Count>,
    /// Text cut from kept documents, by method: how many documents lost some, and its bytes as read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cut: BTreeMap<String, Count>,
    /// Records that are not documents, by cause.
    pub quarantined: BTreeMap<String, Count>,
    /// Tokens that stand for text without a token in the vocabulary.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_tokens: u64,
    /// Documents whose tokens do not give their text back: the tokenizer changes it, or has no token for it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_given_back: u64,
    /// Files that were skipped unread or held no text, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped_files: BTreeMap<String, u64>,
    /// Non-UTF-8 documents without a named encoding, by the guessed encoding.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guessed_encodings: BTreeMap<String, u64>,
    /// Names that several documents share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated_ids: Option<RepeatedIds>,
    /// How much the texts of declared families differ, where fuzzy deduplication compared them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variants: Option<VariantLedger>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Names that several documents of a source share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepeatedIds {
    /// How many names.
    pub ids: u64,
    /// Documents that have one of them.
    pub documents: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

/// Texts of declared families compared with their originals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantLedger {
    /// Documents that are not the original of their family, after deduplication.
    pub documents: u64,
    /// Those that are copies of another text of their family (`dedup.minhash.variant_copy`); they stay, but
    /// `documents - copies` is how many variants there really are.
    pub copies: u64,
}

/// Documents in the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Documents.
    pub docs: u64,
    /// UTF-8 bytes of their texts as read.
    pub bytes: u64,
    /// Tokens with one end of document each.
    pub tokens: u64,
}

impl SourceLedger {
    /// Adds counts by reason or cause.
    pub fn add(sum: &mut BTreeMap<String, Count>, more: &BTreeMap<String, Count>) {
        for (name, count) in more {
            *sum.entry(name.clone()).or_default() += *count;
        }
    }
}

impl Ledger {
    /// Schema version written by this program.
    pub const VERSION: u32 = 1;
    /// File name in the output folder.
    pub const FILE: &'static str = "ledger.json";

    /// An empty ledger over sources.
    pub fn new<'a>(sources: impl IntoIterator<Item = &'a str>) -> Ledger {
        let sources = sources.into_iter().map(|name| (name.to_owned(), SourceLedger::default())).collect();
        Ledger {
            version: Ledger::VERSION,
            encoder: None,
            sources,
            minhash_estimate: None,
            quality: None,
            decontamination: None,
        }
    }

    /// The entry of a source.
    pub fn source(&mut self, name: &str) -> &mut SourceLedger {
        self.sources.entry(name.to_owned()).or_default()
    }

    /// Checks conservation.
    ///
    /// # Errors
    /// [`Error::Check`] naming each source whose numbers do not add up, with the numbers.
    pub fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        for (name, source) in &self.sources {
            let mut sum = Count { docs: source.kept.docs, bytes: source.kept.bytes };
            source.dropped.values().chain(source.quarantined.values()).for_each(|count| sum += *count);
            // These documents are among the kept and dropped ones, but not their cut bytes.
            sum.bytes += source.cut.values().map(|count| count.bytes).sum::<u64>();
            if sum != source.read {
                wrong.push(format!(
                    "source `{name}`: {} documents ({} bytes) were read, but kept + dropped + cut + quarantined are {} ({} bytes)",
                    source.read.docs, source.read.bytes, sum.docs, sum.bytes
                ));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::Check(format!("the ledger does not balance: {}", wrong.join("; ")))),
        }
    }

    /// Reads `dir/ledger.json`.
    ///
    /// # Errors
    /// The file is missing, is not this schema, or is newer than this program.
    pub fn read(dir: &Path) -> Result<Ledger> {
        Ledger::read_file(&dir.join(Ledger::FILE))
    }

    /// Reads a ledger by its path.
    ///
    /// # Errors
    /// As [`Ledger::read`].
    pub fn read_file(path: &Path) -> Result<Ledger> {
        let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
        let again = "run moe-data build again, which writes it from the finished work";
        let ledger: Ledger = serde_json::from_slice(&bytes).map_err(|e| {
            Error::data(path, format!("is damaged or not a ledger of moe-data ({e}); {again}"))
        })?;
        match ledger.version {
            Ledger::VERSION => Ok(ledger),
            other => {
                let version = Ledger::VERSION;
                Err(Error::data(path, format!("version {other}; this program reads {version}; {again}")))
            }
        }
    }

    /// A table of the sources with the reasons below each, for people. `title` is its heading.
    pub fn table(&self, title: &Path) -> String {
        let head = ["read", "kept", "text", "dropped", "bad", "tokens"];
        let row = |name: &str, cells: [String; 6]| {
            let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>10}")).collect();
            format!("{name:<20}{}", cells.join(" "))
        };
        let mut lines = vec![row(&title.display().to_string(), head.map(str::to_owned))];
        for (name, source) in &self.sources {
            let docs =
                |counts: &BTreeMap<String, Count>| counts.values().map(|count| count.docs).sum::<u64>();
            let kept = source.kept;
            let numbers = [
                source.read.docs,
                kept.docs,
                0,
                docs(&source.dropped),
                docs(&source.quarantined),
                kept.tokens,
            ];
            let mut cells = numbers.map(|number| number.to_string());
            cells[2] = ByteSize(kept.bytes).to_string();
            lines.push(row(&format!("  {name}"), cells));
            let reasons = source.dropped.iter().chain(&source.quarantined);
            lines.extend(reasons.map(|(reason, count)| format!("    {reason}: {}", count.docs)));
            if source.unknown_tokens > 0 {
                lines.push(format!("    unknown tokens: {}", source.unknown_tokens));
            }
            if source.not_given_back > 0 {
                lines.push(format!("    not given back by their tokens: {}", source.not_given_back));
            }
            lines.extend(source.variants.map(|variants| {
                let VariantLedger { documents, copies } = variants;
                format!(
                    "    {} variants; {copies} of {documents} are copies of another text",
                    documents - copies
                )
            }));
            lines.extend(source.cut.iter().map(|(method, count)| {
                format!("    cut by {method}: {} from {} documents", ByteSize(count.bytes), count.docs)
            }));
        }
        lines.extend(self.minhash_estimate.iter().map(|e| format!("near-duplicates: {}", e.summary())));
        for (name, summary) in self.decontamination.iter().flatten() {
            lines.push(format!("evaluation set {name}: {summary}"));
        }
        lines.join("\n")
    }

    /// The table with all details of near-duplicates.
    pub fn full_table(&self, title: &Path) -> String {
        let estimate = self.minhash_estimate.iter().map(|estimate| format!("\nnear-duplicates: {estimate}"));
        self.table(title) + &estimate.collect::<String>()
    }

    /// Records read, and records in quarantine.
    pub fn bad(&self) -> (u64, u64) {
        let read = self.sources.values().map(|s| s.read.docs).sum();
        let bad = self.sources.values().flat_map(|s| s.quarantined.values()).map(|c| c.docs).sum();
        (read, bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balanced() -> Ledger {
        let mut ledger = Ledger::new(["a"]);
        let source = ledger.source("a");
        source.read = Count { docs: 6, bytes: 60 };
        source.kept = Kept { docs: 3, bytes: 26, tokens: 9 };
        source.cut.insert("paragraph".into(), Count { docs: 2, bytes: 4 });
        source.dropped.insert("too_short".into(), Count { docs: 2, bytes: 5 });
        source.quarantined.insert("bad_json".into(), Count { docs: 1, bytes: 25 });
        ledger
    }

    #[test]
    fn documents_and_bytes_must_both_balance() {
        assert!(balanced().check().is_ok());
        for change in [Count { docs: 1, bytes: 0 }, Count { docs: 0, bytes: 1 }] {
            let mut ledger = balanced();
            ledger.source("a").read += change;
            let error = ledger.check().unwrap_err();
            assert_eq!(error.exit_code(), 1);
            assert!(error.to_string().contains("source `a`"), "{error}");
        }
    }

    #[test]
    fn a_ledger_without_cuts_is_written_as_before_there_were_any() {
        let text = serde_json::to_string(&SourceLedger::default()).unwrap();
        assert!(!text.contains("cut"), "{text}");
        assert_eq!(serde_json::from_str::<SourceLedger>(&text).unwrap(), SourceLedger::default());
    }

    #[test]
    fn the_file_is_the_published_schema() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Ledger::FILE);
        fs::write(&path, crate::json::canonical(&balanced())).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["sources"]["a"]["kept"]["tokens"], 9);
        assert_eq!(value["sources"]["a"]["dropped"]["too_short"]["docs"], 2);
        assert_eq!(Ledger::read(dir.path()).unwrap(), balanced());
        assert_eq!(balanced().bad(), (6, 1));
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        let error = Ledger::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("ledger.json: is damaged") && error.contains("run moe-data build"), "{error}");
    }
}
