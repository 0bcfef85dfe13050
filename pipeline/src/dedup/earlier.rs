//! Other builds whose documents are left out (`dedup.against`). Deduplication treats each of their shards as a
//! part whose documents survive before all of this build's, and never go.

pub mod stage;

use std::path::{Path, PathBuf};

use moe_shards::{Hash, Manifest};
use serde_json::json;

use self::stage::{
    EarlierCandidates, EarlierCandidatesInputs, EarlierKeys, EarlierParams, EarlierShardInputs,
};
use super::minhash::signature::SketchConfig;
use crate::error::Error;
use crate::json;
use crate::stage::Task;
use crate::tables::texts::{self, Texts};

/// A finished build.
#[derive(Clone, Debug)]
pub struct EarlierBuild {
    /// Its folder as the user named it.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Digest of its manifest and of its stored texts.
    pub identity: Hash,
    /// `normalize.unicode` of its recipe, if that can be read.
    pub unicode: Option<String>,
    /// Its shards.
    pub shards: Vec<EarlierShard>,
}

/// A shard of another build.
#[derive(Clone, Debug)]
pub struct EarlierShard {
    /// Folder of the build as the user named it.
    pub build: String,
    /// Name of the source in that build.
    pub source: String,
    /// The shard's index.
    pub mdx: PathBuf,
    /// Its table of texts.
    texts: PathBuf,
    /// The build's tokenizer.
    tokenizer: PathBuf,
    /// Bytes of its texts as read.
    n_bytes: u64,
    /// What a task has to know of it.
    params: EarlierParams,
}

impl EarlierBuild {
    /// Opens the output folder of a build and looks at the heads of its files.
    ///
    /// # Errors
    /// The problem and the remedy, in words.
    pub fn open(folder: &Path, name: &str) -> Result<EarlierBuild, String> {
        if !folder.is_dir() {
            return Err(format!("`{name}` is not a folder ({})", folder.display()));
        }
        if !folder.join(Manifest::FILE).exists() {
            let message =
                "is not a finished build: it has no MANIFEST.json; name the --out folder of a build";
            return Err(format!("`{name}` {message}"));
        }
        let words = |e: &dyn std::fmt::Display| format!("`{name}`: {e}");
        let manifest = Manifest::read(folder).map_err(|e| words(&e))?;
        let tokenizer = folder.join(&manifest.tokenizer.file);
        let found = Hash::of_file(&tokenizer).map_err(|e| words(&e))?;
        if found != manifest.tokenizer.blake3 {
            return Err(format!("`{name}`: {} is not the tokenizer of this build", tokenizer.display()));
        }
        let mut checksums = Vec::new();
        let mut shards = Vec::new();
        for info in &manifest.shards {
            let path = texts::path(folder, &info.name);
            if !path.exists() {
                let message = "was built by a program that kept no texts for later builds; run its build again with this one, which changes no shard";
                return Err(format!("`{name}` {message} ({} is missing)", path.display()));
            }
            let table = Texts::open(&path).map_err(|e| words(&e))?;
            if (table.n_docs(), table.bin()) != (info.n_docs, info.bin_blake3) {
                return Err(format!("`{name}`: {} belongs to another shard", path.display()));
            }
            checksums.push(table.checksum());
            let source = manifest.sources.get(usize::from(info.source)).map(|source| source.name.clone());
            let source = source.ok_or_else(|| format!("`{name}`: shard {} has no source", info.name))?;
            let mdx = Manifest::mdx_path(folder, &info.name);
            if !mdx.exists() || !mdx.with_extension("bin").exists() {
                return Err(format!("`{name}`: {} or its .bin is missing", mdx.display()));
            }
            shards.push(EarlierShard {
                build: name.to_owned(),
                source: source.clone(),
                mdx,
                texts: path,
                tokenizer: tokenizer.clone(),
                n_bytes: info.n_text_bytes,
                params: EarlierParams {
                    source,
                    shard: info.mdx_blake3,
                    texts: table.checksum(),
                    tokenizer: manifest.tokenizer.blake3,
                    sketch: None,
                    with_shingles: false,
                },
            });
        }
        let manifest = manifest.hash().map_err(|e| words(&e))?;
        let identity = json::digest(&json!({ "manifest": manifest, "texts": checksums }));
        Ok(EarlierBuild {
            name: name.to_owned(),
            folder: folder.to_owned(),
            identity,
            unicode: unicode(folder),
            shards,
        })
    }
}

/// `normalize.unicode` of a build's recipe. Only this key is looked at, so that recipes of other versions can be read.
fn unicode(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("recipe.lock.toml")).ok()?;
    let recipe: toml::Table = text.parse().ok()?;
    Some(recipe.get("normalize")?.get("unicode")?.as_str()?.to_owned())
}

impl EarlierShard {
    fn inputs(&self) -> EarlierShardInputs {
        let (mdx, texts, tokenizer) = (self.mdx.clone(), self.texts.clone(), self.tokenizer.clone());
        EarlierShardInputs { mdx, texts, tokenizer }
    }

    /// The task that makes the lookup tables of its documents.
    pub fn keys_task(&self, work: &Path, i: usize, sketch: Option<SketchConfig>) -> Task {
        let params = EarlierParams { sketch, ..self.params.clone() };
        Task::new(work, i, self.n_bytes, EarlierKeys(params), self.inputs())
    }

    /// The task that reads those of its documents that are in the list `clustered`.
    pub fn members_task(
        &self,
        work: &Path,
        i: usize,
        sketch: SketchConfig,
        with_shingles: bool,
        clustered: &Path,
    ) -> Task {
        let params = EarlierParams { sketch: Some(sketch), with_shingles, ..self.params.clone() };
        let inputs = EarlierCandidatesInputs { shard: self.inputs(), clustered: clustered.to_owned() };
        Task::new(work, i, 0, EarlierCandidates(params), inputs)
    }
}

/// All shards of other builds with their finished [`EarlierShard::keys_task`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct EarlierShards<'a> {
    /// The shards.
    pub shards: &'a [EarlierShard],
    /// The task of each.
    pub keys: &'a [Task],
}

impl EarlierShards<'_> {
    /// Names of shard `i`: its build, and the source in that build.
    pub(super) fn names(&self, i: usize) -> Result<(&str, &str), Error> {
        let shard = self.shards.get(i);
        shard.map(|shard| (&shard.build[..], &shard.source[..])).ok_or_else(|| {
            Error::Usage(format!("there is no shard {i} of another build; this is a bug, please report it"))
        })
    }
}
