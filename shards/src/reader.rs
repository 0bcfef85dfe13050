//! Opens shards in place. Opening costs the same for any size; [`Shard::verify`] reads everything. No input
//! makes a reader panic: each access checks what it relies on.

mod mask;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use xxhash_rust::xxh3::xxh3_64;

pub use self::mask::Mask;
pub(crate) use self::mask::{document_sum, packed};
use crate::error::{Error, Result};
use crate::format::{DocumentMeta, Header, META_BYTES, SECTIONS, checksum_error, n_sections, u64_at};
use crate::hash::Hash;
use crate::ids::{FamilyId, TokenId, TokenWidth};
use crate::mmap::map_open_file;
use crate::names::Names;

/// Bytes per read from disk.
const BLOCK_BYTES: usize = 1 << 20;

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

    /// The languages and tags in the records of this shard.
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

    /// Digest of the recipe's settings for the source; before version 3, of the whole recipe.
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
        for (i, name) in SECTIONS.iter().enumerate().take(n_sections(self.header.version)) {
            let (recorded, computed) = (self.header.sections[i].xxh3, xxh3_64(self.section(i)));
            if recorded != computed {
                return Err(checksum_error(&self.path, &format!("section `{name}`"), recorded, computed));
            }
        }
        Ok(())
    }

    /// Checks the digest of the whole index; the damaged section is named if it can be determined.
    ///
    /// # Errors
    /// The bytes are not those that `expected` was made of.
    pub fn verify_index(&self, expected: Hash) -> Result<()> {
        let found = Hash::of(self.data.as_ref());
        if found == expected {
            return Ok(());
        }
        self.verify_sections()?;
        let (path, what) = (self.path.clone(), "file".to_owned());
        Err(Error::Checksum { path, what, expected: expected.to_string(), found: found.to_string() })
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
    // `Header::parse` has checked that the section is inside the file.
    &data[section.offset as usize..(section.offset + section.bytes) as usize]
}

/// Fills the block, unless the file ends first; returns how many bytes are in it.
fn read_full(file: &mut File, block: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < block.len() {
        match file.read(&mut block[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
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

    /// Position and id of the first token that a vocabulary of this size does not have.
    fn first_beyond(&self, vocab_size: u32) -> Option<(usize, u32)> {
        // The largest id first: that loop has no early exit, so it is compiled to vector instructions.
        let greatest = match self.width {
            TokenWidth::U16 => {
                self.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).max().map(u32::from)
            }
            TokenWidth::U32 => {
                self.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).max()
            }
        };
        greatest.filter(|&greatest| greatest >= vocab_size)?;
        self.ids().enumerate().find(|&(_, token)| token >= vocab_size)
    }

    /// The ids.
    fn ids(&self) -> impl Iterator<Item = u32> + use<'a> {
        let width = self.width;
        self.bytes.chunks_exact(width.bytes()).map(move |b| match width {
            TokenWidth::U16 => u32::from(u16::from_le_bytes([b[0], b[1]])),
            TokenWidth::U32 => u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        })
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
    mdx_file: File,
    bin_path: PathBuf,
    bin_file: File,
    bin: Mmap,
}

impl std::ops::Deref for Shard {
    type Target = ShardIndex<Mmap>;

    fn deref(&self) -> &ShardIndex<Mmap> {
        &self.index
    }
}

impl Shard {
    /// Opens `name.mdx` and the `name.bin` next to it.
    ///
    /// # Errors
    /// Either file is missing, or its size or header is wrong.
    pub fn open(mdx_path: &Path) -> Result<Shard> {
        let (mdx_file, mdx) = map_open_file(mdx_path)?;
        let index = ShardIndex::parse(mdx_path, mdx)?;
        let bin_path = mdx_path.with_extension("bin");
        let (bin_file, bin) = map_open_file(&bin_path)?;
        let expected = index.header.n_tokens.checked_mul(index.header.width.bytes() as u64);
        if expected != Some(bin.len() as u64) {
            let expected =
                format!("{} tokens of {} bytes", index.header.n_tokens, index.header.width.bytes());
            return Err(Error::format(&bin_path, "file size", expected, format!("{} bytes", bin.len())));
        }
        Ok(Shard { index, mdx_file, bin_path, bin_file, bin })
    }

    /// Tokens of a document, EOD included.
    ///
    /// # Errors
    /// No such document, or a damaged index.
    pub fn tokens(&self, doc: u32) -> Result<Tokens<'_>> {
        let (start, len) = self.span(doc)?;
        let width = self.index.header.width;
        let w = width.bytes() as u64;
        // `span` and `open` have checked that the end is inside the file.
        Ok(Tokens { bytes: &self.bin[(start * w) as usize..((start + len) * w) as usize], width })
    }

    /// Tokens of a document, EOD included, after a check of what a damaged disk or another program may have
    /// changed: the sizes of both files, the checksum of the document (from version 3 on), and that every id
    /// is in the vocabulary.
    ///
    /// # Errors
    /// As [`Shard::tokens`]; also the first of these checks that fails, naming shard and document.
    pub fn checked_tokens(&self, doc: u32) -> Result<Tokens<'_>> {
        self.check_sizes()?;
        let tokens = self.tokens(doc)?;
        if let Some((at, token)) = tokens.first_beyond(self.vocab_size()) {
            return Err(Error::TokenRange {
                path: self.bin_path.clone(),
                id: self.id(doc)?.to_owned(),
                token,
                at,
                vocab_size: self.vocab_size(),
            });
        }
        if let Some(recorded) = self.index.sum(doc)? {
            let computed = self.index.computed_sum(doc, tokens.bytes)?;
            if recorded != computed {
                let what = format!("document {doc}, `{}`,", self.id(doc)?);
                return Err(checksum_error(&self.bin_path, &what, recorded, computed));
            }
        }
        Ok(tokens)
    }

    /// Whether the index has a checksum of each document (from version 3 on), so that
    /// [`Shard::checked_tokens`] finds a changed token that is still in the vocabulary.
    pub fn has_document_sums(&self) -> bool {
        n_sections(self.index.header.version) > mask::SUM
    }

    /// Whether both files are still as long as they were mapped: reading a map of a file that became shorter
    /// ends the process.
    ///
    /// # Errors
    /// One of them is not, or is gone.
    pub fn check_sizes(&self) -> Result<()> {
        let of_files = [
            (&self.index.path, &self.mdx_file, self.index.data.len()),
            (&self.bin_path, &self.bin_file, self.bin.len()),
        ];
        for (path, file, expected) in of_files {
            let found = file.metadata().map_err(Error::io(path, "look at"))?.len();
            if found != expected as u64 {
                let expected = format!("{expected} bytes, as when it was opened");
                return Err(Error::format(path, "file size", expected, format!("{found} bytes")));
            }
        }
        Ok(())
    }

    /// Bytes of the tokens.
    pub fn bin_bytes(&self) -> u64 {
        self.bin.len() as u64
    }

    /// Reads the tokens from the disk, compares them with their digest and looks for ids beyond the
    /// vocabulary. `progress` gets the bytes read since its last call, and returns whether to continue; the
    /// result is `false` if it did not.
    ///
    /// # Errors
    /// The bytes are not those that were written; if possible, the document is named.
    pub fn verify_tokens(&self, progress: &mut dyn FnMut(u64) -> bool) -> Result<bool> {
        let mut file = File::open(&self.bin_path).map_err(Error::io(&self.bin_path, "open"))?;
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; BLOCK_BYTES];
        let mut in_vocabulary = true;
        loop {
            let n = read_full(&mut file, &mut block).map_err(Error::io(&self.bin_path, "read"))?;
            hasher.update(&block[..n]);
            let tokens = Tokens { bytes: &block[..n], width: self.index.header.width };
            in_vocabulary &= tokens.first_beyond(self.vocab_size()).is_none();
            if !progress(n as u64) {
                return Ok(false);
            }
            if n < block.len() {
                break;
            }
        }
        let found = Hash(*hasher.finalize().as_bytes());
        if found == self.index.header.bin && in_vocabulary {
            return Ok(true);
        }
        for doc in 0..self.n_docs() {
            self.checked_tokens(doc)?;
        }
        Err(Error::Checksum {
            path: self.bin_path.clone(),
            what: "file".to_owned(),
            expected: self.index.header.bin.to_string(),
            found: found.to_string(),
        })
    }

    /// The tokens of all documents as in the file, little-endian.
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
        self.index.verify_mask()?;
        self.verify_tokens(&mut |_| true)?;
        let mut previous = FamilyId(0);
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
            let tokens = self.checked_tokens(doc)?;
            n_tokens += tokens.len() as u64;
            let last = tokens.slice(tokens.len() - 1, 1).ids().next();
            if last != Some(self.eod().0) {
                let found = format!("{last:?} in `{}`", self.id(doc)?);
                return Err(Error::format(&self.bin_path, "end of document", self.eod().0, found));
            }
        }
        if n_tokens != self.n_tokens() {
            return Err(Error::format(&self.bin_path, "tokens in documents", self.n_tokens(), n_tokens));
        }
        Ok(())
    }
}
