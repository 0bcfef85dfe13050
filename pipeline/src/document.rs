//! What identifies a document and what it belongs to. All of it is a function of the recipe and
//! the document alone, never of the file it was in or the order it came in.

use std::fmt;

use moe_shards::FamilyId;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// XXH3-64 of source name, NUL, id: the order that breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DocumentId(pub u64);

impl DocumentId {
    /// Id of the document that `source` calls `id`.
    pub fn new(source: &str, id: &str) -> DocumentId {
        let mut bytes = Vec::with_capacity(source.len() + 1 + id.len());
        bytes.extend_from_slice(source.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(id.as_bytes());
        DocumentId(xxh3_64(&bytes))
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// XXH3-128 of a normalized text: equal texts, for exact deduplication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextHash(pub u128);

impl TextHash {
    /// Hash of a normalized text.
    pub fn of(text: &str) -> TextHash {
        TextHash(xxh3_128(text.as_bytes()))
    }

    /// Name of a document without one: `xxh3:` and the 32 hex digits of its text's hash.
    pub fn as_id(self) -> String {
        format!("xxh3:{:032x}", self.0)
    }
}

/// Family of a document on its own: the first 8 bytes, little-endian, of the BLAKE3 of its
/// normalized text.
pub fn family_of_text(text: &str) -> FamilyId {
    first_8(blake3::hash(text.as_bytes()))
}

/// Family of the documents of `source` whose family field holds `value`: the same bytes of the
/// BLAKE3 of source name, NUL, value.
pub fn family_of_field(source: &str, value: &str) -> FamilyId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(source.as_bytes()).update(&[0]).update(value.as_bytes());
    first_8(hasher.finalize())
}

fn first_8(hash: blake3::Hash) -> FamilyId {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    FamilyId(u64::from_le_bytes(bytes))
}

/// A document's metadata, as a reader found it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnedMetadata {
    /// As [`Metadata::quality`].
    pub quality: Option<u8>,
    /// As [`Metadata::language`].
    pub language: Option<String>,
    /// As [`Metadata::tags`].
    pub tags: String,
    /// As [`Metadata::date`].
    pub date: Option<String>,
    /// As [`Metadata::score`].
    pub score: Option<f64>,
    /// As [`Metadata::url`].
    pub url: Option<String>,
    /// As [`Metadata::kept`].
    pub kept: String,
    /// As [`Metadata::marks`].
    pub marks: String,
}

/// A document's metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metadata<'a> {
    /// Quality bucket.
    pub quality: Option<u8>,
    /// Language code, such as `en` or `eng-Latn`.
    pub language: Option<&'a str>,
    /// Tags, sorted, one a line.
    pub tags: &'a str,
    /// ISO 8601 text; compared as text.
    pub date: Option<&'a str>,
    /// A finite number; higher is better.
    pub score: Option<f64>,
    /// URL of the document.
    pub url: Option<&'a str>,
    /// JSON object of the fields that the recipe carries to exported texts; empty where there do not count.
    pub kept: &'a str,
    /// The marks of a conversation's text, as `Marks` of the module `chat` writes them; else empty.
    pub marks: &'a str,
}

impl OwnedMetadata {
    /// The same, borrowed.
    pub fn as_ref(&self) -> Metadata<'_> {
        Metadata {
            quality: self.quality,
            language: self.language.as_deref(),
            tags: &self.tags,
            date: self.date.as_deref(),
            score: self.score,
            url: self.url.as_deref(),
            kept: &self.kept,
            marks: &self.marks,
        }
    }
}

impl<'a> Metadata<'a> {
    /// The tags.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> {
        self.tags.lines()
    }

    /// Hash that orders otherwise equal documents, so that a tie never depends on the
    /// input order: XXH3-64 of the parts, each after its length.
    pub fn hash(&self) -> u64 {
        let mut bytes = Vec::new();
        let quality = self.quality.map(|q| [q]);
        let score = self.score.map(|score| score.to_bits().to_le_bytes());
        let parts = [
            quality.as_ref().map(<[u8; 1]>::as_slice),
            self.language.map(str::as_bytes),
            Some(self.tags.as_bytes()),
            self.date.map(str::as_bytes),
            score.as_ref().map(<[u8; 8]>::as_slice),
        ];
        for part in parts {
            // Absent differs in length from empty.
            bytes.extend_from_slice(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.unwrap_or_default());
        }
        // An absent address and absent fields are left out, as before they existed.
        if let Some(url) = self.url {
            bytes.extend_from_slice(&(url.len() as u64).to_le_bytes());
            bytes.extend_from_slice(url.as_bytes());
        }
        if !self.kept.is_empty() {
            bytes.extend_from_slice(&(self.kept.len() as u64).to_le_bytes());
            bytes.extend_from_slice(self.kept.as_bytes());
        }
        xxh3_64(&bytes)
    }
}

/// Documents and their bytes of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Documents, or records that never became one.
    pub docs: u64,
    /// UTF-8 bytes of the texts as read; for records in quarantine, bytes of the record.
    pub bytes: u64,
}

impl Count {
    /// One document.
    pub fn one(bytes: u64) -> Count {
        Count { docs: 1, bytes }
    }

    /// The rest without `other`, which is part of it.
    pub fn minus(self, other: Count) -> Count {
        Count { docs: self.docs - other.docs, bytes: self.bytes - other.bytes }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.docs += other.docs;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_separate_source_and_name() {
        assert_eq!(DocumentId::new("a", "bc").0, xxh3_64(b"a\0bc"));
        assert_ne!(DocumentId::new("a", "bc"), DocumentId::new("ab", "c"));
    }

    #[test]
    fn families_of_one_field_value_differ_between_sources() {
        // BLAKE3 of nothing starts with af1349b9f5f9a1a6.
        assert_eq!(family_of_text(""), FamilyId(0xa6a1_f9f5_b949_13af));
        assert_eq!(family_of_field("a", "Gen.1"), family_of_text("a\0Gen.1"));
        assert_ne!(family_of_field("a", "Gen.1"), family_of_field("b", "Gen.1"));
    }

    #[test]
    fn every_part_of_the_metadata_counts_in_its_hash() {
        let none = Metadata::default();
        let others = [
            Metadata { quality: Some(0), ..none },
            Metadata { language: Some("en"), ..none },
            Metadata { tags: "en", ..none },
            Metadata { date: Some("en"), ..none },
            Metadata { score: Some(0.0), ..none },
            Metadata { url: Some("en"), ..none },
            Metadata { kept: "{}", ..none },
            none,
        ];
        let hashes: std::collections::BTreeSet<u64> = others.iter().map(Metadata::hash).collect();
        assert_eq!(hashes.len(), others.len());
    }

    #[test]
    fn counts_add() {
        let mut count = Count::one(3);
        count += Count { docs: 2, bytes: 10 };
        assert_eq!(count, Count { docs: 3, bytes: 13 });
        assert_eq!(count.minus(Count::one(3)), Count { docs: 2, bytes: 10 });
    }
}
