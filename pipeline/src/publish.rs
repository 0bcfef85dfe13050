//! From the work folder to the output folder. Results are linked, not copied, so both together
//! take the space of one. Files not on our list ([`listing`]) are left alone. `MANIFEST.json` is removed first and written last: while it exists, everything
//! that it lists is complete and consistent, whenever the process is killed.

mod finished;

pub use self::finished::{finished_parts, is_finished, is_text};

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use moe_shards::{Hash, Manifest, ShardInfo, SourceInfo, TokenizerInfo, atomic};

use self::finished::{FINISHED, finish};
use crate::decontaminate::report::Decontamination;
use crate::error::{Error, Result};
use crate::export;
use crate::json;
use crate::ledger::Ledger;
use crate::listing::{self, Entry, Listing, Maker};
use crate::prepare::Prepared;
use crate::tables::{self, entries, remove_file, remove_if_empty, remove_work, texts};
use crate::tokenizer::EncoderOptions;

/// Files of the work folder that a build publishes, with their new names.
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
    /// Report of decontamination.
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

/// The recipe of a build with all its values.
pub const RECIPE_LOCK: &str = "recipe.lock.toml";
/// File of the lengths of tokens in bytes.
pub const TOKEN_BYTES: &str = "token_bytes.u16";

/// The template of the conversations, where there are any; transformers finds it under this name.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// The tokens that the template names, such as `eos_token`; transformers finds them under this name.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Folders of the output.
const FOLDERS: [&str; 4] = ["shards", "dedup", "audit", "quarantine"];
/// Files of the output other than these folders and the manifest.
const FILES: [&str; 5] = [Ledger::FILE, Decontamination::FILE, RECIPE_LOCK, tables::TOKENIZER, TOKEN_BYTES];

/// Marks a folder as the output of builds, so that the next command recognizes it.
///
/// # Errors
/// The list of our files is damaged, or a write fails.
pub fn mark(out: &Path) -> Result<()> {
    match Listing::read(out, Maker::Build)? {
        Some(_) => Ok(()),
        None => open(out)?.claim([]),
    }
}

/// The list of our files in an output folder.
fn open(out: &Path) -> Result<Listing> {
    let earlier = if listing::is_output(out) { earlier_files(out) } else { Vec::new() };
    Listing::open(out, Maker::Build, earlier)
}

/// Paths of a build's finished files below its folder.
///
/// # Errors
/// The list is missing or damaged.
pub fn files(out: &Path) -> Result<BTreeSet<String>> {
    let listing = Listing::read(out, Maker::Build)?;
    let missing = || Error::data(out, "has no list of its files; run moe-data build again");
    Ok(listing.ok_or_else(missing)?.files().keys().cloned().collect())
}

/// Whether a version without lists wrote the file at this path, judging by its name.
pub fn is_earlier(manifest: &Manifest, place: &str) -> bool {
    let Some((folder, name)) = place.split_once('/') else {
        return FILES.contains(&place) || place == Manifest::FILE;
    };
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    match (folder, kind) {
        ("shards", "bin" | "mdx") | ("dedup", "texts") => {
            manifest.shards.iter().any(|shard| shard.name == stem)
        }
        _ => is_earlier_report(folder, stem, kind),
    }
}

/// The same for audit tables and quarantine files.
fn is_earlier_report(folder: &str, stem: &str, kind: &str) -> bool {
    let number = || stem.rsplit_once('-').map_or("", |(_, number)| number);
    match (folder, kind) {
        ("audit", "parquet") => {
            ["drops-", "dups-", "cuts-", "contamination-"].iter().any(|kind| stem.starts_with(kind))
        }
        ("quarantine", "jsonl") => number().len() >= 5 && number().bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

/// Files left by a version without lists.
fn earlier_files(out: &Path) -> Vec<String> {
    let mut files: Vec<String> =
        FILES.iter().chain([&Manifest::FILE]).map(|name| (*name).to_owned()).collect();
    // A build that failed has no manifest, and no shards.
    let manifest = Manifest::read(out).ok();
    for folder in FOLDERS {
        // An unreadable folder holds nothing to replace.
        for path in entries(&out.join(folder)).unwrap_or_default() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let place = format!("{folder}/{name}");
            let is_ours = match &manifest {
                Some(manifest) => is_earlier(manifest, &place),
                None => {
                    name.rsplit_once('.').is_some_and(|(stem, kind)| is_earlier_report(folder, stem, kind))
                }
            };
            if is_ours || folder == "shards" && export::is_index(&path) {
                files.push(place);
            }
        }
    }
    files
}

/// Writes what explains a build: ledger, audit, quarantine. Done even when the build fails a check
/// afterward; the old manifest is removed, since it no longer matches.
///
/// # Errors
/// A file that is not ours is in the way, or a write fails.
pub fn write_reports(out: &Path, prepared: &Prepared, results: &Results, ledger: &Ledger) -> Result<()> {
    let tokenizer = prepared.tokenizer.as_ref().map(|file| Hash::of_file(&file.path)).transpose()?;
    let lock = recipe_lock(out, prepared, prepared.identity(tokenizer)?)?;
    let mut listing = open(out)?;
    let files = [("audit", &results.audits), ("quarantine", &results.quarantines)];
    let names = files
        .iter()
        .flat_map(|(folder, files)| files.iter().map(move |(_, name)| format!("{folder}/{name}")));
    let fixed = [Ledger::FILE, Decontamination::FILE, RECIPE_LOCK].map(str::to_owned);
    listing.claim(names.chain(fixed))?;
    remove_file(&out.join(FINISHED))?;
    remove_ours(out, &mut listing, |name| name == Manifest::FILE)?;
    for (folder, files) in files {
        link_all(out, folder, files, &mut listing, |_| None)?;
    }
    match &results.decontamination {
        Some(report) => listing.write_file(Decontamination::FILE, &json::canonical(report))?,
        None => remove_ours(out, &mut listing, |name| name == Decontamination::FILE)?,
    }
    // Even if the build fails after this: its recipe belongs to the reports.
    listing.write_file(RECIPE_LOCK, lock.as_bytes())?;
    listing.write_file(Ledger::FILE, &json::canonical(ledger))?;
    listing.finish()
}

/// The manifest of a build.
pub fn manifest(prepared: &Prepared, build: Hash, tokenizer: TokenizerInfo, results: &Results) -> Manifest {
    let sources = prepared.recipe.source.iter().enumerate().map(|(i, source)| {
        let mut variants = prepared.variants(i);
        // Documents that deduplication moved to a family have no variant name.
        let shards = results.shards.iter().filter(|(_, info)| usize::from(info.source) == i);
        let largest = shards.map(|(_, info)| usize::from(info.variant)).max().unwrap_or(0);
        variants.extend((variants.len()..=largest).map(|number| format!("near-duplicate-{number}")));
        SourceInfo { name: source.name.clone(), variants }
    });
    let shards: Vec<ShardInfo> = results.shards.iter().map(|(_, info)| info.clone()).collect();
    Manifest {
        version: Manifest::version_of(&shards),
        build,
        tokenizer,
        sources: sources.collect(),
        languages: results.languages.iter().cloned().collect(),
        tags: results.tags.iter().cloned().collect(),
        shards,
    }
}

/// Writes the data and, last, the manifest; then deletes work that no build needs any more.
///
/// # Errors
/// A file that is not ours is in the way, or a write fails.
pub fn write_data(
    out: &Path,
    prepared: &Prepared,
    manifest: &Manifest,
    tokenizer: &StoredTokenizer,
    results: &Results,
) -> Result<()> {
    let shards = results.shards.iter().flat_map(|(folder, info)| {
        ["bin", "mdx"].map(|kind| format!("{}.{kind}", info.name)).map(|name| (folder.join(&name), name))
    });
    let texts = results.shards.iter().map(|(folder, info)| {
        let name = texts::file_name(&info.name);
        (folder.join(&name), name)
    });
    let files = [("shards", shards.collect::<Vec<_>>()), ("dedup", texts.collect())];
    let lock = recipe_lock(out, prepared, manifest.build)?;

    let mut listing = open(out)?;
    let names = files
        .iter()
        .flat_map(|(folder, files)| files.iter().map(move |(_, name)| format!("{folder}/{name}")));
    let TokenizerInfo { file, token_bytes_file, .. } = &tokenizer.info;
    let fixed = [file.as_str(), token_bytes_file, RECIPE_LOCK, Manifest::FILE].map(str::to_owned);
    let chat = prepared.recipe.chat_template.as_ref();
    listing.claim(
        names
            .chain(fixed)
            .chain(chat.into_iter().flat_map(|_| [CHAT_TEMPLATE, TOKENIZER_CONFIG].map(str::to_owned))),
    )?;
    let known = |name: &str| {
        let (stem, kind) = name.rsplit_once('.')?;
        let (_, info) = results.shards.iter().find(|(_, info)| info.name == stem)?;
        match kind {
            "bin" => Some(Entry { bytes: info.bin_bytes, blake3: info.bin_blake3 }),
            "mdx" => Some(Entry { bytes: info.mdx_bytes, blake3: info.mdx_blake3 }),
            _ => None,
        }
    };
    // Indexes next to replaced shards would give the places of other documents.
    if let Some(mut exported) = Listing::read(out, Maker::Export)? {
        exported.remove(|name| !name.starts_with("shards/"))?;
        exported.finish()?;
    }
    for (folder, files) in &files {
        link_all(out, folder, files, &mut listing, known)?;
    }
    let bytes = fs::read(&tokenizer.path).map_err(Error::io(&tokenizer.path, "read"))?;
    listing.write_file(file, &bytes)?;
    listing.write_file(token_bytes_file, &tokenizer.token_bytes)?;
    listing.write_file(RECIPE_LOCK, lock.as_bytes())?;
    match chat {
        Some(chat) => {
            listing.write_file(CHAT_TEMPLATE, chat.source.as_bytes())?;
            listing.write_file(TOKENIZER_CONFIG, &json::canonical(&chat.variables))?;
        }
        None => remove_ours(out, &mut listing, |name| [CHAT_TEMPLATE, TOKENIZER_CONFIG].contains(&name))?,
    }
    // The list comes first: the manifest asserts that everything else is there.
    listing.note(Manifest::FILE, Entry::of(&manifest.to_bytes()?));
    listing.finish()?;
    manifest.write(out)?;
    finish(out, prepared, Some(manifest.hash()?), results)
}

/// Publishes a text-only build, which leaves only reports; shards of a killed build are removed.
///
/// # Errors
/// A file that is not ours is in the way, or a write fails.
pub fn write_text(out: &Path, prepared: &Prepared, results: &Results) -> Result<()> {
    let mut listing = open(out)?;
    listing.claim([RECIPE_LOCK.to_owned()])?;
    let of_shards = |name: &str| {
        name.starts_with("shards/")
            || name.starts_with("dedup/")
            || [tables::TOKENIZER, TOKEN_BYTES, CHAT_TEMPLATE, TOKENIZER_CONFIG].contains(&name)
    };
    remove_ours(out, &mut listing, of_shards)?;
    let lock = recipe_lock(out, prepared, prepared.identity(None)?)?;
    listing.write_file(RECIPE_LOCK, lock.as_bytes())?;
    listing.finish()?;
    finish(out, prepared, None, results)
}

/// The recipe of a build, as its folder has it.
fn recipe_lock(out: &Path, prepared: &Prepared, build: Hash) -> Result<String> {
    let recipe = prepared.recipe.to_toml().map_err(|e| Error::data(&out.join(RECIPE_LOCK), e.to_string()))?;
    let head = "# The recipe of this build with every default written out; paths are as they were given.";
    Ok(format!("{head}\n# fingerprint, without the paths: {build}\n{recipe}"))
}

/// Refuses a folder with other files in it, and foreign files where a build writes.
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
    if listing::is_output(out) {
        let listing = open(out)?;
        return FILES.iter().chain([&Manifest::FILE]).try_for_each(|name| listing.check(name));
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match entries(out)?.iter().map(name).find(|name| name != ".lock" && name != listing::FOLDER) {
        Some(first) => Err(Error::Usage(format!(
            "--out {} holds other files, such as `{first}`, and no build made the folder; choose an empty or new one",
            out.display()
        ))),
        None => Ok(()),
    }
}

/// Deletes everything that a build made, and nothing else.
///
/// # Errors
/// The system refuses.
pub fn remove_all(out: &Path) -> Result<()> {
    let mut listing = open(out)?;
    remove_file(&out.join(FINISHED))?;
    // While the manifest exists, so does everything it lists.
    remove_ours(out, &mut listing, |name| name == Manifest::FILE)?;
    listing.remove(|_| false)?;
    listing.finish()?;
    remove_work(&out.join("work"))?;
    for folder in FOLDERS {
        remove_if_empty(&out.join(folder))?;
    }
    Ok(())
}

fn remove_ours(out: &Path, listing: &mut Listing, is_unwanted: impl Fn(&str) -> bool) -> Result<()> {
    listing.remove(|name| !is_unwanted(name))?;
    Ok(atomic::sync_dir(out)?)
}

/// Makes `folder` of the output hold these files and no other one of ours. Consecutive ones of the same name are joined. `known` has
/// the digests that need not be computed.
fn link_all(
    out: &Path,
    folder: &str,
    files: &[(PathBuf, String)],
    listing: &mut Listing,
    known: impl Fn(&str) -> Option<Entry>,
) -> Result<()> {
    let names: BTreeSet<String> = files.iter().map(|(_, name)| format!("{folder}/{name}")).collect();
    let is_elsewhere = |name: &str| name.split_once('/').is_none_or(|(first, _)| first != folder);
    listing.remove(|name| is_elsewhere(name) || names.contains(name))?;
    let to_folder = out.join(folder);
    fs::create_dir_all(&to_folder).map_err(Error::io(&to_folder, "create folder"))?;
    for same in files.chunk_by(|a, b| a.1 == b.1) {
        let (from, name) = &same[0];
        let to = to_folder.join(name);
        if same.len() > 1 {
            join(same.iter().map(|(from, _)| from), &to)?;
        } else {
            remove_file(&to)?;
            // A file system without hard links gets a copy.
            if fs::hard_link(from, &to).is_err() {
                fs::copy(from, &to).map_err(Error::io(&to, "write"))?;
            }
        }
        let entry = match known(name) {
            Some(entry) => entry,
            None => Entry::of_file(&to)?,
        };
        listing.note(&format!("{folder}/{name}"), entry);
    }
    Ok(atomic::sync_dir(&to_folder)?)
}

fn join<'a>(files: impl Iterator<Item = &'a PathBuf>, to: &Path) -> Result<()> {
    let mut out = AtomicFile::create(to)?;
    for path in files {
        out.write(&fs::read(path).map_err(Error::io(path, "read"))?)?;
    }
    Ok(out.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_things_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_folder(dir.path()).is_ok());
        for name in ["thesis.tex", "work/project/a.txt", "shards/raw.txt", "MANIFEST.json", "audit/2024.csv"]
        {
            let path = dir.path().join("home").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "{}").unwrap();
            let error = check_folder(&dir.path().join("home")).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(name.split('/').next().unwrap()), "{error}");
            fs::remove_dir_all(dir.path().join("home")).unwrap();
        }
        fs::write(dir.path().join("a"), "x").unwrap();
        assert!(check_folder(&dir.path().join("a")).is_err());
        assert!(check_folder(&dir.path().join("new")).is_ok());
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("b/.lock"), "").unwrap();
        assert!(check_folder(&dir.path().join("b")).is_ok());
        mark(&dir.path().join("b")).unwrap();
        fs::write(dir.path().join("b/notes.txt"), "x").unwrap();
        assert!(check_folder(&dir.path().join("b")).is_ok());
        fs::write(dir.path().join("b/ledger.json"), "x").unwrap();
        assert!(check_folder(&dir.path().join("b")).unwrap_err().to_string().contains("ledger.json"));
    }

    #[test]
    fn linking_replaces_what_is_ours_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("a", "x"), ("b", "z")].map(|(name, text)| {
            fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        });
        let link = |files: &[(PathBuf, String)]| {
            let mut listing = open(dir.path()).unwrap();
            listing.claim(files.iter().map(|(_, name)| format!("to/{name}"))).unwrap();
            link_all(dir.path(), "to", files, &mut listing, |_| None).unwrap();
            listing.finish().unwrap();
            entries(&dir.path().join("to")).unwrap()
        };
        let place = |name: &str| dir.path().join("to").join(name);
        assert_eq!(link(&[(files[0].clone(), "old".to_owned())]), [place("old")]);
        fs::write(place("notes"), "y").unwrap();
        assert_eq!(link(&[(files[0].clone(), "new".to_owned())]), [place("new"), place("notes")]);
        let [a, b] = files.map(|path| (path, "both".to_owned()));
        assert_eq!(link(&[a, b]), [place("both"), place("notes")]);
        assert_eq!(fs::read(place("both")).unwrap(), b"xz");
    }
}
