//! The fixed parts of a `.mdx` index: header, section table and per-document records.
//! `docs/shard-format.md` is the specification; a change here is a new format version there.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::ids::{FamilyId, TokenWidth};

/// Newest version, that of shards with a mask of trained tokens.
pub const FORMAT_VERSION: u32 = 4;
/// Version of shards without a mask.
pub(crate) const PLAIN_VERSION: u32 = 3;
pub(crate) const MAGIC: [u8; 8] = *b"MOEMDX01";
/// Bytes of the header of version 1, the shortest one.
const HEADER_BYTES_V1: usize = 256;
pub(crate) const ALIGN: u64 = 64;
pub(crate) const META_BYTES: usize = 16;
/// Sections in file order. Version 1 has the first four, version 2 the first five, version 3 all but the
/// last.
pub(crate) const SECTIONS: [&str; 7] = ["end", "family", "meta", "id", "names", "sum", "mask"];
/// Bit of byte 12 of a record, from version 2 on: the quality is known.
const QUALITY_KNOWN: u8 = 1;

/// The record of each document: 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DocumentMeta {
    /// Documents of one family are texts of the same thing. Stored in a section of its own.
    pub family: FamilyId,
    /// 0 = original, 1.. = another text of it (a rephrasing, a version).
    pub variant: u8,
    /// How a variant was made; 0 = by people.
    pub style: u8,
    /// Quality bucket, 0 to 255; `None` = unknown.
    pub quality: Option<u8>,
    /// Tags, one bit each: bit `i` is tag `i` of the shard's [`Names`](crate::Names).
    pub tags: u8,
    /// Language: number `language - 1` of the shard's [`Names`](crate::Names); 0 = unknown.
    pub language: u16,
    /// Position of the source in the manifest. Not stored from version 3 on, where it reads as 0: a shard
    /// must not change when another source is added before its own; the manifest has it.
    pub source: u16,
    /// Bytes of the text as it was read, before normalization; the ledger sums them.
    pub n_bytes: u32,
}

impl DocumentMeta {
    pub(crate) fn to_bytes(self) -> [u8; META_BYTES] {
        let mut out = [0; META_BYTES];
        out[..4].copy_from_slice(&[self.variant, self.style, self.quality.unwrap_or(0), self.tags]);
        out[4..6].copy_from_slice(&self.language.to_le_bytes());
        out[8..12].copy_from_slice(&self.n_bytes.to_le_bytes());
        out[12] = if self.quality.is_some() { QUALITY_KNOWN } else { 0 };
        out
    }

    /// A record of a shard of version 1 has no bit for a known quality: there 0 means unknown.
    pub(crate) fn from_bytes(version: u32, family: FamilyId, b: &[u8; META_BYTES]) -> DocumentMeta {
        let known = if version == 1 { b[2] != 0 } else { b[12] & QUALITY_KNOWN != 0 };
        DocumentMeta {
            family,
            variant: b[0],
            style: b[1],
            quality: known.then_some(b[2]),
            tags: b[3],
            language: u16::from_le_bytes([b[4], b[5]]),
            source: u16::from_le_bytes([b[6], b[7]]),
            n_bytes: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
        }
    }
}

/// How many of [`SECTIONS`] a version has.
pub(crate) fn n_sections(version: u32) -> usize {
    match version {
        1 => 4,
        2 => 5,
        PLAIN_VERSION => 6,
        _ => SECTIONS.len(),
    }
}

/// Bytes of the header of a version.
pub(crate) fn header_bytes(version: u32) -> usize {
    match version {
        1 => HEADER_BYTES_V1,
        2 | PLAIN_VERSION => 320,
        _ => 384,
    }
}

/// Where a section is in the index file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub offset: u64,
    pub bytes: u64,
    pub xxh3: u64,
}

/// The header of a `.mdx` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Version of the file.
    pub version: u32,
    pub width: TokenWidth,
    pub n_docs: u64,
    pub n_tokens: u64,
    pub eod: u32,
    pub vocab_size: u32,
    pub n_text_bytes: u64,
    pub tokenizer: Hash,
    pub bin: Hash,
    pub build: Hash,
    /// In the order of [`SECTIONS`]; those that the version does not have are empty.
    pub sections: [Section; SECTIONS.len()],
    pub file_bytes: u64,
}

impl Header {
    pub fn to_bytes(&self) -> Vec<u8> {
        let n_bytes = header_bytes(self.version);
        let mut out = Vec::with_capacity(n_bytes);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&(self.width.bytes() as u32).to_le_bytes());
        out.extend_from_slice(&self.n_docs.to_le_bytes());
        out.extend_from_slice(&self.n_tokens.to_le_bytes());
        out.extend_from_slice(&self.eod.to_le_bytes());
        out.extend_from_slice(&self.vocab_size.to_le_bytes());
        out.extend_from_slice(&self.n_text_bytes.to_le_bytes());
        for hash in [self.tokenizer, self.bin, self.build] {
            out.extend_from_slice(&hash.0);
        }
        for section in &self.sections[..n_sections(self.version)] {
            for field in [section.offset, section.bytes, section.xxh3] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        out.resize(n_bytes - 8, 0);
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Parses and checks everything that can be checked without reading the sections.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Header> {
        let too_short =
            |bytes: usize| Error::format(path, "file size", format!("at least {bytes} bytes"), file.len());
        if file.len() < HEADER_BYTES_V1 {
            return Err(too_short(HEADER_BYTES_V1));
        }
        if file[..6] != MAGIC[..6] {
            return Err(Error::format(path, "magic", "MOEMDX", format!("{:?}", &file[..6])));
        }
        let mut at = MAGIC.len();
        let version = take_u32(file, &mut at);
        let (header_bytes, n_sections) = match version {
            1..=FORMAT_VERSION => (header_bytes(version), n_sections(version)),
            found => {
                return Err(Error::Version { path: path.to_owned(), found, supported: FORMAT_VERSION });
            }
        };
        if file.len() < header_bytes {
            return Err(too_short(header_bytes));
        }
        let recorded = u64_at(file, header_bytes - 8);
        let computed = xxh3_64(&file[..header_bytes - 8]);
        if recorded != computed {
            return Err(checksum_error(path, "header", recorded, computed));
        }
        let width = match take_u32(file, &mut at) {
            2 => TokenWidth::U16,
            4 => TokenWidth::U32,
            other => return Err(Error::format(path, "token width", "2 or 4 bytes", other)),
        };
        let n_docs = take_u64(file, &mut at);
        let n_tokens = take_u64(file, &mut at);
        let eod = take_u32(file, &mut at);
        let vocab_size = take_u32(file, &mut at);
        let n_text_bytes = take_u64(file, &mut at);
        let mut hashes = [Hash::default(); 3];
        for hash in &mut hashes {
            hash.0.copy_from_slice(&file[at..at + 32]);
            at += 32;
        }
        let mut sections = [Section::default(); SECTIONS.len()];
        for section in &mut sections[..n_sections] {
            section.offset = take_u64(file, &mut at);
            section.bytes = take_u64(file, &mut at);
            section.xxh3 = take_u64(file, &mut at);
        }
        let file_bytes = take_u64(file, &mut at);
        let [tokenizer, bin, build] = hashes;
        let header = Header {
            version,
            width,
            n_docs,
            n_tokens,
            eod,
            vocab_size,
            n_text_bytes,
            tokenizer,
            bin,
            build,
            sections,
            file_bytes,
        };
        header.check_layout(path, file.len() as u64, header_bytes as u64, n_sections)?;
        Ok(header)
    }

    fn check_layout(&self, path: &Path, file_bytes: u64, header_bytes: u64, n_sections: usize) -> Result<()> {
        if self.file_bytes != file_bytes {
            return Err(Error::format(path, "file size", format!("{} bytes", self.file_bytes), file_bytes));
        }
        if self.n_docs > u64::from(u32::MAX) {
            return Err(Error::format(path, "document count", "at most 2^32 - 1", self.n_docs));
        }
        if self.eod >= self.vocab_size {
            return Err(Error::format(path, "EOD", format!("below {}", self.vocab_size), self.eod));
        }
        let words = Some(self.n_docs * 8);
        let metas = Some(self.n_docs * META_BYTES as u64);
        let expected = [words, words, metas, None, None, words, Some(self.n_tokens.div_ceil(8))];
        let mut previous_end = header_bytes;
        for (section, bytes) in self.sections[..n_sections].iter().zip(expected) {
            let end = section.offset.checked_add(section.bytes).filter(|&end| end <= file_bytes);
            let Some(end) = end.filter(|_| section.offset >= previous_end && section.offset % ALIGN == 0)
            else {
                let found = format!("{} bytes at {}", section.bytes, section.offset);
                return Err(Error::format(path, "section table", "aligned sections inside the file", found));
            };
            if let Some(bytes) = bytes.filter(|&bytes| bytes != section.bytes) {
                return Err(Error::format(path, "section size", bytes, section.bytes));
            }
            previous_end = end;
        }
        if self.sections[3].bytes < (self.n_docs + 1) * 8 {
            return Err(Error::format(path, "id section", "an offset per document", self.sections[3].bytes));
        }
        Ok(())
    }
}

pub(crate) fn checksum_error(path: &Path, what: &str, recorded: u64, computed: u64) -> Error {
    Error::Checksum {
        path: path.to_owned(),
        what: what.to_owned(),
        expected: format!("{recorded:016x}"),
        found: format!("{computed:016x}"),
    }
}

/// Little-endian u64 at a byte offset; the caller has checked the bounds.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

pub(crate) fn take_u32(bytes: &[u8], at: &mut usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[*at..*at + 4]);
    *at += 4;
    u32::from_le_bytes(word)
}

pub(crate) fn take_u64(bytes: &[u8], at: &mut usize) -> u64 {
    *at += 8;
    u64_at(bytes, *at - 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_has_the_documented_layout() {
        let meta = DocumentMeta {
            family: FamilyId(9),
            variant: 1,
            style: 2,
            quality: Some(3),
            tags: 4,
            language: 0x0605,
            source: 0x0807,
            n_bytes: 0x0c0b_0a09,
        };
        let mut bytes = meta.to_bytes();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 0, 0, 9, 10, 11, 12, 1, 0, 0, 0]);
        let without_source = DocumentMeta { source: 0, ..meta };
        assert_eq!(DocumentMeta::from_bytes(3, FamilyId(9), &bytes), without_source);
        // Version 2 stored it.
        bytes[6..8].copy_from_slice(&[7, 8]);
        assert_eq!(DocumentMeta::from_bytes(2, FamilyId(9), &bytes), meta);
    }

    #[test]
    fn an_unknown_quality_is_not_bucket_0() {
        for quality in [None, Some(0), Some(255)] {
            let meta = DocumentMeta { quality, ..DocumentMeta::default() };
            assert_eq!(DocumentMeta::from_bytes(2, FamilyId(0), &meta.to_bytes()), meta);
        }
        let in_version_1 = |b: &[u8; META_BYTES]| DocumentMeta::from_bytes(1, FamilyId(0), b).quality;
        assert_eq!(in_version_1(&[0; META_BYTES]), None);
        assert_eq!(in_version_1(&[9; META_BYTES]), Some(9));
    }
}
