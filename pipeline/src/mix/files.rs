//! The files of a plan in the output folder: which of them are ours, putting a plan in place, and removing those of others.

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::{PackRef, PlanLock};

use super::{MIXTURE_FILE, PLAN_DIR, folders};
use crate::error::{Error, Result};
use crate::listing::{Entry, Listing, Maker};
use crate::work::{entries, remove_file, remove_if_empty};

const HEADER: &str = "# The mixture of plan.lock, resolved by `moe-data mix`.\n";
/// Digits that name the folder of a plan.
const FOLDER_DIGITS: usize = 12;

/// The list of our files.
fn open(out: &Path) -> Result<Listing> {
    let has_header =
        |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.starts_with(HEADER.trim_end()));
    let mut earlier = Vec::new();
    if PlanLock::read(out).is_ok() {
        earlier.push(PlanLock::FILE.to_owned());
    }
    if has_header(&out.join(MIXTURE_FILE)) {
        earlier.push(MIXTURE_FILE.to_owned());
    }
    Listing::open(out, Maker::Mix, earlier)
}

/// Refuses to replace files that are not ours, before any work.
///
/// # Errors
/// [`Error::Usage`] naming one that is in the way.
pub(super) fn check(out: &Path) -> Result<()> {
    let listing = open(out)?;
    [MIXTURE_FILE, PlanLock::FILE].into_iter().try_for_each(|name| listing.check(name))
}

/// Puts the plan in place; says whether it was new.
///
/// # Errors
/// The disk refuses.
pub(super) fn install(out: &Path, lock: &PlanLock, resolved: &str) -> Result<bool> {
    let mixture = format!("{HEADER}{resolved}");
    let bytes = lock.to_bytes()?;
    let mut files = BTreeMap::from([
        (MIXTURE_FILE.to_owned(), Entry::of(mixture.as_bytes())),
        (PlanLock::FILE.to_owned(), Entry::of(&bytes)),
    ]);
    for PackRef { file, blake3 } in super::packs(lock) {
        let path = out.join(file);
        let bytes = std::fs::metadata(&path).map_err(Error::io(&path, "read"))?.len();
        files.insert(file.clone(), Entry { bytes, blake3: *blake3 });
    }
    let mut listing = open(out)?;
    let is_listed = listing.files().len() == files.len()
        && files.iter().all(|(name, entry)| listing.files().get(name) == Some(&Some(*entry)));
    if is_listed && PlanLock::read(out).is_ok_and(|old| old == *lock) {
        return Ok(false);
    }
    let is_new = PlanLock::read(out).map_or(true, |old| old != *lock);
    listing.claim([MIXTURE_FILE, PlanLock::FILE].map(str::to_owned))?;
    moe_shards::atomic::write_file(&out.join(MIXTURE_FILE), mixture.as_bytes())?;
    lock.write(out)?;
    listing.remove(|name| files.contains_key(name))?;
    files.iter().for_each(|(name, entry)| listing.note(name, *entry));
    listing.finish()?;
    Ok(is_new)
}

/// Removes the files of plans that are no longer in place: folders named as those of plans, and what they hold of the kinds of a plan.
///
/// # Errors
/// The disk refuses.
pub(super) fn remove_other_plans(out: &Path, lock: &PlanLock) -> Result<()> {
    let keep = folders(lock);
    let is_plan = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.len() == FOLDER_DIGITS
            && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            && !keep.contains(&format!("{PLAN_DIR}/{name}"))
            && path.is_dir()
            && !path.is_symlink()
    };
    for folder in entries(&out.join(PLAN_DIR))?.into_iter().filter(|path| is_plan(path)) {
        moe_shards::atomic::remove_leftovers(&folder)?;
        for file in entries(&folder)? {
            if file.is_file() && file.extension().is_some_and(|kind| kind == "pack" || kind == "counts") {
                remove_file(&file)?;
            }
        }
        remove_if_empty(&folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for name in ["plan/thesis/a.pack", "plan/0123456789ab/notes.txt", "plan/a.pack"] {
            write(name, "precious");
        }
        write("plan/0123456789ab/a-p000.pack", "x");
        write("plan/ba9876543210/phase-000.counts", "x");
        let mut lock: PlanLock = serde_json::from_value(serde_json::json!({
            "version": 1, "seed": 1, "holdout_ppm": 0, "manifest": moe_shards::Hash::default(),
            "pools": [], "phases": [], "id": moe_shards::Hash::default(),
        }))
        .unwrap();
        lock.seal().unwrap();
        remove_other_plans(dir.path(), &lock).unwrap();
        for name in ["plan/thesis/a.pack", "plan/0123456789ab/notes.txt", "plan/a.pack"] {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        assert!(!dir.path().join("plan/0123456789ab/a-p000.pack").exists());
        assert!(!dir.path().join("plan/ba9876543210").exists());

        write(MIXTURE_FILE, "my own plan");
        assert!(check(dir.path()).unwrap_err().to_string().contains("plan.toml is in the way"));
        write(MIXTURE_FILE, HEADER);
        check(dir.path()).unwrap();
        assert!(install(dir.path(), &lock, "").unwrap());
        assert!(!install(dir.path(), &lock, "").unwrap());
    }
}
