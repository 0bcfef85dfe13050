//! How the documents of shards are distributed over quality buckets, languages and tags.

use std::collections::BTreeMap;

use moe_shards::{Result, Shard};
use serde::Serialize;
use serde_json::{Value, json};

/// Documents and their tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Share {
    docs: u64,
    tokens: u64,
}

/// The metadata of some shards.
#[derive(Clone, Debug, Default)]
pub(super) struct Profile {
    /// `None`: unknown.
    quality: BTreeMap<Option<u8>, Share>,
    language: BTreeMap<Option<String>, Share>,
    /// Documents with several tags count under each.
    tags: BTreeMap<String, Share>,
    n_docs: u64,
}

impl Profile {
    /// Adds the documents of a shard: one pass over its records, no tokens are read.
    pub fn add(&mut self, shard: &Shard) -> Result<()> {
        let names = shard.names();
        let mut languages: BTreeMap<u16, Share> = BTreeMap::new();
        let mut tags = vec![Share::default(); names.tags().len()];
        for doc in 0..shard.n_docs() {
            let (meta, (_, tokens)) = (shard.meta(doc)?, shard.span(doc)?);
            let add = |share: &mut Share| {
                share.docs += 1;
                share.tokens += tokens;
            };
            add(self.quality.entry(meta.quality).or_default());
            add(languages.entry(meta.language).or_default());
            for (bit, share) in tags.iter_mut().enumerate() {
                if meta.tags & (1 << bit) != 0 {
                    add(share);
                }
            }
        }
        for (code, found) in languages {
            let name = names.language(code).map(str::to_owned);
            let sum = self.language.entry(name).or_default();
            *sum = Share { docs: sum.docs + found.docs, tokens: sum.tokens + found.tokens };
        }
        for (name, found) in names.tags().iter().zip(tags) {
            let sum = self.tags.entry(name.clone()).or_default();
            *sum = Share { docs: sum.docs + found.docs, tokens: sum.tokens + found.tokens };
        }
        self.n_docs += u64::from(shard.n_docs());
        Ok(())
    }

    /// A line for each kind of metadata that any document has.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.quality.keys().any(Option::is_some) {
            let named = self.quality.iter().map(|(q, share)| (q.map(|q| q.to_string()), share));
            lines.push(format!("quality   {}", self.words(named)));
        }
        if self.language.keys().any(Option::is_some) {
            let named = self.language.iter().map(|(name, share)| (name.clone(), share));
            lines.push(format!("language  {}", self.words(named)));
        }
        if !self.tags.is_empty() {
            let named = self.tags.iter().map(|(name, share)| (Some(name.clone()), share));
            lines.push(format!("tags      {}", self.words(named)));
        }
        lines
    }

    /// `NAME DOCS (SHARE)`, the unknown last.
    fn words<'a>(&self, named: impl Iterator<Item = (Option<String>, &'a Share)>) -> String {
        let mut named: Vec<_> = named.collect();
        named.sort_by_key(|(name, _)| name.is_none());
        let words = named.iter().map(|(name, share)| {
            let percent = share.docs as f64 * 100.0 / self.n_docs.max(1) as f64;
            format!("{} {} ({percent:.1} %)", name.as_deref().unwrap_or("unknown"), share.docs)
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// The same for programs; the key `unknown` holds what has no value.
    pub fn json(&self) -> Value {
        let quality: BTreeMap<String, Share> = (self.quality.iter())
            .map(|(q, share)| (q.map_or_else(|| "unknown".to_owned(), |q| q.to_string()), *share))
            .collect();
        let language: BTreeMap<String, Share> = (self.language.iter())
            .map(|(name, share)| (name.clone().unwrap_or_else(|| "unknown".to_owned()), *share))
            .collect();
        json!({ "quality": quality, "language": language, "tags": self.tags })
    }
}
