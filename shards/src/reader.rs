//! Opens shards in place. Opening costs the same for any size; [`Shard::verify`] reads everything.
//! No byte string makes a reader panic: each access checks what it relies on.

use std::path::{Path, PathBuf};

use memmap2::Mmap;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::format::{DocumentMeta, Header, META_BYTES, SECTIONS, checksum_error, u64_at};
use crate::hash::Hash;
use crate::ids::{FamilyId, TokenId, TokenWidth};
use crate::mmap::map_file;
use crate::names::Names;

/// The index of a shard over any bytes (a map, a vector, a fuzzer's input).
#[derive(Debug)]
pub struct ShardIndex<D> {
    path: PathBuf,
    header: Header,
    names: Names,
    data: D,
}

impl<D: AsRef<[u8]>> ShardIndex<D> {
    /// Checks header, sizes and section table; `path` is for messages only.
    ///
    /// # Errors
    /// Anything the format forbids, or a version this program does not know.
    pub fn parse(path: &Path, data: D) -> Result<ShardIndex<D>> {
        let header = Header::parse(path, data.as_ref())?;
        let names = match header.version {
            1 => Names::default(),
            _ => Names::parse(path, section(&header, data.as_ref(), 4))?,
        };
        Ok(ShardIndex { path: path.to_owned(), header, names, data })
    }

    /// The languages and tags that the records of this shard speak of.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Documents.
    pub fn n_docs(&self) -> u32 {
        // `Header::parse` refuses more.
        self.header.n_docs as u32
    }

    /// Tokens with the EODs.
    pub fn n_tokens(&self) -> u64 {
        self.header.n_tokens
    }

    /// Bytes of all texts as they were read.
    pub fn n_text_bytes(&self) -> u64 {
        self.header.n_text_bytes
    }

    /// The end-of-document token.
    pub fn eod(&self) -> TokenId {
        TokenId(self.header.eod)
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> u32 {
        self.header.vocab_size
    }

    /// Digest of the tokenizer file.
    pub fn tokenizer(&self) -> Hash {
        self.header.tokenizer
    }

    /// Digest of the `.bin` file.
    pub fn bin_blake3(&self) -> Hash {
        self.header.bin
    }

    /// Digest of the recipe.
    pub fn build(&self) -> Hash {
        self.header.build
    }

    /// First token and length of a document, EOD included.
    ///
    /// # Errors
    /// No such document, or ends that do not ascend.
    pub fn span(&self, doc: u32) -> Result<(u64, u64)> {
        let ends = self.section(0);
        self.check(doc)?;
        let i = doc as usize;
        let start = if i == 0 { 0 } else { u64_at(ends, (i - 1) * 8) };
        let end = u64_at(ends, i * 8);
        if start >= end || end > self.header.n_tokens {
            let expected = format!("ends that ascend to {}", self.header.n_tokens);
            return Err(Error::format(&self.path, "end section", expected, format!("{start} then {end}")));
        }
        Ok((start, end - start))
    }

    /// Family of a document.
    ///
    /// # Errors
    /// No such document.
    pub fn family(&self, doc: u32) -> Result<FamilyId> {
        self.check(doc)?;
        Ok(FamilyId(u64_at(self.section(1), doc as usize * 8)))
    }

    /// Record of a document.
    ///
    /// # Errors
    /// No such document.
    pub fn meta(&self, doc: u32) -> Result<DocumentMeta> {
        let family = self.family(doc)?;
        let at = doc as usize * META_BYTES;
        let mut bytes = [0; META_BYTES];
        bytes.copy_from_slice(&self.section(2)[at..at + META_BYTES]);
        Ok(DocumentMeta::from_bytes(self.header.version, family, &bytes))
    }

    /// Language of a document; `None` when it is unknown. Shards of version 1 name no languages.
    ///
    /// # Errors
    /// No such document, or a number that the shard does not name.
    pub fn language(&self, doc: u32) -> Result<Option<&str>> {
        let code = self.meta(doc)?.language;
        if code == 0 || self.header.version == 1 {
            return Ok(None);
        }
        self.names.language(code).map(Some).ok_or_else(|| {
            let expected = format!("at most {}", self.names.languages().len());
            Error::format(&self.path, "language of a document", expected, code)
        })
    }

    /// Tags of a document, sorted. Shards of version 1 name no tags.
    ///
    /// # Errors
    /// No such document.
    pub fn tags(&self, doc: u32) -> Result<impl Iterator<Item = &str>> {
        Ok(self.names.tags_of(self.meta(doc)?.tags))
    }

    /// Name of a document in its source.
    ///
    /// # Errors
    /// No such document, or an id section that is not UTF-8 or points outside itself.
    pub fn id(&self, doc: u32) -> Result<&str> {
        self.check(doc)?;
        let section = self.section(3);
        let base = (self.header.n_docs as usize + 1) * 8;
        let bytes = &section[base..];
        let start = u64_at(section, doc as usize * 8);
        let end = u64_at(section, (doc as usize + 1) * 8);
        let text = (start <= end && end <= bytes.len() as u64)
            .then(|| &bytes[start as usize..end as usize])
            .and_then(|id| std::str::from_utf8(id).ok());
        text.ok_or_else(|| {
            Error::format(&self.path, "id section", "UTF-8 inside the section", format!("{start}..{end}"))
        })
    }

    /// Checks the checksum of every section.
    ///
    /// # Errors
    /// The first damaged section.
    pub fn verify_sections(&self) -> Result<()> {
        // Version 1 has no `names`; its empty entry has no checksum.
        let n_sections = SECTIONS.len() - usize::from(self.header.version == 1);
        for (i, name) in SECTIONS.iter().enumerate().take(n_sections) {
            let (recorded, computed) = (self.header.sections[i].xxh3, xxh3_64(self.section(i)));
            if recorded != computed {
                return Err(checksum_error(&self.path, &format!("section `{name}`"), recorded, computed));
            }
        }
        Ok(())
    }

    fn section(&self, i: usize) -> &[u8] {
        section(&self.header, self.data.as_ref(), i)
    }

    fn check(&self, doc: u32) -> Result<()> {
        if u64::from(doc) < self.header.n_docs {
            return Ok(());
        }
        let (index, len) = (u64::from(doc), self.header.n_docs);
        Err(Error::OutOfRange { path: self.path.clone(), what: "document", index, len })
    }
}

/// Bytes of a section of the file `data`.
fn section<'d>(header: &Header, data: &'d [u8], i: usize) -> &'d [u8] {
    let section = header.sections[i];
    // `Header::parse` has checked that the section lies inside the file.
    &data[section.offset as usize..(section.offset + section.bytes) as usize]
}

/// Tokens of a document in place.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    bytes: &'a [u8],
    width: TokenWidth,
}

impl<'a> Tokens<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.width.bytes()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The part from `offset` on, at most `len` long.
    pub fn slice(&self, offset: usize, len: usize) -> Tokens<'a> {
        let start = offset.min(self.len());
        let end = start + len.min(self.len() - start);
        let w = self.width.bytes();
        Tokens { bytes: &self.bytes[start * w..end * w], width: self.width }
    }

    /// Appends the ids to a vector.
    pub fn extend_into(&self, out: &mut Vec<u32>) {
        match self.width {
            TokenWidth::U16 => {
                out.extend(self.bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))))
            }
            TokenWidth::U32 => {
                out.extend(self.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            }
        }
    }

    /// The ids as a vector.
    pub fn to_vec(&self) -> Vec<u32> {
        let mut out = Vec::with_capacity(self.len());
        self.extend_into(&mut out);
        out
    }
}

/// A shard on disk: index and tokens, both mapped.
#[derive(Debug)]
pub struct Shard {
    index: ShardIndex<Mmap>,
    bin_path: PathBuf,
    bin: Mmap,
}

impl std::ops::Deref for Shard {
    type Target = ShardIndex<Mmap>;

    fn deref(&self) -> &ShardIndex<Mmap> {
        &self.index
    }
}

impl Shard {
    /// Opens `name.mdx` and the `name.bin` beside it.
    ///
    /// # Errors
    /// Either file is missing, or its size or header is wrong.
    pub fn open(mdx_path: &Path) -> Result<Shard> {
        let index = ShardIndex::parse(mdx_path, map_file(mdx_path)?)?;
        let bin_path = mdx_path.with_extension("bin");
        let bin = map_file(&bin_path)?;
        let expected = index.header.n_tokens.checked_mul(index.header.width.bytes() as u64);
        if expected != Some(bin.len() as u64) {
            let expected =
                format!("{} tokens of {} bytes", index.header.n_tokens, index.header.width.bytes());
            return Err(Error::format(&bin_path, "file size", expected, format!("{} bytes", bin.len())));
        }
        Ok(Shard { index, bin_path, bin })
    }

    /// Tokens of a document, EOD included.
    ///
    /// # Errors
    /// No such document, or a damaged index.
    pub fn tokens(&self, doc: u32) -> Result<Tokens<'_>> {
        let (start, len) = self.span(doc)?;
        let width = self.index.header.width;
        let w = width.bytes() as u64;
        // `span` and `open` have checked that the end lies inside the file.
        Ok(Tokens { bytes: &self.bin[(start * w) as usize..((start + len) * w) as usize], width })
    }

    /// The tokens of all documents as they lie in the file, little-endian.
    pub fn token_bytes(&self) -> &[u8] {
        &self.bin
    }

    /// Reads everything: section checksums, the digest of the tokens, that families ascend, that
    /// each document ends with its only EOD position, that ids are inside the vocabulary.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn verify(&self) -> Result<()> {
        self.index.verify_sections()?;
        let found = Hash::of(&self.bin);
        if found != self.index.header.bin {
            return Err(Error::Checksum {
                path: self.bin_path.clone(),
                what: "file".to_owned(),
                expected: self.index.header.bin.to_string(),
                found: found.to_string(),
            });
        }
        let mut previous = FamilyId(0);
        let mut scratch = Vec::new();
        let mut n_tokens = 0;
        for doc in 0..self.n_docs() {
            let family = self.family(doc)?;
            if family < previous {
                return Err(Error::Order {
                    path: self.index.path.clone(),
                    previous: previous.to_string(),
                    next: family.to_string(),
                });
            }
            previous = family;
            self.language(doc)?;
            scratch.clear();
            self.tokens(doc)?.extend_into(&mut scratch);
            n_tokens += scratch.len() as u64;
            if let Some(at) = scratch.iter().position(|&token| token >= self.vocab_size()) {
                return Err(Error::TokenRange {
                    path: self.bin_path.clone(),
                    id: self.id(doc)?.to_owned(),
                    token: scratch[at],
                    at,
                    vocab_size: self.vocab_size(),
                });
            }
            if scratch.last() != Some(&self.eod().0) {
                let id = self.id(doc)?;
                return Err(Error::format(
                    &self.bin_path,
                    "end of document",
                    self.eod().0,
                    format!("{:?} in `{id}`", scratch.last()),
                ));
            }
        }
        if n_tokens != self.n_tokens() {
            return Err(Error::format(&self.bin_path, "tokens in documents", self.n_tokens(), n_tokens));
        }
        Ok(())
    }
}
