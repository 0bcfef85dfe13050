//! Decoders of compressed files, one frame at a time: a frame is a gzip member (RFC 1952), a zstd frame
//! (RFC 8878), a stream of bzip2 or of xz, or the deflated bytes of a zip archive. A file is a sequence of them, and each can
//! be decoded without the others, so that damage costs one frame.

use flate2::{Crc, Decompress, FlushDecompress, Status};
use liblzma::stream as xz;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::Cause;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";
/// What an xz decoder takes besides its window.
const XZ_BYTES: u64 = 1 << 20;
/// A gzip header with longer names is treated as damage.
const MAX_HEADER_BYTES: usize = 1 << 16;
/// CRC-32 and length, at the end of a member.
const TRAILER_BYTES: usize = 8;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    Bzip2,
    Xz,
    /// Deflate without a head (RFC 1951), with the CRC-32 of what comes out.
    Deflate(u32),
}

impl Packing {
    /// By the first bytes of a file.
    pub fn of(magic: &[u8]) -> Option<Packing> {
        match magic {
            _ if magic.starts_with(GZIP_MAGIC) => Some(Packing::Gzip),
            // The second is a skippable frame, which some programs write first.
            _ if magic.starts_with(ZSTD_MAGIC) => Some(Packing::Zstd),
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Packing::Zstd),
            _ if is_bzip2(magic) => Some(Packing::Bzip2),
            _ if magic.starts_with(XZ_MAGIC) => Some(Packing::Xz),
            _ => None,
        }
    }

    /// Bytes that [`Packing::find_start`] examines.
    pub const START_BYTES: usize = 10;

    /// Where a frame may start: the first position whose [`Packing::START_BYTES`] look like the beginning of one. False
    /// matches fail to decode.
    pub fn find_start(self, bytes: &[u8]) -> Option<usize> {
        let is_start = |window: &[u8]| match self {
            // Deflate, no reserved flag, an `XFL` that RFC 1952 names, an operating system that it names.
            Packing::Gzip => {
                window.starts_with(&[0x1f, 0x8b, 8])
                    && window[3] & 0xe0 == 0
                    && matches!(window[8], 0 | 2 | 4)
                    && matches!(window[9], 0..=13 | 255)
            }
            // The reserved bit of the frame header is 0.
            Packing::Zstd => window.starts_with(ZSTD_MAGIC) && window[4] & 0x08 == 0,
            Packing::Bzip2 => is_bzip2(window),
            Packing::Xz => window.starts_with(XZ_MAGIC),
            Packing::Deflate(_) => false,
        };
        bytes.windows(Packing::START_BYTES).position(is_start)
    }
}

/// A header with the block size, then a block, or the end of an empty stream.
fn is_bzip2(magic: &[u8]) -> bool {
    matches!(magic, [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..]
        if rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17rE8P\x90"))
}

/// Result of one step of a decoder.
pub(super) struct Step {
    /// Bytes of the input that were used.
    pub used: usize,
    /// Bytes of the output that were written.
    pub made: usize,
    /// Whether the frame is complete, its checksum included.
    pub ended: bool,
}

/// A decoder of one frame after another.
pub(super) enum Codec {
    Gzip(Box<Gunzip>),
    Zstd(Decoder<'static>),
    Bzip2(Box<bzip2::Decompress>),
    Xz(Box<xz::Stream>, u64),
    Deflate(Box<Gunzip>, u32),
}

fn xz_decoder(limit: u64) -> Result<Box<xz::Stream>, xz::Error> {
    xz::Stream::new_stream_decoder(limit, 0).map(Box::new)
}

impl Codec {
    /// A decoder. A frame that refers back further than `max_window_bytes` is refused, since that much
    /// memory would be needed.
    pub fn new(packing: Packing, max_window_bytes: u64) -> std::io::Result<Codec> {
        Ok(match packing {
            Packing::Gzip => Codec::Gzip(Box::default()),
            Packing::Zstd => {
                let mut decoder = Decoder::new()?;
                // The bounds of the format.
                let log = max_window_bytes.max(1).ilog2().clamp(10, 31);
                decoder.set_parameter(DParameter::WindowLogMax(log))?;
                Codec::Zstd(decoder)
            }
            Packing::Bzip2 => Codec::Bzip2(Box::new(bzip2::Decompress::new(false))),
            Packing::Xz => {
                let limit = max_window_bytes.saturating_add(XZ_BYTES);
                Codec::Xz(xz_decoder(limit)?, limit)
            }
            Packing::Deflate(crc) => Codec::Deflate(Box::new(Gunzip::bare()), crc),
        })
    }

    /// Forgets the frame under way.
    pub fn reset(&mut self) -> Result<(), Cause> {
        match self {
            Codec::Gzip(gunzip) => **gunzip = Gunzip::default(),
            Codec::Zstd(decoder) => decoder.reinit().map_err(|_| Cause::CorruptStream)?,
            Codec::Bzip2(decoder) => **decoder = bzip2::Decompress::new(false),
            Codec::Xz(decoder, limit) => *decoder = xz_decoder(*limit).map_err(|_| Cause::CorruptStream)?,
            Codec::Deflate(inflate, _) => **inflate = Gunzip::bare(),
        }
        Ok(())
    }

    /// Decodes some bytes.
    ///
    /// # Errors
    /// The data is damaged.
    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Cause> {
        match self {
            Codec::Gzip(gunzip) => gunzip.step(input, output),
            Codec::Zstd(decoder) => {
                let mut input = InBuffer::around(input);
                let mut output = OutBuffer::around(output);
                let hint = decoder.run(&mut input, &mut output).map_err(|e| {
                    let needs_memory = e.to_string().contains("too much memory");
                    if needs_memory { Cause::WindowTooLarge } else { Cause::CorruptStream }
                })?;
                Ok(Step { used: input.pos(), made: output.pos(), ended: hint == 0 })
            }
            Codec::Bzip2(decoder) => {
                let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, output).map_err(|_| Cause::CorruptStream)?;
                Ok(Step {
                    used: (decoder.total_in() - before_in) as usize,
                    made: (decoder.total_out() - before_out) as usize,
                    ended: status == bzip2::Status::StreamEnd,
                })
            }
            Codec::Xz(decoder, _) => {
                let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
                let status = decoder.process(input, output, xz::Action::Run).map_err(|e| match e {
                    xz::Error::MemLimit => Cause::WindowTooLarge,
                    _ => Cause::CorruptStream,
                })?;
                Ok(Step {
                    used: (decoder.total_in() - before_in) as usize,
                    made: (decoder.total_out() - before_out) as usize,
                    ended: status == xz::Status::StreamEnd,
                })
            }
            Codec::Deflate(inflate, crc) => {
                let step = inflate.step(input, output)?;
                match inflate.part {
                    Part::Trailer if inflate.crc.sum() != *crc => Err(Cause::CorruptStream),
                    Part::Trailer => Ok(Step { ended: true, ..step }),
                    _ => Ok(step),
                }
            }
        }
    }
}

/// A decoder of gzip members. The header is parsed by hand because the inflating library does not say
/// where a member ends.
pub(super) struct Gunzip {
    part: Part,
    /// Bytes of an unfinished header or trailer.
    held: Vec<u8>,
    inflate: Decompress,
    crc: Crc,
}

enum Part {
    Header,
    Body,
    Trailer,
}

impl Default for Gunzip {
    fn default() -> Gunzip {
        Gunzip { part: Part::Header, held: Vec::new(), inflate: Decompress::new(false), crc: Crc::new() }
    }
}

impl Gunzip {
    /// After a header.
    fn bare() -> Gunzip {
        Gunzip { part: Part::Body, ..Gunzip::default() }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Cause> {
        let step = |used, made, ended| Ok(Step { used, made, ended });
        match self.part {
            Part::Header => {
                let before = self.held.len();
                self.held.extend_from_slice(&input[..input.len().min(MAX_HEADER_BYTES)]);
                match header_bytes(&self.held)? {
                    Some(n) => {
                        self.held.clear();
                        self.part = Part::Body;
                        step(n - before, 0, false)
                    }
                    None if self.held.len() > MAX_HEADER_BYTES => Err(Cause::CorruptStream),
                    None => step(self.held.len() - before, 0, false),
                }
            }
            Part::Body => {
                let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
                let status = self.inflate.decompress(input, output, FlushDecompress::None);
                let status = status.map_err(|_| Cause::CorruptStream)?;
                let used = (self.inflate.total_in() - before_in) as usize;
                let made = (self.inflate.total_out() - before_out) as usize;
                self.crc.update(&output[..made]);
                if status == Status::StreamEnd {
                    self.part = Part::Trailer;
                }
                step(used, made, false)
            }
            Part::Trailer => {
                let used = input.len().min(TRAILER_BYTES - self.held.len());
                self.held.extend_from_slice(&input[..used]);
                if self.held.len() < TRAILER_BYTES {
                    return step(used, 0, false);
                }
                // The length is modulo 2^32, as `Crc` counts it.
                let expected = [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()].concat();
                if self.held != expected {
                    return Err(Cause::CorruptStream);
                }
                step(used, 0, true)
            }
        }
    }
}

/// Length of the gzip header at the start of `bytes`, once it is complete (RFC 1952, section 2.3).
fn header_bytes(bytes: &[u8]) -> Result<Option<usize>, Cause> {
    let fixed = [0x1f, 0x8b, 8];
    let known = bytes.len().min(fixed.len());
    if bytes[..known] != fixed[..known] {
        return Err(Cause::CorruptStream);
    }
    let Some(&flags) = bytes.get(3) else { return Ok(None) };
    if flags & 0xe0 != 0 {
        return Err(Cause::CorruptStream);
    }
    let mut at = 10;
    if flags & 4 != 0 {
        let Some(length) = bytes.get(at..at + 2) else { return Ok(None) };
        at += 2 + usize::from(u16::from_le_bytes([length[0], length[1]]));
    }
    // File name and comment end with a zero.
    for flag in [8, 16] {
        if flags & flag != 0 {
            let Some(end) = bytes.get(at..).and_then(|rest| memchr::memchr(0, rest)) else { return Ok(None) };
            at += end + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    Ok((bytes.len() >= at).then_some(at))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Decodes one frame from pieces of `piece` bytes, and returns it with the bytes that were used.
    fn decode(packing: Packing, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize), Cause> {
        let mut codec = Codec::new(packing, 1 << 27).unwrap();
        let (mut out, mut at) = (Vec::new(), 0);
        loop {
            let mut buffer = [0; 7];
            let end = bytes.len().min(at + piece);
            let step = codec.step(&bytes[at..end], &mut buffer)?;
            at += step.used;
            out.extend_from_slice(&buffer[..step.made]);
            if step.ended {
                return Ok((out, at));
            }
            if step.used == 0 && step.made == 0 {
                return Err(Cause::TruncatedStream);
            }
        }
    }

    fn gzip(text: &[u8], name: bool) -> Vec<u8> {
        let mut builder = flate2::GzBuilder::new();
        if name {
            builder = builder.filename("name").comment("a comment").extra(vec![1, 2, 3]);
        }
        let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn frames_end_where_they_end() {
        let text = b"a text that is a bit longer than the buffer of the test";
        for packed in [gzip(text, false), gzip(text, true)] {
            let followed = [&packed[..], b"more"].concat();
            for piece in 1..20 {
                assert_eq!(decode(Packing::Gzip, &followed, piece), Ok((text.to_vec(), packed.len())));
            }
            for cut in 0..packed.len() {
                assert_eq!(decode(Packing::Gzip, &packed[..cut], 9), Err(Cause::TruncatedStream), "{cut}");
            }
        }
        let packed = zstd::encode_all(&text[..], 3).unwrap();
        let followed = [&packed[..], b"more"].concat();
        for piece in 1..20 {
            assert_eq!(decode(Packing::Zstd, &followed, piece), Ok((text.to_vec(), packed.len())));
        }
    }

    #[test]
    fn a_wrong_checksum_is_damage() {
        let mut packed = gzip(b"text", false);
        let at = packed.len() - 6;
        packed[at] ^= 1;
        assert_eq!(decode(Packing::Gzip, &packed, 50), Err(Cause::CorruptStream));
    }

    #[test]
    fn starts_of_frames_are_found() {
        let packed = gzip(b"text", true);
        let hidden = [&b"\x1f\x8b\x09no start \x1f\x8b\x08\xff____"[..], &packed].concat();
        assert_eq!(Packing::Gzip.find_start(&hidden), Some(hidden.len() - packed.len()));
        assert_eq!(Packing::Gzip.find_start(&hidden[..20]), None);
        let packed = zstd::encode_all(&b"text"[..], 3).unwrap();
        assert_eq!(Packing::Zstd.find_start(&[b"ab", &packed[..]].concat()), Some(2));
    }

    #[test]
    fn bzip2_and_xz_are_decoded() {
        let text = b"a text that is a bit longer than the buffer of the test";
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(text).unwrap();
        for (packing, packed) in
            [(Packing::Bzip2, bzip2.finish().unwrap()), (Packing::Xz, xz.finish().unwrap())]
        {
            assert_eq!(Packing::of(&packed), Some(packing));
            assert_eq!(packing.find_start(&[b"ab", &packed[..]].concat()), Some(2));
            let followed = [&packed[..], b"more"].concat();
            for piece in 1..20 {
                assert_eq!(decode(packing, &followed, piece), Ok((text.to_vec(), packed.len())));
            }
            for cut in 0..packed.len() {
                assert!(decode(packing, &packed[..cut], 9).is_err(), "{cut}");
            }
        }
    }
}
