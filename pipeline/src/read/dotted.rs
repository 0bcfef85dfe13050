//! Fields at dotted paths (`metadata.url`), in objects of JSON and in columns of Arrow.

use arrow::array::{Array, ArrayRef, AsArray, LargeStringArray, RecordBatch, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use serde_json::Value;

/// The value at a dotted path; a key that itself contains dots is found first.
pub(super) fn lookup<'v>(object: &'v mut Value, path: &str) -> Option<&'v mut Value> {
    if object.get(path).is_some() {
        return object.get_mut(path);
    }
    let (head, rest) = path.split_once('.')?;
    lookup(object.get_mut(head)?, rest)
}

/// The column at a dotted path; a column whose own name contains dots is found first. A value with a null parent is
/// null, whatever its own slot holds.
pub(super) fn find(batch: &RecordBatch, path: &str) -> Option<ArrayRef> {
    if let Some(column) = batch.column_by_name(path) {
        return Some(column.clone());
    }
    let (head, rest) = path.split_once('.')?;
    let (column, parents) = below(batch.column_by_name(head)?, None, rest)?;
    match parents.filter(|nulls| nulls.null_count() > 0) {
        None => Some(column),
        Some(nulls) => {
            let rows = (0..column.len() as u64).map(|row| nulls.is_valid(row as usize).then_some(row));
            take(&column, &UInt64Array::from_iter(rows), None).ok()
        }
    }
}

/// The column at a path below another one, and where any of its parents is null.
fn below(
    column: &ArrayRef,
    parents: Option<NullBuffer>,
    path: &str,
) -> Option<(ArrayRef, Option<NullBuffer>)> {
    let parent = column.as_struct_opt()?;
    let parents = NullBuffer::union(parents.as_ref(), parent.nulls());
    if let Some(found) = parent.column_by_name(path) {
        return Some((found.clone(), parents));
    }
    let (head, rest) = path.split_once('.')?;
    below(parent.column_by_name(head)?, parents, rest)
}

/// Whether a column holds text.
pub(super) fn is_string(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_string(values),
        _ => false,
    }
}

/// A column of any type that has a textual form.
pub(super) fn as_text(column: ArrayRef) -> Option<LargeStringArray> {
    cast(&column, &DataType::LargeUtf8).ok()?.as_string_opt::<i64>().cloned()
}
