//! What a record says about a document beside its text: quality, language, tags, date, score. All
//! are optional: a field that is absent, null or an empty text is unknown. A value of another type
//! or range is a bad record, since a typing error in the metadata would otherwise pass as unknown.

use arrow::array::{Array, ArrayRef, AsArray, LargeStringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Cause;
use super::fields::lookup;
use super::parquet::{find, is_string};
use crate::document::OwnedMetadata;
use arrow::array::{Float64Array, RecordBatch};

/// Longest tag, in bytes.
const MAX_TAG_BYTES: usize = 64;
/// Longest language code that RFC 5646 asks programs to hold.
const MAX_LANGUAGE_BYTES: usize = 35;
/// An ISO 8601 date with time, fraction and zone fits.
const MAX_DATE_BYTES: usize = 40;

/// Names of the fields with metadata, dotted for nested ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetadataFields {
    /// Quality: a bucket, or a number that `quality_edges` turns into one.
    pub quality: Option<String>,
    /// Ascending numbers; the bucket is how many of them are at most the field's value.
    pub quality_edges: Vec<f64>,
    /// Language code.
    pub language: Option<String>,
    /// A tag or a list of tags.
    pub tags: Option<String>,
    /// Date as ISO 8601 text.
    pub date: Option<String>,
    /// Score, a finite number.
    pub score: Option<String>,
}

impl MetadataFields {
    /// The keys of the recipe with the fields they name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let MetadataFields { quality, quality_edges: _, language, tags, date, score } = self;
        [("quality", quality), ("language", language), ("tags", tags), ("date", date), ("score", score)]
            .into_iter()
            .filter_map(|(key, field)| field.as_deref().map(|field| (key, field)))
    }

    /// Takes the metadata out of a JSON object.
    pub(super) fn extract(&self, object: &mut Value) -> Result<OwnedMetadata, Cause> {
        let mut field = |path: &Option<String>| match lookup(object, path.as_deref()?) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(value) => Some(value.take()),
        };
        let number = |value: Option<Value>, cause| match value {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(cause),
        };
        let text = |value: Option<Value>, cause| match value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(cause),
        };
        let tags = match field(&self.tags) {
            None => Vec::new(),
            Some(Value::String(tag)) => vec![tag],
            Some(Value::Array(items)) => {
                let texts = items.into_iter().map(|item| text(Some(item), Cause::BadTags));
                texts.filter_map(Result::transpose).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(Cause::BadTags),
        };
        self.checked(
            number(field(&self.quality), Cause::BadQuality)?,
            text(field(&self.language), Cause::BadLanguage)?,
            tags,
            text(field(&self.date), Cause::BadDate)?,
            number(field(&self.score), Cause::BadScore)?,
        )
    }

    fn checked(
        &self,
        quality: Option<f64>,
        language: Option<String>,
        tags: Vec<String>,
        date: Option<String>,
        score: Option<f64>,
    ) -> Result<OwnedMetadata, Cause> {
        if score.is_some_and(|score| !score.is_finite()) {
            return Err(Cause::BadScore);
        }
        if date.as_deref().is_some_and(|date| !is_date(date)) {
            return Err(Cause::BadDate);
        }
        Ok(OwnedMetadata {
            quality: quality.map(|value| self.bucket(value).ok_or(Cause::BadQuality)).transpose()?,
            language: language.map(|code| language_code(&code).ok_or(Cause::BadLanguage)).transpose()?,
            tags: tag_list(tags)?,
            date,
            score,
        })
    }

    /// The bucket of a value; `None` when it has none.
    fn bucket(&self, value: f64) -> Option<u8> {
        if !self.quality_edges.is_empty() {
            let below = self.quality_edges.iter().take_while(|edge| **edge <= value).count();
            return u8::try_from(below).ok().filter(|_| value.is_finite());
        }
        // The range check makes the cast exact.
        ((0.0..=255.0).contains(&value) && value.fract() == 0.0).then_some(value as u8)
    }
}

/// The usual spelling of a language code (RFC 5646, section 2.1.1): `en`, `eng-Latn`, `pt-BR`.
/// `None` when it does not look like one: a language of two or three letters, then parts of up to
/// eight letters or digits, between `-` or `_`.
fn language_code(code: &str) -> Option<String> {
    let mut parts = code.split(['-', '_']);
    let language = parts.next().filter(|part| matches!(part.len(), 2 | 3))?;
    let is_code = code.len() <= MAX_LANGUAGE_BYTES && language.bytes().all(|b| b.is_ascii_alphabetic());
    let mut out = is_code.then(|| language.to_ascii_lowercase())?;
    for part in parts {
        if !(1..=8).contains(&part.len()) || !part.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        out.push('-');
        let lower = part.to_ascii_lowercase();
        match part.len() {
            2 => out.push_str(&part.to_ascii_uppercase()),
            4 => out.push_str(&[lower[..1].to_ascii_uppercase().as_str(), &lower[1..]].concat()),
            _ => out.push_str(&lower),
        }
    }
    Some(out)
}

/// Sorted tags without repeats, one a line: a tag has no line end.
fn tag_list(mut tags: Vec<String>) -> Result<String, Cause> {
    let is_tag = |tag: &String| tag.len() <= MAX_TAG_BYTES && !tag.chars().any(char::is_control);
    tags.retain(|tag| !tag.is_empty());
    if !tags.iter().all(is_tag) {
        return Err(Cause::BadTags);
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags.join("\n"))
}

/// Whether a text starts with an ISO 8601 date (`2024`, `2024-05`, `2024-05-17`) that ends there
/// or goes on with a time. Such texts order like the times they name, within one zone.
fn is_date(text: &str) -> bool {
    let (date, time) = text.split_at(text.find(['T', ' ']).unwrap_or(text.len()));
    let digits = |part: &str, len, max| {
        part.len() == len
            && part.bytes().all(|b| b.is_ascii_digit())
            && (max == 0 || part.parse().is_ok_and(|n: u32| (1..=max).contains(&n)))
    };
    let parts: Vec<&str> = date.split('-').collect();
    let good = match parts[..] {
        [year] => digits(year, 4, 0) && time.is_empty(),
        [year, month] => digits(year, 4, 0) && digits(month, 2, 12) && time.is_empty(),
        [year, month, day] => digits(year, 4, 0) && digits(month, 2, 12) && digits(day, 2, 31),
        _ => false,
    };
    let is_time = |b: u8| b.is_ascii_digit() || b"TZ:.+- ,".contains(&b);
    good && text.len() <= MAX_DATE_BYTES && time.bytes().all(is_time) && time.len() != 1
}

/// The metadata columns of one batch.
#[derive(Default)]
pub(super) struct MetadataColumns {
    quality: Column<Float64Array>,
    language: Column<LargeStringArray>,
    tags: Column<Tags>,
    date: Column<LargeStringArray>,
    score: Column<Float64Array>,
}

/// A column, or what is in its place.
#[derive(Default)]
enum Column<A> {
    /// The file has none, or it is null throughout: unknown everywhere.
    #[default]
    Absent,
    /// It is of a type that cannot hold the value: rows that are not null are bad.
    WrongType(ArrayRef),
    Good(A),
}

enum Tags {
    One(LargeStringArray),
    List(ArrayRef),
}

impl MetadataColumns {
    pub fn of(batch: &RecordBatch, fields: &MetadataFields) -> MetadataColumns {
        MetadataColumns {
            quality: column(batch, &fields.quality, numbers),
            language: column(batch, &fields.language, texts),
            tags: column(batch, &fields.tags, tags),
            date: column(batch, &fields.date, dates),
            score: column(batch, &fields.score, numbers),
        }
    }

    pub fn row(&self, row: usize, fields: &MetadataFields) -> Result<OwnedMetadata, Cause> {
        let number = |a: &Float64Array| Ok(a.is_valid(row).then(|| a.value(row)));
        let text = |a: &LargeStringArray| {
            let text = a.is_valid(row).then(|| a.value(row)).filter(|text| !text.is_empty());
            Ok(text.map(str::to_owned))
        };
        let tags = |tags: &Tags| match tags {
            Tags::One(column) => text(column),
            Tags::List(column) if column.is_null(row) => Ok(None),
            // Items are joined here and split below; a line end inside one is a bad tag.
            Tags::List(column) => items(column, row).map(Some),
        };
        let found: Option<String> = self.tags.value(row, Cause::BadTags, tags)?;
        let list = match (&self.tags, &found) {
            (Column::Good(Tags::List(_)), Some(items)) => items.split('\n').map(str::to_owned).collect(),
            _ => found.into_iter().collect(),
        };
        fields.checked(
            self.quality.value(row, Cause::BadQuality, number)?,
            self.language.value(row, Cause::BadLanguage, text)?,
            list,
            self.date.value(row, Cause::BadDate, text)?,
            self.score.value(row, Cause::BadScore, number)?,
        )
    }
}
