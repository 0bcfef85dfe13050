//! `MANIFEST.json`: the output of a build. Its digest is the identity of the data set. It has nothing that
//! depends on the location of the input, so equal data and recipe give equal bytes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{Error, Result};
use crate::file_names::{check_below, check_plain};
use crate::hash::Hash;
use crate::writer::ShardInfo;

/// The tokenizer of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerInfo {
    /// File in the output folder.
    pub file: String,
    /// Its digest.
    pub blake3: Hash,
    /// Tokens in the vocabulary, special ones included.
    pub vocab_size: u32,
    /// End of document.
    pub eod_id: u32,
    /// File with the UTF-8 bytes of each token as little-endian u16 (special tokens: 0).
    pub token_bytes_file: String,
    /// Its digest.
    pub token_bytes_blake3: Hash,
}

/// A source of documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceInfo {
    /// Name in the recipe.
    pub name: String,
    /// Names of the variants; the position is the variant's number, 0 = original.
    pub variants: Vec<String>,
}

/// The output of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's schema.
    pub version: u32,
    /// Digest of the resolved recipe, without paths.
    pub build: Hash,
    /// The tokenizer.
    pub tokenizer: TokenizerInfo,
    /// Sources in recipe order.
    pub sources: Vec<SourceInfo>,
    /// Languages of the documents, sorted; from version 2 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// Tags of the documents, sorted, at most [`Names::MAX_TAGS`](crate::Names::MAX_TAGS); from version 2 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Shards, sorted by name.
    pub shards: Vec<ShardInfo>,
}

impl Manifest {
    /// Schema version of a data set without masks of trained tokens.
    pub const VERSION: u32 = 2;
    /// Newest schema version, of a data set in which a shard has a mask of trained tokens.
    pub const MASKED_VERSION: u32 = 3;
    /// File name in the output folder.
    pub const FILE: &'static str = "MANIFEST.json";

    /// The version that a manifest of these shards has.
    pub fn version_of(shards: &[ShardInfo]) -> u32 {
        match shards.iter().any(|shard| shard.n_trained_tokens.is_some()) {
            true => Manifest::MASKED_VERSION,
            false => Manifest::VERSION,
        }
    }

    /// Reads `dir/MANIFEST.json`.
    ///
    /// # Errors
    /// The file is missing, is not this schema, is newer than this program, or names a file that is not in
    /// the folder.
    pub fn read(dir: &Path) -> Result<Manifest> {
        let path = dir.join(Manifest::FILE);
        let bytes = std::fs::read(&path).map_err(Error::unread(&path, "moe-data build"))?;
        Manifest::parse(&path, &bytes)
    }

    /// A manifest from the bytes of its file, which is `path` in messages.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest> {
        check_version(path, bytes, Manifest::MASKED_VERSION)?;
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        manifest.check_names(path)?;
        Ok(manifest)
    }

    /// Refuses names that lead out of the folder.
    fn check_names(&self, path: &Path) -> Result<()> {
        check_below(path, "file of the tokenizer", &self.tokenizer.file)?;
        check_below(path, "file of the tokenizer", &self.tokenizer.token_bytes_file)?;
        self.sources.iter().try_for_each(|source| check_plain(path, "name of a source", &source.name))?;
        self.shards.iter().try_for_each(|shard| check_plain(path, "name of a shard", &shard.name))
    }

    /// Writes `dir/MANIFEST.json`. Call it last: its presence means that everything else is there.
    ///
    /// # Errors
    /// A name leads out of the folder, or the disk refuses.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(Manifest::FILE);
        self.check_names(&path)?;
        atomic::write_file(&path, &self.to_bytes()?)
    }

    /// Digest of the canonical bytes: the identity of the data set.
    ///
    /// # Errors
    /// Never in practice: the schema has no value that JSON cannot represent.
    pub fn hash(&self) -> Result<Hash> {
        Ok(Hash::of(&self.to_bytes()?))
    }

    /// Path of a shard's index.
    pub fn mdx_path(dir: &Path, shard: &str) -> PathBuf {
        dir.join("shards").join(format!("{shard}.mdx"))
    }

    /// The canonical bytes, which are those of the file.
    ///
    /// # Errors
    /// As [`Manifest::hash`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let unwritable = |source| Error::Json { path: PathBuf::from(Manifest::FILE), source };
        let mut bytes = serde_json::to_vec_pretty(self).map_err(unwritable)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Refuses a newer schema before its unknown fields give a confusing message.
pub(crate) fn check_version(path: &Path, bytes: &[u8], supported: u32) -> Result<()> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version: found } =
        serde_json::from_slice(bytes).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    if found > supported {
        return Err(Error::Version { path: path.to_owned(), found, supported });
    }
    Ok(())
}
