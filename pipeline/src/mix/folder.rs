//! The files of plans in the output folder of a build: which belong to the plan in place, and which are left from
//! plans that are not, or were never finished.

use std::collections::BTreeSet;
use std::path::Path;

use moe_shards::{Hash, PackRef, PlanLock};

use crate::error::{Error, Result};
use crate::tables::{entries, remove_file, remove_if_empty};

/// The mixture of a plan, with every default filled in, in the output folder.
pub const MIXTURE_FILE: &str = "plan.toml";
/// What a plan is worth, by pool, in the output folder.
pub const WORTH_FILE: &str = "plan.worth.json";
/// Folder of the plan's files in the output folder.
const PLAN_DIR: &str = "plan";
/// Names the plan's folder, with the manifest and the mixture.
const FOLDER_VERSION: u32 = 1;
/// Hexadecimal digits of a folder's name.
const NAME_DIGITS: usize = 12;

/// Folder of a plan, relative to the output folder: one for each plan, so that an older plan's files stay intact
/// until the new plan.lock exists. `extends` identifies an extension.
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

/// Files of a plan other than `plan.lock`.
pub(super) fn packs(lock: &PlanLock) -> impl Iterator<Item = &PackRef> {
    let packs = lock.pools.iter().flat_map(|pool| {
        pool.passes.iter().filter_map(|pass| pass.pack.as_ref()).chain([&pool.validation.pack])
    });
    packs.chain(lock.phases.iter().map(|phase| &phase.counts))
}

/// Folders with files of a plan, relative to the output folder.
pub(super) fn folders(lock: &PlanLock) -> BTreeSet<String> {
    let folder = |file: &PackRef| file.file.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    packs(lock).filter_map(folder).collect()
}

/// Refuses to replace another plan of the same shards, or one that cannot be read, before any work. A plan of other
/// shards can no longer be used, so nothing is lost.
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

/// Removes remains of plans that were replaced, killed, or refused. Only files that `mix` itself
/// names are touched, and folders only if they are then empty; with an unreadable plan.lock, nothing is.
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
            remove_file(&file)?;
        }
        remove_if_empty(&folder)?;
    }
    Ok(())
}

/// Whether a file has a name that `mix` gives.
fn is_of_plan(file: &Path) -> bool {
    file.is_file() && file.extension().is_some_and(|kind| kind == "pack" || kind == "counts")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn only_what_mix_wrote_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let plan = dir.path().join("plan");
        for file in [
            "0123456789ab/a-p000.pack",
            "0123456789ab/a-p001.pack.77.0.moe-tmp",
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
        // An unreadable plan may need any of them.
        fs::write(dir.path().join(PlanLock::FILE), "{").unwrap();
        fs::write(plan.join("ba9876543210/b-p000.pack"), "x").unwrap();
        clean(dir.path()).unwrap();
        assert_eq!(entries(&left[0]).unwrap().len(), 2);
        clean(&dir.path().join("missing")).unwrap();
    }
}
