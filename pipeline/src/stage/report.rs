//! A task's report.

use std::collections::{BTreeMap, BTreeSet};

use moe_shards::ShardInfo;
use serde::{Deserialize, Serialize};

use crate::document::Count;

/// What a task did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Records that came out of the reader.
    pub read: Count,
    /// Documents passed on to the next stage.
    pub kept: Count,
    /// Documents dropped, by reason.
    pub dropped: BTreeMap<String, Count>,
    /// Bytes cut from documents that were passed on, by method.
    pub cut: BTreeMap<String, Count>,
    /// Records in quarantine, by cause.
    pub quarantined: BTreeMap<String, Count>,
    /// The first record in quarantine of each cause, for messages.
    pub first_bad: BTreeMap<String, String>,
    /// Tags of the records or, from filters, of the documents passed on, while they are at most [`moe_shards::Names::MAX_TAGS`].
    pub tags: BTreeSet<String>,
    /// Documents whose encoding was guessed, by encoding.
    pub guessed: BTreeMap<String, Tally>,
    /// Files that hold no text, by kind.
    pub unreadable: BTreeMap<String, Tally>,
    /// Which fields with metadata any record had, as `FieldPaths::present` of the reader says.
    pub fields_seen: u8,
    /// Tokens with one end of document each, by variant.
    pub tokens: BTreeMap<u8, u64>,
    /// Tokens that stand for text without a token in the vocabulary.
    #[serde(skip_serializing_if = "is_zero")]
    pub unknown_tokens: u64,
    /// Documents whose tokens do not give their text back.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_given_back: u64,
    /// Documents of each file of a task that reads several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub documents_of_files: Vec<u64>,
    /// The shard that was made; absent when it would be empty.
    pub shard: Option<ShardInfo>,
}

/// Their number, and one of them by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub n: u64,
    /// The first.
    pub example: String,
}

impl Tally {
    /// Counts one in a file or in a member of it.
    pub fn add(&mut self, member: Option<&str>, file: &str) {
        if self.n == 0 {
            self.example = member.map_or_else(|| file.to_owned(), |member| format!("{file}/{member}"));
        }
        self.n += 1;
    }

    /// Adds those of a later part.
    pub fn merge(&mut self, later: &Tally) {
        if self.n == 0 {
            self.example.clone_from(&later.example);
        }
        self.n += later.n;
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
