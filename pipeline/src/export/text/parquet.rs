//! Parquet with the columns of the JSON lines. Required columns have no nulls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int32Builder, ListBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde_json::Value;

use super::{Columns, Record, RecordWriter, TextCompression, family_name};
use crate::error::{Error, Result};
use crate::export::{Exported, HashedFile};

/// A batch is written when it reaches either size.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// A row group is closed at this many encoded bytes, which bounds the writer's memory and that of readers.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// A file under way.
pub(super) struct ParquetFile {
    path: PathBuf,
    columns: Columns,
    writer: ArrowWriter<HashedFile>,
    n_rows: usize,
    id: StringBuilder,
    text: StringBuilder,
    source: StringBuilder,
    family: StringBuilder,
    variant: Int32Builder,
    quality: Int32Builder,
    language: StringBuilder,
    tags: ListBuilder<StringBuilder>,
    score: Float64Builder,
    url: StringBuilder,
    date: StringBuilder,
    /// Of the carried fields, in their order.
    kept: Vec<StringBuilder>,
}

fn tag_field() -> Field {
    Field::new("item", DataType::Utf8, false)
}

fn schema(columns: &Columns) -> Schema {
    let always = |name: &str, kind| Some(Field::new(name, kind, false));
    let maybe = |is_there: bool, name: &str, kind| is_there.then(|| Field::new(name, kind, true));
    let fixed = [
        always("id", DataType::Utf8),
        always("text", DataType::Utf8),
        always("source", DataType::Utf8),
        always("family", DataType::Utf8),
        always("variant", DataType::Int32),
        maybe(columns.quality, "quality", DataType::Int32),
        maybe(columns.language, "language", DataType::Utf8),
        always("tags", DataType::List(Arc::new(tag_field()))),
        maybe(columns.score, "score", DataType::Float64),
        maybe(columns.url, "url", DataType::Utf8),
        maybe(columns.date, "date", DataType::Utf8),
    ];
    let kept = columns.kept.iter().map(|name| Field::new(name, DataType::Utf8, true));
    Schema::new(fixed.into_iter().flatten().chain(kept).collect::<Vec<Field>>())
}

impl ParquetFile {
    /// Starts a file that appears at `path` when it is finished.
    pub fn create(path: &Path, columns: Columns, compression: TextCompression) -> Result<ParquetFile> {
        let compression = match compression {
            TextCompression::Zstd => Compression::ZSTD(ZstdLevel::default()),
            TextCompression::Gzip => Compression::GZIP(GzipLevel::default()),
        };
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_column_dictionary_enabled("text".into(), false)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let file = HashedFile::create(path)?;
        let writer = ArrowWriter::try_new(file, Arc::new(schema(&columns)), Some(properties))
            .map_err(Error::parquet(path))?;
        let kept = columns.kept.iter().map(|_| StringBuilder::new()).collect();
        Ok(ParquetFile {
            path: path.to_owned(),
            columns,
            kept,
            writer,
            n_rows: 0,
            id: StringBuilder::new(),
            text: StringBuilder::new(),
            source: StringBuilder::new(),
            family: StringBuilder::new(),
            variant: Int32Builder::new(),
            quality: Int32Builder::new(),
            language: StringBuilder::new(),
            tags: ListBuilder::new(StringBuilder::new()).with_field(tag_field()),
            score: Float64Builder::new(),
            url: StringBuilder::new(),
            date: StringBuilder::new(),
        })
    }

    fn flush(&mut self) -> Result<()> {
        self.n_rows = 0;
        let columns = &self.columns;
        let always = |column: ArrayRef| Some(column);
        let maybe = |is_there: bool, column: ArrayRef| is_there.then_some(column);
        let arrays = [
            always(Arc::new(self.id.finish())),
            always(Arc::new(self.text.finish())),
            always(Arc::new(self.source.finish())),
            always(Arc::new(self.family.finish())),
            always(Arc::new(self.variant.finish())),
            maybe(columns.quality, Arc::new(self.quality.finish())),
            maybe(columns.language, Arc::new(self.language.finish())),
            always(Arc::new(self.tags.finish())),
            maybe(columns.score, Arc::new(self.score.finish())),
            maybe(columns.url, Arc::new(self.url.finish())),
            maybe(columns.date, Arc::new(self.date.finish())),
        ];
        let wrong = || Error::parquet(&self.path);
        let kept = self.kept.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let arrays = arrays.into_iter().flatten().chain(kept).collect();
        let batch =
            RecordBatch::try_new(Arc::new(schema(columns)), arrays).map_err(Error::parquet(&self.path))?;
        self.writer.write(&batch).map_err(wrong())?;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush().map_err(wrong())?;
        }
        Ok(())
    }
}

impl RecordWriter for ParquetFile {
    fn append(&mut self, record: &Record<'_>) -> Result<()> {
        self.n_rows += 1;
        self.id.append_value(record.id);
        self.text.append_value(&record.text);
        self.source.append_value(record.source);
        self.family.append_value(family_name(record.family));
        self.variant.append_value(i32::from(record.variant));
        self.quality.append_option(record.quality.map(i32::from));
        self.language.append_option(record.language);
        record.tags.iter().for_each(|tag| self.tags.values().append_value(tag));
        self.tags.append(true);
        self.score.append_option(record.score);
        self.url.append_option(record.url);
        self.date.append_option(record.date);
        for (name, column) in self.columns.kept.iter().zip(&mut self.kept) {
            match record.kept.get(name) {
                None | Some(Value::Null) => column.append_null(),
                Some(Value::String(text)) => column.append_value(text),
                Some(value) => column.append_value(value.to_string()),
            }
        }
        let is_full = self.n_rows >= BATCH_ROWS || self.text.values_slice().len() >= BATCH_BYTES;
        if is_full { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<Exported> {
        self.flush()?;
        self.writer.into_inner().map_err(Error::parquet(&self.path))?.commit()
    }
}
