//! A lookahead window on a stream, with the positions where frames begin. A record of a
//! WARC file can then be found wrong by what follows it, and be read again from its second byte.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::super::Cause;
use super::super::stream::Stream;
use crate::error::Result;

const CHUNK_BYTES: usize = 1 << 16;
/// Used bytes are dropped once there are this many.
const COMPACT_BYTES: usize = 1 << 20;
pub(super) const MAGIC: &[u8] = b"WARC/";
/// The longest version line, its end included.
pub(super) const VERSION_LINE_BYTES: usize = 16;

/// A frame (gzip member or zstd frame) of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// Of its first byte in the decompressed stream.
    pub offset: u64,
    /// Of its first byte in the file.
    pub start: u64,
}

/// What follows the bytes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// More.
    Open,
    /// Nothing.
    File,
    /// A frame that cannot be decoded further, by its place in the file.
    Damage(Cause, u64),
}

pub(super) struct Window {
    stream: Stream,
    held: Vec<u8>,
    at: usize,
    /// Offset of `held[at]` in the decompressed stream.
    offset: u64,
    /// Frames that begin in `held`, and the one before them.
    frames: VecDeque<Frame>,
    end: End,
}

impl Window {
    pub fn new(stream: Stream) -> Window {
        Window { stream, held: Vec::new(), at: 0, offset: 0, frames: VecDeque::new(), end: End::Open }
    }

    /// What is held.
    pub fn bytes(&self) -> &[u8] {
        &self.held[self.at..]
    }

    /// Offset of the first byte in the decompressed stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn end(&self) -> End {
        self.end
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Adds bytes; `false` at the end.
    pub fn more(&mut self) -> Result<bool> {
        if self.end != End::Open {
            return Ok(false);
        }
        let is_at_frame = {
            // Damage stays until `resume`, so the second `fill` below returns it again.
            self.stream.fill()?.ok();
            self.stream.is_at_frame()
        };
        let frame = self.stream.frame_start();
        let n = match self.stream.fill()? {
            Ok([]) => {
                self.end = End::File;
                return Ok(false);
            }
            Err(damage) => {
                self.end = End::Damage(damage, frame);
                return Ok(false);
            }
            Ok(bytes) => {
                if is_at_frame {
                    let offset = self.offset + (self.held.len() - self.at) as u64;
                    self.frames.push_back(Frame { offset, start: frame });
                }
                let part = &bytes[..bytes.len().min(CHUNK_BYTES)];
                self.held.extend_from_slice(part);
                part.len()
            }
        };
        self.stream.consume(n);
        self.forget_frames();
        Ok(true)
    }

    /// Keeps the frame of the first byte and later ones.
    fn forget_frames(&mut self) {
        while self.frames.get(1).is_some_and(|next| next.offset <= self.offset) {
            self.frames.pop_front();
        }
    }

    /// Adds bytes until there are `n`; `false` when there are fewer.
    pub fn ensure(&mut self, n: usize) -> Result<bool> {
        while self.bytes().len() < n {
            if !self.more()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Drops the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        self.at += n;
        self.offset += n as u64;
        self.forget_frames();
        if self.at == self.held.len() || self.at >= COMPACT_BYTES {
            self.held.drain(..self.at);
            self.at = 0;
        }
    }

    /// The frame of the first byte; the file itself when it is not compressed.
    pub fn frame(&self) -> Frame {
        self.frames.front().copied().unwrap_or_default()
    }

    /// Whether the first byte begins a frame.
    pub fn is_at_frame(&self) -> bool {
        self.frames.front().is_some_and(|frame| frame.offset == self.offset)
    }

    /// Position after the first byte, within the first `n`, of a frame that starts with a record.
    pub fn record_frame_within(&self, n: usize) -> Option<usize> {
        let starts = self.frames.iter().map(|frame| frame.offset.saturating_sub(self.offset) as usize);
        starts.filter(|at| (1..n).contains(at)).find(|at| self.bytes()[*at..].starts_with(MAGIC))
    }

    /// Whether a frame begins at one of these places after the first byte.
    pub fn has_frame_in(&self, places: RangeInclusive<usize>) -> bool {
        self.frames.iter().any(|frame| {
            frame.offset.checked_sub(self.offset).is_some_and(|at| places.contains(&(at as usize)))
        })
    }

    /// Position after the first byte where a record seems to start: a line of only the magic and a version, or a frame that
    /// starts with the magic.
    pub fn next_magic(&self) -> Option<usize> {
        let bytes = self.bytes();
        memchr::memmem::find_iter(bytes.get(1..)?, MAGIC).map(|at| at + 1).find(|at| self.is_record_at(*at))
    }

    /// Whether a record seems to start at a place after the first byte.
    pub fn is_record_at(&self, at: usize) -> bool {
        let bytes = self.bytes();
        let is_frame = self.frames.iter().any(|frame| frame.offset == self.offset + at as u64);
        let starts = bytes.get(at..).is_some_and(|rest| rest.starts_with(MAGIC));
        starts && (is_frame || (bytes[at - 1] == b'\n' && is_version_line(&bytes[at..])))
    }

    /// Whether the file ends at a place.
    pub fn is_end_at(&self, at: usize) -> bool {
        self.end == End::File && at == self.bytes().len()
    }

    /// After damage: drops the window and goes to the next frame that starts with a record.
    pub fn resume(&mut self) -> Result<()> {
        self.offset += self.bytes().len() as u64;
        self.held.clear();
        self.at = 0;
        self.frames.clear();
        let is_record = |bytes: &[u8]| MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]);
        self.end = if self.stream.resume(is_record)? { End::Open } else { End::File };
        Ok(())
    }
}

fn is_version_line(bytes: &[u8]) -> bool {
    let line = &bytes[..bytes.len().min(VERSION_LINE_BYTES)];
    let Some(end) = memchr::memchr(b'\n', line) else { return false };
    let version = line[MAGIC.len()..end].trim_ascii_end();
    !version.is_empty() && version.iter().all(|b| b.is_ascii_digit() || *b == b'.')
}
