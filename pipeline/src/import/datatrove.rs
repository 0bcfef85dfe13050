//! Files of datatrove's `DocumentTokenizer`: tokens in `NAME.ds`, ends of documents in `NAME.ds.index`, and in
//! `NAME.ds.metadata` the tokenizer with the bytes of a token after `|`, and the number of tokens.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Corpus, Store, u64_at};
use crate::error::{Error, Result};

/// Opens `NAME.ds`.
pub(super) fn open(path: &Path) -> Result<Corpus> {
    let beside = |ending: &str| {
        let mut name = OsString::from(path);
        name.push(ending);
        PathBuf::from(name)
    };
    let (index, metadata) = (beside(".index"), beside(".metadata"));
    let bytes = std::fs::read(&index).map_err(Error::io(&index, "read"))?;
    if bytes.len() % 8 != 0 {
        return Err(Error::data(&index, format!("expected ends of 8 bytes, found {} bytes", bytes.len())));
    }
    let ends: Vec<u64> = (0..bytes.len() / 8).map(|i| u64_at(&bytes, 8 * i)).collect();
    let text = std::fs::read_to_string(&metadata).map_err(Error::io(&metadata, "read"))?;
    let mut lines = text.lines();
    let store = match lines.next().and_then(|line| line.rsplit_once('|')).map(|(_, width)| width) {
        Some("2") => Store::U16,
        Some("4") => Store::U32,
        found => {
            let found = found.unwrap_or("none");
            let message = format!("expected 2 or 4 bytes of a token behind `|` in line 1, found {found}");
            return Err(Error::data(&metadata, message));
        }
    };
    let n_tokens = ends.last().copied().unwrap_or(0);
    if lines.next().and_then(|line| line.trim().parse().ok()) != Some(n_tokens) {
        let message =
            format!("line 2 has another number of tokens than {}, which ends at {n_tokens}", index.display());
        return Err(Error::data(&metadata, message));
    }
    Corpus::new(path, 0, store, ends)
}
