//! From the work folder to the output folder. Results are linked, not copied, so both together
//! take the space of one. `MANIFEST.json` goes first and comes back last: while it is there, all
//! that it lists is there and belongs together, whenever the process is killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use moe_shards::{Hash, Manifest, ShardInfo, SourceInfo, TokenizerInfo, atomic};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json;
use crate::ledger::Ledger;
use crate::ledger::decontamination::Decontamination;
use crate::prepare::Prepared;
use crate::tokenizer::EncoderOptions;
use crate::work::{clear_folder, texts};

/// Files of the work folder that a build shows, each with the name it gets.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Shards, sorted by name, with the folder they were made in.
    pub shards: Vec<(PathBuf, ShardInfo)>,
    /// Languages of the documents in them.
    pub languages: BTreeSet<String>,
    /// Their tags.
    pub tags: BTreeSet<String>,
    /// Audit tables.
    pub audits: Vec<(PathBuf, String)>,
    /// Quarantine files; those of the slices of one input file have one name and become one file.
    pub quarantines: Vec<(PathBuf, String)>,
    /// What decontamination looked for and found.
    pub decontamination: Option<Decontamination>,
    /// Files and folders that the next build can use.
    pub used: Vec<PathBuf>,
}

impl Results {
    /// Adds an audit table, if the task made one.
    pub fn add_audit(&mut self, path: PathBuf, name: String) {
        if path.exists() {
            self.audits.push((path, name));
        }
    }

    /// Adds a quarantine file, if the task made one.
    pub fn add_quarantine(&mut self, path: PathBuf, name: String) {
        if path.exists() {
            self.quarantines.push((path, name));
        }
    }
}

/// The tokenizer in the work folder.
#[derive(Clone, Debug)]
pub struct StoredTokenizer {
    /// Its file.
    pub path: PathBuf,
    /// Its entry in the manifest.
    pub info: TokenizerInfo,
    /// Content of `token_bytes.u16`.
    pub token_bytes: Vec<u8>,
    /// How to encode with it.
    pub options: EncoderOptions,
}

/// What the last finished build was, in the work folder.
#[derive(Serialize, Deserialize)]
struct Finished {
    fingerprint: Hash,
    manifest: Hash,
}

const FINISHED: &str = "work/finished.json";
const RECIPE_LOCK: &str = "recipe.lock.toml";

/// Writes what explains a build: ledger, audit, quarantine. Done even when the build fails a check
/// afterwards; the old manifest goes away, since it no longer belongs to them.
///
/// # Errors
/// The disk refuses.
pub fn write_reports(out: &Path, results: &Results, ledger: &Ledger) -> Result<()> {
    remove_file(&out.join(FINISHED))?;
    remove_file(&out.join(Manifest::FILE))?;
    link_all(&out.join("audit"), &results.audits)?;
    link_all(&out.join("quarantine"), &results.quarantines)?;
    match &results.decontamination {
        Some(report) => report.write(out)?,
        None => remove_file(&out.join(Decontamination::FILE))?,
    }
    ledger.write(out)
}

/// The manifest of a build.
pub fn manifest(prepared: &Prepared, build: Hash, tokenizer: TokenizerInfo, results: &Results) -> Manifest {
    let sources = prepared.recipe.source.iter().enumerate().map(|(i, source)| {
        let mut variants = prepared.variants(i);
        // What deduplication put into a family has no name of its own.
        let shards = results.shards.iter().filter(|(_, info)| usize::from(info.source) == i);
        let largest = shards.map(|(_, info)| usize::from(info.variant)).max().unwrap_or(0);
        variants.extend((variants.len()..=largest).map(|number| format!("near-duplicate-{number}")));
        SourceInfo { name: source.name.clone(), variants }
    });
    Manifest {
        version: Manifest::VERSION,
        build,
        tokenizer,
        sources: sources.collect(),
        languages: results.languages.iter().cloned().collect(),
        tags: results.tags.iter().cloned().collect(),
        shards: results.shards.iter().map(|(_, info)| info.clone()).collect(),
    }
}

/// Writes the data and, last, the manifest; then deletes work that no build needs any more.
///
/// # Errors
/// The disk refuses.
pub fn write_data(
    out: &Path,
    prepared: &Prepared,
    manifest: &Manifest,
    tokenizer: &StoredTokenizer,
    results: &Results,
) -> Result<()> {
    let files = results.shards.iter().flat_map(|(folder, info)| {
        ["bin", "mdx"].map(|kind| format!("{}.{kind}", info.name)).map(|name| (folder.join(&name), name))
    });
    link_all(&out.join("shards"), &files.collect::<Vec<_>>())?;
    let files = results.shards.iter().map(|(folder, info)| {
        let name = texts::file_name(&info.name);
        (folder.join(&name), name)
    });
    link_all(&out.join("dedup"), &files.collect::<Vec<_>>())?;
    let bytes = fs::read(&tokenizer.path).map_err(Error::io(&tokenizer.path, "read"))?;
    atomic::write_file(&out.join(&tokenizer.info.file), &bytes)?;
    atomic::write_file(&out.join(&tokenizer.info.token_bytes_file), &tokenizer.token_bytes)?;
    let recipe = prepared.recipe.to_toml().map_err(|e| Error::data(&out.join(RECIPE_LOCK), e.to_string()))?;
    let head = "# The recipe of this build with every default written out; paths are as they were given.";
    let lock = format!("{head}\n# fingerprint, without the paths: {}\n{recipe}", manifest.build);
    atomic::write_file(&out.join(RECIPE_LOCK), lock.as_bytes())?;
    manifest.write(out)?;
    remove_unused(&out.join("work"), &results.used)?;
    let finished = Finished { fingerprint: prepared.fingerprint(), manifest: manifest.hash()? };
    Ok(atomic::write_file(&out.join(FINISHED), &json::canonical(&finished))?)
}

fn remove_unused(work: &Path, used: &[PathBuf]) -> Result<()> {
    let used: BTreeSet<&PathBuf> = used.iter().collect();
    for stage in entries(work)?.into_iter().filter(|path| path.is_dir()) {
        for unused in entries(&stage)?.into_iter().filter(|path| !used.contains(path)) {
            let removed =
                if unused.is_dir() { fs::remove_dir_all(&unused) } else { fs::remove_file(&unused) };
            removed.map_err(Error::io(&unused, "delete"))?;
        }
    }
    Ok(())
}

/// Whether the folder holds exactly the build of this fingerprint. Looks at names and sizes only;
/// `moe-data verify` reads everything.
pub fn is_finished(out: &Path, fingerprint: Hash) -> bool {
    let finished =
        fs::read(out.join(FINISHED)).ok().and_then(|bytes| serde_json::from_slice::<Finished>(&bytes).ok());
    let Some(finished) = finished.filter(|finished| finished.fingerprint == fingerprint) else {
        return false;
    };
    let Ok(manifest) = Manifest::read(out) else { return false };
    let has =
        |name: String, n_bytes: u64| fs::metadata(out.join(name)).is_ok_and(|data| data.len() == n_bytes);
    let shards = manifest.shards.iter().all(|shard| {
        has(format!("shards/{}.bin", shard.name), shard.bin_bytes)
            && has(format!("shards/{}.mdx", shard.name), shard.mdx_bytes)
            && texts::path(out, &shard.name).is_file()
    });
    let others = [Ledger::FILE, RECIPE_LOCK, &manifest.tokenizer.file, &manifest.tokenizer.token_bytes_file];
    let same = manifest.hash().is_ok_and(|hash| hash == finished.manifest);
    shards && same && others.iter().all(|name| out.join(name).is_file())
}

/// Refuses a folder with other things in it: a build replaces `shards/`, `dedup/`,
/// `audit/` and `quarantine/`.
///
/// # Errors
/// [`Error::Usage`] naming what is there, or the folder cannot be read.
pub fn check_folder(out: &Path) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    if !out.is_dir() {
        return Err(Error::Usage(format!("--out {} is not a folder", out.display())));
    }
    let ours = [".lock", "work", Manifest::FILE];
    let found = entries(out)?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match found.first() {
        Some(first) if !found.iter().any(|path| ours.contains(&name(path).as_str())) => {
            Err(Error::Usage(format!(
                "--out {} holds other things, such as `{}`; choose an empty or new folder",
                out.display(),
                name(first)
            )))
        }
        _ => Ok(()),
    }
}

/// Deletes all that a build makes.
///
/// # Errors
/// The system refuses.
pub fn remove_all(out: &Path) -> Result<()> {
    remove_file(&out.join(FINISHED))?;
    remove_file(&out.join(Manifest::FILE))?;
    for folder in ["work", "shards", "dedup", "audit", "quarantine"] {
        let folder = out.join(folder);
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&folder, "delete")(e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes `folder` hold exactly these files. Consecutive ones of the same name are joined.
fn link_all(folder: &Path, files: &[(PathBuf, String)]) -> Result<()> {
    clear_folder(folder)?;
    for same in files.chunk_by(|a, b| a.1 == b.1) {
        let (from, name) = &same[0];
        let to = folder.join(name);
        if same.len() > 1 {
            join(same.iter().map(|(from, _)| from), &to)?;
            continue;
        }
        // A file system without hard links gets a copy.
        if fs::hard_link(from, &to).is_err() {
            fs::copy(from, &to).map_err(Error::io(&to, "write"))?;
        }
    }
    Ok(atomic::sync_dir(folder)?)
}

fn join<'a>(files: impl Iterator<Item = &'a PathBuf>, to: &Path) -> Result<()> {
    let mut out = AtomicFile::create(to)?;
    for path in files {
        out.write(&fs::read(path).map_err(Error::io(path, "read"))?)?;
    }
    Ok(out.commit()?)
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "delete")(e)),
        _ => Ok(()),
    }
}

/// What is in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let mut paths = read
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(Error::io(folder, "read"))?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_things_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_folder(dir.path()).is_ok());
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert!(check_folder(dir.path()).unwrap_err().to_string().contains("thesis.tex"));
        fs::create_dir(dir.path().join("work")).unwrap();
        assert!(check_folder(dir.path()).is_ok());
        assert!(check_folder(&dir.path().join("thesis.tex")).is_err());
        assert!(check_folder(&dir.path().join("new")).is_ok());
    }

    #[test]
    fn linking_replaces_the_whole_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (source, folder) = (dir.path().join("a"), dir.path().join("to"));
        fs::write(&source, "x").unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("old"), "y").unwrap();
        link_all(&folder, &[(source.clone(), "new".to_owned())]).unwrap();
        assert_eq!(entries(&folder).unwrap(), [folder.join("new")]);

        let other = dir.path().join("b");
        fs::write(&other, "z").unwrap();
        let files = [(source, "both".to_owned()), (other, "both".to_owned())];
        link_all(&folder, &files).unwrap();
        assert_eq!(entries(&folder).unwrap(), [folder.join("both")]);
        assert_eq!(fs::read(folder.join("both")).unwrap(), b"xz");
    }
}
