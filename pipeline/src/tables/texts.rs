//! `dedup/NAME.texts`: what a later build needs to know about the shard `NAME` to leave out its documents. It holds the
//! hash of every document's normalized text, and the text itself if the tokens of the shard do not give it back: because
//! part of it was cut, or the tokenizer is lossy. The format is defined in `docs/dedup-format.md`.
//!
//! ```text
//! blobs    the stored texts, one zstd frame each, in the order of their documents
//! hashes   XXH3-128 of the normalized text of each document   16 bytes a document
//! rows     [`StoredRow`] of each stored text                   20 bytes a stored text
//! trailer  88 bytes
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use moe_shards::{Hash, Shard};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::rows::{Row, row};
use crate::document::TextHash;
use crate::error::{Error, Result};
use crate::tokenizer::Vocabulary;

/// Format version written by this program.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"MOETXT01";
const TRAILER_BYTES: u64 = 88;
const HASH_BYTES: u64 = 16;
/// Bytes to read at once when a whole file is read.
const BLOCK_BYTES: u64 = 1 << 20;
/// Level of zstd: the fastest that still halves text.
const LEVEL: i32 = 3;

row! {
    /// A text not given back by the shard's tokens.
    StoredRow {
        /// Document of the shard.
        doc: u32,
        /// Bytes of the text.
        text_bytes: u32,
        /// Bytes of its zstd frame.
        zstd_bytes: u32,
        /// Where the frame starts in the file.
        start: u64,
    }
}

/// A text as a zstd frame.
///
/// # Errors
/// The library refuses, which does not happen in practice.
pub fn compress(text: &str) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(text.as_bytes(), LEVEL)
}

/// Name of the file of a shard.
pub fn file_name(shard: &str) -> String {
    format!("{shard}.texts")
}

/// Path of the file of a shard in the output folder of a build.
pub fn path(out: &Path, shard: &str) -> PathBuf {
    out.join("dedup").join(file_name(shard))
}

/// Writes the file of one shard.
pub struct TextsWriter {
    file: AtomicFile,
    n_blob_bytes: u64,
    /// Hashes, little-endian.
    hashes: Vec<u8>,
    rows: Vec<u8>,
}

impl TextsWriter {
    /// Starts a file that appears at `path` on [`TextsWriter::finish`].
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> Result<TextsWriter> {
        let file = AtomicFile::create(path)?;
        Ok(TextsWriter { file, n_blob_bytes: 0, hashes: Vec::new(), rows: Vec::new() })
    }

    /// Notes the next document of the shard; `stored` is its text as [`compress`] made it, with the bytes of the text.
    ///
    /// # Errors
    /// A write fails.
    pub fn append(&mut self, hash: TextHash, stored: Option<(u32, &[u8])>) -> Result<()> {
        if let Some((text_bytes, frame)) = stored {
            // A shard has at most 2^32 - 1 documents, and a text is below 2^32 bytes.
            let doc = (self.hashes.len() as u64 / HASH_BYTES) as u32;
            let row = StoredRow { doc, text_bytes, zstd_bytes: frame.len() as u32, start: self.n_blob_bytes };
            row.put(&mut self.rows);
            self.file.write(frame)?;
            self.n_blob_bytes += frame.len() as u64;
        }
        self.hashes.extend_from_slice(&hash.0.to_le_bytes());
        Ok(())
    }

    /// Makes the file appear; `bin` is the digest of the shard's tokens.
    ///
    /// # Errors
    /// A write fails.
    pub fn finish(mut self, bin: Hash) -> Result<()> {
        self.file.write(&self.hashes)?;
        self.file.write(&self.rows)?;
        let mut hasher = Xxh3::new();
        hasher.update(&self.hashes);
        hasher.update(&self.rows);
        let mut trailer = Vec::new();
        for number in [
            self.hashes.len() as u64 / HASH_BYTES,
            self.rows.len() as u64 / StoredRow::BYTES as u64,
            self.n_blob_bytes,
        ] {
            trailer.extend_from_slice(&number.to_le_bytes());
        }
        trailer.extend_from_slice(&bin.0);
        trailer.extend_from_slice(&hasher.digest().to_le_bytes());
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(&[0; 4]);
        trailer.extend_from_slice(&MAGIC);
        let checksum = xxh3_64(&trailer);
        trailer.extend_from_slice(&checksum.to_le_bytes());
        self.file.write(&trailer)?;
        Ok(self.file.commit()?)
    }
}

/// The file of one shard. Opening reads the trailer and the rows of the stored texts.
#[derive(Debug)]
pub struct Texts {
    path: PathBuf,
    file: File,
    n_docs: u64,
    n_blob_bytes: u64,
    bin: Hash,
    table_hash: u64,
    checksum: u64,
    rows: Vec<StoredRow>,
}

impl Texts {
    /// Opens a file.
    ///
    /// # Errors
    /// It is missing, of another version, or damaged.
    pub fn open(path: &Path) -> Result<Texts> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let n_bytes = file.metadata().map_err(Error::io(path, "read"))?.len();
        let damaged = |what: &str| {
            let message = format!(
                "is not a table of texts: {what}; bring it back from a copy, or build it again with --fresh"
            );
            Error::data(path, message)
        };
        let start = n_bytes.checked_sub(TRAILER_BYTES).ok_or_else(|| damaged("it is too short"))?;
        let mut trailer = [0; TRAILER_BYTES as usize];
        file.read_exact_at(&mut trailer, start).map_err(Error::io(path, "read"))?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&trailer[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        if trailer[72..80] != MAGIC {
            return Err(damaged("its magic is another"));
        }
        let version = number(64) as u32;
        if version != VERSION {
            let message = format!("has version {version}; this program reads {VERSION}");
            return Err(Error::data(path, message));
        }
        if xxh3_64(&trailer[..80]) != number(80) {
            return Err(damaged("its trailer does not match its checksum"));
        }
        let [n_docs, n_stored, n_blob_bytes] = [0, 8, 16].map(number);
        let hash_bytes = n_docs.checked_mul(HASH_BYTES);
        let row_bytes = n_stored.checked_mul(StoredRow::BYTES as u64);
        let expected = hash_bytes
            .zip(row_bytes)
            .and_then(|(a, b)| a.checked_add(b)?.checked_add(n_blob_bytes)?.checked_add(TRAILER_BYTES));
        if expected != Some(n_bytes) {
            return Err(damaged("its length is not what its trailer says"));
        }
        let mut bin = Hash::default();
        bin.0.copy_from_slice(&trailer[24..56]);
        let mut texts = Texts {
            path: path.to_owned(),
            file,
            n_docs,
            n_blob_bytes,
            bin,
            table_hash: number(56),
            checksum: number(80),
            rows: Vec::new(),
        };
        let mut bytes = vec![0; row_bytes.unwrap_or(0) as usize];
        texts.read_at(start - bytes.len() as u64, &mut bytes)?;
        texts.rows = bytes.chunks_exact(StoredRow::BYTES).map(StoredRow::get).collect();
        Ok(texts)
    }

    fn read_at(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, at).map_err(Error::io(&self.path, "read"))
    }

    /// Documents of the shard.
    pub fn n_docs(&self) -> u64 {
        self.n_docs
    }

    /// Texts that are stored.
    pub fn n_stored(&self) -> usize {
        self.rows.len()
    }

    /// Digest of the tokens of the shard that it belongs to.
    pub fn bin(&self) -> Hash {
        self.bin
    }

    /// Checksum of the trailer, and through it of all tables: the identity of the file.
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Hash of a document's text.
    ///
    /// # Errors
    /// There is no such document, or a write fails.
    pub fn hash(&self, doc: u32) -> Result<TextHash> {
        if u64::from(doc) >= self.n_docs {
            return Err(Error::data(&self.path, format!("has no document {doc}, but {}", self.n_docs)));
        }
        let mut bytes = [0; HASH_BYTES as usize];
        self.read_at(self.n_blob_bytes + u64::from(doc) * HASH_BYTES, &mut bytes)?;
        Ok(TextHash(u128::from_le_bytes(bytes)))
    }

    /// The stored text of a document, if the shard's tokens do not give it.
    ///
    /// # Errors
    /// It is damaged.
    pub fn stored(&self, doc: u32) -> Result<Option<Vec<u8>>> {
        let Ok(place) = self.rows.binary_search_by_key(&doc, |row| row.doc) else { return Ok(None) };
        let row = self.rows[place];
        if row.start.checked_add(u64::from(row.zstd_bytes)).is_none_or(|end| end > self.n_blob_bytes) {
            return Err(Error::data(&self.path, format!("names a text of document {doc} outside the file")));
        }
        let mut frame = vec![0; row.zstd_bytes as usize];
        self.read_at(row.start, &mut frame)?;
        let text = zstd::bulk::decompress(&frame, row.text_bytes as usize)
            .map_err(|e| Error::data(&self.path, format!("the text of document {doc} is damaged: {e}")))?;
        Ok(Some(text))
    }

    /// Reads both tables and checks their checksum.
    ///
    /// # Errors
    /// It does not match, or a write fails.
    pub fn verify_tables(&self) -> Result<()> {
        let mut hasher = Xxh3::new();
        let mut at = self.n_blob_bytes;
        let end = at + self.n_docs * HASH_BYTES + self.rows.len() as u64 * StoredRow::BYTES as u64;
        let mut block = Vec::new();
        while at < end {
            block.resize((end - at).min(BLOCK_BYTES) as usize, 0);
            self.read_at(at, &mut block)?;
            hasher.update(&block);
            at += block.len() as u64;
        }
        match hasher.digest() == self.table_hash {
            true => Ok(()),
            false => {
                let message = "its tables do not match their checksum; bring it back from a copy, or build it again with --fresh";
                Err(Error::data(&self.path, message))
            }
        }
    }
}

/// A shard whose texts can be read.
pub struct ReadableShard {
    /// The shard.
    pub shard: Shard,
    texts: Texts,
    vocabulary: Vocabulary,
    ids: Vec<u32>,
}

impl ReadableShard {
    /// Opens a shard, its table of texts and its tokenizer.
    ///
    /// # Errors
    /// A file is missing or damaged, or they do not belong together.
    pub fn open(mdx: &Path, texts: &Path, tokenizer: &Path) -> Result<ReadableShard> {
        let (shard, texts) = (Shard::open(mdx)?, Texts::open(texts)?);
        if (u64::from(shard.n_docs()), shard.bin_blake3()) != (texts.n_docs, texts.bin) {
            let message =
                format!("belongs to another shard than {}; build it again with --fresh", mdx.display());
            return Err(Error::data(&texts.path, message));
        }
        texts.verify_tables()?;
        Ok(ReadableShard { shard, texts, vocabulary: Vocabulary::read(tokenizer)?, ids: Vec::new() })
    }

    /// The normalized text of a document before cuts, and its hash, which was verified.
    ///
    /// # Errors
    /// There is no such document, or what is read is not the text that was written.
    pub fn text(&mut self, doc: u32) -> Result<(String, TextHash)> {
        let hash = self.texts.hash(doc)?;
        let text = match self.texts.stored(doc)? {
            Some(bytes) => String::from_utf8(bytes).ok(),
            None => {
                self.ids.clear();
                self.shard.tokens(doc)?.extend_into(&mut self.ids);
                // The last token ends the document.
                self.ids.pop();
                self.vocabulary.text(&self.ids)
            }
        };
        match text.filter(|text| TextHash::of(text) == hash) {
            Some(text) => Ok((text, hash)),
            None => {
                let message = format!(
                    "document {doc} has another text than when it was built; `moe-data verify` on its build says which file changed"
                );
                Err(Error::data(self.shard.path(), message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path) {
        let mut writer = TextsWriter::create(path).unwrap();
        let stored = compress("a stored text, a stored text").unwrap();
        writer.append(TextHash::of("one"), None).unwrap();
        writer.append(TextHash::of("a stored text, a stored text"), Some((28, &stored))).unwrap();
        writer.append(TextHash::of(""), None).unwrap();
        writer.finish(Hash::of(b"tokens")).unwrap();
    }

    #[test]
    fn hashes_and_stored_texts_survive_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.texts");
        write(&path);
        let texts = Texts::open(&path).unwrap();
        texts.verify_tables().unwrap();
        assert_eq!((texts.n_docs(), texts.n_stored(), texts.bin()), (3, 1, Hash::of(b"tokens")));
        assert_eq!(texts.hash(0).unwrap(), TextHash::of("one"));
        assert_eq!(texts.hash(2).unwrap(), TextHash::of(""));
        assert_eq!(texts.stored(0).unwrap(), None);
        assert_eq!(texts.stored(1).unwrap().unwrap(), b"a stored text, a stored text");
        assert!(texts.hash(3).unwrap_err().to_string().contains("no document 3"));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.texts");
        write(&path);
        let good = std::fs::read(&path).unwrap();
        let check = |bytes: &[u8]| -> Result<()> {
            std::fs::write(&path, bytes).unwrap();
            let texts = Texts::open(&path)?;
            texts.verify_tables()?;
            let text = texts.stored(1)?.unwrap_or_default();
            match TextHash(xxhash_rust::xxh3::xxh3_128(&text)) == texts.hash(1)? {
                true => Ok(()),
                false => Err(Error::data(&path, "another text")),
            }
        };
        check(&good).unwrap();
        for i in 0..good.len() {
            let mut bytes = good.clone();
            bytes[i] ^= 0x10;
            // A zstd frame has bits that change nothing; the text is then the same.
            let is_blob = i < good.len() - 88 - 3 * 16 - 20;
            assert!(is_blob || check(&bytes).is_err(), "byte {i}");
            assert!(check(&good[..i]).is_err(), "{i} bytes");
        }
    }

    #[test]
    fn the_committed_file_of_version_1_opens() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/v1.texts");
        let texts = Texts::open(&path).unwrap();
        texts.verify_tables().unwrap();
        assert_eq!((texts.n_docs(), texts.n_stored(), texts.bin()), (3, 1, Hash::of(b"tokens")));
        assert_eq!(texts.hash(1).unwrap(), TextHash::of("a stored text, a stored text"));
        assert_eq!(texts.stored(1).unwrap().unwrap(), b"a stored text, a stored text");
        // Today's output is the same, except for the frame, which may depend on the version of zstd.
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a.texts"));
        let now = Texts::open(&dir.path().join("a.texts")).unwrap();
        assert_eq!(
            (now.n_docs, now.hash(0).unwrap(), now.rows.len()),
            (3, texts.hash(0).unwrap(), texts.rows.len())
        );
    }
}
