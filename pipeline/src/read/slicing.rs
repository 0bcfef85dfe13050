//! Cuts big files into slices, so that one file keeps all cores busy. Together the slices of a file
//! give exactly the records of the whole file, with the same offsets.
//!
//! Plain JSONL is cut by bytes, Parquet by row groups, plain Arrow by batches. A compressed stream has to be read from its
//! start, a text file is one document, CSV and arrays of JSON have to be read from their start to know where a record begins, and WARC files come in many
//! pieces anyway, so these stay whole.

use std::ops::Range;
use std::path::Path;

use super::arrow_ipc::batches;
use super::slice::Batches;
use super::stream::Stream;
use super::{Form, Format, Limits, Slice, input, parquet, sniff};
use crate::error::Result;
use crate::objects;

/// Cuts a file of `n_bytes` into slices of about `slice_bytes`, each with its bytes on the disk.
///
/// # Errors
/// The file cannot be opened.
pub fn cut(
    path: &Path,
    form: impl Into<Form>,
    n_bytes: u64,
    slice_bytes: u64,
    limits: Limits,
) -> Result<Vec<(Slice, u64)>> {
    let form = form.into();
    let whole = vec![(Slice::Whole, n_bytes)];
    let slice_bytes = slice_bytes.max(1);
    if n_bytes <= slice_bytes {
        return Ok(whole);
    }
    if sniff::is_parquet(path, form.format)? {
        let file = input::RandomAccess::open(path)?;
        // The reader reports what is wrong with an unreadable file.
        let Some(metadata) = parquet::metadata_of(path, &file)? else { return Ok(whole) };
        let row_groups = metadata.metadata().row_groups();
        let sizes: Vec<u64> = row_groups.iter().map(|group| group.compressed_size().max(0) as u64).collect();
        return Ok(match &groups(&sizes, slice_bytes)[..] {
            [] | [_] => vec![(Slice::Whole, sizes.iter().sum())],
            cut => (cut.iter())
                .map(|(group, bytes)| (Slice::RowGroups { start: group.start, end: group.end }, *bytes))
                .collect(),
        });
    }
    let sniff::Sniffed { kind, stream } = sniff::sniff(Stream::open(path, limits)?, path, form)?;
    let sniff::Kind::Format(format) = kind else { return Ok(whole) };
    match format {
        _ if !stream.is_plain() => Ok(whole),
        // In an object store, reading every header costs a request.
        Format::Arrow if !objects::is_url(path) => {
            let batches = batches::of_file(stream, n_bytes, limits)?.unwrap_or_default();
            let sizes: Vec<u64> = batches.iter().map(|batch| batch.end - batch.start).collect();
            let slice = |(group, bytes): (Range<usize>, u64)| {
                (Slice::Batches(Batches { end: batches[group.end - 1].end, ..batches[group.start] }), bytes)
            };
            let cut = groups(&sizes, slice_bytes);
            Ok(if cut.len() > 1 { cut.into_iter().map(slice).collect() } else { whole })
        }
        Format::Jsonl => {
            // Equal slices, so that the last is not tiny.
            let n_slices = n_bytes.div_ceil(slice_bytes);
            let at = |i: u64| (u128::from(n_bytes) * u128::from(i) / u128::from(n_slices)) as u64;
            let slice = |i| (Slice::Bytes { start: at(i), end: at(i + 1) }, at(i + 1) - at(i));
            Ok((0..n_slices).map(slice).collect())
        }
        _ => Ok(whole),
    }
}

/// Groups consecutive pieces up to `slice_bytes`, each group with its bytes.
fn groups(sizes: &[u64], slice_bytes: u64) -> Vec<(Range<usize>, u64)> {
    let mut groups: Vec<(Range<usize>, u64)> = Vec::new();
    for (i, &size) in sizes.iter().enumerate() {
        match groups.last_mut() {
            Some((group, bytes)) if *bytes + size <= slice_bytes => {
                (group.end, *bytes) = (i + 1, *bytes + size)
            }
            _ => groups.push((i..i + 1, size)),
        }
    }
    groups
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
        let n_bytes = bytes.len() as u64;
        let slices = cut(file.path(), Some(Format::Jsonl), n_bytes, slice_bytes, Limits::default()).unwrap();
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
    fn groups_fill_slices() {
        assert_eq!(groups(&[5, 5, 7, 20, 1], 10), [(0..2, 10), (2..3, 7), (3..4, 20), (4..5, 1)]);
        assert_eq!(groups(&[5, 5], 10), [(0..2, 10)]);
        assert_eq!(groups(&[], 10), []);
    }
}
