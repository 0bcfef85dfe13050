//! Lines of a stream in bounded memory: a line over the limit is measured and skipped, never stored.

use std::path::Path;

use super::sniff::BYTE_ORDER_MARK;
use super::stream::Stream;
use super::{Cause, FIRST_BYTES};
use crate::error::Result;

/// Splits a stream at `\n`.
pub(super) struct Lines {
    stream: Stream,
    max_bytes: u64,
    offset: u64,
    line: Vec<u8>,
    ended: bool,
    /// The last line broke off; the next is in another frame.
    broken: bool,
}

/// One line, or what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Of its first byte in the decompressed stream.
    pub offset: u64,
    /// Without the line end.
    pub n_bytes: u64,
    /// Why `Lines::bytes` is not the whole line.
    pub cause: Option<Cause>,
}

impl Lines {
    pub fn new(stream: Stream, max_bytes: u64) -> Lines {
        Lines { stream, max_bytes, offset: 0, line: Vec::new(), ended: false, broken: false }
    }

    /// The lines of a plain file from the first one that starts in `start..end`.
    pub fn starting_in(path: &Path, start: u64, end: u64, max_bytes: u64) -> Result<Lines> {
        // A line starts here if the byte before ends another.
        let offset = start.saturating_sub(1);
        let stream = Stream::plain_from(path, offset)?;
        let mut lines = Lines { stream, max_bytes, offset, line: Vec::new(), ended: false, broken: false };
        if start > 0 {
            lines.skip_line(end)?;
        }
        Ok(lines)
    }

    /// Moves after the next line end, or at least to `limit`.
    fn skip_line(&mut self, limit: u64) -> Result<()> {
        while self.offset < limit {
            let Ok(available) = self.stream.fill()? else { return Ok(()) };
            let end = memchr::memchr(b'\n', available);
            let used = end.map_or(available.len(), |end| end + 1);
            self.stream.consume(used);
            self.offset += used as u64;
            if end.is_some() || used == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Where the next line starts.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes of the last line; only the first few if it is too long.
    pub fn bytes(&self) -> &[u8] {
        &self.line
    }

    pub fn consumed_bytes(&self) -> u64 {
        self.stream.consumed_bytes()
    }

    /// Moves to the next line; `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<Line>> {
        if self.ended {
            return Ok(None);
        }
        self.line.clear();
        if std::mem::take(&mut self.broken) && !self.stream.resume(|_| true)? {
            self.ended = true;
            return Ok(None);
        }
        let start = self.offset;
        let mut n_bytes = 0u64;
        let mut cause = None;
        loop {
            let available = match self.stream.fill()? {
                Ok(available) => available,
                Err(damage) => {
                    self.broken = true;
                    cause = Some(damage);
                    break;
                }
            };
            if available.is_empty() {
                self.ended = true;
                if n_bytes == 0 {
                    return Ok(None);
                }
                break;
            }
            let end = memchr::memchr(b'\n', available);
            let part = &available[..end.unwrap_or(available.len())];
            n_bytes += part.len() as u64;
            if cause.is_none() {
                self.line.extend_from_slice(part);
            }
            if n_bytes > self.max_bytes && cause.is_none() {
                self.line.truncate(FIRST_BYTES);
                cause = Some(Cause::TooLong);
            }
            let used = part.len() + usize::from(end.is_some());
            self.stream.consume(used);
            self.offset += used as u64;
            if end.is_some() {
                break;
            }
        }
        // Concatenated files have one in the middle.
        while self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Some(Line { offset: start, n_bytes, cause }))
    }
}
