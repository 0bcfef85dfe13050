use std::io::Write;

use arrow::array::{DictionaryArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use proptest::prelude::*;

use super::*;
use crate::read::{self, Raw};

/// Three batches of two rows.
fn batches() -> Vec<RecordBatch> {
    let batch = |first: i64| {
        let ids = Int64Array::from(vec![first, first + 1]);
        let texts = [format!("text {first}"), format!("text {}", first + 1)];
        let kinds: DictionaryArray<Int32Type> = ["wiki", "web"].into_iter().collect();
        RecordBatch::try_from_iter([
            ("id", Arc::new(ids) as ArrayRef),
            ("text", Arc::new(StringArray::from_iter_values(&texts)) as ArrayRef),
            ("kind", Arc::new(kinds) as ArrayRef),
            ("unread", Arc::new(Int64Array::from(vec![0, 0])) as ArrayRef),
        ])
        .unwrap()
    };
    vec![batch(0), batch(2), batch(4)]
}

fn options(compression: Option<CompressionType>) -> IpcWriteOptions {
    IpcWriteOptions::default().try_with_compression(compression).unwrap()
}

fn stream(compression: Option<CompressionType>) -> Vec<u8> {
    let batches = batches();
    let mut writer =
        StreamWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options(compression)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn file(compression: Option<CompressionType>) -> Vec<u8> {
    let batches = batches();
    let mut writer =
        FileWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options(compression)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn fields() -> FieldPaths {
    FieldPaths {
        id: Some("id".into()),
        text: "text".into(),
        family: Some("kind".into()),
        ..FieldPaths::default()
    }
}

fn records(bytes: &[u8]) -> Vec<Record> {
    records_with(bytes, &fields())
}

fn records_with(bytes: &[u8], fields: &FieldPaths) -> Vec<Record> {
    records_in_slices(bytes, fields, u64::MAX).1
}

/// Bytes of the slices, and their records.
fn records_in_slices(bytes: &[u8], fields: &FieldPaths, slice_bytes: u64) -> (Vec<u64>, Vec<Record>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let (path, format, limits) = (file.path(), Some(read::Format::Arrow), Limits::default());
    let slices = read::slicing::cut(path, format, bytes.len() as u64, slice_bytes, limits).unwrap();
    let records = slices.iter().flat_map(|(slice, _)| {
        let mut reader = read::open(path, "name", format, *slice, fields, limits).unwrap();
        std::iter::from_fn(move || reader.next_record().unwrap())
    });
    (slices.iter().map(|(_, weight)| *weight).collect(), records.collect())
}

fn expected(n: u64) -> Record {
    let text = format!("text {n}");
    let family = Some(if n.is_multiple_of(2) { "wiki" } else { "web" }.to_owned());
    let raw = Raw { id: Some(n.to_string()), text, family, ..Raw::default() };
    Record { offset: n, n_bytes: 6, n_records: 1, content: Ok(raw) }
}

fn causes(records: &[Record]) -> Vec<(u64, u64, Cause)> {
    let bad = records.iter().filter_map(|r| Some((r.offset, r.n_records, r.content.clone().err()?.cause)));
    bad.collect()
}

#[test]
fn streams_and_files_give_the_same_rows() {
    let all: Vec<Record> = (0..6).map(expected).collect();
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        assert_eq!(records(&stream(compression)), all);
        assert_eq!(records(&file(compression)), all);
        assert_eq!(records(&zstd::encode_all(&stream(compression)[..], 1).unwrap()), all);
    }
}

#[test]
fn a_damaged_batch_costs_its_rows() {
    // Long enough to be worth compressing; one column, so one compressed buffer of text a batch.
    let texts = |n: usize| StringArray::from_iter_values((0..3).map(|i| format!("text {n} {i} ").repeat(50)));
    let batch = |n| RecordBatch::try_from_iter([("text", Arc::new(texts(n)) as ArrayRef)]).unwrap();
    let zstd = options(Some(CompressionType::ZSTD));
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch(0).schema(), zstd).unwrap();
    (0..3).for_each(|n| writer.write(&batch(n)).unwrap());
    let mut bytes = writer.into_inner().unwrap();
    let frames: Vec<usize> = memchr::memmem::find_iter(&bytes, &[0x28, 0xb5, 0x2f, 0xfd]).collect();
    assert_eq!(frames.len(), 3);
    bytes[frames[1]..frames[1] + 4].copy_from_slice(b"oops");
    let fields = FieldPaths { text: "text".into(), ..FieldPaths::default() };
    let found = records_with(&bytes, &fields);
    assert_eq!(causes(&found), [(3, 3, Cause::CorruptArrow)]);
    assert_eq!(found.len(), 7);
    assert_eq!((found[6].offset, found[6].n_bytes), (8, 450));
}

#[test]
fn what_is_cut_is_counted() {
    let whole = stream(None);
    for cut in 0..whole.len() {
        let found = records(&whole[..cut]);
        let (good, bad): (Vec<_>, Vec<_>) = found.iter().partition(|r| r.content.is_ok());
        for (n, record) in good.iter().enumerate() {
            assert_eq!(**record, expected(n as u64), "cut at {cut}");
        }
        // Truncation between two messages is not noticeable.
        assert!(bad.len() <= 1, "cut at {cut}");
    }
    assert_eq!(causes(&records(b"")), [(0, 1, Cause::EmptyFile)]);
    assert_eq!(causes(&records(b"no Arrow at all")), [(0, 1, Cause::CorruptArrow)]);
    let cut = records(&whole[..whole.len() - 30]);
    assert_eq!(causes(&cut), [(4, 2, Cause::TruncatedStream)]);
}

#[test]
fn a_declared_size_that_is_too_large_is_refused() {
    let texts = StringArray::from_iter_values((0..500).map(|_| "the same text again and again"));
    let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
    for compression in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let mut writer =
            StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options(Some(compression)))
                .unwrap();
        writer.write(&batch).unwrap();
        let mut bytes = writer.into_inner().unwrap();
        let real = (500 * "the same text again and again".len() as u64).to_le_bytes();
        let at = memchr::memmem::find(&bytes, &real).unwrap();
        bytes[at..at + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
        let bad = causes(&records(&bytes));
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].1, 500);
    }
}

#[test]
fn lz4_frames_are_measured() {
    assert_eq!(lz4_bytes(b""), Some(0));
    assert_eq!(lz4_bytes(b"no frame"), None);
    // Magic, version 1 with blocks of 64 KiB, checksum, one stored block of 3 bytes, end.
    let frame = [&[4, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82][..], &[3, 0, 0, 0x80], b"abc", &[0; 4]].concat();
    assert_eq!(lz4_bytes(&frame), Some(765));
    assert_eq!(lz4_bytes(&frame[..10]), None);
}

#[test]
fn a_file_of_other_columns_has_no_text() {
    let batch =
        RecordBatch::try_from_iter([("other", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
    let schema = Schema::new(vec![Field::new("other", DataType::Int64, false)]);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&batch).unwrap();
    let bad = causes(&records(&writer.into_inner().unwrap()));
    assert_eq!(bad, [(0, 1, Cause::MissingText), (1, 1, Cause::MissingText)]);
}

#[test]
fn slices_hold_what_the_file_holds() {
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        for bytes in [stream(compression), file(compression)] {
            let whole = records(&bytes);
            let (weights, found) = records_in_slices(&bytes, &fields(), 1);
            assert_eq!((weights.len(), &found), (3, &whole));
            let two = weights[0] + weights[1];
            for (slice_bytes, expected) in [(two, vec![two, weights[2]]), (two - 1, weights)] {
                let (weights, found) = records_in_slices(&bytes, &fields(), slice_bytes);
                assert_eq!((weights, &found), (expected, &whole), "slices of {slice_bytes}");
            }
        }
        let packed = zstd::encode_all(&stream(compression)[..], 1).unwrap();
        assert_eq!(records_in_slices(&packed, &fields(), 1), (vec![packed.len() as u64], records(&packed)));
    }
}

#[test]
fn batches_with_dictionaries_between_them_are_not_cut() {
    let batch = |kinds: [&str; 2]| {
        let kinds: DictionaryArray<Int32Type> = kinds.into_iter().collect();
        let texts = StringArray::from(vec!["text", "text"]);
        let columns = [("text", Arc::new(texts) as ArrayRef), ("kind", Arc::new(kinds) as ArrayRef)];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let batches = [batch(["wiki", "web"]), batch(["books", "code"])];
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    let bytes = writer.into_inner().unwrap();
    let fields = FieldPaths { text: "text".into(), family: Some("kind".into()), ..FieldPaths::default() };
    let (weights, found) = records_in_slices(&bytes, &fields, 1);
    let families: Vec<_> = found.into_iter().map(|record| record.content.unwrap().family.unwrap()).collect();
    assert_eq!((weights.len(), families), (1, ["wiki", "web", "books", "code"].map(str::to_owned).to_vec()));
}

#[test]
fn a_file_that_changes_after_it_was_cut_is_an_error() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&stream(None)).unwrap();
    let cut = read::slicing::cut(file.path(), None, stream(None).len() as u64, 1, Limits::default()).unwrap();
    file.as_file().set_len(4).unwrap();
    let opened = read::open(file.path(), "name", None, cut[1].0, &fields(), Limits::default());
    assert!(opened.is_err_and(|error| error.to_string().contains("start it again")));
}

proptest! {
    #[test]
    fn damaged_bytes_give_records_or_causes(
        format in 0..6usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<Option<prop::sample::Index>>(),
    ) {
        let compression = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)][format % 3];
        let mut bytes = if format < 3 { stream(compression) } else { file(compression) };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(end) = end {
            let end = end.index(bytes.len());
            bytes.truncate(end);
        }
        // A damaged row count can at most claim rows without bytes.
        let whole = records(&bytes);
        prop_assert!(whole.len() as u64 <= 6 + 2 * FREE_ROWS);
        for slice_bytes in [1, 1200] {
            prop_assert_eq!(&records_in_slices(&bytes, &fields(), slice_bytes).1, &whole);
        }
    }
}
