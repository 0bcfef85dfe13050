//! Reads evaluation sets. The last index is kept, so that all tasks of a build share one.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::decontaminate::{Index, IndexBuilder, Settings, TextId};
use crate::error::{Error, Result};
use crate::normalize::{NormalizeConfig, normalize};
use crate::read::{self, FieldPaths, Slice};
use crate::recipe::inputs::InputFile;

/// An evaluation set on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Benchmark {
    /// Its name.
    pub name: String,
    /// Its files.
    pub files: Vec<InputFile>,
    /// The fields that are looked for.
    pub fields: Vec<String>,
    /// Prefix to remove from values.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

/// Evaluation sets, ready to be looked for.
#[derive(Debug)]
pub struct Loaded {
    /// The index.
    pub index: Index,
    /// For each benchmark, the texts used for canaries.
    pub canaries: Vec<Vec<(TextId, String)>>,
    /// Records of each benchmark.
    pub n_records: Vec<u64>,
}

/// Canaries of a benchmark.
const CANARIES: usize = 200;
/// Longest record of an evaluation set.
const MAX_RECORD_BYTES: u64 = 64 << 20;

type Kept = Option<(Settings, Vec<Benchmark>, Arc<Loaded>)>;

static LAST: Mutex<Kept> = Mutex::new(None);

/// The index of these benchmarks; the same as for the last call with the same arguments.
///
/// # Errors
/// As [`load`].
pub fn shared(benchmarks: &[Benchmark], settings: &Settings) -> Result<Arc<Loaded>> {
    // Held while loading: the other threads want the same one.
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((kept_settings, kept, loaded)) = &*last
        && (kept_settings, kept.as_slice()) == (settings, benchmarks)
    {
        return Ok(loaded.clone());
    }
    let loaded = Arc::new(load(benchmarks, settings)?);
    *last = Some((*settings, benchmarks.to_vec(), loaded.clone()));
    Ok(loaded)
}

/// Reads all texts of the benchmarks.
///
/// # Errors
/// A file cannot be read, a record lacks a field, or a benchmark has no text that is long enough to be looked for.
pub fn load(benchmarks: &[Benchmark], settings: &Settings) -> Result<Loaded> {
    let mut builder = IndexBuilder::new(*settings);
    let mut canaries = Vec::new();
    let mut n_records = Vec::new();
    for (number, benchmark) in benchmarks.iter().enumerate() {
        let mut texts = Vec::new();
        let mut records = 0;
        for (field_number, field) in benchmark.fields.iter().enumerate() {
            records = 0;
            for file in &benchmark.files {
                for_each_text(file, field, |text| {
                    let text = text.strip_prefix(&benchmark.prefix).map(str::to_owned).unwrap_or(text);
                    let id = builder.add(number as u16, records, field_number as u16, &text);
                    texts.extend(id.map(|id| (id, text)));
                    records += 1;
                })?;
            }
        }
        if texts.is_empty() {
            let message = format!(
                "benchmark `{}` has no text of {} words or more in `{}`; name other fields, or lower decontaminate.min_words",
                benchmark.name,
                settings.min_words,
                benchmark.fields.join("`, `")
            );
            return Err(Error::Usage(message));
        }
        // The order of hashes is as good as chance, and the same for any order of the files.
        texts.sort_unstable_by_key(|(id, text)| (xxh3_64(text.as_bytes()), *id));
        texts.dedup_by_key(|(id, _)| *id);
        texts.truncate(CANARIES);
        canaries.push(texts);
        n_records.push(records);
    }
    Ok(Loaded { index: builder.finish(), canaries, n_records })
}

/// Calls `take` with the normalized text of each record, which may be empty.
fn for_each_text(file: &InputFile, field: &str, take: impl FnMut(String)) -> Result<()> {
    file.unchanged(|| read_texts(file, field, take))
}

fn read_texts(file: &InputFile, field: &str, mut take: impl FnMut(String)) -> Result<()> {
    let fields = FieldPaths { text: field.to_owned(), ..FieldPaths::default() };
    let limits = read::Limits { max_doc_bytes: MAX_RECORD_BYTES, ..read::Limits::default() };
    let mut reader = read::open(&file.path, &file.name, None, Slice::Whole, &fields, limits)?;
    while let Some(record) = reader.next_record()? {
        match record.content {
            Ok(raw) => take(normalize(&raw.text, NormalizeConfig::default()).into_owned()),
            Err(bad) if bad.cause == read::Cause::EmptyText => take(String::new()),
            Err(bad) => {
                let message = format!(
                    "the record at {} has no evaluation text in the field `{field}`: {}; fix it, or name another field",
                    record.offset,
                    bad.cause.name()
                );
                return Err(Error::data(&file.path, message));
            }
        }
    }
    Ok(())
}
