//! Shards that a plan samples from are not rewritten when documents are added: the shard stays as it is, byte for
//! byte, and new documents go into a shard of their own after it, `NAME-g1`, then `NAME-g2`.
//!
//! This happens only if nothing else has changed: every document of the old shard is in the new one, with the same
//! tokens and metadata. The data set then has the documents of a fresh build, in other files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::{
    DocumentMeta, FamilyId, Hash, Manifest, PlanLock, Shard, ShardInfo, ShardSpec, ShardWriter, TokenId,
};

use crate::error::{Error, Result};
use crate::publish::Results;
use crate::tables::clear_folder;
use crate::tables::texts::{self, Texts, TextsWriter};

/// Folder of the kept shards in the work folder.
const FOLDER: &str = "published";
/// Hexadecimal digits of the digests that name its folders.
const NAME_DIGITS: usize = 24;

/// A shard of the plan, where its files are.
struct Published {
    folder: PathBuf,
    shard: Shard,
    info: ShardInfo,
}

/// Replaces new shards by the plan's shards in `out` if they have the same documents and more. Returns the names of the
/// shards that hold the others.
///
/// # Errors
/// A write fails, or a new shard cannot be read.
pub(super) fn keep(out: &Path, results: &mut Results) -> Result<Vec<String>> {
    // A plan that cannot be read cannot be trained on.
    let Ok(lock) = PlanLock::read(out) else { return Ok(Vec::new()) };
    let used: BTreeMap<&str, Hash> = (lock.pools.iter().flat_map(|pool| &pool.shards))
        .map(|shard| (shard.name.as_str(), shard.mdx_blake3))
        .collect();
    let (mut shards, mut added) = (Vec::new(), Vec::new());
    for (folder, info) in std::mem::take(&mut results.shards) {
        let mut line: Vec<(u32, &str, Hash)> = (used.iter())
            .filter_map(|(name, digest)| Some((generation(&info.name, name)?, *name, *digest)))
            .collect();
        line.sort_unstable();
        let is_same = matches!(line[..], [(0, _, digest)] if digest == info.mdx_blake3);
        let old = match line.is_empty() || is_same {
            true => None,
            false => line
                .iter()
                .map(|(_, name, digest)| Published::find(out, name, *digest, &info))
                .collect::<Result<Option<Vec<_>>>>()?,
        };
        let next = line.last().map_or(1, |(generation, ..)| generation + 1);
        match old.map(|old| Ok::<_, Error>((rest(&folder, &info, &old)?, old))).transpose()? {
            Some((Some(docs), old)) => {
                for published in old {
                    results.used.push(published.folder.clone());
                    shards.push((published.folder, published.info));
                }
                if !docs.is_empty() {
                    let name = format!("{}-g{next}", info.name);
                    let (folder, info) = write_rest(out, &folder, &info, &name, &docs)?;
                    results.used.push(folder.clone());
                    added.push(name);
                    shards.push((folder, info));
                }
            }
            _ => shards.push((folder, info)),
        }
    }
    shards.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    results.shards = shards;
    Ok(added)
}

/// 0 for the shard itself, `n` for `NAME-gn`.
fn generation(name: &str, other: &str) -> Option<u32> {
    match other.strip_prefix(name)? {
        "" => Some(0),
        behind => behind.strip_prefix("-g")?.parse().ok().filter(|&generation| generation > 0),
    }
}

impl Published {
    /// The shard with this digest, in the work folder, where it is put if only the output folder has it; `None` if neither
    /// has all of it.
    fn find(out: &Path, name: &str, digest: Hash, new: &ShardInfo) -> Result<Option<Published>> {
        let folder = out.join("work").join(FOLDER).join(&digest.to_string()[..NAME_DIGITS]);
        let mdx = folder.join(format!("{name}.mdx"));
        if let Some(found) = Published::open(&folder, &mdx, &folder.join(texts::file_name(name)), digest, new)
        {
            return Ok(Some(found));
        }
        let from = Manifest::mdx_path(out, name);
        let tables = texts::path(out, name);
        if Published::open(&folder, &from, &tables, digest, new).is_none() {
            return Ok(None);
        }
        clear_folder(&folder)?;
        let files = [
            (from.with_extension("bin"), mdx.with_extension("bin")),
            (tables.clone(), folder.join(texts::file_name(name))),
            (from, mdx.clone()),
        ];
        for (from, to) in &files {
            // A file system without hard links gets a copy.
            if fs::hard_link(from, to).is_err() {
                fs::copy(from, to).map_err(Error::io(to, "write"))?;
            }
        }
        Ok(Published::open(&folder, &mdx, &folder.join(texts::file_name(name)), digest, new))
    }

    /// Opens the files of a shard; `None` if it is missing or damaged.
    fn open(folder: &Path, mdx: &Path, tables: &Path, digest: Hash, new: &ShardInfo) -> Option<Published> {
        let shard = Shard::open(mdx).ok()?;
        shard.verify_index(digest).ok()?;
        shard.verify_tokens(&mut |_| true).ok()?;
        let table = Texts::open(tables).ok()?;
        let belongs = (table.n_docs(), table.bin()) == (u64::from(shard.n_docs()), shard.bin_blake3());
        let info = ShardInfo {
            name: mdx.file_stem()?.to_str()?.to_owned(),
            source: new.source,
            variant: new.variant,
            n_docs: u64::from(shard.n_docs()),
            n_tokens: shard.n_tokens(),
            n_text_bytes: shard.n_text_bytes(),
            n_trained_tokens: shard.has_mask().then(|| shard.n_trained_tokens()),
            bin_bytes: shard.bin_bytes(),
            bin_blake3: shard.bin_blake3(),
            mdx_bytes: fs::metadata(mdx).ok()?.len(),
            mdx_blake3: digest,
        };
        belongs.then(|| Published { folder: folder.to_owned(), shard, info })
    }
}

/// Documents of the new shard that the old ones do not have; `None` where an old one is gone or has changed.
fn rest(folder: &Path, info: &ShardInfo, old: &[Published]) -> Result<Option<Vec<u32>>> {
    let new = Shard::open(&folder.join(format!("{}.mdx", info.name)))?;
    let mut places = BTreeMap::<(FamilyId, &str), (&Shard, u32)>::new();
    for published in old {
        let shard = &published.shard;
        if shard.tokenizer() != new.tokenizer() {
            return Ok(None);
        }
        for doc in 0..shard.n_docs() {
            places.insert((shard.family(doc)?, shard.id(doc)?), (shard, doc));
        }
    }
    let mut docs = Vec::new();
    for doc in 0..new.n_docs() {
        match places.remove(&(new.family(doc)?, new.id(doc)?)) {
            Some((shard, old)) if !is_same(shard, old, &new, doc)? => return Ok(None),
            Some(_) => {}
            None => docs.push(doc),
        }
    }
    Ok(places.is_empty().then_some(docs))
}

/// Whether two documents have the same tokens, masks and metadata.
fn is_same(a: &Shard, i: u32, b: &Shard, j: u32) -> Result<bool> {
    let known = |shard: &Shard, doc: u32| -> Result<_> {
        let DocumentMeta { variant, style, quality, n_bytes, .. } = shard.meta(doc)?;
        let tags: Vec<String> = shard.tags(doc)?.map(str::to_owned).collect();
        Ok((variant, style, quality, n_bytes, shard.language(doc)?.map(str::to_owned), tags))
    };
    let flags = |shard: &Shard, doc: u32| -> Result<_> { Ok(shard.mask(doc)?.map(|mask| mask.to_vec())) };
    let same_tokens = a.tokens(i)?.to_vec() == b.tokens(j)?.to_vec() && flags(a, i)? == flags(b, j)?;
    Ok(same_tokens && known(a, i)? == known(b, j)?)
}

/// Writes documents of a new shard as a shard of their own.
fn write_rest(
    out: &Path,
    folder: &Path,
    info: &ShardInfo,
    name: &str,
    docs: &[u32],
) -> Result<(PathBuf, ShardInfo)> {
    let new = Shard::open(&folder.join(format!("{}.mdx", info.name)))?;
    let tables = Texts::open(&folder.join(texts::file_name(&info.name)))?;
    let identity = Hash::of(format!("{name} {} {docs:?}", info.mdx_blake3).as_bytes());
    let to = out.join("work").join(FOLDER).join(&identity.to_string()[..NAME_DIGITS]);
    clear_folder(&to)?;
    let spec = ShardSpec {
        vocab_size: new.vocab_size(),
        eod: new.eod(),
        tokenizer: new.tokenizer(),
        build: new.build(),
    };
    let mut writer = ShardWriter::create(&to, name, spec)?.with_names(new.names().clone());
    if new.has_mask() {
        writer = writer.with_mask();
    }
    let mut texts = TextsWriter::create(&to.join(texts::file_name(name)))?;
    for &doc in docs {
        let meta = DocumentMeta { source: info.source, ..new.meta(doc)? };
        let mut tokens: Vec<TokenId> = new.checked_tokens(doc)?.to_vec().into_iter().map(TokenId).collect();
        // The writer closes the document.
        tokens.pop();
        match new.mask(doc)? {
            None => writer.append(new.id(doc)?, &meta, &tokens)?,
            Some(mask) => writer.append_masked(new.id(doc)?, &meta, &tokens, &mask.to_vec())?,
        }
        match tables.stored(doc)? {
            None => texts.append(tables.hash(doc)?, None)?,
            Some(text) => {
                let text = String::from_utf8(text).map_err(|e| Error::data(folder, e.to_string()))?;
                let frame = texts::compress(&text).map_err(Error::io(&to, "compress a text in"))?;
                // A text is below 2^32 bytes, which the stage before has checked.
                texts.append(tables.hash(doc)?, Some((text.len() as u32, &frame)))?;
            }
        }
    }
    let info = writer.finish()?;
    texts.finish(info.bin_blake3)?;
    Ok((to, info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_numbers_behind_the_name() {
        let found =
            ["a-v0-00000", "a-v0-00000-g1", "a-v0-00000-g12", "a-v0-00000-g0", "a-v0-00001", "a-v0-00000-gx"]
                .map(|other| generation("a-v0-00000", other));
        assert_eq!(found, [Some(0), Some(1), Some(12), None, None, None]);
    }
}
