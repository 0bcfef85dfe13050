//! Megatron-LM's index, version 1: lengths of sequences, and which sequences make up a document.

use std::path::Path;

use super::{Corpus, Store, u64_at};
use crate::error::{Error, Result};

const MAGIC: &[u8; 9] = b"MMIDIDX\x00\x00";
/// Bytes before the lengths: magic, version, type, sequences, entries of the table of documents.
const HEAD_BYTES: u64 = 34;

/// Opens `NAME.idx` and the `NAME.bin` next to it.
pub(super) fn open(path: &Path) -> Result<Corpus> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let wrong = |expected: &str, found: String| {
        Error::data(path, format!("is not a Megatron-LM index: expected {expected}, found {found}"))
    };
    if bytes.len() < HEAD_BYTES as usize || bytes[..9] != MAGIC[..] {
        return Err(wrong("its magic and a header of 34 bytes", format!("{} bytes", bytes.len())));
    }
    let version = u64_at(&bytes, 9);
    if version != 1 {
        return Err(wrong("version 1", version.to_string()));
    }
    let store = match bytes[17] {
        4 => Store::I32,
        5 => Store::I64,
        8 => Store::U16,
        other => return Err(wrong("tokens of type int32 (4), int64 (5) or uint16 (8)", other.to_string())),
    };
    let (n_sequences, n_entries) = (u64_at(&bytes, 18), u64_at(&bytes, 26));
    let table = |n: u64, width: u64| n.checked_mul(width);
    let size = table(n_sequences, 12)
        .and_then(|n| n.checked_add(table(n_entries, 8)?))
        .and_then(|n| n.checked_add(HEAD_BYTES));
    // Indexes of multimodal data have a byte more for each sequence.
    if size != Some(bytes.len() as u64) {
        let expected = format!("{n_sequences} sequences and {n_entries} entries of documents");
        return Err(wrong(&expected, format!("{} bytes", bytes.len())));
    }
    let (n_sequences, n_entries) = (n_sequences as usize, n_entries as usize);
    let lengths_at = HEAD_BYTES as usize;
    let places_at = lengths_at + 4 * n_sequences;
    let documents_at = places_at + 8 * n_sequences;
    // Ends of sequences in tokens, with the 0 before the first.
    let mut ends = Vec::with_capacity(n_sequences + 1);
    let mut end = 0u64;
    ends.push(end);
    for i in 0..n_sequences {
        let at = lengths_at + 4 * i;
        let length = i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let place = u64_at(&bytes, places_at + 8 * i);
        if place != end * store.bytes() as u64 {
            let expected = format!("sequence {i} at byte {}", end * store.bytes() as u64);
            return Err(wrong(&expected, format!("byte {place}")));
        }
        end += u64::try_from(length).map_err(|_| wrong("lengths from 0 on", format!("{length}")))?;
        ends.push(end);
    }
    let entry = |i: usize| u64_at(&bytes, documents_at + 8 * i);
    let mut documents = Vec::with_capacity(n_entries);
    let mut last = 0;
    for i in 0..n_entries {
        let sequence = entry(i);
        let is_first = i == 0 && sequence != 0;
        let known = usize::try_from(sequence).ok().and_then(|n| ends.get(n));
        let (Some(&end), false) = (known, is_first || sequence < last) else {
            let expected = format!("entry {i} of the documents from {last} to {n_sequences}, the first 0");
            return Err(wrong(&expected, sequence.to_string()));
        };
        if i > 0 {
            documents.push(end);
        }
        last = sequence;
    }
    if last != n_sequences as u64 {
        return Err(wrong("documents up to the last sequence", format!("{last} of {n_sequences}")));
    }
    Corpus::new(&path.with_extension("bin"), 0, store, documents)
}
