//! Stage 1: a slice of an input file to normalised documents. Records that cannot be documents go to
//! quarantine with their place; records of a kind that holds no document are counted among the dropped.
//!
//! Writes `documents.parquet`, and `quarantine.jsonl` when there is any.

use std::collections::BTreeSet;

use moe_shards::Names;
use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Report, Task};
use crate::document::{Count, DocumentId, TextHash, family_of_field, family_of_text};
use crate::error::{Error, Result};
use crate::normalize::{NormalizeConfig, normalize};
use crate::read::{self, Bad, Cause, FieldPaths, Format, Limits, Raw, Slice, Unit};
use crate::recipe::inputs::InputFile;
use crate::watch::Watch;
use crate::work::documents::{Document, DocumentWriter};
use crate::work::{DOCUMENTS, QUARANTINE};

/// What to read and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadParams {
    /// Name of the source.
    pub source: String,
    /// The file.
    pub input: InputFile,
    /// Which part of it.
    pub slice: Slice,
    /// Its format, where the recipe says it.
    pub format: Option<Format>,
    /// Names of the fields.
    pub fields: FieldPaths,
    /// Values of the variant field.
    pub variants: Vec<String>,
    /// Normal form.
    pub normalize: NormalizeConfig,
    /// What a record and a file may ask for.
    pub limits: Limits,
    /// Share of the texts that is passed on, per million, by hash of the text; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
}

/// Whether a text is in a sample of so many per million; a larger sample holds every smaller one.
fn is_sampled(text: TextHash, per_million: u32) -> bool {
    (text.0 >> 64) * 1_000_000 < u128::from(per_million) << 64
}

/// Runs the stage.
///
/// # Errors
/// The file or the disk cannot be used; bad content is not an error.
pub fn run(task: &Task, params: &ReadParams, watch: &Watch) -> Result<Report> {
    let input = &params.input;
    let mut reader =
        read::open(&input.path, &input.name, params.format, params.slice, &params.fields, params.limits)?;
    let mut documents = DocumentWriter::create(&task.file(DOCUMENTS))?;
    let mut quarantine = Quarantine { task, file: None };
    let mut report = Report::default();
    let mut consumed = 0;
    while let Some(record) = reader.next_record()? {
        let text_bytes = record.content.as_ref().map_or(record.n_bytes, |raw| raw.text.len() as u64);
        let count = Count { docs: record.n_records, bytes: text_bytes };
        report.read += count;
        if let Ok(raw) = &record.content {
            report.tags.extend(raw.metadata.as_ref().tags().map(str::to_owned));
            check_tags(&report.tags, &params.source)?;
        }
        let accepted = record.content.and_then(|raw| accept(params, raw, &mut documents));
        match accepted {
            Ok(written) => {
                if written? {
                    report.kept += count;
                }
            }
            Err(bad) if bad.cause.is_skipped() => {
                *report.dropped.entry(bad.cause.name().to_owned()).or_default() += count;
            }
            Err(bad) => {
                let place = quarantine.add(params, (record.offset, reader.unit()), &bad)?;
                *report.quarantined.entry(bad.cause.name().to_owned()).or_default() += count;
                report.first_bad.entry(bad.cause.name().to_owned()).or_insert(place);
            }
        }
        let now = reader.consumed_bytes();
        watch.advance(now - consumed)?;
        consumed = now;
    }
    documents.finish()?;
    quarantine.finish()?;
    Ok(report)
}

/// A shard has a bit for each tag, so a field that is no small set of tags ends the build at once.
///
/// # Errors
/// There are more tags than bits.
pub fn check_tags(tags: &BTreeSet<String>, source: &str) -> Result<()> {
    if tags.len() <= Names::MAX_TAGS {
        return Ok(());
    }
    let all: Vec<&str> = tags.iter().map(String::as_str).collect();
    let message = format!(
        "source `{source}`: more than {} tags in the data set (`{}`); let `tags` name a field with fewer, or leave it out",
        Names::MAX_TAGS,
        all.join("`, `")
    );
    Err(Error::Usage(message))
}

/// Normalises a record and appends it, unless there is a sample and it is not in it; the outer error is the record's
/// fault.
fn accept(
    params: &ReadParams,
    raw: Raw,
    documents: &mut DocumentWriter,
) -> std::result::Result<Result<bool>, Bad> {
    let bad = |cause| Bad::new(cause, raw.text.as_bytes());
    let variant = match (&params.fields.variant, &raw.variant) {
        (None, _) => 0,
        (Some(_), None) => return Err(bad(Cause::MissingVariant)),
        (Some(_), Some(value)) => {
            let known = params.variants.iter().position(|variant| variant == value);
            known.and_then(|i| u8::try_from(i).ok()).ok_or_else(|| bad(Cause::UnknownVariant))?
        }
    };
    let text = normalize(&raw.text, params.normalize);
    if text.trim().is_empty() {
        return Err(bad(Cause::EmptyText));
    }
    // `max_doc_bytes` is below 2^32, but one text file may grow while it is read.
    let Ok(raw_bytes) = u32::try_from(raw.text.len()) else { return Err(bad(Cause::TooLong)) };
    let text_hash = TextHash::of(&text);
    if params.sample.is_some_and(|per_million| !is_sampled(text_hash, per_million)) {
        return Ok(Ok(false));
    }
    let id = raw.id.clone().unwrap_or_else(|| text_hash.as_id());
    let family = raw
        .family
        .as_ref()
        .map_or_else(|| family_of_text(&text), |value| family_of_field(&params.source, value));
    let document_id = DocumentId::new(&params.source, &id);
    let document = Document {
        id: &id,
        document_id,
        family,
        variant,
        raw_bytes,
        text_hash,
        metadata: raw.metadata.as_ref(),
        text: &text,
    };
    Ok(documents.append(&document).map(|()| true))
}

struct Quarantine<'a> {
    task: &'a Task,
    file: Option<AtomicFile>,
}

impl Quarantine<'_> {
    /// Writes a line, and returns the place as text.
    fn add(&mut self, params: &ReadParams, (offset, unit): (u64, Unit), bad: &Bad) -> Result<String> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => AtomicFile::create(&self.task.file(QUARANTINE))?,
        };
        let path = params.input.path.display();
        let unit = unit.in_words();
        let line = json!({
            "source": params.source,
            "file": path.to_string(),
            "offset": offset,
            "unit": unit,
            "cause": bad.cause.name(),
            "first_bytes": String::from_utf8_lossy(&bad.first_bytes),
        });
        file.write(format!("{line}\n").as_bytes())?;
        self.file = Some(file);
        Ok(format!("{path}, {unit} {offset}"))
    }

    fn finish(self) -> Result<()> {
        self.file.map_or(Ok(()), |file| file.commit().map_err(Error::from))
    }
}
