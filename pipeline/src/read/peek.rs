//! A look at the first records of a source before any work, so that a wrong field name is a
//! configuration error at once and not a million records in quarantine later.

use std::collections::BTreeSet;
use std::path::Path;

use arrow::datatypes::Fields;
use serde_json::Value;

use super::arrow_ipc::ArrowReader;
use super::jsonl;
use super::lines::Lines;
use super::warc::WarcReader;
use super::{Format, Limits, input, parquet, sniff};
use crate::error::Result;

/// Records looked at in each file.
const RECORDS: usize = 32;

/// Dotted names of the fields in the first records of a file; `None` for text files, which have
/// none, and for files without a readable record.
///
/// # Errors
/// The file cannot be read.
pub fn field_names(path: &Path, format: Option<Format>, limits: Limits) -> Result<Option<BTreeSet<String>>> {
    let mut names = BTreeSet::new();
    if sniff::is_parquet(path, format)? {
        let file = input::RandomAccess::open(path)?;
        if let Some(metadata) = parquet::metadata_of(path, &file)? {
            columns(metadata.schema().fields(), "", &mut names);
        }
        return Ok((!names.is_empty()).then_some(names));
    }
    let sniff::Sniffed { format, stream } = sniff::sniff(path, format, limits)?;
    match format {
        Format::Text | Format::Html | Format::Parquet => {}
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
                    && let Ok(object) = jsonl::parse(lines.bytes(), None)
                {
                    keys(&object, "", &mut names);
                }
            }
        }
    }
    Ok((!names.is_empty()).then_some(names))
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
