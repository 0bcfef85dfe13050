//! The object stores themselves, through the library `object_store`.
//!
//! Credentials and endpoints come from the environment, as for the clouds' own tools. An object is read in blocks by
//! range requests, which are retried, and all require that the object has not changed.

mod read;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme};
use tokio::runtime::Runtime;
use url::Url;

pub use self::read::{BlockReader, ObjectFile};
pub use self::write::upload;
use super::{Object, SCHEMES};
use crate::error::{Error, Result};

/// A bucket, and a place in it.
#[derive(Clone)]
struct Place {
    store: Arc<dyn ObjectStore>,
    /// URL of the bucket, without a slash at the end.
    bucket: String,
    /// Key, not yet decoded; may hold a pattern.
    key: String,
}

/// Requests run here; threads outside wait for them.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        // Fails if another part of the program has set one before, which is fine.
        rustls::crypto::ring::default_provider().install_default().ok();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("objects")
            .enable_all()
            .build()
    });
    runtime.as_ref().map_err(|e| Error::Machine(format!("cannot start threads for requests: {e}")))
}

/// The store of a bucket; made once, so that connections are kept.
fn place(url: &str) -> Result<Place> {
    static STORES: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>> = Mutex::new(BTreeMap::new());
    let wrong = |message: String| Error::Usage(format!("{url}: {message}"));
    // A `?` or `#` is part of a pattern or a key, not of a URL.
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| wrong("expected SCHEME://BUCKET/KEY".to_owned()))?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(wrong(format!("no bucket; expected {scheme}://BUCKET/KEY")));
    }
    let bucket = format!("{scheme}://{bucket}");
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = stores.get(&bucket) {
        return Ok(Place { store: store.clone(), bucket, key: key.to_owned() });
    }
    runtime()?;
    let parsed = Url::parse(&bucket).map_err(|e| wrong(e.to_string()))?;
    let (scheme, _) = ObjectStoreScheme::parse(&parsed).map_err(|e| wrong(e.to_string()))?;
    let store: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            AmazonS3Builder::from_env().with_url(&bucket).build().map(|store| Arc::new(store) as _)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            GoogleCloudStorageBuilder::from_env().with_url(&bucket).build().map(|store| Arc::new(store) as _)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            MicrosoftAzureBuilder::from_env().with_url(&bucket).build().map(|store| Arc::new(store) as _)
        }
        _ => return Err(wrong(format!("expected one of {}", SCHEMES.join("://, ")))),
    };
    let store = store.map_err(|e| wrong(e.to_string()))?;
    stores.insert(bucket.clone(), store.clone());
    Ok(Place { store, bucket, key: key.to_owned() })
}

impl Place {
    fn exact_key(&self) -> Result<Key> {
        Key::parse(&self.key).map_err(|e| Error::Usage(format!("{}/{}: {e}", self.bucket, self.key)))
    }

    fn object(&self, meta: ObjectMeta, name: String) -> Object {
        Object {
            url: format!("{}/{}", self.bucket, meta.location),
            name,
            n_bytes: meta.size,
            changed_nanos: meta.last_modified.timestamp_nanos_opt().unwrap_or(0).max(0) as u128,
            etag: meta.e_tag,
            output: None,
        }
    }

    /// Objects by the build outputs that contain them, as far as the listing shows.
    fn objects(&self, listed: Vec<(ObjectMeta, String)>, all: &BTreeSet<String>) -> Vec<Object> {
        let is_output = |folder: &str| {
            let has = |name: &str| all.contains(&format!("{folder}{name}"));
            has(MARK) || has("MANIFEST.json") && has("ledger.json") && has("recipe.lock.toml")
        };
        let output = |key: &str| {
            let ends = key.match_indices('/').map(|(at, _)| at + 1);
            ends.map(|end| &key[..end]).chain([""]).find(|folder| is_output(folder)).map(str::to_owned)
        };
        let object = |(meta, name): (ObjectMeta, String)| {
            let output = output(meta.location.as_ref());
            Object {
                output: output.map(|folder| format!("{}/{folder}", self.bucket)),
                ..self.object(meta, name)
            }
        };
        listed.into_iter().map(object).collect()
    }
}

/// The list that marks the output of a build, see [`crate::listing`].
const MARK: &str = ".moe-data/build.json";

/// The current object of a URL.
///
/// # Errors
/// The store refuses, or there is no such object.
pub fn look(path: &Path) -> Result<Object> {
    let url = path.to_string_lossy().into_owned();
    let place = place(&url)?;
    let (store, key) = (place.store.clone(), place.exact_key()?);
    let meta = runtime()?.block_on(async move { store.head(&key).await }).map_err(io(&url, "look at"))?;
    Ok(place.object(meta, String::new()))
}

/// Objects at a URL: the one with this key, else all below it except hidden ones; with `*`, `?` or `[`, all
/// whose keys match, where `*` stops at a slash and `**` does not.
///
/// # Errors
/// The store refuses, or the URL or the pattern is malformed.
pub fn find(url: &str) -> std::result::Result<Vec<Object>, String> {
    let place = place(url).map_err(|e| e.to_string())?;
    let refused = |e: object_store::Error| format!("cannot list: {}", in_words(&e));
    let list = |prefix: &str| {
        let prefix = Key::parse(prefix.trim_end_matches('/')).map_err(|e| e.to_string())?;
        let store = place.store.clone();
        let listed = async move { store.list(Some(&prefix)).try_collect::<Vec<ObjectMeta>>().await };
        runtime().map_err(|e| e.to_string())?.block_on(listed).map_err(refused)
    };
    let last_part = |meta: &ObjectMeta| meta.location.filename().unwrap_or_default().to_owned();
    if let Some(at) = place.key.find(['*', '?', '[']) {
        let pattern = glob::Pattern::new(&place.key).map_err(|e| format!("is not a pattern: {e}"))?;
        let folder = place.key[..at].rfind('/').map_or("", |end| &place.key[..end]);
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let found = list(folder)?;
        let all = keys(&found);
        let is_shown =
            |meta: &ObjectMeta| pattern.matches_with(meta.location.as_ref(), options) && meta.size > 0;
        let found = found.into_iter().filter(is_shown).map(|meta| {
            let name = last_part(&meta);
            (meta, name)
        });
        return Ok(place.objects(found.collect(), &all));
    }
    if !place.key.is_empty() && !place.key.ends_with('/') {
        let key = place.exact_key().map_err(|e| e.to_string())?;
        let (store, wanted) = (place.store.clone(), key.clone());
        let head = runtime().map_err(|e| e.to_string())?.block_on(async move { store.head(&wanted).await });
        match head {
            Ok(meta) => {
                let name = last_part(&meta);
                return Ok(vec![place.object(meta, name)]);
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(format!("cannot look at it: {}", in_words(&e))),
        }
    }
    let prefix = match place.key.trim_end_matches('/') {
        "" => String::new(),
        key => format!("{key}/"),
    };
    let found = list(&prefix)?;
    let all = keys(&found);
    let below = found.into_iter().filter_map(|meta| {
        let name = meta.location.as_ref().strip_prefix(&prefix)?.to_owned();
        // Stores mark folders with empty objects.
        let is_shown = meta.size > 0 && !name.split('/').any(|part| part.starts_with('.'));
        is_shown.then_some((meta, name))
    });
    Ok(place.objects(below.collect(), &all))
}

fn keys(found: &[ObjectMeta]) -> BTreeSet<String> {
    found.iter().map(|meta| meta.location.as_ref().to_owned()).collect()
}

/// The causes of an error of the library in one line.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn io(url: &str, action: &'static str) -> impl FnOnce(object_store::Error) -> Error {
    let path = Path::new(url).to_owned();
    move |e| {
        if matches!(e, object_store::Error::Precondition { .. }) {
            return Error::data(
                &path,
                "changed while it was read: another object has taken its place; run again",
            );
        }
        let kind = match e {
            object_store::Error::NotFound { .. } => std::io::ErrorKind::NotFound,
            _ => std::io::ErrorKind::Other,
        };
        Error::Io { path, action, source: std::io::Error::new(kind, in_words(&e)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_bucket_is_refused() {
        assert!(find("s3:///key").unwrap_err().contains("no bucket"));
    }
}
