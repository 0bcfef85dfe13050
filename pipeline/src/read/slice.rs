//! Cuts big files into slices, so that one file keeps all cores busy. Together the slices of a file
//! give exactly the records of the whole file, with the same offsets.
//!
//! Plain JSONL is cut by bytes, Parquet by row groups. A compressed stream has to be read from its
//! start, a text file is one document, and Arrow and WARC files come in many pieces anyway, so these stay whole.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Format, Limits, input, parquet, sniff};
use crate::error::Result;

/// A part of a file that one task reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slice {
    /// All of it.
    #[default]
    Whole,
    /// The lines of plain JSONL that start in these bytes.
    Bytes {
        /// First byte.
        start: u64,
        /// The byte after the last.
        end: u64,
    },
    /// Row groups of a Parquet file.
    RowGroups {
        /// First row group.
        start: usize,
        /// The row group after the last.
        end: usize,
    },
}

impl Slice {
    /// For people; empty for the whole file.
    pub fn in_words(&self) -> String {
        match self {
            Slice::Whole => String::new(),
            Slice::Bytes { start, end } => format!("bytes {start} to {end}"),
            Slice::RowGroups { start, end } => format!("row groups {start} to {end}"),
        }
    }
}

/// Cuts a file of `n_bytes` into slices of about `slice_bytes`, each with its bytes on the disk.
///
/// # Errors
/// The file cannot be opened.
pub fn cut(path: &Path, format: Option<Format>, n_bytes: u64, slice_bytes: u64) -> Result<Vec<(Slice, u64)>> {
    let whole = vec![(Slice::Whole, n_bytes)];
    let slice_bytes = slice_bytes.max(1);
    if n_bytes <= slice_bytes {
        return Ok(whole);
    }
    if sniff::is_parquet(path, format)? {
        let file = input::RandomAccess::open(path)?;
        // What is wrong with a file that cannot be read, the reader says.
        let Some(metadata) = parquet::metadata_of(path, &file)? else { return Ok(whole) };
        let groups = metadata.metadata().row_groups();
        let sizes: Vec<u64> = groups.iter().map(|group| group.compressed_size().max(0) as u64).collect();
        return Ok(row_groups(&sizes, slice_bytes));
    }
    let sniffed = sniff::sniff(path, format, Limits::default())?;
    if sniffed.format != Format::Jsonl || !sniffed.stream.is_plain() {
        return Ok(whole);
    }
    // Equal slices, so that the last is not a crumb.
    let n_slices = n_bytes.div_ceil(slice_bytes);
    let at = |i: u64| (u128::from(n_bytes) * u128::from(i) / u128::from(n_slices)) as u64;
    let slices = (0..n_slices).map(|i| Slice::Bytes { start: at(i), end: at(i + 1) });
    Ok(slices.enumerate().map(|(i, slice)| (slice, at(i as u64 + 1) - at(i as u64))).collect())
}

/// Groups consecutive row groups up to `slice_bytes`.
fn row_groups(sizes: &[u64], slice_bytes: u64) -> Vec<(Slice, u64)> {
    let mut slices = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, &size) in sizes.iter().enumerate() {
        if i > start && bytes + size > slice_bytes {
            slices.push((Slice::RowGroups { start, end: i }, bytes));
            (start, bytes) = (i, 0);
        }
        bytes += size;
    }
    if slices.is_empty() {
        return vec![(Slice::Whole, bytes)];
    }
    slices.push((Slice::RowGroups { start, end: sizes.len() }, bytes));
    slices
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::{FieldPaths, Record, open};
    use super::*;

    fn records(path: &Path, slice: Slice) -> Vec<Record> {
        let fields = FieldPaths { id: Some("id".into()), text: "text".into(), ..FieldPaths::default() };
        let limits = Limits { max_doc_bytes: 40, ..Limits::default() };
        let mut reader = open(path, "name", Some(Format::Jsonl), slice, &fields, limits).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap()).collect()
    }

    fn check(bytes: &[u8], slice_bytes: u64) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let whole = records(file.path(), Slice::Whole);
        let slices = cut(file.path(), Some(Format::Jsonl), bytes.len() as u64, slice_bytes).unwrap();
        assert_eq!(slices.iter().map(|(_, weight)| weight).sum::<u64>(), bytes.len() as u64);
        let together: Vec<Record> =
            slices.iter().flat_map(|(slice, _)| records(file.path(), *slice)).collect();
        assert_eq!(together, whole, "{:?} in slices of {slice_bytes}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn lines_belong_to_the_slice_they_start_in() {
        let line = "{\"id\":\"1\",\"text\":\"é\"}";
        let long = format!("{{\"id\":\"1\",\"text\":\"{}\"}}", "x".repeat(90));
        let texts = [
            format!("{line}\n{line}\n\n \n{line}"),
            format!("{line}\r\n{line}\r\n"),
            format!("\u{feff}{line}\n{long}\n{line}\nnot json\n{long}"),
            "\n\n \n\n\n\n".to_owned(),
            format!("{}{line}", "\n".repeat(30)),
            long,
        ];
        for text in &texts {
            for slice_bytes in 1..=text.len() as u64 {
                check(text.as_bytes(), slice_bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_slices_give_the_same_records(
            lines in prop::collection::vec(
                prop_oneof![
                    "[ -~]{0,60}".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..30),
                    "[a-zé]{1,9}".prop_map(|t| format!("{{\"id\":\"a\",\"text\":\"{t}\"}}").into_bytes()),
                ],
                0..8,
            ),
            slice_bytes in 1..80u64,
        ) {
            // Neither a compressed stream nor an empty file.
            check(&[&b" "[..], &lines.join(&b'\n')].concat(), slice_bytes);
        }
    }

    #[test]
    fn row_groups_fill_slices() {
        let slices = row_groups(&[5, 5, 7, 20, 1], 10);
        let group = |start, end| Slice::RowGroups { start, end };
        assert_eq!(slices, [(group(0, 2), 10), (group(2, 3), 7), (group(3, 4), 20), (group(4, 5), 1)]);
        assert_eq!(row_groups(&[5, 5], 10), [(Slice::Whole, 10)]);
    }
}
