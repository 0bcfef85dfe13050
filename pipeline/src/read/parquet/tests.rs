use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;

use super::*;
use crate::read::dotted::find;
use crate::read::{MetadataFields, Raw};

fn records(bytes: &[u8]) -> Vec<Record> {
    slice(bytes, Slice::Whole)
}

fn slice(bytes: &[u8], slice: Slice) -> Vec<Record> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let fields = FieldPaths { id: Some("meta.id".into()), text: "text".into(), ..FieldPaths::default() };
    let opened = RandomAccess::open(file.path()).unwrap();
    let limits = Limits { max_doc_bytes: 5, ..Limits::default() };
    let mut reader = ParquetReader::open(file.path(), opened, slice, &fields, limits).unwrap();
    std::iter::from_fn(|| reader.next_record().unwrap()).collect()
}

fn sample() -> Vec<u8> {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(4)]));
    let meta = StructArray::from(vec![(Arc::new(Field::new("id", DataType::Int64, true)), ids)]);
    let text = StringArray::from(vec![Some("one"), None, Some("three"), Some("far too long")]);
    let batch = RecordBatch::try_from_iter([
        ("meta", Arc::new(meta) as ArrayRef),
        ("unread", Arc::new(Int64Array::from(vec![0; 4])) as ArrayRef),
        ("text", Arc::new(text) as ArrayRef),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn rows_become_records() {
    let found = records(&sample());
    let one = Raw { id: Some("1".into()), text: "one".into(), ..Raw::default() };
    assert_eq!(found[0], Record { offset: 0, n_bytes: 3, n_records: 1, content: Ok(one) });
    let causes: Vec<_> =
        found[1..].iter().map(|r| (r.offset, r.content.clone().unwrap_err().cause)).collect();
    assert_eq!(causes, [(1, Cause::MissingText), (2, Cause::MissingId), (3, Cause::TooLong)]);
}

#[test]
fn a_cut_file_is_one_bad_record_and_an_empty_one_is_named() {
    let bytes = sample();
    let cut = records(&bytes[..bytes.len() - 9]);
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0].n_bytes, bytes.len() as u64 - 9);
    assert_eq!(cut[0].content.clone().unwrap_err().cause, Cause::CorruptParquet);
    assert_eq!(records(b"")[0].content.clone().unwrap_err().cause, Cause::EmptyFile);
}

/// Six row groups of two rows; the bytes of the text column of the third are damaged.
fn damaged() -> Vec<u8> {
    let column = |range: std::ops::Range<usize>| {
        let texts = range.map(|i| format!("t{i}"));
        Arc::new(StringArray::from_iter_values(texts)) as ArrayRef
    };
    let ids = StructArray::from(vec![(
        Arc::new(Field::new("id", DataType::Int64, true)),
        Arc::new(Int64Array::from((0..12).collect::<Vec<i64>>())) as ArrayRef,
    )]);
    let batch =
        RecordBatch::try_from_iter([("meta", Arc::new(ids) as ArrayRef), ("text", column(0..12))]).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(2))
        .set_dictionary_enabled(false)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let mut bytes = writer.into_inner().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let metadata =
        ArrowReaderMetadata::load(&std::fs::File::open(file.path()).unwrap(), Default::default()).unwrap();
    let (start, length) = metadata.metadata().row_group(2).column(1).byte_range();
    bytes[start as usize..(start + length) as usize].fill(0xff);
    bytes
}

#[test]
fn damage_costs_one_row_group_and_slices_hold_what_the_file_holds() {
    let bytes = damaged();
    let whole = records(&bytes);
    let found: Vec<_> = whole.iter().map(|r| (r.offset, r.n_records, r.content.is_ok())).collect();
    let good = |row| (row, 1, true);
    let rows = [5, 6, 7, 8, 9, 10].map(|row| good(row + 1));
    assert_eq!(found, [&[good(0), good(1), good(2), good(3), (4, 2, false)][..], &rows].concat());
    assert!(whole[4].n_bytes > 0);
    let slices = (0..6).flat_map(|i| slice(&bytes, Slice::RowGroups { start: i, end: i + 1 }));
    assert_eq!(slices.collect::<Vec<_>>(), whole);
}

proptest::proptest! {
    #[test]
    fn damaged_bytes_give_records_or_causes(
        changes in proptest::collection::vec(
            (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()),
            1..6,
        ),
    ) {
        let mut bytes = sample();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        proptest::prop_assert!(records(&bytes).len() <= 100_000);
    }
}

/// A struct whose children hold values where it is null itself, inside another such struct.
fn hidden() -> RecordBatch {
    let texts = |suffix: &str| {
        Arc::new(StringArray::from_iter_values((0..4).map(|i| format!("{i}{suffix}")))) as ArrayRef
    };
    let dictionary = arrow::compute::cast(
        &texts("d"),
        &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    )
    .unwrap();
    let view = arrow::compute::cast(&texts("v"), &DataType::Utf8View).unwrap();
    let mut tags = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    (0..4).for_each(|i| tags.append_value([Some(format!("t{i}"))]));
    let columns: [(&str, ArrayRef); 5] = [
        ("text", texts("t")),
        ("dictionary", dictionary),
        ("view", view),
        ("tags", Arc::new(tags.finish())),
        ("id", Arc::new(Int64Array::from_iter_values(0..4))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    let inner = StructArray::new(fields.into(), arrays, Some(vec![true, false, true, true].into()));
    let outer = StructArray::new(
        vec![Field::new("inner", inner.data_type().clone(), true)].into(),
        vec![Arc::new(inner)],
        Some(vec![true, true, false, true].into()),
    );
    RecordBatch::try_from_iter([("outer", Arc::new(outer) as ArrayRef)]).unwrap()
}

#[test]
fn values_under_a_null_parent_are_null() {
    let batch = hidden();
    for name in ["text", "dictionary", "view", "tags", "id"] {
        let column = find(&batch, &format!("outer.inner.{name}")).unwrap();
        let valid: Vec<bool> = (0..4).map(|row| column.is_valid(row)).collect();
        assert_eq!(valid, [true, false, false, true], "{name}");
    }
    let fields = FieldPaths {
        text: "outer.inner.text".into(),
        metadata: MetadataFields { tags: Some("outer.inner.tags".into()), ..MetadataFields::default() },
        ..FieldPaths::default()
    };
    let columns = Columns::of(&batch, &fields);
    let rows: Vec<_> = (0..4).map(|row| columns.row(row, &fields, 100).map_err(|bad| bad.cause)).collect();
    assert_eq!((&rows[1], &rows[2]), (&Err(Cause::MissingText), &Err(Cause::MissingText)));
    assert_eq!(rows[3].as_ref().unwrap().metadata.tags, "t3");
}
