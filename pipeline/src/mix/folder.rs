//! The files of plans in the output folder of a build: which belong to the plan that is in place, and which are left from
//! plans that are not, or that were never finished.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::{Hash, PackRef, PlanLock};

use crate::error::{Error, Result};

/// The mixture of a plan, with every default filled in, in the output folder.
pub const MIXTURE_FILE: &str = "plan.toml";
/// Folder of the plan's files in the output folder.
const PLAN_DIR: &str = "plan";
/// Names the plan's folder, with the manifest and the mixture.
const FOLDER_VERSION: u32 = 1;
/// Hexadecimal digits of a folder's name.
const NAME_DIGITS: usize = 12;

/// Folder of a plan, relative to the output folder: a folder of its own for each, so that an older plan's files stay whole
/// until the new plan.lock is there. `extends` is what names an extension.
pub(super) fn name(manifest: Hash, mixture: &str, proxy: Option<[u64; 2]>, extends: Option<&str>) -> String {
    let mut identity = format!("{FOLDER_VERSION}\n{manifest}\n{mixture}");
    if let Some([num, den]) = proxy {
        identity.push_str(&format!("\nproxy {num}/{den}"));
    }
    if let Some(extends) = extends {
        identity.push_str(&format!("\n{extends}"));
    }
    format!("{PLAN_DIR}/{}", Hash::of(identity.as_bytes()).short())
}

/// Folders with files of a plan, relative to the output folder.
pub(super) fn folders(lock: &PlanLock) -> BTreeSet<String> {
    let packs = lock.pools.iter().flat_map(|pool| {
        pool.passes.iter().filter_map(|pass| pass.pack.as_ref()).chain([&pool.validation.pack])
    });
    let files = packs.chain(lock.phases.iter().map(|phase| &phase.counts));
    let folder = |file: &PackRef| file.file.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    files.filter_map(folder).collect()
}

/// Refuses to replace another plan of the same shards, or one that cannot be read, before any work. A plan of other
/// shards can no longer be used, so nothing is lost with it.
pub(super) fn refuse_other_plan(out: &Path, manifest: Hash, folder: &str) -> Result<()> {
    let path = out.join(PlanLock::FILE);
    if !path.exists() {
        return Ok(());
    }
    let id = match PlanLock::read(out) {
        Ok(old) if old.manifest != manifest => return Ok(()),
        // The folder is named by the manifest and the mixture: the same folder is the same plan.
        Ok(old) if old.extends.is_empty() && folders(&old).contains(folder) => return Ok(()),
        Ok(old) => old.id.short(),
        Err(_) => "unreadable".to_owned(),
    };
    Err(Error::Usage(format!(
        "{} holds another plan (id {id}) of the same shards; runs that use it could not resume: give --force to replace it",
        path.display()
    )))
}

/// Puts the plan in place; says whether it was new.
pub(super) fn install(out: &Path, lock: &PlanLock, resolved: &str) -> Result<bool> {
    if out.join(PlanLock::FILE).exists() && PlanLock::read(out).is_ok_and(|old| old == *lock) {
        return Ok(false);
    }
    let header = "# The mixture of plan.lock, resolved by `moe-data mix`.\n";
    moe_shards::atomic::write_file(&out.join(MIXTURE_FILE), format!("{header}{resolved}").as_bytes())?;
    lock.write(out)?;
    Ok(true)
}

/// Removes what plans have left that are not in place: replaced, killed, or refused on the way. Only files that `mix` itself
/// names are touched, and folders only when they are empty then; with a plan.lock that cannot be read, nothing is.
pub(super) fn clean(out: &Path) -> Result<()> {
    let dir = out.join(PLAN_DIR);
    let keep = match (out.join(PlanLock::FILE).exists(), PlanLock::read(out)) {
        (true, Ok(lock)) => folders(&lock),
        (true, Err(_)) => return Ok(()),
        (false, _) => BTreeSet::new(),
    };
    for folder in entries(&dir)? {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours =
            name.len() == NAME_DIGITS && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_ours || !folder.is_dir() || keep.contains(&format!("{PLAN_DIR}/{name}")) {
            continue;
        }
        moe_shards::atomic::remove_leftovers(&folder)?;
        for file in entries(&folder)?.into_iter().filter(|file| is_of_plan(file)) {
            fs::remove_file(&file).map_err(Error::io(&file, "remove"))?;
        }
        match fs::remove_dir(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                return Err(Error::io(&folder, "remove")(e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file has a name that `mix` gives.
fn is_of_plan(file: &Path) -> bool {
    file.is_file() && file.extension().is_some_and(|kind| kind == "pack" || kind == "counts")
}

/// What is in a folder, sorted; nothing in one that is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(Error::io(folder, "list"))?,
    };
    let mut paths = Vec::new();
    for entry in read {
        paths.push(entry.map_err(Error::io(folder, "list"))?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_mix_wrote_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let plan = dir.path().join("plan");
        for file in [
            "0123456789ab/a-p000.pack",
            "0123456789ab/a-p001.pack.77.tmp",
            "0123456789ab/phase-000.counts",
            "ba9876543210/notes.txt",
            "ba9876543210/b-p000.pack",
            "thesis/a.pack",
        ] {
            let path = plan.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        clean(dir.path()).unwrap();
        let left: Vec<PathBuf> = entries(&plan).unwrap();
        assert_eq!(left, [plan.join("ba9876543210"), plan.join("thesis")]);
        assert_eq!(entries(&left[0]).unwrap(), [left[0].join("notes.txt")]);
        assert_eq!(entries(&left[1]).unwrap().len(), 1);
        // A plan that cannot be read may need any of them.
        fs::write(dir.path().join(PlanLock::FILE), "{").unwrap();
        fs::write(plan.join("ba9876543210/b-p000.pack"), "x").unwrap();
        clean(dir.path()).unwrap();
        assert_eq!(entries(&left[0]).unwrap().len(), 2);
        clean(&dir.path().join("missing")).unwrap();
    }
}
