//! A document's metadata: quality, language, tags, date, score. All
//! are optional: a field that is absent, null or an empty text is unknown. A value of another type
//! or range is a bad record, since a typing error in the metadata would otherwise pass as unknown.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, LargeListArray, LargeStringArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Cause;
use super::dotted::{as_text, find, is_string, lookup};
use crate::document::OwnedMetadata;

/// Longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 64;
/// Longest language code that RFC 5646 asks programs to hold.
const MAX_LANGUAGE_BYTES: usize = 35;
/// An ISO 8601 date with time, fraction and zone fits.
const MAX_DATE_BYTES: usize = 40;

/// Names of the fields with metadata, dotted for nested ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetadataFields {
    /// Quality: a bucket, or a number that `quality_edges` turns into one.
    pub quality: Option<String>,
    /// Ascending numbers; the bucket is the number of edges at most the field's value.
    pub quality_edges: Vec<f64>,
    /// Language code.
    pub language: Option<String>,
    /// A tag or a list of tags.
    pub tags: Option<String>,
    /// Date as ISO 8601 text.
    pub date: Option<String>,
    /// Score, a finite number.
    pub score: Option<String>,
    /// URL of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl MetadataFields {
    /// The keys of the recipe with the fields they name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let MetadataFields { quality, quality_edges: _, language, tags, date, score, url } = self;
        let texts = [("language", language), ("tags", tags), ("date", date), ("url", url)];
        [("quality", quality), ("score", score)]
            .into_iter()
            .chain(texts)
            .filter_map(|(key, field)| field.as_deref().map(|field| (key, field)))
    }

    /// Fields that hold numbers.
    pub(super) fn numbers(&self) -> Vec<&str> {
        [&self.quality, &self.score].into_iter().flatten().map(String::as_str).collect()
    }

    /// Takes the metadata out of a JSON object.
    pub(super) fn extract(&self, object: &mut Value) -> Result<OwnedMetadata, Cause> {
        let mut field = |path: &Option<String>| match lookup(object, path.as_deref()?) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            // Copied, since two keys may name the same field, such as a score and its bucket.
            Some(value) => Some(value.clone()),
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
            text(field(&self.url), Cause::BadUrl)?,
        )
    }

    fn checked(
        &self,
        quality: Option<f64>,
        language: Option<String>,
        tags: Vec<String>,
        date: Option<String>,
        score: Option<f64>,
        url: Option<String>,
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
            url,
            ..OwnedMetadata::default()
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

/// The usual form of a language code (RFC 5646, section 2.1.1): `en`, `eng-Latn`, `pt-BR`.
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

/// Sorted tags without repeats, one per line, since a tag has no line end.
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
/// or continues with a time. Such texts sort like the times they name, within one zone.
pub(super) fn is_date(text: &str) -> bool {
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
    url: Column<LargeStringArray>,
}

/// A column, or its substitute.
#[derive(Default)]
enum Column<A> {
    /// The file has none, or it is null throughout: unknown everywhere.
    #[default]
    Absent,
    /// Its type cannot hold the value: rows that are not null are bad.
    WrongType(ArrayRef),
    Good(A),
}

enum Tags {
    One(LargeStringArray),
    List(LargeListArray),
}

impl MetadataColumns {
    pub fn of(batch: &RecordBatch, fields: &MetadataFields) -> MetadataColumns {
        MetadataColumns {
            quality: column(batch, &fields.quality, numbers),
            language: column(batch, &fields.language, texts),
            tags: column(batch, &fields.tags, tags),
            date: column(batch, &fields.date, dates),
            score: column(batch, &fields.score, numbers),
            url: column(batch, &fields.url, texts),
        }
    }

    pub fn row(&self, row: usize, fields: &MetadataFields) -> Result<OwnedMetadata, Cause> {
        let number = |a: &Float64Array| Ok(a.is_valid(row).then(|| a.value(row)));
        let tags = |tags: &Tags| match tags {
            Tags::One(column) => Ok(text_at(column, row).map(|tag| vec![tag])),
            Tags::List(column) if column.is_null(row) => Ok(None),
            Tags::List(column) => items(column, row).map(Some),
        };
        let text = |a: &LargeStringArray| Ok(text_at(a, row));
        fields.checked(
            self.quality.value(row, Cause::BadQuality, number)?,
            self.language.value(row, Cause::BadLanguage, text)?,
            self.tags.value(row, Cause::BadTags, tags)?.unwrap_or_default(),
            self.date.value(row, Cause::BadDate, text)?,
            self.score.value(row, Cause::BadScore, number)?,
            self.url.value(row, Cause::BadUrl, text)?,
        )
    }
}

impl<A> Column<A> {
    fn value<T>(
        &self,
        row: usize,
        cause: Cause,
        get: impl Fn(&A) -> Result<Option<T>, Cause>,
    ) -> Result<Option<T>, Cause> {
        match self {
            Column::Absent => Ok(None),
            Column::WrongType(column) if column.is_null(row) => Ok(None),
            Column::WrongType(_) => Err(cause),
            Column::Good(column) => get(column),
        }
    }
}

fn text_at(column: &LargeStringArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row)).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The texts of a list; a null in it is a bad tag, as in JSON.
fn items(column: &LargeListArray, row: usize) -> Result<Vec<String>, Cause> {
    let texts = texts(&column.value(row)).ok_or(Cause::BadTags)?;
    texts.iter().map(|item| item.map(str::to_owned).ok_or(Cause::BadTags)).collect()
}

fn column<A>(
    batch: &RecordBatch,
    path: &Option<String>,
    convert: impl Fn(&ArrayRef) -> Option<A>,
) -> Column<A> {
    match path.as_deref().and_then(|path| find(batch, path)) {
        None => Column::Absent,
        Some(column) if *column.data_type() == DataType::Null => Column::Absent,
        Some(column) => convert(&column).map_or(Column::WrongType(column), Column::Good),
    }
}

fn numbers(column: &ArrayRef) -> Option<Float64Array> {
    column
        .data_type()
        .is_numeric()
        .then(|| cast(column, &DataType::Float64).ok())??
        .as_primitive_opt()
        .cloned()
}

fn texts(column: &ArrayRef) -> Option<LargeStringArray> {
    is_string(column.data_type()).then(|| as_text(column.clone()))?
}

/// Dates and timestamps have an ISO 8601 form as well as texts.
fn dates(column: &ArrayRef) -> Option<LargeStringArray> {
    let kind = column.data_type();
    let is_date = matches!(kind, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
    (is_date || is_string(kind)).then(|| as_text(column.clone()))?
}

fn tags(column: &ArrayRef) -> Option<Tags> {
    let item = match column.data_type() {
        DataType::List(item) | DataType::LargeList(item) => item.clone(),
        _ => return texts(column).map(Tags::One),
    };
    let list = || cast(column, &DataType::LargeList(item.clone())).ok();
    is_string(item.data_type()).then(list)??.as_list_opt().cloned().map(Tags::List)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Int64Array, ListBuilder, NullArray, StringArray, StringBuilder};
    use serde_json::json;

    use super::*;

    fn fields(quality_edges: &[f64]) -> MetadataFields {
        let name = |name: &str| Some(name.to_owned());
        MetadataFields {
            quality: name("m.quality"),
            quality_edges: quality_edges.to_vec(),
            language: name("lang"),
            tags: name("tags"),
            date: name("date"),
            score: name("score"),
            url: name("url"),
        }
    }

    fn check(edges: &[f64], mut object: Value, expected: Result<OwnedMetadata, Cause>) {
        assert_eq!(fields(edges).extract(&mut object), expected, "{object}");
    }

    #[test]
    fn json_fields_are_read_and_absent_ones_unknown() {
        let all = json!({ "m": { "quality": 7 }, "lang": "EN_latn-us", "tags": ["b", "a", "b", ""], "date": "2024-05", "score": -1.5, "url": "http://a.example/" });
        let found = OwnedMetadata {
            quality: Some(7),
            language: Some("en-Latn-US".into()),
            tags: "a\nb".into(),
            date: Some("2024-05".into()),
            score: Some(-1.5),
            url: Some("http://a.example/".into()),
            ..OwnedMetadata::default()
        };
        check(&[], all, Ok(found));
        check(&[], json!({ "lang": null, "tags": [], "date": "", "m": 3 }), Ok(OwnedMetadata::default()));
        check(
            &[],
            json!({ "tags": "x" }),
            Ok(OwnedMetadata { tags: "x".into(), ..OwnedMetadata::default() }),
        );
    }

    #[test]
    fn wrong_types_and_ranges_are_bad_records() {
        for (object, cause) in [
            (json!({ "m": { "quality": 256 } }), Cause::BadQuality),
            (json!({ "m": { "quality": -1 } }), Cause::BadQuality),
            (json!({ "m": { "quality": 0.5 } }), Cause::BadQuality),
            (json!({ "m": { "quality": "3" } }), Cause::BadQuality),
            (json!({ "lang": "english" }), Cause::BadLanguage),
            (json!({ "lang": "en--us" }), Cause::BadLanguage),
            (json!({ "lang": 3 }), Cause::BadLanguage),
            (json!({ "lang": ["en"] }), Cause::BadLanguage),
            (json!({ "tags": [1] }), Cause::BadTags),
            (json!({ "tags": "a\nb" }), Cause::BadTags),
            (json!({ "tags": { "a": 1 } }), Cause::BadTags),
            (json!({ "date": "yesterday" }), Cause::BadDate),
            (json!({ "date": "2024-13-01" }), Cause::BadDate),
            (json!({ "date": 2024 }), Cause::BadDate),
            (json!({ "score": "1" }), Cause::BadScore),
            (json!({ "score": true }), Cause::BadScore),
            (json!({ "url": 7 }), Cause::BadUrl),
        ] {
            check(&[], object, Err(cause));
        }
    }

    #[test]
    fn edges_make_buckets() {
        let bucket = |value: f64| fields(&[0.0, 0.5, 0.9]).bucket(value);
        let found = [-1.0, 0.0, 0.49, 0.5, 0.95, f64::NAN].map(bucket);
        assert_eq!(found, [Some(0), Some(1), Some(1), Some(2), Some(3), None]);
        assert_eq!(
            [3.0, 255.0, 255.5, 256.0, f64::NAN].map(|x| fields(&[]).bucket(x)),
            [Some(3), Some(255), None, None, None]
        );
    }

    #[test]
    fn dates_are_iso_8601() {
        for good in ["2024", "2024-05", "2024-05-17", "2024-05-17T10:11:12.5Z", "2024-05-17 10:11:12+02:00"] {
            assert!(is_date(good), "{good}");
        }
        for bad in
            ["", "24", "2024-5", "2024-05-32", "17.05.2024", "2024T10", "2024-05-17T", "2024-05-17 at noon"]
        {
            assert!(!is_date(bad), "{bad}");
        }
    }

    #[test]
    fn parquet_columns_give_the_same() {
        let mut list = ListBuilder::new(StringBuilder::new());
        list.append_value([Some("b"), Some("a")]);
        list.append_null();
        list.append_value([None::<&str>]);
        let columns: [(&str, ArrayRef); 6] = [
            ("m.quality", Arc::new(Int64Array::from(vec![Some(2), None, Some(1)]))),
            ("lang", Arc::new(StringArray::from(vec![Some("de"), Some(""), None]))),
            ("tags", Arc::new(list.finish())),
            ("date", Arc::new(arrow::array::Date32Array::from(vec![Some(19_000), None, None]))),
            ("score", Arc::new(NullArray::new(3))),
            ("url", Arc::new(StringArray::from(vec![Some("http://a.example/"), None, None]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let columns = MetadataColumns::of(&batch, &fields(&[]));
        let first = OwnedMetadata {
            quality: Some(2),
            language: Some("de".into()),
            tags: "a\nb".into(),
            date: Some("2022-01-08".into()),
            url: Some("http://a.example/".into()),
            ..OwnedMetadata::default()
        };
        assert_eq!(columns.row(0, &fields(&[])), Ok(first));
        assert_eq!(columns.row(1, &fields(&[])), Ok(OwnedMetadata::default()));
        assert_eq!(columns.row(2, &fields(&[])), Err(Cause::BadTags));
    }

    #[test]
    fn parquet_columns_of_a_wrong_type_are_bad_where_they_are_not_null() {
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None]));
        let batch = RecordBatch::try_from_iter_with_nullable([("score", flags, true)]).unwrap();
        let columns = MetadataColumns::of(&batch, &fields(&[]));
        assert_eq!(columns.row(0, &fields(&[])), Err(Cause::BadScore));
        assert_eq!(columns.row(1, &fields(&[])), Ok(OwnedMetadata::default()));
    }
}
