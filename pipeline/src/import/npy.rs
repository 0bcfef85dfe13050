//! A `.npy` file of one row of tokens. A document ends with the end-of-document token; what follows the last of
//! these is a document too.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Corpus, Store, check_size};
use crate::error::{Error, Result};
use crate::tables::rows::Blob;
use crate::watch::Watch;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Tokens to examine at once.
const BLOCK: u64 = 1 << 20;

/// Opens a file and looks for the ends of its documents.
pub(super) fn open(path: &Path, eod: u32, watch: &Watch) -> Result<Corpus> {
    let (head_bytes, store, n_tokens) = header(path)?;
    check_size(path, head_bytes, store, n_tokens)?;
    let tokens = Blob::open(path)?;
    let mut ends = Vec::new();
    let mut at = 0;
    while at < n_tokens {
        let n = BLOCK.min(n_tokens - at);
        let mut bytes = vec![0; n as usize * store.bytes()];
        tokens.read_at(head_bytes + at * store.bytes() as u64, &mut bytes)?;
        let found = store.numbers(&bytes).zip(at..).filter(|(id, _)| *id == i64::from(eod));
        ends.extend(found.map(|(_, place)| place + 1));
        at += n;
        watch.advance(0)?;
    }
    if ends.last().copied().unwrap_or(0) < n_tokens {
        ends.push(n_tokens);
    }
    Corpus::new(path, head_bytes, store, ends)
}

/// Bytes before the tokens, their type, and how many there are.
fn header(path: &Path) -> Result<(u64, Store, u64)> {
    let mut file = File::open(path).map_err(Error::io(path, "open"))?;
    let wrong = |expected: &str, found: &str| {
        Error::data(
            path,
            format!("is not a row of tokens in NumPy's format: expected {expected}, found {found}"),
        )
    };
    let mut start = [0; 12];
    file.read_exact(&mut start).map_err(|_| wrong("a header", "a file of less than 12 bytes"))?;
    if start[..6] != MAGIC[..] {
        return Err(wrong("its magic", "other bytes"));
    }
    // Version 1 has two bytes for the length of the header, later ones four.
    let (head, text_bytes) = match start[6] {
        1 => (10u64, u64::from(u16::from_le_bytes([start[8], start[9]]))),
        2 | 3 => (12, u64::from(u32::from_le_bytes([start[8], start[9], start[10], start[11]]))),
        other => return Err(wrong("version 1 to 3", &other.to_string())),
    };
    if text_bytes > 1 << 20 {
        return Err(wrong("a header of at most 1 MiB", &format!("{text_bytes} bytes")));
    }
    let n_bytes = file.metadata().map_err(Error::io(path, "read"))?.len();
    if n_bytes < head + text_bytes {
        return Err(wrong(&format!("a header of {} bytes", head + text_bytes), &format!("{n_bytes} bytes")));
    }
    let mut text = vec![0; text_bytes as usize];
    Blob::open(path)?.read_at(head, &mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = |key: &str| {
        let rest = text.split_once(&format!("'{key}':"))?.1.trim_start();
        Some(rest.strip_prefix('\'').map_or(rest, |rest| rest.split('\'').next().unwrap_or(rest)))
    };
    let store = match value("descr") {
        Some("<u2") => Store::U16,
        Some("<i4") => Store::I32,
        Some("<u4") => Store::U32,
        Some("<i8") => Store::I64,
        other => return Err(wrong("type <u2, <u4, <i4 or <i8", other.unwrap_or("none"))),
    };
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')?.split(')').next());
    let extents: Vec<&str> =
        shape.unwrap_or_default().split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
    match extents[..] {
        [n] => {
            let n = n.parse().map_err(|_| wrong("a shape of one number", n))?;
            Ok((head + text_bytes, store, n))
        }
        _ => Err(wrong("a shape of one number", shape.unwrap_or("none"))),
    }
}
