//! Writes one shard: `name.bin` (tokens) and `name.mdx` (index). Tokens stream to the disk; the
//! index (40 bytes and the id of each document) is held until [`ShardWriter::finish`].

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::atomic::{self, AtomicFile};
use crate::error::{Error, Result};
use crate::file_names::check_plain;
use crate::format::{
    ALIGN, DocumentMeta, FORMAT_VERSION, Header, PLAIN_VERSION, SECTIONS, Section, header_bytes, n_sections,
};
use crate::hash::Hash;
use crate::ids::{TokenId, TokenWidth};
use crate::names::Names;
use crate::reader::{document_sum, packed};

/// Properties that all documents of a shard share.
#[derive(Clone, Copy, Debug)]
pub struct ShardSpec {
    /// Tokens in the vocabulary; ids are below it.
    pub vocab_size: u32,
    /// End of document; closes every document exactly once.
    pub eod: TokenId,
    /// Digest of the tokenizer file.
    pub tokenizer: Hash,
    /// Digest of the recipe's settings for the source of the documents, without paths.
    pub build: Hash,
}

/// A finished shard, as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardInfo {
    /// File stem under `shards/`.
    pub name: String,
    /// Position of the source in the manifest.
    pub source: u16,
    /// Variant of all its documents.
    pub variant: u8,
    /// Documents.
    pub n_docs: u64,
    /// Tokens with the EODs.
    pub n_tokens: u64,
    /// Bytes of the texts as they were read.
    pub n_text_bytes: u64,
    /// Tokens that are trained, where the shard has a mask of them; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_trained_tokens: Option<u64>,
    /// Size of `name.bin`.
    pub bin_bytes: u64,
    /// Digest of `name.bin`.
    pub bin_blake3: Hash,
    /// Size of `name.mdx`.
    pub mdx_bytes: u64,
    /// Digest of `name.mdx`, which itself holds the digest of `name.bin`.
    pub mdx_blake3: Hash,
}

/// Tokens are hashed and written in blocks of this many bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// Builds one shard. Nothing is visible under the final names before [`ShardWriter::finish`].
#[derive(Debug)]
pub struct ShardWriter {
    name: String,
    mdx_path: PathBuf,
    bin_path: PathBuf,
    spec: ShardSpec,
    names: Names,
    width: TokenWidth,
    bin: AtomicFile,
    bin_hasher: blake3::Hasher,
    /// Bytes of tokens that are neither hashed nor written yet.
    scratch: Vec<u8>,
    ends: Vec<u8>,
    families: Vec<u8>,
    metas: Vec<u8>,
    sums: Vec<u8>,
    id_ends: Vec<u64>,
    id_bytes: Vec<u8>,
    /// Whether each token is trained, if the shard says so.
    mask: Option<Vec<bool>>,
    n_tokens: u64,
    n_text_bytes: u64,
    last: Option<DocumentMeta>,
}

impl ShardWriter {
    /// Starts `dir/name.bin` and `dir/name.mdx`.
    ///
    /// # Errors
    /// The name is not that of a file, the folder or files cannot be made, or the EOD is outside the
    /// vocabulary.
    pub fn create(dir: &Path, name: &str, spec: ShardSpec) -> Result<ShardWriter> {
        check_plain(dir, "name of a shard", name)?;
        let bin_path = dir.join(format!("{name}.bin"));
        if spec.eod.0 >= spec.vocab_size {
            return Err(Error::format(&bin_path, "EOD", format!("below {}", spec.vocab_size), spec.eod.0));
        }
        Ok(ShardWriter {
            name: name.to_owned(),
            mdx_path: dir.join(format!("{name}.mdx")),
            bin: AtomicFile::create(&bin_path)?,
            bin_path,
            spec,
            names: Names::default(),
            width: TokenWidth::for_vocab(spec.vocab_size),
            bin_hasher: blake3::Hasher::new(),
            scratch: Vec::new(),
            ends: Vec::new(),
            families: Vec::new(),
            metas: Vec::new(),
            sums: Vec::new(),
            id_ends: vec![0],
            id_bytes: Vec::new(),
            mask: None,
            n_tokens: 0,
            n_text_bytes: 0,
            last: None,
        })
    }

    /// Sets the names of the languages and tags in the records; without it all languages are unknown and no
    /// document has a tag. Call it before the first document.
    pub fn with_names(mut self, names: Names) -> ShardWriter {
        self.names = names;
        self
    }

    /// Lets the shard say which of its tokens are trained; its documents are added by
    /// [`ShardWriter::append_masked`]. Call it before the first one.
    pub fn with_mask(mut self) -> ShardWriter {
        self.mask = Some(Vec::new());
        self
    }

    /// Appends a document; `tokens` come without EOD, which the writer adds.
    ///
    /// # Errors
    /// A token outside the vocabulary, a family smaller than the last one, a document of another
    /// source or variant than the first, a language or tag without a name, more than 2^32 - 1
    /// documents, a shard with a mask, or a full disk.
    pub fn append(&mut self, id: &str, meta: &DocumentMeta, tokens: &[TokenId]) -> Result<()> {
        self.append_any(id, meta, tokens, None)
    }

    /// Appends a document of a shard with a mask; `trained` has a flag for each token and a last one for the
    /// EOD.
    ///
    /// # Errors
    /// As [`ShardWriter::append`]; also a shard without a mask, or flags that are not one for each token and
    /// the EOD.
    pub fn append_masked(
        &mut self,
        id: &str,
        meta: &DocumentMeta,
        tokens: &[TokenId],
        trained: &[bool],
    ) -> Result<()> {
        self.append_any(id, meta, tokens, Some(trained))
    }

    fn append_any(
        &mut self,
        id: &str,
        meta: &DocumentMeta,
        tokens: &[TokenId],
        trained: Option<&[bool]>,
    ) -> Result<()> {
        let (expected, found) = (self.mask.as_ref().map(|_| tokens.len() + 1), trained.map(<[bool]>::len));
        if expected != found {
            let flags = |n: Option<usize>| n.map_or("none".to_owned(), |n| n.to_string());
            return Err(Error::format(&self.bin_path, "flags of a document", flags(expected), flags(found)));
        }
        if let Some(last) = &self.last {
            if meta.family < last.family {
                return Err(Error::Order {
                    path: self.bin_path.clone(),
                    previous: last.family.to_string(),
                    next: meta.family.to_string(),
                });
            }
            if (meta.source, meta.variant) != (last.source, last.variant) {
                let name = |m: &DocumentMeta| format!("source {} variant {}", m.source, m.variant);
                return Err(Error::format(&self.bin_path, "document", name(last), name(meta)));
            }
        }
        if usize::from(meta.language) > self.names.languages().len() {
            let expected = format!("at most {}", self.names.languages().len());
            return Err(Error::format(&self.bin_path, "language of a document", expected, meta.language));
        }
        if u16::from(meta.tags) >= 1 << self.names.tags().len() {
            let expected = format!("bits of {} tags", self.names.tags().len());
            let found = format!("{:#010b}", meta.tags);
            return Err(Error::format(&self.bin_path, "tags of a document", expected, found));
        }
        if self.id_ends.len() > u32::MAX as usize {
            return Err(Error::format(&self.bin_path, "documents", "at most 2^32 - 1", "one more"));
        }
        if let Some(at) = tokens.iter().position(|token| token.0 >= self.spec.vocab_size) {
            return Err(Error::TokenRange {
                path: self.bin_path.clone(),
                id: id.to_owned(),
                token: tokens[at].0,
                at,
                vocab_size: self.spec.vocab_size,
            });
        }
        let first = self.scratch.len();
        for tokens in [tokens, &[self.spec.eod]] {
            let start = self.scratch.len();
            self.scratch.resize(start + tokens.len() * self.width.bytes(), 0);
            let bytes = &mut self.scratch[start..];
            match self.width {
                // The range check above makes the cast exact: u16 is chosen below 65,500 tokens.
                TokenWidth::U16 => (bytes.chunks_exact_mut(2).zip(tokens))
                    .for_each(|(bytes, t)| bytes.copy_from_slice(&(t.0 as u16).to_le_bytes())),
                TokenWidth::U32 => (bytes.chunks_exact_mut(4).zip(tokens))
                    .for_each(|(bytes, t)| bytes.copy_from_slice(&t.0.to_le_bytes())),
            }
        }
        self.sums.extend_from_slice(&document_sum(&self.scratch[first..], trained).to_le_bytes());
        if let (Some(mask), Some(trained)) = (&mut self.mask, trained) {
            mask.extend_from_slice(trained);
        }
        if self.scratch.len() >= BUFFER_BYTES {
            self.write_scratch()?;
        }
        self.n_tokens += tokens.len() as u64 + 1;
        self.n_text_bytes += u64::from(meta.n_bytes);
        self.ends.extend_from_slice(&self.n_tokens.to_le_bytes());
        self.families.extend_from_slice(&meta.family.0.to_le_bytes());
        self.metas.extend_from_slice(&meta.to_bytes());
        self.id_bytes.extend_from_slice(id.as_bytes());
        self.id_ends.push(self.id_bytes.len() as u64);
        self.last = Some(*meta);
        Ok(())
    }

    /// BLAKE3 hashes many kilobytes at a time several times faster than a document at a time.
    fn write_scratch(&mut self) -> Result<()> {
        self.bin_hasher.update(&self.scratch);
        self.bin.write(&self.scratch)?;
        self.scratch.clear();
        Ok(())
    }

    /// Makes both files durable and visible, the `.bin` first: an `.mdx` never names missing tokens.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(mut self) -> Result<ShardInfo> {
        self.write_scratch()?;
        let n_docs = self.id_ends.len() as u64 - 1;
        let mut ids: Vec<u8> = self.id_ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        ids.extend_from_slice(&self.id_bytes);

        let version = if self.mask.is_some() { FORMAT_VERSION } else { PLAIN_VERSION };
        let n_trained_tokens =
            self.mask.as_ref().map(|mask| mask.iter().filter(|&&trained| trained).count() as u64);
        let mask = packed(self.mask.as_deref().unwrap_or_default());
        let mut file = vec![0; header_bytes(version)];
        let names = self.names.to_bytes();
        let mut sections = [Section::default(); SECTIONS.len()];
        let contents = [&self.ends, &self.families, &self.metas, &ids, &names, &self.sums, &mask];
        for (section, bytes) in sections.iter_mut().zip(contents).take(n_sections(version)) {
            file.resize(file.len().next_multiple_of(ALIGN as usize), 0);
            *section = Section { offset: file.len() as u64, bytes: bytes.len() as u64, xxh3: xxh3_64(bytes) };
            file.extend_from_slice(bytes);
        }
        let bin_blake3 = Hash(*self.bin_hasher.finalize().as_bytes());
        let header = Header {
            version,
            width: self.width,
            n_docs,
            n_tokens: self.n_tokens,
            eod: self.spec.eod.0,
            vocab_size: self.spec.vocab_size,
            n_text_bytes: self.n_text_bytes,
            tokenizer: self.spec.tokenizer,
            bin: bin_blake3,
            build: self.spec.build,
            sections,
            file_bytes: file.len() as u64,
        };
        file[..header_bytes(version)].copy_from_slice(&header.to_bytes());
        self.bin.commit()?;
        atomic::write_file(&self.mdx_path, &file)?;
        let last = self.last.unwrap_or_default();
        Ok(ShardInfo {
            name: self.name,
            source: last.source,
            variant: last.variant,
            n_docs,
            n_tokens: self.n_tokens,
            n_text_bytes: self.n_text_bytes,
            n_trained_tokens,
            bin_bytes: self.n_tokens * self.width.bytes() as u64,
            bin_blake3,
            mdx_bytes: file.len() as u64,
            mdx_blake3: Hash::of(&file),
        })
    }
}
