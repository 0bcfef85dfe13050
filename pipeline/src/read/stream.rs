//! A file as a stream of decompressed bytes. Damage of the compressed data is told apart from a failing
//! disk, costs one frame (see [`Packing`]), and what a small file can grow to is bounded.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

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
    packed: Option<Packed>,
}

/// State of the decompression.
struct Packed {
    packing: Packing,
    codec: Codec,
    limits: Limits,
    out: Box<[u8]>,
    /// The bytes of `out` that were not used yet.
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
        let mut stream = Stream::plain_from(path, 0)?;
        let magic = loop {
            match stream.raw.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(Error::io(path, "read"))?,
            }
        };
        if let Some(packing) = Packing::of(magic) {
            stream.packed = Some(Packed::new(packing, limits).map_err(Error::io(path, "read"))?);
        }
        Ok(stream)
    }

    /// The bytes of a file from a byte on, as they lie on the disk.
    pub fn plain_from(path: &Path, start: u64) -> Result<Stream> {
        let raw = open_at(path, start)?;
        Ok(Stream { path: path.to_owned(), raw, start, position: start, furthest: start, packed: None })
    }

    /// Whether the file is not compressed.
    pub fn is_plain(&self) -> bool {
        self.packed.is_none()
    }

    /// The next bytes, empty at the end; the inner error is damage of the data, which stays until
    /// [`Stream::resume`]. The bytes of a compressed file are of one frame.
    pub fn fill(&mut self) -> Result<std::result::Result<&[u8], Cause>> {
        let Some(packed) = &mut self.packed else {
            return fill_raw(&mut *self.raw, &self.path).map(Ok);
        };
        while packed.at == packed.end && !packed.ended && packed.damage.is_none() {
            let input = fill_raw(&mut *self.raw, &self.path)?;
            let used = match packed.advance(input, self.position) {
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

    /// Marks `n` of the bytes of [`Stream::fill`] as used.
    pub fn consume(&mut self, n: usize) {
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

    /// Passes over `n` bytes of a plain file, which has them.
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

    /// After damage: goes to the next frame whose first bytes can be decoded and please `accept`. Says whether there is
    /// one.
    pub fn resume(&mut self, accept: impl Fn(&[u8]) -> bool) -> Result<bool> {
        loop {
            let Some(packed) = &mut self.packed else { return Ok(false) };
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
            let block = fill_raw(&mut *raw, &self.path)?;
            if block.is_empty() {
                return Ok(None);
            }
            held.extend_from_slice(block);
            let n = block.len();
            raw.consume(n);
            if let Some(at) = packing.find_start(&held) {
                return Ok(Some(held_start + at as u64));
            }
            // A start may lie across two blocks.
            let done = held.len().saturating_sub(Packing::START_BYTES - 1);
            held.drain(..done);
            held_start += done as u64;
        }
    }

    /// Bytes of the file that have been used.
    pub fn consumed_bytes(&self) -> u64 {
        self.furthest - self.start
    }
}

fn fill_raw<'r>(raw: &'r mut (dyn BufRead + Send), path: &Path) -> Result<&'r [u8]> {
    loop {
        match raw.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io(path, "read")(e)),
            // Asked a second time because the borrow checker does not see that the first answer is not kept.
            Ok(_) => return raw.fill_buf().map_err(Error::io(path, "read")),
        }
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
            // Zeros between and behind members are padding, as gzip itself has it.
            let padding = input.iter().take_while(|byte| **byte == 0).count();
            if padding > 0 && self.packing == Packing::Gzip {
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
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    /// All bytes of a file, `!` for each damage, and the damages.
    fn read(bytes: &[u8]) -> (Vec<u8>, Vec<Cause>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut stream = Stream::open(file.path(), Limits::default()).unwrap();
        let (mut out, mut damages) = (Vec::new(), Vec::new());
        loop {
            let n = match stream.fill().unwrap() {
                Ok([]) => return (out, damages),
                Ok(part) => {
                    out.extend_from_slice(part);
                    part.len()
                }
                Err(damage) => {
                    damages.push(damage);
                    out.push(b'!');
                    if !stream.resume(|_| true).unwrap() {
                        return (out, damages);
                    }
                    0
                }
            };
            stream.consume(n);
        }
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        assert_eq!(read(b"plain"), (b"plain".to_vec(), vec![]));
        let padded = [&gzip(b"one ")[..], &[0; 5], &gzip(b""), &gzip(b"two"), &[0; 9]].concat();
        assert_eq!(read(&padded), (b"one two".to_vec(), vec![]));
        assert_eq!(read(&[zstd(b"one "), zstd(b"two")].concat()), (b"one two".to_vec(), vec![]));
    }

    #[test]
    fn damage_costs_one_frame() {
        for pack in [gzip, zstd] {
            let (a, b, c) = (pack(b"first "), pack(b"second "), pack(b"third"));
            // Of the header, so that nothing is decoded.
            let mut damaged = b.clone();
            damaged[3] ^= 0xff;
            let (text, damages) = read(&[&a[..], &damaged, &c].concat());
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(text.starts_with("first ") && text.ends_with("!third"), "{text}");
            assert_eq!(damages.len(), 1);
            let (text, damages) = read(&[&a[..], &c[..c.len() - 3]].concat());
            assert!(text.starts_with(b"first ") && text.ends_with(b"!"));
            assert_eq!(damages, [Cause::TruncatedStream]);
        }
        // A member that stops early makes the next one look like its end.
        let (a, b, c) = (gzip(b"first "), gzip(b"second "), gzip(b"third"));
        let (text, damages) = read(&[&a[..], &b[..b.len() - 5], &c].concat());
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.starts_with("first ") && text.ends_with("!third"), "{text}");
        assert_eq!(damages.len(), 1);
        let (text, damages) = read(&[&gzip(b"first")[..], b"no member"].concat());
        assert_eq!((&text[..], &damages[..]), (&b"first!"[..], &[Cause::CorruptStream][..]));
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let zeros = vec![0; 100 << 20];
        for pack in [gzip, zstd] {
            let (text, damages) = read(&[&pack(&zeros)[..], &pack(b"next")].concat());
            assert_eq!(damages, [Cause::TooMuchExpansion]);
            assert!(text.len() as u64 <= FREE_EXPANSION_BYTES + 1);
        }
    }

    #[test]
    fn a_window_over_the_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(b"text").unwrap();
        let long = encoder.finish().unwrap();
        let (text, damages) = read(&[&long[..], &zstd(b"next")].concat());
        assert_eq!((&text[..], &damages[..]), (&b"!next"[..], &[Cause::WindowTooLarge][..]));
    }

    proptest! {
        #[test]
        fn any_bytes_end(
            frames in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..5),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes: Vec<u8> =
                frames.iter().flat_map(|(zip, text)| if *zip { gzip(text) } else { zstd(text) }).collect();
            for (at, byte) in flips {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            let (_, damages) = read(&bytes);
            prop_assert!(damages.len() <= bytes.len() + 1);
        }
    }
}
