//! Whether the files of a checkpoint are those that its manifest lists.

use std::path::Path;

use moe_shards::Hash;

use super::{AVERAGE, CONFIG, FilesManifest, MANIFEST, MODEL, OPTIM, STATE, TOKENIZER};
use crate::data::CHAT_FILES;
use crate::error::{Error, Result};

/// Compares each file with the manifest, and says whether one of them is a moving average of the weights.
pub(super) fn verify(path: &Path) -> Result<bool> {
    let manifest_path = path.join(MANIFEST);
    let text = std::fs::read_to_string(&manifest_path)
        .map_err(|error| Error::checkpoint(&manifest_path, format!("cannot be read: {error}")))?;
    let manifest: FilesManifest = serde_json::from_str(&text)
        .map_err(|error| Error::checkpoint(&manifest_path, format!("is damaged: {error}")))?;
    let is_listed = |name: &&str| manifest.files.iter().any(|entry| entry.name == **name);
    let known = [MODEL, OPTIM, STATE, CONFIG, TOKENIZER];
    if let Some(missing) = known.iter().find(|name| !is_listed(name)) {
        return Err(Error::checkpoint(&manifest_path, format!("is damaged: {missing} is not in it")));
    }
    let is_known = |name: &str| known.contains(&name) || name == AVERAGE || CHAT_FILES.contains(&name);
    for entry in manifest.files.iter().filter(|entry| is_known(&entry.name)) {
        let file = path.join(&entry.name);
        let refused = |problem: String| Err(Error::checkpoint(&file, problem));
        let found = match std::fs::metadata(&file) {
            Ok(metadata) => metadata.len(),
            Err(error) => return refused(format!("cannot be read: {error}")),
        };
        if found != entry.bytes {
            return refused(format!("is damaged: expected {} bytes, found {found}", entry.bytes));
        }
        let found = Hash::of_file(&file)?;
        if found != entry.blake3 {
            return refused(format!(
                "is damaged: expected blake3 {}, found {}",
                entry.blake3.short(),
                found.short()
            ));
        }
    }
    Ok(is_listed(&AVERAGE))
}
