//! Decoded size of Parquet and Arrow rows. A few bytes of these formats can stand for any number of
//! rows with any text, by dictionaries and run lengths as well as by compression, so the output is bounded by the size of
//! the file, as for compressed streams.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::Limits;
use super::stream::FREE_EXPANSION_BYTES;

/// What a row takes besides its values: without it, columns of nulls would have any number of rows.
const ROW_BYTES: u64 = 64;
/// Memory for the rows of a row group decoded at a time, since a dictionary may make each a long text.
const BATCH_BYTES: u64 = 512 << 20;
/// Size that an Arrow batch may be decoded to, however small it is.
pub(super) const FREE_BATCH_BYTES: u64 = 256 << 10;

/// Bytes of text in some rows, plus a little for each row.
pub(super) fn decoded_bytes(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter().map(|column| array_bytes(column));
    columns.fold(batch.num_rows() as u64 * ROW_BYTES, u64::saturating_add)
}

/// Bytes of text in an array, counting repeats.
pub(super) fn array_bytes(array: &dyn Array) -> u64 {
    match array.data_type() {
        DataType::Struct(_) => {
            array.as_struct().columns().iter().map(|column| array_bytes(column)).fold(0, u64::saturating_add)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let lengths = lengths(dictionary.values());
            if lengths.is_empty() {
                return 0;
            }
            let keys = dictionary.normalized_keys().into_iter();
            keys.filter_map(|key| lengths.get(key)).fold(0, |sum, length| sum.saturating_add(*length))
        }
        DataType::RunEndEncoded(..) => {
            // The longest text for each row: never too little.
            let data = array.to_data();
            let values = data.child_data().get(1).map(|values| arrow::array::make_array(values.clone()));
            let longest = values.and_then(|values| lengths(&values).into_iter().max()).unwrap_or(0);
            longest.saturating_mul(array.len() as u64)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            lengths(array).into_iter().fold(0, u64::saturating_add)
        }
        _ => array.to_data().get_slice_memory_size().unwrap_or(0) as u64,
    }
}

/// Bytes of each value of an array.
fn lengths(array: &dyn Array) -> Vec<u64> {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().offsets().lengths().map(|n| n as u64).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().offsets().lengths().map(|n| n as u64).collect(),
        // The length is in the low half of the low word.
        DataType::Utf8View => {
            array.as_string_view().views().iter().map(|view| u64::from(*view as u32)).collect()
        }
        _ => {
            let each = array_bytes(array) / array.len().max(1) as u64;
            vec![each; array.len()]
        }
    }
}

/// Size that each row group of a Parquet file may be decoded to: its share of the file's limit, so it does not depend
/// on which row groups a task reads.
pub(super) fn of_groups(metadata: &ParquetMetaData, file_bytes: u64, limits: Limits) -> Vec<u64> {
    let groups = metadata.row_groups();
    let n_bytes = |group: &RowGroupMetaData| group.compressed_size().max(0) as u64;
    let total = groups.iter().map(n_bytes).fold(0, u64::saturating_add).max(1);
    // Row groups that share bytes do not count them twice.
    let held = total.min(file_bytes);
    let allowed = held.saturating_mul(limits.max_expansion).max(FREE_EXPANSION_BYTES);
    let least = FREE_EXPANSION_BYTES / groups.len().max(1) as u64;
    let share = |group: &RowGroupMetaData| {
        let share = u128::from(allowed) * u128::from(n_bytes(group)) / u128::from(total);
        u64::try_from(share).unwrap_or(u64::MAX).max(least)
    };
    groups.iter().map(share).collect()
}

/// How many rows of a row group to decode at a time, at most `most`; `None` if its columns, once decompressed, are
/// larger than `allowed`.
pub(super) fn batch_rows(
    group: &RowGroupMetaData,
    columns: &ProjectionMask,
    allowed: u64,
    most: usize,
) -> Option<usize> {
    let (mut total, mut longest) = (0u64, 0u64);
    for (_, column) in group.columns().iter().enumerate().filter(|(i, _)| columns.leaf_included(*i)) {
        let n_bytes = column.uncompressed_size().max(0) as u64;
        total = total.saturating_add(n_bytes);
        if column.dictionary_page_offset().is_some() {
            longest = longest.max(n_bytes);
        }
    }
    let rows = usize::try_from(BATCH_BYTES / longest.max(1)).unwrap_or(most).clamp(1, most);
    (total <= allowed).then_some(rows)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int8Array, NullArray, StringArray, StringViewArray};

    use super::*;

    fn bytes_of(column: ArrayRef) -> u64 {
        let n_rows = column.len() as u64;
        decoded_bytes(&RecordBatch::try_from_iter([("text", column)]).unwrap()) - n_rows * ROW_BYTES
    }

    #[test]
    fn texts_count_as_often_as_they_are_shown() {
        let texts = StringArray::from(vec![Some("one"), None, Some("three")]);
        assert_eq!(bytes_of(Arc::new(texts.clone())), 8);
        assert_eq!(bytes_of(Arc::new(texts.slice(2, 1))), 5);
        assert_eq!(bytes_of(Arc::new(StringViewArray::from(vec!["one", "a text of many bytes"]))), 23);
        let keys = Int8Array::from(vec![0, 2, 2, 2]);
        assert_eq!(bytes_of(Arc::new(DictionaryArray::new(keys, Arc::new(texts)))), 18);
        let empty = DictionaryArray::new(Int8Array::from(vec![None]), Arc::new(StringArray::new_null(0)));
        assert_eq!(bytes_of(Arc::new(empty)), 0);
        assert_eq!(bytes_of(Arc::new(NullArray::new(9))), 0);
    }
}
