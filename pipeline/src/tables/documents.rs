//! The documents of a part: Parquet, in the order of the input file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, PrimitiveArray,
    PrimitiveBuilder, RecordBatch, StringArray, StringBuilder,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float64Type, Schema, UInt8Type, UInt32Type, UInt64Type,
};
use moe_shards::FamilyId;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::Sink;
use crate::document::{DocumentId, Metadata, TextHash};
use crate::error::{Error, Result};

/// A batch is written when it reaches either size.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// A row group is closed at this many encoded bytes, which bounds the writer's memory.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// A document, ready for the filters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Document<'a> {
    /// Its name in the source.
    pub id: &'a str,
    /// Its id.
    pub document_id: DocumentId,
    /// Its family.
    pub family: FamilyId,
    /// Which text of the family it is.
    pub variant: u8,
    /// Bytes of the text as read, before normalization.
    pub raw_bytes: u32,
    /// Hash of the normalized text.
    pub text_hash: TextHash,
    /// Its metadata.
    pub metadata: Metadata<'a>,
    /// The normalized text.
    pub text: &'a str,
}

fn schema() -> Arc<Schema> {
    let field = |name: &str, kind| Field::new(name, kind, false);
    let maybe = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("id", DataType::Utf8),
        field("document_id", DataType::UInt64),
        field("family", DataType::UInt64),
        field("variant", DataType::UInt8),
        field("raw_bytes", DataType::UInt32),
        field("text_hash", DataType::FixedSizeBinary(16)),
        maybe("quality", DataType::UInt8),
        maybe("language", DataType::Utf8),
        // One tag a line.
        field("tags", DataType::Utf8),
        maybe("date", DataType::Utf8),
        maybe("score", DataType::Float64),
        maybe("url", DataType::Utf8),
        // These two are absent in parts written by earlier versions.
        field("kept", DataType::Utf8),
        field("marks", DataType::Utf8),
        field("text", DataType::Utf8),
    ]))
}

/// Writer properties of the tables that people read: zstd.
pub(super) fn properties() -> WriterProperties {
    with_compression(Compression::ZSTD(ZstdLevel::default()))
}

/// Writer properties of the documents, which live as long as the work folder: texts as they are.
/// Compressing them with zstd at level 1 takes more time than reading and normalizing them (of a
/// build of 483 MB, 1.9 of 7.5 CPU seconds; LZ4 saves 0.7 of these), for 0.6 bytes of disk a byte.
fn document_properties() -> WriterProperties {
    with_compression(Compression::UNCOMPRESSED)
}

fn with_compression(compression: Compression) -> WriterProperties {
    WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .build()
}

/// Writes the documents of a part.
pub struct DocumentWriter {
    path: PathBuf,
    schema: Arc<Schema>,
    writer: ArrowWriter<Sink>,
    n_rows: u32,
    id: StringBuilder,
    document_id: PrimitiveBuilder<UInt64Type>,
    family: PrimitiveBuilder<UInt64Type>,
    variant: PrimitiveBuilder<UInt8Type>,
    raw_bytes: PrimitiveBuilder<UInt32Type>,
    text_hash: FixedSizeBinaryBuilder,
    quality: PrimitiveBuilder<UInt8Type>,
    language: StringBuilder,
    tags: StringBuilder,
    date: StringBuilder,
    score: PrimitiveBuilder<Float64Type>,
    url: StringBuilder,
    kept: StringBuilder,
    marks: StringBuilder,
    text: StringBuilder,
}

impl DocumentWriter {
    /// Starts a part that appears at `path` on [`DocumentWriter::finish`].
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> Result<DocumentWriter> {
        let schema = schema();
        let writer = ArrowWriter::try_new(Sink::create(path)?, schema.clone(), Some(document_properties()))
            .map_err(Error::parquet(path))?;
        Ok(DocumentWriter {
            path: path.to_owned(),
            schema,
            writer,
            n_rows: 0,
            id: StringBuilder::new(),
            document_id: PrimitiveBuilder::new(),
            family: PrimitiveBuilder::new(),
            variant: PrimitiveBuilder::new(),
            raw_bytes: PrimitiveBuilder::new(),
            text_hash: FixedSizeBinaryBuilder::new(16),
            quality: PrimitiveBuilder::new(),
            language: StringBuilder::new(),
            tags: StringBuilder::new(),
            date: StringBuilder::new(),
            score: PrimitiveBuilder::new(),
            url: StringBuilder::new(),
            kept: StringBuilder::new(),
            marks: StringBuilder::new(),
            text: StringBuilder::new(),
        })
    }

    /// Appends a document.
    ///
    /// # Errors
    /// A write fails, or the part has 2^32 - 1 documents already.
    pub fn append(&mut self, document: &Document<'_>) -> Result<()> {
        self.n_rows = self.n_rows.checked_add(1).ok_or_else(|| {
            Error::data(&self.path, "a part holds at most 2^32 - 1 documents; split the input file")
        })?;
        self.id.append_value(document.id);
        self.document_id.append_value(document.document_id.0);
        self.family.append_value(document.family.0);
        self.variant.append_value(document.variant);
        self.raw_bytes.append_value(document.raw_bytes);
        self.text_hash
            .append_value(document.text_hash.0.to_le_bytes())
            .map_err(Error::parquet(&self.path))?;
        let metadata = &document.metadata;
        self.quality.append_option(metadata.quality);
        self.language.append_option(metadata.language);
        self.tags.append_value(metadata.tags);
        self.date.append_option(metadata.date);
        self.score.append_option(metadata.score);
        self.url.append_option(metadata.url);
        self.kept.append_value(metadata.kept);
        self.marks.append_value(metadata.marks);
        self.text.append_value(document.text);
        let is_full = self.id.len() >= BATCH_ROWS || self.text.values_slice().len() >= BATCH_BYTES;
        if is_full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.document_id.finish()),
            Arc::new(self.family.finish()),
            Arc::new(self.variant.finish()),
            Arc::new(self.raw_bytes.finish()),
            Arc::new(self.text_hash.finish()),
            Arc::new(self.quality.finish()),
            Arc::new(self.language.finish()),
            Arc::new(self.tags.finish()),
            Arc::new(self.date.finish()),
            Arc::new(self.score.finish()),
            Arc::new(self.url.finish()),
            Arc::new(self.kept.finish()),
            Arc::new(self.marks.finish()),
            Arc::new(self.text.finish()),
        ];
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(Error::parquet(&self.path))?;
        self.writer.write(&batch).map_err(Error::parquet(&self.path))?;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush().map_err(Error::parquet(&self.path))?;
        }
        Ok(())
    }

    /// Makes the part appear.
    ///
    /// # Errors
    /// A write fails.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.writer.into_inner().map_err(Error::parquet(&self.path))?.commit()
    }
}

/// Which columns a reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// All.
    All,
    /// All but the text, which is empty.
    Ids,
}

/// Batches of the documents of a part.
pub struct DocumentBatches {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    next_row: u32,
}

/// Some consecutive documents of a part.
pub struct DocumentBatch {
    first_row: u32,
    id: StringArray,
    document_id: PrimitiveArray<UInt64Type>,
    family: PrimitiveArray<UInt64Type>,
    variant: PrimitiveArray<UInt8Type>,
    raw_bytes: PrimitiveArray<UInt32Type>,
    text_hash: FixedSizeBinaryArray,
    quality: PrimitiveArray<UInt8Type>,
    language: StringArray,
    tags: StringArray,
    date: StringArray,
    score: PrimitiveArray<Float64Type>,
    url: StringArray,
    kept: Option<StringArray>,
    marks: Option<StringArray>,
    text: Option<StringArray>,
}

impl DocumentBatches {
    /// Opens a part.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn open(path: &Path, columns: Columns) -> Result<DocumentBatches> {
        DocumentBatches::open_at(path, columns, 0)
    }

    /// Opens a part at a row, without decoding earlier ones.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn open_at(path: &Path, columns: Columns, first_row: u32) -> Result<DocumentBatches> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(Error::parquet(path))?;
        let n_columns = builder.schema().fields().len();
        let wanted = 0..if columns == Columns::All { n_columns } else { n_columns - 1 };
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let reader = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .with_offset(first_row as usize)
            .build()
            .map_err(Error::parquet(path))?;
        Ok(DocumentBatches { path: path.to_owned(), reader, next_row: first_row })
    }
}

impl Iterator for DocumentBatches {
    type Item = Result<DocumentBatch>;

    fn next(&mut self) -> Option<Result<DocumentBatch>> {
        let batch = match self.reader.next()? {
            Ok(batch) => batch,
            Err(e) => return Some(Err(Error::parquet(&self.path)(e))),
        };
        let first_row = self.next_row;
        self.next_row += batch.num_rows() as u32;
        let other_schema =
            || Error::data(&self.path, "is not a part of this program; delete its folder and rerun");
        Some(DocumentBatch::of(first_row, &batch).ok_or_else(other_schema))
    }
}

impl DocumentBatch {
    fn of(first_row: u32, batch: &RecordBatch) -> Option<DocumentBatch> {
        fn numbers<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str) -> Option<PrimitiveArray<T>> {
            batch.column_by_name(name)?.as_primitive_opt::<T>().cloned()
        }
        let texts = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>().cloned();
        let text = match batch.column_by_name("text") {
            Some(_) => Some(texts("text")?),
            None => None,
        };
        Some(DocumentBatch {
            first_row,
            id: texts("id")?,
            document_id: numbers(batch, "document_id")?,
            family: numbers(batch, "family")?,
            variant: numbers(batch, "variant")?,
            raw_bytes: numbers(batch, "raw_bytes")?,
            text_hash: batch.column_by_name("text_hash")?.as_fixed_size_binary_opt()?.clone(),
            quality: numbers(batch, "quality")?,
            language: texts("language")?,
            tags: texts("tags")?,
            date: texts("date")?,
            score: numbers(batch, "score")?,
            url: texts("url")?,
            kept: texts("kept"),
            marks: texts("marks"),
            text,
        })
    }

    /// The documents with their rows.
    pub fn documents(&self) -> impl Iterator<Item = (u32, Document<'_>)> {
        (0..self.id.len()).map(|i| {
            let mut text_hash = [0; 16];
            text_hash.copy_from_slice(self.text_hash.value(i));
            let document = Document {
                id: self.id.value(i),
                document_id: DocumentId(self.document_id.value(i)),
                family: FamilyId(self.family.value(i)),
                variant: self.variant.value(i),
                raw_bytes: self.raw_bytes.value(i),
                text_hash: TextHash(u128::from_le_bytes(text_hash)),
                metadata: Metadata {
                    quality: self.quality.is_valid(i).then(|| self.quality.value(i)),
                    language: self.language.is_valid(i).then(|| self.language.value(i)),
                    tags: self.tags.value(i),
                    date: self.date.is_valid(i).then(|| self.date.value(i)),
                    score: self.score.is_valid(i).then(|| self.score.value(i)),
                    url: self.url.is_valid(i).then(|| self.url.value(i)),
                    kept: self.kept.as_ref().map_or("", |kept| kept.value(i)),
                    marks: self.marks.as_ref().map_or("", |marks| marks.value(i)),
                },
                text: self.text.as_ref().map_or("", |text| text.value(i)),
            };
            (self.first_row + i as u32, document)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_survive_the_disk_across_batches() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("documents.parquet");
        let texts: Vec<String> = (0..BATCH_ROWS * 2 + 7).map(|i| format!("text {i} é")).collect();
        let document = |i: usize| Document {
            id: &texts[i][..6],
            document_id: DocumentId(i as u64),
            family: FamilyId(u64::MAX - i as u64),
            variant: i as u8,
            raw_bytes: i as u32,
            text_hash: TextHash::of(&texts[i]),
            metadata: Metadata {
                quality: i.is_multiple_of(3).then_some(i as u8),
                language: i.is_multiple_of(5).then_some("en"),
                tags: ["", "a", "a\nb"][i % 3],
                date: i.is_multiple_of(7).then_some("2024"),
                score: i.is_multiple_of(2).then_some(i as f64 / 3.0),
                url: i.is_multiple_of(11).then_some("http://a.example/"),
                kept: ["", "{\"a\":1}"][i % 2],
                marks: ["", "{}"][i % 2],
            },
            text: &texts[i],
        };
        let mut writer = DocumentWriter::create(&path).unwrap();
        (0..texts.len()).for_each(|i| writer.append(&document(i)).unwrap());
        writer.finish().unwrap();

        for columns in [Columns::All, Columns::Ids] {
            let mut next = 0;
            for batch in DocumentBatches::open(&path, columns).unwrap() {
                for (row, found) in batch.unwrap().documents() {
                    let mut expected = document(next);
                    if columns == Columns::Ids {
                        expected.text = "";
                    }
                    assert_eq!((row as usize, found), (next, expected));
                    next += 1;
                }
            }
            assert_eq!(next, texts.len());
        }
        let first = BATCH_ROWS as u32 + 5;
        let mut batches = DocumentBatches::open_at(&path, Columns::All, first).unwrap();
        let batch = batches.next().unwrap().unwrap();
        assert_eq!(batch.documents().next(), Some((first, document(first as usize))));
    }
}
