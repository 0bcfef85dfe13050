//! Looks at the first records of a source before any work, so that a wrong field name is a
//! configuration error at once instead of a million records in quarantine later.

use std::collections::BTreeSet;
use std::path::Path;

use arrow::datatypes::Fields;
use serde_json::Value;

use super::arrow_ipc::ArrowReader;
use super::csv::CsvReader;
use super::lines::Lines;
use super::sniff::Kind;
use super::stream::Stream;
use super::warc::WarcReader;
use super::{Form, Format, Limits, input, object, parquet, sniff, values};
use crate::error::Result;

/// Records looked at in each file.
const RECORDS: usize = 32;

/// Dotted names of the fields in the first records of a file; `None` for text files, which have
/// none, for archives, and for files without a readable record.
///
/// # Errors
/// The file cannot be read.
pub fn field_names(path: &Path, form: impl Into<Form>, limits: Limits) -> Result<Option<BTreeSet<String>>> {
    let (form, mut names) = (form.into(), BTreeSet::new());
    if sniff::is_parquet(path, form.format)? {
        let file = input::RandomAccess::open(path)?;
        if let Some(metadata) = parquet::metadata_of(path, &file)? {
            columns(metadata.schema().fields(), "", &mut names);
        }
        return Ok((!names.is_empty()).then_some(names));
    }
    let sniff::Sniffed { kind, stream } = sniff::sniff(Stream::open(path, limits)?, path, form)?;
    let Kind::Format(format) = kind else { return Ok(None) };
    match format {
        Format::Text | Format::Html | Format::Parquet | Format::Arc => {}
        Format::Arrow => {
            if let Some(schema) = ArrowReader::schema_of(stream, limits)? {
                columns(schema.fields(), "", &mut names);
            }
        }
        Format::Warc => names = WarcReader::field_names(stream, RECORDS)?,
        Format::Jsonl => {
            let mut lines = Lines::new(stream, limits.max_doc_bytes);
            for _ in 0..RECORDS {
                let Some(line) = lines.next_line()? else { break };
                if line.cause.is_none()
                    && let Ok(parsed) = object::parse(lines.bytes(), None)
                {
                    keys(&parsed.object, "", &mut names);
                }
            }
        }
        Format::Json => {
            for object in values::first_objects(stream, RECORDS, limits.max_doc_bytes)? {
                keys(&object, "", &mut names);
            }
        }
        Format::Csv => names = CsvReader::field_names(stream, b',', limits.max_doc_bytes)?,
        Format::Tsv => names = CsvReader::field_names(stream, b'\t', limits.max_doc_bytes)?,
    }
    Ok((!names.is_empty()).then_some(names))
}

/// Whether a file is text or a page, which have no fields.
///
/// # Errors
/// The file cannot be read.
pub fn is_text(path: &Path, form: impl Into<Form>, limits: Limits) -> Result<bool> {
    let form = form.into();
    if sniff::is_parquet(path, form.format)? {
        return Ok(false);
    }
    let sniff::Sniffed { kind, .. } = sniff::sniff(Stream::open(path, limits)?, path, form)?;
    Ok(matches!(kind, Kind::Format(Format::Text | Format::Html)))
}

fn columns(fields: &Fields, prefix: &str, names: &mut BTreeSet<String>) {
    for field in fields {
        let name = format!("{prefix}{}", field.name());
        if let arrow::datatypes::DataType::Struct(inner) = field.data_type() {
            columns(inner, &format!("{name}."), names);
        }
        names.insert(name);
    }
}

fn keys(value: &Value, prefix: &str, names: &mut BTreeSet<String>) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        let name = format!("{prefix}{key}");
        keys(inner, &format!("{name}."), names);
        names.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_names_are_dotted_and_bad_lines_skipped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"a\":{\"b\":1}}\nnot json\n{\"c\":2}\n").unwrap();
        let names = field_names(file.path(), Some(Format::Jsonl), Limits::default()).unwrap().unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "a.b", "c"]);
    }

    #[test]
    fn text_has_no_fields() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Plain words.").unwrap();
        assert_eq!(field_names(file.path(), None, Limits::default()).unwrap(), None);
    }
}
