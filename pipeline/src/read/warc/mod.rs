//! WARC files (ISO 28500:2017) with their derivative WET: crawled pages and their text. `response` and
//! `resource` records with HTML become the text of the page, `conversion` records are text already; every other record is skipped
//! with its kind as the reason.
//!
//! A bad record costs one record. Where the file is compressed record by record, as the standard recommends, the next one is
//! found at the next gzip member, else at the next line that starts like a record.

pub(super) mod arc;
mod content;
mod header;
mod http;
mod window;

use std::collections::BTreeSet;
use std::ops::Range;

use self::header::{Header, MAX_HEADER_BYTES, header_bytes};
use self::window::{End, Frame, MAGIC, VERSION_LINE_BYTES, Window};
use super::stream::Stream;
use super::{Bad, Cause, FieldPaths, Limits, Reader, Record, Unit};
use crate::error::Result;

/// Separator after a record.
const BLANK_LINES: &[u8] = b"\r\n\r\n";
/// Most bytes by which a length may be wrong.
const SLACK_BYTES: usize = 16;

/// What a record may hold besides its document: the head of the HTTP message.
const EXTRA_BYTES: u64 = 1 << 16;

pub(super) struct WarcReader {
    window: Window,
    fields: FieldPaths,
    limits: Limits,
    /// Bytes of the file.
    file_bytes: u64,
    /// Whether records start where gzip members do: then a place is one in the file, as in the index of a crawl.
    by_frame: bool,
    /// Whether the file has had no record so far.
    may_be_empty: bool,
}

/// Where a record starts.
#[derive(Clone, Copy)]
struct Start {
    offset: u64,
    frame: Frame,
}

impl WarcReader {
    pub fn new(stream: Stream, file_bytes: u64, fields: &FieldPaths, limits: Limits) -> WarcReader {
        let fields = content::with_defaults(fields);
        let window = Window::new(stream);
        WarcReader { window, fields, limits, file_bytes, by_frame: false, may_be_empty: true }
    }

    /// Names of the fields of the first records.
    pub fn field_names(stream: Stream, n_records: usize) -> Result<BTreeSet<String>> {
        let mut window = Window::new(stream);
        let mut names: BTreeSet<String> = BTreeSet::new();
        for _ in 0..n_records {
            if !window.ensure(MAGIC.len())? {
                break;
            }
            let Some(n) = complete_header(&mut window)? else { break };
            let Some(header) = Header::parse(&window.bytes()[..n]) else { break };
            names.extend(header.fields.into_iter().map(|(name, _)| name));
            window.consume(n);
            let mut left = header.content_length;
            while window.ensure(1)? && (left > 0 || matches!(window.bytes()[0], b'\r' | b'\n')) {
                let n = left.clamp(1, window.bytes().len() as u64);
                window.consume(n as usize);
                left = left.saturating_sub(n);
            }
        }
        if !names.is_empty() {
            names.extend(content::OWN_FIELDS.map(str::to_owned));
        }
        Ok(names)
    }

    fn start(&self) -> Start {
        Start { offset: self.window.offset(), frame: self.window.frame() }
    }

    fn record(&self, start: Start, n_bytes: u64, content: std::result::Result<super::Raw, Bad>) -> Record {
        let offset = if self.by_frame { start.frame.start } else { start.offset };
        Record { offset, n_bytes, n_records: 1, content }
    }

    /// The record that starts here.
    fn read_record(&mut self) -> Result<Record> {
        let start = self.start();
        let header = match complete_header(&mut self.window)? {
            // A member that starts inside belongs to the next record.
            Some(n) if self.window.record_frame_within(n).is_none() => {
                Header::parse(&self.window.bytes()[..n]).map(|header| (header, n))
            }
            _ => None,
        };
        let Some((header, n)) = header else { return self.bad_record(start, Cause::BadWarc) };
        let Ok(length) = usize::try_from(header.content_length) else {
            return self.bad_record(start, Cause::BadWarc);
        };
        if header.content_length > self.limits.max_doc_bytes.saturating_add(EXTRA_BYTES) {
            return self.skip_long(start, n, header.content_length);
        }
        let end = n + length;
        self.window.ensure(end + 1)?;
        if let Some(cut) = self.window.record_frame_within(end) {
            if let Some((end, next)) = self.near_end(n, end)? {
                return Ok(self.whole_record(start, &header, n..end, next));
            }
            let bad = Bad::new(Cause::BadWarc, self.window.bytes());
            self.window.consume(cut);
            return Ok(self.record(start, cut as u64, Err(bad)));
        }
        if self.window.bytes().len() < end {
            // The file ends, or another record was mistaken for part of this one.
            return match self.near_end(n, end)? {
                Some((end, next)) => Ok(self.whole_record(start, &header, n..end, next)),
                None => self.bad_record(start, Cause::BadWarc),
            };
        }
        let newlines = self.newlines_behind(end)?;
        let (behind, rest) = self.window.bytes()[end..].split_at(newlines);
        let is_exact = behind.starts_with(BLANK_LINES);
        // What follows may itself be damaged, so one sign of a right length is enough.
        let is_whole = is_exact
            || MAGIC.starts_with(&rest[..rest.len().min(MAGIC.len())])
            || self.window.has_frame_in(end..=end + newlines);
        if let End::Damage(_, frame) = self.window.end()
            && frame == start.frame.start
            && rest.len() < MAGIC.len()
        {
            // Its member breaks off after it, so the bytes read cannot be trusted.
            return self.bad_record(start, Cause::CorruptStream);
        }
        if !is_exact && let Some((end, next)) = self.near_end(n, end)? {
            return Ok(self.whole_record(start, &header, n..end, next));
        }
        if !is_whole {
            return self.bad_record(start, Cause::BadWarc);
        }
        Ok(self.whole_record(start, &header, n..end, end + newlines))
    }

    /// The record whose block is `block`; the next one starts at `next`.
    fn whole_record(&mut self, start: Start, header: &Header, block: Range<usize>, next: usize) -> Record {
        let n_bytes = block.len() as u64;
        let content = content::document(header, &self.window.bytes()[block], &self.fields, self.limits);
        let id = content::name(header, &self.fields);
        let content = content.map_err(|fault| Bad { id, ..fault.at(self.window.bytes()) });
        self.window.consume(next);
        self.record(start, n_bytes, content)
    }

    /// The true end of a block that starts at `n` and should end at `end`, and the start of the next record, if the
    /// length is wrong by a few bytes: between two blank lines and a clear record start, or the end of the file.
    fn near_end(&mut self, n: usize, end: usize) -> Result<Option<(usize, usize)>> {
        let least = (end + BLANK_LINES.len()).saturating_sub(SLACK_BYTES).max(n + BLANK_LINES.len());
        let most = end + BLANK_LINES.len() + SLACK_BYTES;
        self.window.ensure(most + VERSION_LINE_BYTES)?;
        let starts = (least..=most.min(self.window.bytes().len()))
            .filter(|at| self.window.bytes()[..*at].ends_with(BLANK_LINES))
            .find(|at| self.window.is_end_at(*at) || self.window.is_record_at(*at));
        Ok(starts.map(|next| (next - BLANK_LINES.len(), next)))
    }

    /// How many bytes of line ends follow the first `end` bytes; makes sure that the bytes after them are held.
    fn newlines_behind(&mut self, end: usize) -> Result<usize> {
        let mut n = 0;
        loop {
            self.window.ensure(end + n + MAGIC.len())?;
            match self.window.bytes().get(end + n) {
                Some(b'\r' | b'\n') => n += 1,
                _ => return Ok(n),
            }
        }
    }

    /// Skips a record that is too long to hold.
    fn skip_long(&mut self, start: Start, n: usize, length: u64) -> Result<Record> {
        let mut bad = Bad::new(Cause::TooLong, self.window.bytes());
        let is_plain = self.window.stream().is_plain();
        if is_plain && start.offset.saturating_add(n as u64).saturating_add(length) > self.file_bytes {
            return self.bad_record(start, Cause::BadWarc);
        }
        self.window.consume(n);
        let mut left = length;
        while left > 0 && (self.window.ensure(MAGIC.len())? || !self.window.bytes().is_empty()) {
            // In a compressed file the length cannot be checked first, and a wrong one must not cost the following records.
            if self.window.is_at_frame() && self.window.bytes().starts_with(MAGIC) {
                break;
            }
            let held = self.window.bytes().len();
            let cut = if is_plain { None } else { self.window.next_magic() };
            let n = left.min(cut.unwrap_or(held) as u64) as usize;
            self.window.consume(n);
            left -= n as u64;
            if cut.is_some() {
                break;
            }
        }
        if left > 0 {
            bad.cause = Cause::BadWarc;
        }
        let n_bytes = self.window.offset() - start.offset;
        Ok(self.record(start, n_bytes, Err(bad)))
    }

    /// Gives up on what starts here, up to the next apparent record.
    fn bad_record(&mut self, start: Start, cause: Cause) -> Result<Record> {
        let mut bad = Bad::new(cause, self.window.bytes());
        self.window.ensure(1)?;
        loop {
            if let Some(at) = self.window.next_magic() {
                self.window.consume(at);
                break;
            }
            // The magic may span two blocks, and the byte before it decides.
            let done = self.window.bytes().len().saturating_sub(VERSION_LINE_BYTES + 1);
            self.window.consume(done);
            if self.window.more()? {
                continue;
            }
            let rest = self.window.bytes().len();
            match self.window.end() {
                End::Damage(damage, frame) => {
                    // Damage of another frame is another bad record.
                    if frame == start.frame.start {
                        bad.cause = damage;
                        let n_bytes = self.window.offset() + rest as u64 - start.offset;
                        self.window.resume()?;
                        return Ok(self.record(start, n_bytes, Err(bad)));
                    }
                    self.window.consume(rest);
                }
                _ => {
                    self.window.consume(rest);
                    // Nothing follows: the last record is truncated.
                    if cause == Cause::BadWarc && bad.first_bytes.starts_with(MAGIC) {
                        bad.cause = Cause::TruncatedStream;
                    }
                }
            }
            break;
        }
        Ok(self.record(start, self.window.offset() - start.offset, Err(bad)))
    }
}

/// Length of the header that starts here; `None` if there is none of plausible length.
fn complete_header(window: &mut Window) -> Result<Option<usize>> {
    window.ensure(MAGIC.len())?;
    if !window.bytes().starts_with(MAGIC) {
        return Ok(None);
    }
    loop {
        if let Some(n) = header_bytes(window.bytes()) {
            return Ok((n <= MAX_HEADER_BYTES).then_some(n));
        }
        if window.bytes().len() > MAX_HEADER_BYTES || !window.more()? {
            return Ok(None);
        }
    }
}

impl Reader for WarcReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        loop {
            if self.window.ensure(1)? {
                if matches!(self.window.bytes()[0], b'\r' | b'\n') {
                    self.window.consume(1);
                    continue;
                }
                let is_first = std::mem::replace(&mut self.may_be_empty, false);
                self.by_frame |= !is_first && self.window.is_at_frame();
                return self.read_record().map(Some);
            }
            let is_empty = std::mem::replace(&mut self.may_be_empty, false);
            return match self.window.end() {
                End::Damage(cause, frame) => {
                    let start = Start {
                        offset: self.window.offset(),
                        frame: Frame { start: frame, ..Frame::default() },
                    };
                    self.by_frame |= frame > 0;
                    self.window.resume()?;
                    Ok(Some(self.record(start, 0, Err(Bad::new(cause, b"")))))
                }
                _ => {
                    let bad = Err(Bad::new(Cause::EmptyFile, b""));
                    Ok(is_empty.then_some(Record { offset: 0, n_bytes: 0, n_records: 1, content: bad }))
                }
            };
        }
    }

    fn consumed_bytes(&self) -> u64 {
        self.window.stream().consumed_bytes()
    }

    fn unit(&self) -> Unit {
        if self.by_frame { Unit::FileByte } else { Unit::Byte }
    }
}

#[cfg(test)]
mod tests;
