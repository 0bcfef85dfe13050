//! Positions of the batches of an Arrow file, so that several tasks can share them. Found by walking the headers of all
//! messages, since a stream has no index, and a file's index lacks the rows of a batch.

use arrow::ipc;

use super::super::slice::Batches;
use super::super::stream::Stream;
use super::super::{FieldPaths, Limits};
use super::{ArrowReader, FREE_ROWS, Message};
use crate::error::Result;

/// Each batch of a plain file; `None` if a reader starting in the middle could give other records than one that reads everything:
/// if the file is damaged outside the bodies of batches, or dictionaries come between batches.
pub(in crate::read) fn of_file(
    stream: Stream,
    file_bytes: u64,
    limits: Limits,
) -> Result<Option<Vec<Batches>>> {
    let mut reader = ArrowReader::new(stream, &FieldPaths::default(), limits);
    let (mut batches, mut n_rows): (Vec<Batches>, u64) = (Vec::new(), 0);
    loop {
        let start = reader.stream.consumed_bytes();
        let head = match reader.next_head()? {
            Ok(head) => head,
            Err(Message::End) => return Ok(Some(batches)),
            Err(_) => return Ok(None),
        };
        let Ok(message) = ipc::root_as_message(&head.metadata) else { return Ok(None) };
        let Some(batch) = message.header_as_record_batch() else {
            // Undecodable parts are bad records, which a slice would not count.
            let is_read = batches.is_empty()
                && matches!(reader.read_body(&head)?, Message::Schema(_) | Message::Dictionary);
            if is_read {
                continue;
            }
            return Ok(None);
        };
        // The length of a damaged batch is trusted only within these bounds.
        let n_batch_rows = u64::try_from(batch.length()).ok().filter(|rows| (1..=FREE_ROWS).contains(rows));
        let end = reader.stream.consumed_bytes() + head.body_bytes;
        let (Some(n_batch_rows), true, true) = (n_batch_rows, end <= file_bytes, reader.schema.is_some())
        else {
            return Ok(None);
        };
        reader.stream.skip(head.body_bytes)?;
        let head = batches.first().map_or(start, |first| first.head);
        batches.push(Batches { head, start, end, first_row: n_rows });
        n_rows += n_batch_rows;
    }
}
