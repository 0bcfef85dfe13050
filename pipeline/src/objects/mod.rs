//! Object stores: S3 and compatible stores, Google Cloud Storage, Azure Blob Storage. A path that is a URL names an
//! object; the rest of the program sees files that can be listed, read at any offset, and written whole.

#[cfg(feature = "cloud")]
mod store;
#[cfg(not(feature = "cloud"))]
mod without;

use std::path::Path;

#[cfg(feature = "cloud")]
pub use self::store::{BlockReader, ObjectFile, find, look, upload};
#[cfg(not(feature = "cloud"))]
pub use self::without::{BlockReader, ObjectFile, find, look, upload};

const SCHEMES: [&str; 6] = ["s3", "s3a", "gs", "az", "abfs", "abfss"];

/// Whether a path names an object.
pub fn is_url(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
}

/// The path after `file://`; other texts as they are.
pub fn without_file_scheme(path: &str) -> &str {
    path.strip_prefix("file://").unwrap_or(path)
}

/// An object that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its URL.
    pub url: String,
    /// Its path below what was listed, with `/`.
    pub name: String,
    /// Size.
    pub n_bytes: u64,
    /// Last change, in nanoseconds since 1970.
    pub changed_nanos: u128,
    /// The store's version of the content.
    pub etag: Option<String>,
    /// URL of the build output that contains it.
    pub output: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for (path, expected) in [
            ("s3://bucket/key", true),
            ("gs://bucket", true),
            ("az://container/a b.jsonl", true),
            ("file:///a", false),
            ("/a/s3://b", false),
            ("a.jsonl", false),
        ] {
            assert_eq!(is_url(Path::new(path)), expected, "{path}");
        }
        assert_eq!(without_file_scheme("file:///a/b"), "/a/b");
        assert_eq!(without_file_scheme("a/b"), "a/b");
    }
}
