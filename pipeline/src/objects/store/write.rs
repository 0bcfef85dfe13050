//! Writing the finished files of a folder to an object store. The manifest goes first and comes back last, as in the folder
//! itself: while it exists, everything that it lists is complete and consistent. The list of our files says what may be replaced.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use futures_util::TryStreamExt;
use moe_shards::Manifest;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, WriteMultipart};

use super::{Place, io, place, runtime};
use crate::error::{Error, Result};
use crate::listing::{Listing, Maker};

/// Bytes of a part of an upload; 10,000 parts are allowed.
const PART_BYTES: usize = 16 << 20;
const PARTS_IN_FLIGHT: usize = 4;

/// Copies the `wanted` files of `folder` (places below it, with `/`) to the place of `url`, the list of them and the manifest only
/// when all others exist. Unwanted objects of an earlier copy are removed; others are neither replaced nor
/// removed. `is_earlier` identifies our files from a version that left a manifest but no list. Returns how many bytes were written.
///
/// # Errors
/// A foreign object is in the way, a file cannot be read, or the store refuses.
pub fn upload(
    folder: &Path,
    url: &str,
    wanted: &BTreeSet<String>,
    is_earlier: impl Fn(&Manifest, &str) -> bool,
) -> Result<u64> {
    let target = Target::new(url)?;
    let there = target.names()?;
    let ours = target.ours(&there, is_earlier)?;
    let foreign = match ours.is_empty() {
        true => there.iter().next(),
        false => there.iter().find(|name| wanted.contains(*name) && !ours.contains(*name)),
    };
    if let Some(foreign) = foreign {
        let message = format!("{url} holds other files, such as `{foreign}`; choose an empty or new place");
        return Err(Error::Usage(message));
    }
    let list = list_name();
    // Our objects are listed before they exist, so that an interrupted copy can continue.
    let all = wanted.iter().chain(&ours).map(|name| (name.clone(), None)).collect();
    target.write(&list, Listing::bytes(&all))?;
    target.delete(Manifest::FILE)?;
    for name in ours.iter().filter(|name| !wanted.contains(*name) && **name != list) {
        target.delete(name)?;
    }
    let mut n_bytes = 0;
    let late = [&*list, Manifest::FILE];
    for name in wanted.iter().map(String::as_str).filter(|name| !late.contains(name)).chain(late) {
        n_bytes += runtime()?.block_on(put(&*target.place.store, &target.key(name)?, &folder.join(name)))?;
    }
    Ok(n_bytes)
}

/// Place of the list of our files.
fn list_name() -> String {
    Listing::path(Path::new(""), Maker::Build).to_string_lossy().into_owned()
}

/// A place in a store.
struct Target<'a> {
    place: Place,
    url: &'a str,
    /// Of all keys: empty, or with a slash at the end.
    prefix: String,
}

impl Target<'_> {
    fn new(url: &str) -> Result<Target<'_>> {
        let place = place(url.trim_end_matches('/'))?;
        let prefix = match place.key.trim_matches('/') {
            "" => String::new(),
            key => format!("{key}/"),
        };
        Ok(Target { place, url, prefix })
    }

    fn key(&self, name: &str) -> Result<Key> {
        Key::parse(format!("{}{name}", self.prefix)).map_err(|e| Error::Usage(format!("{}: {e}", self.url)))
    }

    /// What is there.
    fn names(&self) -> Result<BTreeSet<String>> {
        let below = Key::parse(self.prefix.trim_end_matches('/'));
        let below = below.map_err(|e| Error::Usage(format!("{}: {e}", self.url)))?;
        let listed = async { self.place.store.list(Some(&below)).try_collect::<Vec<ObjectMeta>>().await };
        let listed = runtime()?.block_on(listed).map_err(io(self.url, "list"))?;
        let name = |meta: &ObjectMeta| meta.location.as_ref().strip_prefix(&self.prefix).map(str::to_owned);
        Ok(listed.iter().filter_map(name).collect())
    }

    /// What of it an earlier copy wrote.
    fn ours(
        &self,
        there: &BTreeSet<String>,
        is_earlier: impl Fn(&Manifest, &str) -> bool,
    ) -> Result<BTreeSet<String>> {
        let (list, url) = (list_name(), Path::new(self.url));
        if there.contains(&list) {
            let listing = Listing::parse(url, Maker::Build, &url.join(&list), &self.get(&list)?)?;
            let names = listing.files().keys().filter(|name| there.contains(*name)).cloned();
            return Ok(names.chain([list]).collect());
        }
        if !there.contains(Manifest::FILE) {
            return Ok(BTreeSet::new());
        }
        match Manifest::parse(&url.join(Manifest::FILE), &self.get(Manifest::FILE)?) {
            Ok(manifest) => Ok(there.iter().filter(|name| is_earlier(&manifest, name)).cloned().collect()),
            // It is of another program.
            Err(_) => Ok(BTreeSet::new()),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        let key = self.key(name)?;
        let got = async { self.place.store.get(&key).await?.bytes().await };
        Ok(runtime()?.block_on(got).map_err(io(self.url, "read"))?.to_vec())
    }

    fn write(&self, name: &str, content: Vec<u8>) -> Result<()> {
        let key = self.key(name)?;
        let written = async { self.place.store.put(&key, content.into()).await };
        runtime()?.block_on(written).map_err(io(self.url, "write")).map(drop)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let key = self.key(name)?;
        match runtime()?.block_on(async { self.place.store.delete(&key).await }) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(io(self.url, "delete")(e)),
        }
    }
}

/// Writes one file; an existing object under the key is replaced at the end, as a whole.
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
