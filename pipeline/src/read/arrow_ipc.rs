//! Apache Arrow IPC, as a stream and as a file: one record a row. The file format is the stream between a magic and
//! a footer, so both are read from front to back, compressed as a whole or not; a damaged batch costs its own rows.

pub(super) mod batches;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::{self, CompressionType, MessageHeader, MetadataVersion, reader};

use super::columns::Columns;
use super::slice::Batches;
use super::stream::Stream;
use super::{Bad, Cause, FieldPaths, Limits, Reader, Record, Unit, expansion, guard};
use crate::error::{Error, Result};

const FILE_MAGIC: &[u8] = b"ARROW1";
/// The magic and its padding.
const FILE_START_BYTES: usize = 8;
const MAX_ALIGNMENT_BYTES: usize = 68;
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Messages with thousands of columns have less metadata.
const MAX_METADATA_BYTES: usize = 16 << 20;
/// A batch must be held in memory whole.
const MAX_BATCH_BYTES: u64 = 1 << 30;
/// Rows turned into text at a time: texts of the longest allowed size still fit in memory.
const SLICE_ROWS: usize = 256;
/// Rows that a batch may have without any bytes, such as columns of nulls.
const FREE_ROWS: u64 = 1 << 20;

/// Whether a file that starts like this is Arrow IPC.
pub(super) fn is_arrow(start: &[u8]) -> bool {
    if start.starts_with(FILE_MAGIC) {
        return true;
    }
    let Some((first, rest)) = start.split_first_chunk::<4>() else { return false };
    let length = rest.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    *first == CONTINUATION && (8..=MAX_METADATA_BYTES).contains(&length) && length.is_multiple_of(8)
}

/// A file of batches.
pub(super) struct ArrowReader {
    stream: Stream,
    fields: FieldPaths,
    limits: Limits,
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    batch: Option<RecordBatch>,
    /// Bytes that the remaining rows of the batch may be decoded to.
    batch_bytes: u64,
    /// Bytes of text in all dictionaries, each of which a batch may repeat once regardless of its size.
    dictionary_bytes: u64,
    /// Row in the batch after the last one in `columns`.
    sliced: usize,
    columns: Columns,
    at: usize,
    seen: u8,
    /// Rows of the file handed out, given up, or before the slice.
    row: u64,
    /// Bytes of the stream in which messages start.
    end: u64,
    done: bool,
}

/// The metadata of a message, whose body comes next in the stream.
struct Head {
    metadata: MutableBuffer,
    body_bytes: u64,
}

/// A piece of the stream.
enum Message {
    Schema(SchemaRef),
    Dictionary,
    Batch(RecordBatch),
    /// Rows that cannot be decoded.
    Bad(Cause, u64, u64),
    End,
}

impl ArrowReader {
    pub fn new(stream: Stream, fields: &FieldPaths, limits: Limits) -> ArrowReader {
        ArrowReader {
            stream,
            fields: fields.clone(),
            limits,
            schema: None,
            dictionaries: HashMap::new(),
            batch: None,
            batch_bytes: 0,
            dictionary_bytes: 0,
            sliced: 0,
            columns: Columns::default(),
            at: 0,
            seen: 0,
            row: 0,
            end: u64::MAX,
            done: false,
        }
    }

    /// Some batches of a plain file.
    ///
    /// # Errors
    /// The file cannot be read, or is not the one that was cut.
    pub fn slice(path: &Path, slice: Batches, fields: &FieldPaths, limits: Limits) -> Result<ArrowReader> {
        let mut reader = ArrowReader::new(Stream::plain_from(path, 0)?, fields, limits);
        while reader.stream.consumed_bytes() < slice.head {
            if !matches!(reader.next_message()?, Message::Schema(_) | Message::Dictionary) {
                let message =
                    "schema or dictionaries are not as they were when the build began; start it again";
                return Err(Error::Data { path: path.to_owned(), message: message.to_owned() });
            }
        }
        reader.stream = Stream::plain_from(path, slice.start)?;
        (reader.row, reader.end) = (slice.first_row, slice.end - slice.start);
        Ok(reader)
    }

    /// The columns of a file, if readable.
    pub fn schema_of(stream: Stream, limits: Limits) -> Result<Option<SchemaRef>> {
        let mut reader = ArrowReader::new(stream, &FieldPaths::default(), limits);
        Ok(match reader.next_message()? {
            Message::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Takes `n` bytes; fewer at the end of the stream or before damage, which the next call returns.
    fn take(&mut self, n: usize) -> Result<(MutableBuffer, Option<Cause>)> {
        let mut bytes = MutableBuffer::new(n.min(1 << 20));
        while bytes.len() < n {
            let part = match self.stream.fill()? {
                Ok([]) => return Ok((bytes, Some(Cause::TruncatedStream))),
                Ok(part) => &part[..part.len().min(n - bytes.len())],
                Err(damage) => return Ok((bytes, Some(damage))),
            };
            bytes.extend_from_slice(part);
            let used = part.len();
            self.stream.consume(used);
        }
        Ok((bytes, None))
    }

    /// Reads what comes before the body of the next message, or the message where there is no body to read. Everything after one
    /// whose length is unknown is lost.
    fn next_head(&mut self) -> Result<std::result::Result<Head, Message>> {
        let bad = |cause| Ok(Err(Message::Bad(cause, 1, 0)));
        let (mut prefix, damage) = self.take(4)?;
        if self.schema.is_none() && FILE_MAGIC.starts_with(&prefix) && damage.is_none() {
            // Some writers pad the magic to the alignment of the batches, not to 8 bytes.
            self.take(FILE_START_BYTES - 4)?;
            prefix = self.take(4)?.0;
            let mut padding = FILE_START_BYTES + 4;
            while prefix.as_slice() == [0; 4] && padding < MAX_ALIGNMENT_BYTES {
                prefix = self.take(4)?.0;
                padding += 4;
            }
        }
        if prefix.as_slice() == CONTINUATION {
            prefix = self.take(4)?.0;
        }
        self.done = true;
        let Ok(length) = <[u8; 4]>::try_from(prefix.as_slice()) else {
            // The end marker is optional, so a stream may be truncated between two messages unnoticed.
            return match damage {
                Some(damage) if damage != Cause::TruncatedStream || !prefix.is_empty() => bad(damage),
                _ if self.schema.is_none() => bad(Cause::CorruptArrow),
                _ => Ok(Err(Message::End)),
            };
        };
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            return Ok(Err(Message::End));
        }
        if length > MAX_METADATA_BYTES {
            return bad(Cause::CorruptArrow);
        }
        let (metadata, damage) = self.take(length)?;
        if let Some(damage) = damage {
            return bad(damage);
        }
        let Ok(message) = ipc::root_as_message(&metadata) else { return bad(Cause::CorruptArrow) };
        let Ok(body_bytes) = u64::try_from(message.bodyLength()) else { return bad(Cause::CorruptArrow) };
        if body_bytes > MAX_BATCH_BYTES {
            return Ok(Err(Message::Bad(Cause::TooLong, rows_of(&message), body_bytes)));
        }
        Ok(Ok(Head { metadata, body_bytes }))
    }

    /// Reads the next message.
    fn next_message(&mut self) -> Result<Message> {
        match self.next_head()? {
            Ok(head) => self.read_body(&head),
            Err(message) => Ok(message),
        }
    }

    fn read_body(&mut self, head: &Head) -> Result<Message> {
        let body_bytes = head.body_bytes;
        let Ok(message) = ipc::root_as_message(&head.metadata) else {
            return Ok(Message::Bad(Cause::CorruptArrow, 1, 0));
        };
        let (body, damage) = self.take(body_bytes as usize)?;
        if let Some(damage) = damage {
            return Ok(Message::Bad(damage, rows_of(&message), body.len() as u64));
        }
        self.done = false;
        let body = Buffer::from(body);
        let allowed = body_bytes.saturating_mul(self.limits.max_expansion);
        self.batch_bytes = allowed.max(expansion::FREE_BATCH_BYTES);
        let decoded = guard::caught(|| self.decode(&message, &body)).unwrap_or(Err(Cause::CorruptArrow));
        match decoded {
            Ok(Message::Dictionary) => {
                let texts = || self.dictionaries.values().map(|texts| expansion::array_bytes(texts)).sum();
                self.dictionary_bytes = guard::caught(texts).unwrap_or(0);
            }
            _ => self.batch_bytes = self.batch_bytes.saturating_add(self.dictionary_bytes),
        }
        Ok(decoded.unwrap_or_else(|cause| {
            // Without a schema nothing that follows can be read.
            self.done = self.schema.is_none();
            Message::Bad(cause, rows_of(&message), body_bytes)
        }))
    }

    fn decode(&mut self, message: &ipc::Message<'_>, body: &Buffer) -> std::result::Result<Message, Cause> {
        let version = message.version();
        let corrupt = Cause::CorruptArrow;
        match (message.header_type(), &self.schema) {
            (MessageHeader::Schema, None) => {
                let schema = message.header_as_schema().ok_or(corrupt)?;
                let schema: Schema = ipc::convert::fb_to_schema(schema);
                self.schema = Some(Arc::new(schema));
                Ok(Message::Schema(self.schema.clone().ok_or(corrupt)?))
            }
            (MessageHeader::DictionaryBatch, Some(schema)) => {
                let batch = message.header_as_dictionary_batch().ok_or(corrupt)?;
                self.check(&batch.data().ok_or(corrupt)?, body)?;
                let dictionaries = &mut self.dictionaries;
                reader::read_dictionary(body, batch, schema, dictionaries, &version).map_err(|_| corrupt)?;
                Ok(Message::Dictionary)
            }
            (MessageHeader::RecordBatch, Some(schema)) => {
                let batch = message.header_as_record_batch().ok_or(corrupt)?;
                self.check(&batch, body)?;
                self.read_batch(batch, body, schema.clone(), &version).map(Message::Batch)
            }
            // Tensors and a second schema are not part of a table.
            _ => Err(corrupt),
        }
    }

    fn read_batch(
        &self,
        batch: ipc::RecordBatch<'_>,
        body: &Buffer,
        schema: SchemaRef,
        version: &MetadataVersion,
    ) -> std::result::Result<RecordBatch, Cause> {
        let fields = &self.fields;
        let heads: Vec<&str> = fields.names().map(|name| name.split('.').next().unwrap_or(name)).collect();
        let is_wanted = |name: &String| heads.contains(&name.as_str()) || fields.names().any(|n| n == name);
        let columns = schema.fields().iter().enumerate().filter(|(_, field)| is_wanted(field.name()));
        let columns: Vec<usize> = columns.map(|(i, _)| i).collect();
        let batch =
            reader::read_record_batch(body, batch, schema, &self.dictionaries, Some(&columns), version);
        batch.map_err(|_| Cause::CorruptArrow)
    }

    /// The wanted columns of some rows, if they fit into what is left for the batch.
    fn columns_of(&mut self, rows: &RecordBatch) -> std::result::Result<Columns, Cause> {
        // A panic of the library here is damage that its own checks missed.
        let n_bytes = guard::caught(|| expansion::decoded_bytes(rows)).ok_or(Cause::CorruptArrow)?;
        self.batch_bytes = self.batch_bytes.checked_sub(n_bytes).ok_or(Cause::TooMuchExpansion)?;
        guard::caught(|| Columns::of(rows, &self.fields)).ok_or(Cause::CorruptArrow)
    }

    /// Refuses a batch that asks for more memory than its bytes justify.
    fn check(&self, batch: &ipc::RecordBatch<'_>, body: &[u8]) -> std::result::Result<(), Cause> {
        let mut total = body.len() as u64;
        if let Some(compression) = batch.compression() {
            total = 0;
            for buffer in batch.buffers().into_iter().flatten() {
                let (Ok(offset), Ok(length)) =
                    (usize::try_from(buffer.offset()), usize::try_from(buffer.length()))
                else {
                    return Err(Cause::CorruptArrow);
                };
                let end = offset.checked_add(length).ok_or(Cause::CorruptArrow)?;
                let bytes = body.get(offset..end).ok_or(Cause::CorruptArrow)?;
                let grown = uncompressed_bytes(bytes, compression.codec()).ok_or(Cause::CorruptArrow)?;
                total = total.saturating_add(grown);
            }
            if total > self.batch_bytes.min(MAX_BATCH_BYTES) {
                return Err(Cause::TooMuchExpansion);
            }
        }
        let n_rows = u64::try_from(batch.length()).map_err(|_| Cause::CorruptArrow)?;
        if n_rows > total.saturating_mul(8).saturating_add(FREE_ROWS) {
            Err(Cause::CorruptArrow)
        } else {
            Ok(())
        }
    }
}

/// Decompressed size of a buffer, at most the declared one; `None` if that is impossible.
fn uncompressed_bytes(buffer: &[u8], codec: CompressionType) -> Option<u64> {
    let Some((declared, packed)) = buffer.split_first_chunk::<8>() else {
        return buffer.is_empty().then_some(0);
    };
    let declared = i64::from_le_bytes(*declared);
    if declared == -1 {
        return Some(packed.len() as u64);
    }
    let declared = u64::try_from(declared).ok()?;
    // The library decodes LZ4 to its end before it compares lengths.
    let is_possible = codec != CompressionType::LZ4_FRAME || declared == 0 || lz4_bytes(packed)? >= declared;
    let is_bounded = codec != CompressionType::LZ4_FRAME || lz4_bytes(packed)? <= declared + (8 << 20);
    (is_possible && is_bounded).then_some(declared)
}

/// The most that an LZ4 frame can hold: its blocks at their largest size (LZ4 frame format 1.6.4). `None` if it is not one.
fn lz4_bytes(frame: &[u8]) -> Option<u64> {
    if frame.is_empty() {
        return Some(0);
    }
    if frame.get(..4)? != [0x04, 0x22, 0x4d, 0x18] {
        return None;
    }
    let (flags, block) = (*frame.get(4)?, *frame.get(5)?);
    let block_bytes = match block >> 4 & 7 {
        size @ 4..=7 => 1u64 << (2 * size + 8),
        _ => return None,
    };
    let mut at = 7usize + if flags & 8 != 0 { 8 } else { 0 } + if flags & 1 != 0 { 4 } else { 0 };
    let mut total = 0u64;
    loop {
        let size = u32::from_le_bytes(frame.get(at..at.checked_add(4)?)?.try_into().ok()?);
        if size == 0 {
            return Some(total);
        }
        // A block grows at most 255 times.
        let length = u64::from(size & 0x7fff_ffff);
        total += block_bytes.min(length.saturating_mul(255));
        at = at.checked_add(4 + usize::try_from(length).ok()? + if flags & 16 != 0 { 4 } else { 0 })?;
    }
}

/// Declared rows of a message, at least one.
fn rows_of(message: &ipc::Message<'_>) -> u64 {
    let rows = message.header_as_record_batch().and_then(|batch| u64::try_from(batch.length()).ok());
    // Damaged bytes alone must not decide a count of records.
    rows.filter(|rows| *rows <= FREE_ROWS).unwrap_or(1).max(1)
}

impl Reader for ArrowReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        loop {
            if self.at < self.columns.n_rows() {
                let content = self.columns.row(self.at, &self.fields, self.limits.max_doc_bytes);
                let of_bad = |_: &Bad| self.columns.text_bytes(self.at);
                let n_bytes = content.as_ref().map_or_else(of_bad, |raw| raw.text.len() as u64);
                self.at += 1;
                self.row += 1;
                return Ok(Some(Record { offset: self.row - 1, n_bytes, n_records: 1, content }));
            }
            if let Some(batch) = &self.batch {
                let n = batch.num_rows().saturating_sub(self.sliced).min(SLICE_ROWS);
                if n > 0 {
                    let slice = batch.slice(self.sliced, n);
                    let left = batch.num_rows() - self.sliced;
                    match self.columns_of(&slice) {
                        Ok(columns) => {
                            self.sliced += n;
                            self.seen |= columns.present;
                            (self.columns, self.at) = (columns, 0);
                        }
                        Err(cause) => {
                            // A stream that has grown too large keeps growing.
                            let n = if cause == Cause::TooMuchExpansion { left } else { n };
                            self.sliced += n;
                            let content = Err(Bad::new(cause, b""));
                            let record =
                                Record { offset: self.row, n_bytes: 0, n_records: n as u64, content };
                            self.row += n as u64;
                            return Ok(Some(record));
                        }
                    }
                    continue;
                }
                self.batch = None;
            }
            if self.done || self.stream.consumed_bytes() >= self.end {
                return Ok(None);
            }
            let was_first = self.schema.is_none();
            match self.next_message()? {
                Message::Schema(_) | Message::Dictionary => {}
                Message::Batch(batch) => (self.batch, self.sliced) = (Some(batch), 0),
                Message::Bad(cause, n_records, n_bytes) => {
                    let is_empty = was_first && self.stream.consumed_bytes() == 0;
                    let cause = if is_empty { Cause::EmptyFile } else { cause };
                    let content = Err(Bad::new(cause, b""));
                    let record = Record { offset: self.row, n_bytes, n_records, content };
                    self.row += n_records;
                    return Ok(Some(record));
                }
                Message::End => self.done = true,
            }
        }
    }

    fn consumed_bytes(&self) -> u64 {
        self.stream.consumed_bytes()
    }

    fn unit(&self) -> Unit {
        Unit::Row
    }

    fn seen(&self) -> u8 {
        self.seen
    }
}

#[cfg(test)]
mod tests;
