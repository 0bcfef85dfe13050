//! Collects the tokens and ids of documents scattered over the parts of a source: block by
//! block of consecutive documents of a shard, opening each part once per block, on all threads. Memory
//! use does not depend on the number of parts or documents.

use std::collections::BTreeMap;
use std::path::PathBuf;

use moe_shards::TokenId;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tables::rows::{Blob, TokenRow};
use crate::tables::{IDS, TOKENS};

/// Tokens of a block.
const BLOCK_TOKENS: u64 = 8 << 20;
/// Documents of a block.
const BLOCK_DOCS: usize = 1 << 16;

/// A row of a part's table, with the position of the part.
pub(super) type PlacedRow = (TokenRow, usize);

/// Consecutive documents of a shard with their tokens and ids.
pub(super) struct Block<'a> {
    rows: &'a [PlacedRow],
    parts: BTreeMap<usize, Part>,
}

/// A block's share of one part, in the order of the block.
#[derive(Default)]
struct Part {
    tokens: Vec<TokenId>,
    ids: String,
}

/// Cuts the rows of a shard into blocks of bounded size.
pub(super) fn blocks(rows: &[PlacedRow]) -> impl Iterator<Item = &[PlacedRow]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut n_tokens = 0;
        let fits = |(row, _): &&PlacedRow| {
            n_tokens += u64::from(row.n_tokens);
            n_tokens <= BLOCK_TOKENS
        };
        let n = rest.iter().take(BLOCK_DOCS).take_while(fits).count().max(1).min(rest.len());
        let (block, behind) = rest.split_at(n);
        rest = behind;
        (!block.is_empty()).then_some(block)
    })
}

impl<'a> Block<'a> {
    /// Reads the documents of `rows`; `folders` are those of the parts.
    ///
    /// # Errors
    /// A file of a part is missing, too short or damaged.
    pub fn read(folders: &[PathBuf], rows: &'a [PlacedRow]) -> Result<Block<'a>> {
        let mut by_part: BTreeMap<usize, Vec<&TokenRow>> = BTreeMap::new();
        for (row, part) in rows {
            by_part.entry(*part).or_default().push(row);
        }
        let parts =
            by_part.into_par_iter().map(|(part, rows)| Ok((part, Part::read(&folders[part], &rows)?)));
        Ok(Block { rows, parts: parts.collect::<Result<_>>()? })
    }

    /// The rows with their parts, ids and tokens.
    pub fn documents(&self) -> impl Iterator<Item = (&'a TokenRow, usize, &str, &[TokenId])> {
        let mut places: BTreeMap<usize, (&[TokenId], &str)> =
            self.parts.iter().map(|(part, read)| (*part, (&read.tokens[..], &read.ids[..]))).collect();
        self.rows.iter().filter_map(move |(row, part)| {
            // Every part of a row was read, with exactly the tokens and ids of its rows.
            let (tokens, ids) = places.get_mut(part)?;
            let (own_tokens, behind) = tokens.split_at_checked(row.n_tokens as usize)?;
            let (own_id, ids_behind) = ids.split_at_checked(row.id_bytes as usize)?;
            (*tokens, *ids) = (behind, ids_behind);
            Some((row, *part, own_id, own_tokens))
        })
    }
}

impl Part {
    fn read(folder: &std::path::Path, rows: &[&TokenRow]) -> Result<Part> {
        let ids_path = folder.join(IDS);
        let (tokens, ids) = (Blob::open(&folder.join(TOKENS))?, Blob::open(&ids_path)?);
        let n_tokens = rows.iter().map(|row| row.n_tokens as usize).sum();
        let mut part = Part { tokens: Vec::with_capacity(n_tokens), ids: String::new() };
        let mut bytes = Vec::new();
        for row in rows {
            bytes.resize(row.n_tokens as usize * 4, 0);
            tokens.read_at(row.token_start * 4, &mut bytes)?;
            let ids = bytes.chunks_exact(4).map(|b| TokenId(u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            part.tokens.extend(ids);
        }
        for row in rows {
            bytes.resize(row.id_bytes as usize, 0);
            ids.read_at(row.id_start, &mut bytes)?;
            // Each id on its own, so that no character spans two of them.
            let id = std::str::from_utf8(&bytes);
            let id = id.map_err(|_| Error::data(&ids_path, "is damaged; delete its folder and rerun"))?;
            part.ids.push_str(id);
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(part: usize, token_start: u64, n_tokens: u32, id_start: u64, id_bytes: u32) -> PlacedRow {
        let row = TokenRow {
            variant: 0,
            family: 0,
            document_id: 0,
            text_hash: 0,
            raw_bytes: 0,
            metadata_hash: 0,
            quality: 0,
            score: 0,
            language: 0,
            tags: 0,
            token_start,
            n_tokens,
            id_start,
            id_bytes,
            stored_start: 0,
            stored_bytes: 0,
            text_bytes: 0,
        };
        (row, part)
    }

    #[test]
    fn documents_come_in_order_with_their_own_tokens_and_ids() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["a", "b"].map(|name| dir.path().join(name));
        for (folder, first) in folders.iter().zip([0u32, 100]) {
            std::fs::create_dir(folder).unwrap();
            let tokens: Vec<u8> = (first..first + 10).flat_map(u32::to_le_bytes).collect();
            std::fs::write(folder.join(TOKENS), tokens).unwrap();
            std::fs::write(folder.join(IDS), "éxyz").unwrap();
        }
        let rows = [row(1, 4, 2, 2, 1), row(0, 0, 3, 0, 2), row(1, 0, 1, 0, 2), row(0, 9, 1, 4, 1)];
        let block = Block::read(&folders, &rows).unwrap();
        let found: Vec<(&str, Vec<u32>)> =
            block.documents().map(|(_, _, id, tokens)| (id, tokens.iter().map(|t| t.0).collect())).collect();
        let expected = [("x", vec![104, 105]), ("é", vec![0, 1, 2]), ("é", vec![100]), ("z", vec![9])];
        assert_eq!(found, expected);
        // An id that is cut inside a character, and tokens after the end.
        assert!(Block::read(&folders, &[row(0, 0, 1, 1, 1)]).is_err());
        assert!(Block::read(&folders, &[row(0, 8, 3, 0, 2)]).is_err());
    }

    #[test]
    fn blocks_are_bounded_and_complete() {
        let rows: Vec<PlacedRow> =
            [9 << 20, 5 << 20, 3 << 20, 1, 8 << 20].map(|n| row(0, 0, n, 0, 0)).to_vec();
        let sizes: Vec<usize> = blocks(&rows).map(<[PlacedRow]>::len).collect();
        assert_eq!(sizes, [1, 2, 1, 1]);
        assert_eq!(blocks(&[]).count(), 0);
    }
}
