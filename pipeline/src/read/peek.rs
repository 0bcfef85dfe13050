//! A look at the first records of a source before any work, so that a wrong field name is a
//! configuration error at once and not a million records in quarantine later.

use std::collections::BTreeSet;
use std::path::Path;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::datatypes::Fields;
use serde_json::Value;

use super::Format;
use super::jsonl;
use super::lines::Lines;
use super::stream::{self, Sniffed};
use crate::error::Result;

/// Records looked at in each file.
const RECORDS: usize = 32;

/// Dotted names of the fields in the first records of a file; `None` for text files, which have
/// none, and for files without a readable record.
///
/// # Errors
/// The file cannot be read.
pub fn field_names(
    path: &Path,
    format: Option<Format>,
    max_doc_bytes: u64,
) -> Result<Option<BTreeSet<String>>> {
    let mut names = BTreeSet::new();
    match stream::sniff(path, format)? {
        Sniffed::Text(_) => {}
        Sniffed::Parquet(file) => {
            if let Ok(builder) = ParquetRecordBatchReaderBuilder::try_new(file) {
                columns(builder.schema().fields(), "", &mut names);
            }
        }
        Sniffed::Jsonl(stream) => {
            let mut lines = Lines::new(stream, max_doc_bytes);
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
        let names = field_names(file.path(), Some(Format::Jsonl), 1000).unwrap().unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "a.b", "c"]);
    }

    #[test]
    fn text_has_no_fields() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Plain words.").unwrap();
        assert_eq!(field_names(file.path(), None, 1000).unwrap(), None);
    }
}
