//! A file as a stream of decompressed bytes, converted to UTF-8 if its encoding is known. Damage of the
//! compressed data is distinguished from a failing disk, costs one frame (see [`Packing`]), and what a small file can grow to is
//! bounded.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use encoding_rs::{Decoder, Encoding};

use super::codec::{Codec, Packing};
use super::input::open_at;
use super::{Cause, Limits};
use crate::error::{Error, Result};

const BLOCK_BYTES: usize = 1 << 17;
/// A compressed file may grow to this size whatever [`Limits::max_expansion`] says: empty and repetitive
/// files that small harm nobody.
pub(super) const FREE_EXPANSION_BYTES: u64 = 64 << 20;

/// Decompressed bytes of a file.
pub(super) struct Stream {
    path: PathBuf,
    raw: Box<dyn BufRead + Send>,
    /// Where the stream started in the file.
    start: u64,
    /// Place in the file of the next byte of `raw`.
    position: u64,
    /// The furthest such place; reading goes back after damage.
    furthest: u64,
    /// Whether `raw` can be reopened at another position.
    is_file: bool,
    packed: Option<Packed>,
    recoded: Option<Recoded>,
    /// First bytes that were already examined.
    head: Vec<u8>,
    head_at: usize,
}

/// Damage of the underlying bytes, if they come from another stream.
#[derive(Debug)]
struct Damage(Cause);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl std::error::Error for Damage {}

/// The error by which a [`Read`] reports damage to the stream above.
pub(super) fn damage(cause: Cause) -> io::Error {
    io::Error::other(Damage(cause))
}

/// A stream as the bytes of another one.
pub(super) struct Bytes(pub Stream);

impl Read for Bytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read_full(out)
    }
}

/// State of the change to UTF-8.
struct Recoded {
    decoder: Decoder,
    /// Bytes that come before those of the stream.
    pending: Vec<u8>,
    out: Vec<u8>,
    at: usize,
    ended: bool,
}

/// State of the decompression.
struct Packed {
    packing: Packing,
    codec: Codec,
    limits: Limits,
    out: Box<[u8]>,
    /// The unused bytes of `out`.
    at: usize,
    end: usize,
    in_frame: bool,
    /// Place in the file of the frame under way, or of the last one.
    frame_start: u64,
    /// Whether the bytes in `out` are the first of their frame.
    is_first: bool,
    /// Bytes decompressed so far.
    made: u64,
    ended: bool,
    damage: Option<Cause>,
}

impl Stream {
    /// A file from its start, decompressed if its first bytes say so.
    pub fn open(path: &Path, limits: Limits) -> Result<Stream> {
        Stream::plain_from(path, 0)?.unpacked(limits)
    }

    /// The raw bytes of a file from an offset on.
    pub fn plain_from(path: &Path, start: u64) -> Result<Stream> {
        let mut stream = Stream::of(path, open_at(path, start)?);
        (stream.start, stream.position, stream.furthest, stream.is_file) = (start, start, start, true);
        Ok(stream)
    }

    /// Bytes that are not a file; `path` is for messages.
    pub fn of(path: &Path, raw: Box<dyn BufRead + Send>) -> Stream {
        Stream {
            path: path.to_owned(),
            raw,
            start: 0,
            position: 0,
            furthest: 0,
            is_file: false,
            packed: None,
            recoded: None,
            head: Vec::new(),
            head_at: 0,
        }
    }

    /// The same, decompressed if its first bytes say so.
    pub fn unpacked(mut self, limits: Limits) -> Result<Stream> {
        // Damage in the first bytes is reported when they are read.
        let magic = fill_raw(&mut *self.raw, &self.path)?.unwrap_or_default();
        match Packing::of(magic) {
            Some(packing) => self.packed_as(packing, limits),
            None => Ok(self),
        }
    }

    /// The same, decompressed.
    pub fn packed_as(mut self, packing: Packing, limits: Limits) -> Result<Stream> {
        self.packed = Some(Packed::new(packing, limits).map_err(Error::io(&self.path, "read"))?);
        Ok(self)
    }

    /// Whether positions in the stream are positions in a file.
    pub fn is_plain(&self) -> bool {
        self.packed.is_none() && self.recoded.is_none()
    }

    /// At the start: the first `n` bytes, or more, fewer where there are no more before the end or damage. Of a WARC file one frame is
    /// enough.
    pub fn peek(&mut self, n: usize) -> Result<std::result::Result<&[u8], Cause>> {
        let is_enough = match self.fill()? {
            Ok(bytes) => bytes.len() >= n || bytes.is_empty() || bytes.starts_with(b"WARC/"),
            Err(_) => true,
        };
        if is_enough || self.head_at > 0 {
            return self.fill();
        }
        while self.head.len() < n {
            let part = match self.fill_recoded()? {
                Ok([]) | Err(_) => break,
                Ok(part) => part.to_vec(),
            };
            self.consume_recoded(part.len());
            self.head.extend(part);
        }
        self.fill()
    }

    /// At the start: treats the bytes as text in this encoding, unless a byte order mark names another, and converts it to UTF-8.
    pub fn recode(&mut self, encoding: &'static Encoding) {
        let pending = std::mem::take(&mut self.head).split_off(self.head_at);
        let decoder = encoding.new_decoder();
        self.head_at = 0;
        self.recoded = Some(Recoded { decoder, pending, out: Vec::new(), at: 0, ended: false });
    }

    /// The next bytes, empty at the end; the inner error is damage of the data, which stays until
    /// [`Stream::resume`]. The bytes of a compressed file are of one frame.
    pub fn fill(&mut self) -> Result<std::result::Result<&[u8], Cause>> {
        match self.head_at < self.head.len() {
            true => Ok(Ok(&self.head[self.head_at..])),
            false => self.fill_recoded(),
        }
    }

    /// Marks `n` of the bytes of [`Stream::fill`] as used.
    pub fn consume(&mut self, n: usize) {
        match self.head_at < self.head.len() {
            true => self.head_at += n,
            false => self.consume_recoded(n),
        }
    }

    /// Fills `out` for a reader of another stream; fewer bytes only before the end or damage.
    pub fn read_full(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut made = 0;
        while made < out.len() {
            let n = match self.fill() {
                Ok(Ok([])) => break,
                Ok(Ok(bytes)) => {
                    let n = bytes.len().min(out.len() - made);
                    out[made..made + n].copy_from_slice(&bytes[..n]);
                    n
                }
                // It stays until the next call.
                Ok(Err(_)) if made > 0 => break,
                Ok(Err(cause)) => return Err(damage(cause)),
                Err(Error::Io { source, .. }) => return Err(source),
                Err(other) => return Err(io::Error::other(other)),
            };
            self.consume(n);
            made += n;
        }
        Ok(made)
    }

    fn fill_recoded(&mut self) -> Result<std::result::Result<&[u8], Cause>> {
        if self.recoded.is_none() {
            return self.fill_unpacked();
        }
        loop {
            // Taken out, since the bytes come from the rest of the stream.
            let Some(mut recoded) = self.recoded.take() else { return self.fill_unpacked() };
            if recoded.at < recoded.out.len() || recoded.ended {
                let recoded = self.recoded.insert(recoded);
                return Ok(Ok(&recoded.out[recoded.at..]));
            }
            let used = match recoded.pending.is_empty() {
                false => {
                    let pending = std::mem::take(&mut recoded.pending);
                    recoded.advance(&pending);
                    0
                }
                true => match self.fill_unpacked() {
                    Ok(Ok(bytes)) => {
                        recoded.advance(bytes);
                        bytes.len()
                    }
                    Ok(Err(damage)) => {
                        self.recoded = Some(recoded);
                        return Ok(Err(damage));
                    }
                    Err(error) => {
                        self.recoded = Some(recoded);
                        return Err(error);
                    }
                },
            };
            self.recoded = Some(recoded);
            self.consume_unpacked(used);
        }
    }

    fn consume_recoded(&mut self, n: usize) {
        match &mut self.recoded {
            Some(recoded) => recoded.at += n,
            None => self.consume_unpacked(n),
        }
    }

    fn fill_unpacked(&mut self) -> Result<std::result::Result<&[u8], Cause>> {
        let Some(packed) = &mut self.packed else {
            return fill_raw(&mut *self.raw, &self.path);
        };
        while packed.at == packed.end && !packed.ended && packed.damage.is_none() {
            let used = match fill_raw(&mut *self.raw, &self.path)? {
                Ok(input) => packed.advance(input, self.position),
                Err(damage) => Err(damage),
            };
            let used = match used {
                Ok(used) => used,
                Err(damage) => {
                    packed.damage = Some(damage);
                    break;
                }
            };
            self.raw.consume(used);
            self.position += used as u64;
            self.furthest = self.furthest.max(self.position);
        }
        match packed.damage {
            Some(damage) if packed.at == packed.end => Ok(Err(damage)),
            _ => Ok(Ok(&packed.out[packed.at..packed.end])),
        }
    }

    fn consume_unpacked(&mut self, n: usize) {
        match &mut self.packed {
            Some(packed) => {
                packed.at += n;
                packed.is_first &= n == 0;
            }
            None => {
                self.raw.consume(n);
                self.position += n as u64;
                self.furthest = self.furthest.max(self.position);
            }
        }
    }

    /// Skips `n` bytes of a plain file, which must have them.
    pub fn skip(&mut self, n: u64) -> Result<()> {
        if n <= BLOCK_BYTES as u64 {
            let mut left = n as usize;
            while left > 0 {
                let part = match self.fill()? {
                    Ok(part) if !part.is_empty() => part.len().min(left),
                    _ => return Ok(()),
                };
                self.consume(part);
                left -= part;
            }
            return Ok(());
        }
        self.position += n;
        self.furthest = self.furthest.max(self.position);
        self.raw = open_at(&self.path, self.position)?;
        Ok(())
    }

    /// Place in the file of the frame that the last bytes or the last damage belong to; 0 for a plain file.
    pub fn frame_start(&self) -> u64 {
        self.packed.as_ref().map_or(0, |packed| packed.frame_start)
    }

    /// Whether the bytes of [`Stream::fill`] begin a frame.
    pub fn is_at_frame(&self) -> bool {
        self.packed.as_ref().is_some_and(|packed| packed.is_first)
    }

    /// After damage: goes to the next frame whose first bytes can be decoded and satisfy `accept`. Returns whether there is
    /// one.
    pub fn resume(&mut self, accept: impl Fn(&[u8]) -> bool) -> Result<bool> {
        loop {
            let Some(packed) = &mut self.packed else { return Ok(false) };
            if !self.is_file {
                packed.ended = true;
                packed.damage = None;
                return Ok(false);
            }
            if packed.damage.take() == Some(Cause::TooMuchExpansion) {
                packed.ended = true;
                return Ok(false);
            }
            let from = packed.frame_start + 1;
            let packing = packed.packing;
            packed.stop();
            let Some(start) = self.find_frame(packing, from)? else {
                self.packed.as_mut().into_iter().for_each(|packed| packed.ended = true);
                return Ok(false);
            };
            self.raw = open_at(&self.path, start)?;
            self.position = start;
            match self.fill()? {
                Ok([]) => return Ok(false),
                Ok(bytes) if accept(bytes) => return Ok(true),
                _ => {}
            }
        }
    }

    fn find_frame(&mut self, packing: Packing, from: u64) -> Result<Option<u64>> {
        let mut raw = open_at(&self.path, from)?;
        let (mut held, mut held_start) = (Vec::new(), from);
        loop {
            let block = fill_raw(&mut *raw, &self.path)?.unwrap_or_default();
            if block.is_empty() {
                return Ok(None);
            }
            held.extend_from_slice(block);
            let n = block.len();
            raw.consume(n);
            if let Some(at) = packing.find_start(&held) {
                return Ok(Some(held_start + at as u64));
            }
            // A start may span two blocks.
            let done = held.len().saturating_sub(Packing::START_BYTES - 1);
            held.drain(..done);
            held_start += done as u64;
        }
    }

    /// Bytes of the file used so far.
    pub fn consumed_bytes(&self) -> u64 {
        // In a plain file, bytes that were only peeked at are still to come.
        let ahead = if self.is_plain() { self.head.len() - self.head_at } else { 0 };
        self.furthest - self.start - ahead as u64
    }
}

fn fill_raw<'r>(
    raw: &'r mut (dyn BufRead + Send),
    path: &Path,
) -> Result<std::result::Result<&'r [u8], Cause>> {
    loop {
        match raw.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                return match e.get_ref().and_then(|inner| inner.downcast_ref::<Damage>()) {
                    Some(Damage(cause)) => Ok(Err(*cause)),
                    None => Err(Error::io(path, "read")(e)),
                };
            }
            // Called a second time because the borrow checker cannot see that the first result is not kept.
            Ok(_) => return raw.fill_buf().map(Ok).map_err(Error::io(path, "read")),
        }
    }
}

impl Recoded {
    /// Decodes all of these bytes; none are the end.
    fn advance(&mut self, bytes: &[u8]) {
        let is_last = bytes.is_empty();
        self.at = 0;
        let needed = self.decoder.max_utf8_buffer_length(bytes.len());
        self.out.resize(needed.unwrap_or(bytes.len() * 3 + 16), 0);
        let (_, _, made, _) = self.decoder.decode_to_utf8(bytes, &mut self.out, is_last);
        self.out.truncate(made);
        self.ended = is_last;
    }
}

impl Packed {
    fn new(packing: Packing, limits: Limits) -> io::Result<Packed> {
        Ok(Packed {
            packing,
            codec: Codec::new(packing, limits.max_window_bytes)?,
            limits,
            out: vec![0; BLOCK_BYTES].into(),
            at: 0,
            end: 0,
            in_frame: false,
            frame_start: 0,
            is_first: false,
            made: 0,
            ended: false,
            damage: None,
        })
    }

    /// Decodes some of `input`, which lies at `position` in the file, and returns how much of it was used.
    fn advance(&mut self, input: &[u8], position: u64) -> std::result::Result<usize, Cause> {
        if !self.in_frame {
            if input.is_empty() {
                self.ended = true;
                return Ok(0);
            }
            // Zeros between and after members are padding, as in gzip and xz themselves.
            let padding = input.iter().take_while(|byte| **byte == 0).count();
            if padding > 0 && matches!(self.packing, Packing::Gzip | Packing::Xz) {
                return Ok(padding);
            }
            (self.in_frame, self.frame_start, self.is_first) = (true, position, true);
            self.codec.reset()?;
        }
        let step = self.codec.step(input, &mut self.out)?;
        (self.at, self.end) = (0, step.made);
        self.made += step.made as u64;
        if step.used == 0 && step.made == 0 && !step.ended {
            return Err(if input.is_empty() { Cause::TruncatedStream } else { Cause::CorruptStream });
        }
        let read = position + step.used as u64;
        if self.made > read.saturating_mul(self.limits.max_expansion).max(FREE_EXPANSION_BYTES) {
            self.end = 0;
            return Err(Cause::TooMuchExpansion);
        }
        self.in_frame = !step.ended;
        Ok(step.used)
    }

    /// Forgets the frame under way.
    fn stop(&mut self) {
        (self.at, self.end, self.in_frame) = (0, 0, false);
    }
}

#[cfg(test)]
mod tests;
