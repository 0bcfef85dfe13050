//! What happened to single documents of a build, put together from its audit tables, its quarantine, its shards and the
//! documents in its work folder.

mod alike;
pub mod audit;
pub mod changes;
pub mod clusters;
pub mod words;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use moe_shards::Manifest;
use serde::Serialize;
use serde_json::Value;

use self::audit::{AuditRow, str_of};
use self::words::Difference;
use crate::dedup::{exact, minhash};
use crate::document::TextHash;
use crate::error::{Error, Result};
use crate::filter::Chain;
use crate::filter::chain::Looked;
use crate::intact;
use crate::tables::documents::{Columns, DocumentBatches};
use crate::tables::families::Families;
use crate::tables::measures::Measures;
use crate::tables::parts::{PartPlace, Parts};
use crate::tables::rows;
use crate::tables::texts::{self, Texts};

/// Methods in the duplicate audit that remove nothing.
pub const STAYING: [&str; 3] = ["variant_copy", "family", "other_family"];

/// Ledger reason of a row of the duplicate audit that removed a document.
pub fn reason_of_duplicate(row: &AuditRow) -> &'static str {
    match (str_of(row, "method"), str_of(row, "against").is_empty()) {
        ("exact", true) => exact::REASON,
        ("exact", false) => exact::REASON_AGAINST,
        (_, true) => minhash::REASON,
        (_, false) => minhash::REASON_AGAINST,
    }
}

/// The output folder of a build.
pub struct Build {
    out: PathBuf,
    work: PathBuf,
    parts: Parts,
}

/// A document in the work folder.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Its source.
    pub source: String,
    /// Its name there.
    pub id: String,
    /// Its id, as 16 hexadecimal digits.
    pub document_id: String,
    /// Its family.
    pub family: String,
    /// Which text of the family it is.
    pub variant: u8,
    /// Bytes of its text as read.
    pub raw_bytes: u32,
    /// The file it was read from.
    pub file: String,
    /// Which part of the file was read with it, in words; empty for all of it.
    pub slice: String,
    /// Its number among the documents of the file or of this part of it, from 0.
    pub row: u32,
    /// How many other documents of its source have the same name.
    pub alike: u64,
    /// Whether filters kept it and deduplication and cuts did not remove it.
    #[serde(skip)]
    survives: bool,
    /// Hash of its text.
    #[serde(skip)]
    text_hash: TextHash,
    /// What filters measured of it.
    #[serde(skip)]
    pub filters: Vec<Looked>,
    /// The normalized text after rewriting rules.
    #[serde(skip)]
    pub text: String,
}

/// A removed duplicate and the document that stayed.
#[derive(Clone, Debug, Serialize)]
pub struct DuplicateOf {
    /// The row of the audit table.
    pub audit: AuditRow,
    /// How the texts differ, if the kept one is in the work folder.
    pub difference: Option<Difference>,
}

/// Where a document is in the shards.
#[derive(Clone, Debug, Serialize)]
pub struct InShard {
    /// Name of the shard.
    pub shard: String,
    /// Its number there, from 0.
    pub document: u32,
    /// Documents of the shard.
    pub n_documents: u32,
    /// Its tokens.
    pub tokens: u64,
}

/// The whole provenance of a document.
#[derive(Clone, Debug, Serialize)]
pub struct Provenance {
    /// `kept`, the reason it was dropped for, or `unknown` when the build did not reach its end.
    pub fate: String,
    /// The document.
    pub document: Found,
    /// All its measurements, including filters after the one that dropped it.
    pub filters: Vec<Looked>,
    /// Rows of the audit tables of dropped documents.
    pub dropped: Vec<AuditRow>,
    /// What it was a duplicate of.
    pub duplicate_of: Vec<DuplicateOf>,
    /// Documents removed as duplicates of this one.
    pub stands_for: Vec<AuditRow>,
    /// What was cut from it.
    pub cuts: Vec<AuditRow>,
    /// Text of evaluation sets that was found in it.
    pub contamination: Vec<AuditRow>,
    /// Where it is now.
    pub shards: Vec<InShard>,
}

impl Build {
    /// Opens the folder of a build.
    ///
    /// # Errors
    /// It is not a build, or its work folder was deleted.
    pub fn open(out: &Path) -> Result<Build> {
        let work = out.join("work");
        if !work.join(crate::tables::parts::FILE).exists() {
            let message = "has no work/parts.json; build into this folder first (provenance is read from the work folder of a build)";
            return Err(Error::Usage(format!("{} {message}", out.display())));
        }
        Ok(Build { out: out.to_owned(), parts: Parts::read(&work)?, work })
    }

    /// The documents that a name means: `source/name`, or a name in any source.
    ///
    /// # Errors
    /// A part is missing or damaged.
    pub fn find(&self, name: &str) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for part in &self.parts.parts {
            let inner = name.strip_prefix(&part.source).and_then(|rest| rest.strip_prefix('/'));
            let is_wanted = |id: &str| id == name || Some(id) == inner;
            let mut raw_bytes = BTreeMap::new();
            for batch in DocumentBatches::open(&self.work.join(&part.read), Columns::Ids)? {
                let batch = batch?;
                let wanted = batch.documents().filter(|(_, document)| is_wanted(document.id));
                raw_bytes.extend(wanted.map(|(row, document)| (row, document.raw_bytes)));
            }
            if raw_bytes.is_empty() {
                continue;
            }
            let families = Families::read(&self.work.join(&part.families))?;
            let survivors = rows::survivors(&self.work.join(&part.kept), &self.work.join(&part.removed))?;
            for batch in DocumentBatches::open(&self.work.join(&part.documents), Columns::All)? {
                for (row, document) in batch?.documents() {
                    let Some(&raw_bytes) = raw_bytes.get(&row) else { continue };
                    let document = families.place(row, document);
                    let (file, row_of_file) = part.place_of(row);
                    found.push(Found {
                        source: part.source.clone(),
                        id: document.id.to_owned(),
                        document_id: document.document_id.to_string(),
                        family: format!("{:016x}", document.family.0),
                        variant: document.variant,
                        raw_bytes,
                        file: file.display().to_string(),
                        slice: part.slice.clone(),
                        row: row_of_file,
                        alike: 0,
                        survives: survivors.binary_search_by_key(&row, |kept| kept.row).is_ok(),
                        text_hash: document.text_hash,
                        filters: self.filters(part, row)?,
                        text: document.text.to_owned(),
                    });
                }
            }
        }
        let names: Vec<(String, String)> =
            found.iter().map(|found| (found.source.clone(), found.id.clone())).collect();
        for found in &mut found {
            let same = names.iter().filter(|(source, id)| (source, id) == (&found.source, &found.id));
            found.alike = same.count() as u64 - 1;
        }
        Ok(found)
    }

    /// Measurements of a document of a part.
    fn filters(&self, part: &PartPlace, row: u32) -> Result<Vec<Looked>> {
        let Some(measures) = &part.measures else { return Ok(Vec::new()) };
        let path = self.work.join(measures);
        let chain = Chain::new(&part.filters).map_err(Error::Usage)?;
        let mut measures = Measures::open(&path)?;
        chain.explain(measures.row(row)?).map_err(|message| Error::data(&path, message))
    }

    /// Text of a document, if it is in the work folder.
    ///
    /// # Errors
    /// A part is missing or damaged.
    pub fn text(&self, source: &str, id: &str) -> Result<Option<String>> {
        let name = (source.to_owned(), id.to_owned());
        Ok(self.texts(&BTreeSet::from([name.clone()]))?.remove(&name))
    }

    /// Texts of documents by source and name, if in the work folder; of several with one name, the first. Goes once over all
    /// names, and decodes only the texts of the rows around each document.
    ///
    /// # Errors
    /// A part is missing or damaged.
    pub fn texts(&self, wanted: &BTreeSet<(String, String)>) -> Result<BTreeMap<(String, String), String>> {
        let mut found = BTreeMap::new();
        for part in &self.parts.parts {
            let of_source = wanted.iter().filter(|name| name.0 == part.source && !found.contains_key(*name));
            let ids: HashSet<&str> = of_source.map(|name| name.1.as_str()).collect();
            if ids.is_empty() {
                continue;
            }
            let mut places: BTreeMap<&str, u32> = BTreeMap::new();
            for batch in DocumentBatches::open(&self.work.join(&part.read), Columns::Ids)? {
                for (row, document) in batch?.documents() {
                    if let Some(id) = ids.get(document.id) {
                        places.entry(*id).or_insert(row);
                    }
                }
            }
            for (id, row) in places {
                let path = self.work.join(&part.documents);
                if let Some(batch) = DocumentBatches::open_at(&path, Columns::All, row)?.next() {
                    let text = batch?.documents().next().map(|(_, document)| document.text.to_owned());
                    found.extend(text.map(|text| ((part.source.clone(), id.to_owned()), text)));
                }
            }
        }
        Ok(found)
    }

    /// The provenance of a document.
    ///
    /// # Errors
    /// A file of the build is missing or damaged.
    pub fn provenance(&self, document: Found) -> Result<Provenance> {
        let (source, id) = (document.source.as_str(), document.id.as_str());
        let own = [("source", source), ("id", id)];
        let shards = self.in_shards(source, &document)?;
        let is_about = |row: &AuditRow| document.alike == 0 || alike::is_about(row, &document);
        // If this document is in a shard, the removal applies to another one of its name.
        let is_kept = document.alike > 0 && !shards.is_empty();
        let rows = |prefix: &str| -> Result<Vec<AuditRow>> {
            let mut rows = audit::rows(&self.out, prefix, &own)?;
            rows.retain(is_about);
            Ok(rows)
        };
        let (mut dropped, cuts, contamination) = (rows("drops-")?, rows("cuts-")?, rows("contamination-")?);
        if is_kept {
            dropped.clear();
        }
        let mut duplicate_of = Vec::new();
        for row in audit::rows(&self.out, "dups-", &[("removed_source", source), ("removed", id)])? {
            if !is_about(&row) || (is_kept && !STAYING.contains(&str_of(&row, "method"))) {
                continue;
            }
            // The texts of other builds are elsewhere.
            let kept = match str_of(&row, "against") {
                "" => self.text(str_of(&row, "kept_source"), str_of(&row, "kept"))?,
                _ => None,
            };
            let difference = kept.map(|kept| words::difference(&document.text, &kept));
            duplicate_of.push(DuplicateOf { audit: row, difference });
        }
        let mut stands_for = audit::rows(&self.out, "dups-", &[("kept_source", source), ("kept", id)])?;
        stands_for.retain(|row| str_of(row, "against").is_empty());
        let removed = duplicate_of.iter().find(|row| !STAYING.contains(&str_of(&row.audit, "method")));
        let fate = match (dropped.first(), removed, shards.is_empty()) {
            (_, _, false) => "kept".to_owned(),
            (Some(drop), _, _) => str_of(drop, "reason").to_owned(),
            (None, Some(row), _) => reason_of_duplicate(&row.audit).to_owned(),
            _ => "unknown".to_owned(),
        };
        let filters = document.filters.clone();
        Ok(Provenance {
            fate,
            filters,
            dropped,
            duplicate_of,
            stands_for,
            cuts,
            contamination,
            shards,
            document,
        })
    }

    fn in_shards(&self, source: &str, document: &Found) -> Result<Vec<InShard>> {
        let mut found = Vec::new();
        if !self.out.join(Manifest::FILE).exists() || (document.alike > 0 && !document.survives) {
            return Ok(found);
        }
        let manifest = Manifest::read(&self.out)?;
        let of_source =
            |number: u16| manifest.sources.get(usize::from(number)).is_some_and(|s| s.name == source);
        for info in
            manifest.shards.iter().filter(|info| of_source(info.source) && info.variant == document.variant)
        {
            let shard = intact::open(&self.out, info)?;
            let path = texts::path(&self.out, &info.name);
            let texts = (document.alike > 0 && path.exists()).then(|| Texts::open(&path)).transpose()?;
            for doc in 0..shard.n_docs() {
                let is_it = |texts: &Texts| Ok::<bool, Error>(texts.hash(doc)? == document.text_hash);
                if shard.id(doc)? == document.id && texts.as_ref().map_or(Ok(true), is_it)? {
                    let tokens = shard.tokens(doc)?.len() as u64;
                    found.push(InShard {
                        shard: info.name.clone(),
                        document: doc,
                        n_documents: shard.n_docs(),
                        tokens,
                    });
                }
            }
        }
        Ok(found)
    }

    /// Rows of the audit of records of this name that were left out while reading: they are not documents.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn left_out(&self, name: &str) -> Result<Vec<AuditRow>> {
        let mut rows = Vec::new();
        let prefix = format!("drops-{}-", crate::stage::read::STAGE);
        audit::for_each(&self.out, &prefix, &[], |row| {
            let (source, id) = (str_of(&row, "source"), str_of(&row, "id"));
            let inner = name.strip_prefix(source).and_then(|rest| rest.strip_prefix('/'));
            if id == name || inner == Some(id) {
                rows.push(row);
            }
        })?;
        Ok(rows)
    }

    /// Lines of the quarantine whose first bytes hold `name` as a whole word: a record there is not a document and has no id.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn quarantined(&self, name: &str) -> Result<Vec<Value>> {
        let folder = self.out.join("quarantine");
        let mut found = Vec::new();
        let mut paths = Vec::new();
        if folder.exists() {
            for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "read"))? {
                paths.push(entry.map_err(Error::io(&folder, "read"))?.path());
            }
        }
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
            for line in text.lines() {
                let value: Value =
                    serde_json::from_str(line).map_err(|e| Error::data(&path, e.to_string()))?;
                let source = value["source"].as_str().unwrap_or_default();
                let inner = name.strip_prefix(source).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
                let is_place =
                    value["file"].as_str().is_some_and(|file| format!("{file}:{}", value["offset"]) == name);
                if is_place || value["first_bytes"].as_str().is_some_and(|bytes| holds_word(bytes, inner)) {
                    found.push(value);
                }
            }
        }
        Ok(found)
    }

    /// The output folder.
    pub fn out(&self) -> &Path {
        &self.out
    }
}

/// Whether `text` holds `word` with neither a letter, a digit nor a name character next to it: `1` is not in `doc-12`.
fn holds_word(text: &str, word: &str) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '+');
    !word.is_empty()
        && text.match_indices(word).any(|(at, _)| {
            let (before, behind) = (&text[..at], &text[at + word.len()..]);
            // The value of a JSON key begins after its colon.
            (!before.ends_with(is_of_name) || before.ends_with("\":")) && !behind.starts_with(is_of_name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_found_by_its_beginning() {
        for (word, found) in
            [("doc-1", false), ("doc-12", true), ("oc-12", false), ("12", false), ("7", true), ("", false)]
        {
            assert_eq!(holds_word("{\"id\":\"doc-12\",\"text\":7}", word), found, "{word}");
        }
    }
}
