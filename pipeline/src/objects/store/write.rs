//! Writing the finished files of a folder to an object store. The manifest goes first and comes back last, as in the folder
//! itself: while it is there, all that it lists is there and belongs together.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, WriteMultipart};

use super::{Place, io, place, runtime};
use crate::error::{Error, Result};

/// Bytes of a part of an upload; 10,000 parts are allowed.
const PART_BYTES: usize = 16 << 20;
const PARTS_IN_FLIGHT: usize = 4;

/// Makes the place of `url` hold exactly the files of `folder` that `is_wanted` accepts (by their place below it, with
/// `/`), and `last` only when all others are there. Other objects go away if they lie in one of `owned`, the
/// folders that belong to us. Returns how many bytes were written.
///
/// # Errors
/// A file cannot be read, or the store refuses.
pub fn upload(
    folder: &Path,
    url: &str,
    last: &str,
    owned: &[&str],
    is_wanted: impl Fn(&str) -> bool,
) -> Result<u64> {
    let place = place(url.trim_end_matches('/'))?;
    let mut files = BTreeMap::new();
    walk(folder, "", &mut files)?;
    files.retain(|name, _| is_wanted(name));
    let prefix = match place.key.trim_matches('/') {
        "" => String::new(),
        key => format!("{key}/"),
    };
    let key =
        |name: &str| Key::parse(format!("{prefix}{name}")).map_err(|e| Error::Usage(format!("{url}: {e}")));
    let runtime = runtime()?;
    runtime.block_on(delete(&place, url, key(last)?))?;
    let below = Key::parse(prefix.trim_end_matches('/')).map_err(|e| Error::Usage(format!("{url}: {e}")))?;
    let listed = async { place.store.list(Some(&below)).try_collect::<Vec<ObjectMeta>>().await };
    for meta in runtime.block_on(listed).map_err(io(url, "list"))? {
        let name = meta.location.as_ref().strip_prefix(&prefix).unwrap_or_default();
        let is_owned = name.split_once('/').is_some_and(|(folder, _)| owned.contains(&folder));
        if is_owned && !files.contains_key(name) {
            runtime.block_on(delete(&place, url, meta.location.clone()))?;
        }
    }
    let mut n_bytes = 0;
    let (ends, others): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| *name == last);
    for (name, path) in others.into_iter().chain(ends) {
        n_bytes += runtime.block_on(put(&*place.store, &key(name)?, path))?;
    }
    Ok(n_bytes)
}

fn walk(folder: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
        let path = entry.map_err(Error::io(folder, "read"))?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            walk(&path, &format!("{name}/"), files)?;
        } else {
            files.insert(name, path);
        }
    }
    Ok(())
}

async fn delete(place: &Place, url: &str, key: Key) -> Result<()> {
    match place.store.delete(&key).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(io(url, "delete")(e)),
    }
}

/// Writes one file; what exists under the key is replaced at the end, as a whole.
async fn put(store: &dyn ObjectStore, key: &Key, path: &Path) -> Result<u64> {
    let refused = |e| io(key.as_ref(), "write")(e);
    let mut file = fs::File::open(path).map_err(Error::io(path, "open"))?;
    let mut part = Vec::new();
    let mut next = |part: &mut Vec<u8>| {
        part.clear();
        Read::by_ref(&mut file).take(PART_BYTES as u64).read_to_end(part).map_err(Error::io(path, "read"))
    };
    let mut n_bytes = next(&mut part)? as u64;
    if part.len() < PART_BYTES {
        store.put(key, part.into()).await.map_err(refused)?;
        return Ok(n_bytes);
    }
    let upload = store.put_multipart(key).await.map_err(refused)?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    while !part.is_empty() {
        upload.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(refused)?;
        upload.write(&part);
        n_bytes += next(&mut part)? as u64;
    }
    upload.finish().await.map_err(refused)?;
    Ok(n_bytes)
}
