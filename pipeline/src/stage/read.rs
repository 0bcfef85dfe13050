//! Stage 1: a slice of an input file, or several small files, to normalized documents. Records that cannot be documents go to
//! quarantine with their place; records of kinds without documents are counted as dropped.
//!
//! Writes `documents.parquet` and `ids.rows`, and, if not empty, `quarantine.jsonl` and `drops.parquet`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use moe_shards::Names;
use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Report, Stage};
use crate::chat::{Chat, ChatParams, Marks, Refusal, Why};
use crate::document::{Count, DocumentId, Metadata, TextHash, family_of_field, family_of_text};
use crate::error::{Error, Result};
use crate::normalize::{NormalizeConfig, normalize};
use crate::read::{self, Bad, Cause, Charset, FieldPaths, Form, Format, Limits, Raw, Reader, Slice};
use crate::recipe::inputs::InputFile;
use crate::tables::audit::{Drop, Drops};
use crate::tables::documents::{Document, DocumentWriter};
use crate::tables::rows::{self, IdRow};
use crate::tables::{DOCUMENT_IDS, DOCUMENTS, DROPS, QUARANTINE};
use crate::watch::Watch;

/// What to read and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadParams {
    /// Name of the source.
    pub source: String,
    /// The files, in order.
    pub inputs: Vec<InputFile>,
    /// Which part of the file, if it is the only one.
    pub slice: Slice,
    /// Its format, if the recipe names it.
    pub format: Option<Format>,
    /// Its encoding, if the recipe names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Charset>,
    /// Names of the fields.
    pub fields: FieldPaths,
    /// How conversations become text, if the records are conversations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatParams>,
    /// Values of the variant field.
    pub variants: Vec<String>,
    /// Normal form.
    pub normalize: NormalizeConfig,
    /// Limits of a record and a file.
    pub limits: Limits,
    /// Share of the texts to pass on, per million, by hash of the text; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// Most records to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Whether a text is in a sample of this many per million; larger samples contain smaller ones.
fn is_sampled(text: TextHash, per_million: u32) -> bool {
    (text.0 >> 64) * 1_000_000 < u128::from(per_million) << 64
}

impl Stage for ReadParams {
    const NAME: &'static str = "read";
    type Inputs = ();

    /// # Errors
    /// The file or the disk cannot be used; bad content is not an error.
    fn run(&self, _: &(), folder: &Path, watch: &Watch) -> Result<Report> {
        let chat = self.chat.as_ref().map(Chat::new).transpose();
        let mut reading = Reading {
            params: self,
            chat: chat.map_err(|message| Error::Usage(format!("source `{}`: {message}", self.source)))?,
            documents: DocumentWriter::create(&folder.join(DOCUMENTS))?,
            quarantine: Quarantine { folder, file: None },
            drops: Drops::default(),
            ids: Vec::new(),
            report: Report::default(),
        };
        for input in &self.inputs {
            let before = reading.report.kept.docs;
            input.unchanged(|| reading.file(input, watch))?;
            reading.report.documents_of_files.push(reading.report.kept.docs - before);
        }
        let Reading { documents, quarantine, drops, mut ids, mut report, .. } = reading;
        documents.finish()?;
        quarantine.finish()?;
        drops.write(&folder.join(DROPS))?;
        ids.sort_unstable();
        rows::write(&folder.join(DOCUMENT_IDS), &ids)?;
        if self.inputs.len() == 1 {
            report.documents_of_files.clear();
        }
        Ok(report)
    }
}

/// The files of a task, on their way into its tables.
struct Reading<'a> {
    params: &'a ReadParams,
    chat: Option<Chat>,
    documents: DocumentWriter,
    quarantine: Quarantine<'a>,
    drops: Drops,
    ids: Vec<IdRow>,
    report: Report,
}

impl Reading<'_> {
    fn file(&mut self, input: &InputFile, watch: &Watch) -> Result<()> {
        let params = self.params;
        let report = &mut self.report;
        let form = Form { format: params.format, encoding: params.encoding };
        let mut reader =
            read::open(&input.path, &input.name, form, params.slice, &params.fields, params.limits)?;
        let mut consumed = 0;
        loop {
            if params.limit.is_some_and(|limit| report.read.docs >= limit) {
                break;
            }
            let Some(record) = reader.next_record()? else { break };
            let text_bytes = record.content.as_ref().map_or(record.n_bytes, |raw| raw.text.len() as u64);
            let count = Count { docs: record.n_records, bytes: text_bytes };
            report.read += count;
            if let Ok(raw) = &record.content {
                report.tags.extend(raw.metadata.as_ref().tags().map(str::to_owned));
                check_tags(&report.tags, &params.source)?;
                if let Some(encoding) = raw.guessed {
                    report.guessed.entry(encoding.to_owned()).or_default().add(reader.member(), &input.name);
                }
            }
            let accepted =
                record.content.and_then(|raw| accept(params, self.chat.as_ref(), raw, &mut self.documents));
            match accepted {
                Ok(written) => {
                    if let Some(document_id) = written? {
                        report.kept += count;
                        self.ids.push(IdRow { document_id: document_id.0 });
                    }
                }
                Err(bad) if bad.cause.is_skipped() => {
                    *report.dropped.entry(bad.cause.name().to_owned()).or_default() += count;
                    let left = skipped(&params.source, &input.name, &bad, record.offset, count.bytes);
                    self.drops.push(&left.as_drop(&params.source, &bad));
                    if bad.cause == Cause::UnreadableFormat {
                        report.unreadable.entry(bad.detail).or_default().add(reader.member(), &input.name);
                    }
                }
                Err(bad) => {
                    let place =
                        self.quarantine.add((&params.source, input), (record.offset, &*reader), &bad)?;
                    *report.quarantined.entry(bad.cause.name().to_owned()).or_default() += count;
                    report.first_bad.entry(bad.cause.name().to_owned()).or_insert(place);
                }
            }
            let now = reader.consumed_bytes();
            watch.advance_by_document(now - consumed)?;
            consumed = now;
        }
        report.fields_seen |= reader.seen();
        Ok(())
    }
}

/// Note about a skipped record.
struct Left {
    id: String,
    document_id: DocumentId,
    raw_bytes: u64,
}

fn skipped(source: &str, file: &str, bad: &Bad, offset: u64, raw_bytes: u64) -> Left {
    let id = bad.id.clone().unwrap_or_else(|| format!("{file}:{offset}"));
    Left { document_id: DocumentId::new(source, &id), id, raw_bytes }
}

impl Left {
    fn as_drop<'a>(&'a self, source: &'a str, bad: &Bad) -> Drop<'a> {
        Drop {
            id: &self.id,
            document_id: self.document_id,
            source,
            stage: STAGE,
            reason: bad.cause.name(),
            measured: bad.measured.map_or(f64::NAN, f64::from),
            threshold: f64::NAN,
            raw_bytes: self.raw_bytes,
        }
    }
}

/// Longest description of what is wrong with a conversation.
const MAX_DETAIL_BYTES: usize = 300;

/// Name of the stage in its audit of dropped records.
pub const STAGE: &str = "read";

/// A shard has a bit for each tag, so a field with more distinct values ends the build at once.
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

/// Normalizes a record and appends it, unless there is a sample and it is not in it, and returns its id; the outer error is
/// the record's fault.
fn accept(
    params: &ReadParams,
    chat: Option<&Chat>,
    raw: Raw,
    documents: &mut DocumentWriter,
) -> std::result::Result<Result<Option<DocumentId>>, Bad> {
    let bad = |cause| Bad::new(cause, raw.text.as_bytes());
    let variant = match (&params.fields.variant, &raw.variant) {
        (None, _) => 0,
        (Some(_), None) => return Err(bad(Cause::MissingVariant)),
        (Some(_), Some(value)) => {
            let known = params.variants.iter().position(|variant| variant == value);
            known.and_then(|i| u8::try_from(i).ok()).ok_or_else(|| bad(Cause::UnknownVariant))?
        }
    };
    let (text, marks) = match chat {
        None => (normalize(&raw.text, params.normalize), String::new()),
        Some(chat) => {
            let (text, marks) = conversation(params, chat, &raw)?;
            (Cow::Owned(text), marks.to_text())
        }
    };
    if text.trim().is_empty() {
        return Err(bad(Cause::EmptyText));
    }
    // `max_doc_bytes` is below 2^32, but one text file may grow while it is read.
    let Ok(raw_bytes) = u32::try_from(raw.text.len()) else { return Err(bad(Cause::TooLong)) };
    let text_hash = TextHash::of(&text);
    if params.sample.is_some_and(|per_million| !is_sampled(text_hash, per_million)) {
        return Ok(Ok(None));
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
        metadata: Metadata { marks: &marks, ..raw.metadata.as_ref() },
        text: &text,
    };
    Ok(documents.append(&document).map(|()| Some(document_id)))
}

/// The text of a conversation, and what is marked in it.
fn conversation(params: &ReadParams, chat: &Chat, raw: &Raw) -> std::result::Result<(String, Marks), Bad> {
    let normalized = |text: &str| match normalize(text, params.normalize) {
        Cow::Owned(text) => Some(text),
        // A borrowed text may lack a byte order mark at its start.
        Cow::Borrowed(same) => (same.len() < text.len()).then(|| same.to_owned()),
    };
    chat.document(&raw.text, &normalized).map_err(|Refusal { why, mut detail }| {
        // A template's error may hold as much as the record does.
        if detail.len() > MAX_DETAIL_BYTES {
            detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
            detail.push_str(" ...");
        }
        let cause = match why {
            Why::BadMessages => Cause::BadMessages,
            Why::EmptyAnswer => Cause::EmptyAnswer,
            Why::NoAnswer => Cause::NoAnswer,
            Why::Template => Cause::ChatTemplate,
        };
        Bad { detail, ..Bad::new(cause, raw.text.as_bytes()) }
    })
}

struct Quarantine<'a> {
    folder: &'a Path,
    file: Option<AtomicFile>,
}

impl Quarantine<'_> {
    /// Writes a line, and returns the place as text.
    fn add(
        &mut self,
        (source, input): (&str, &InputFile),
        (offset, reader): (u64, &dyn Reader),
        bad: &Bad,
    ) -> Result<String> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => AtomicFile::create(&self.folder.join(QUARANTINE))?,
        };
        let path = input.path.display();
        let unit = reader.unit().in_words();
        let mut line = json!({
            "source": source,
            "file": path.to_string(),
            "offset": offset,
            "unit": unit,
            "cause": bad.cause.name(),
            "first_bytes": String::from_utf8_lossy(&bad.first_bytes),
        });
        let mut add = |key: &str, value: Option<&str>| {
            if let (Some(value), Some(map)) = (value.filter(|value| !value.is_empty()), line.as_object_mut())
            {
                map.insert(key.to_owned(), value.into());
            }
        };
        add("member", reader.member());
        add("detail", Some(&bad.detail));
        file.write(format!("{line}\n").as_bytes())?;
        self.file = Some(file);
        let member = reader.member().map_or_else(String::new, |name| format!(", {name}"));
        let detail = if bad.detail.is_empty() { String::new() } else { format!(" ({})", bad.detail) };
        Ok(format!("{path}{member}, {unit} {offset}{detail}"))
    }

    fn finish(self) -> Result<()> {
        self.file.map_or(Ok(()), |file| file.commit().map_err(Error::from))
    }
}
