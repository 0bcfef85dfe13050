//! Which documents go into which file.

use std::ops::RangeInclusive;
use std::path::Path;

use super::Selection;
use crate::error::Result;
use crate::tables::parts::Parts;
use crate::tables::rows;

/// A file: documents of one source, in the order of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlan {
    /// Its name without ending.
    pub name: String,
    /// Where its documents are.
    pub pieces: Vec<Piece>,
    /// Their bytes as read.
    pub n_bytes: u64,
}

/// Documents of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Number of the part.
    pub part: usize,
    /// First row and last.
    pub rows: RangeInclusive<u32>,
}

/// Cuts the documents of each source into files of about `file_bytes` bytes as read: a document belongs where the bytes
/// before it end.
///
/// # Errors
/// A table is missing or damaged.
pub fn layout(work: &Path, parts: &Parts, selection: &Selection, file_bytes: u64) -> Result<Vec<FilePlan>> {
    let mut files = Vec::new();
    for source in parts.sources() {
        let mut cutter = Cutter { file_bytes: file_bytes.max(1), before: 0, files: Vec::new() };
        for (number, part) in parts.parts.iter().enumerate().filter(|(_, part)| part.source == source) {
            let mut wanted = selection.rows(work, parts, number)?.into_iter().peekable();
            for kept in rows::survivors(&work.join(&part.kept), &work.join(&part.removed))? {
                if wanted.next_if_eq(&kept.row).is_some() {
                    cutter.add(number, kept.row, u64::from(kept.raw_bytes));
                }
            }
        }
        let named = cutter.files.into_iter().enumerate();
        files.extend(named.map(|(i, (_, file))| FilePlan { name: format!("{source}-{i:05}"), ..file }));
    }
    Ok(files)
}

struct Cutter {
    file_bytes: u64,
    /// Bytes of the documents so far.
    before: u64,
    /// Number of file sizes before each document.
    files: Vec<(u64, FilePlan)>,
}

impl Cutter {
    fn add(&mut self, part: usize, row: u32, n_bytes: u64) {
        let number = self.before / self.file_bytes;
        self.before += n_bytes;
        if self.files.last().is_none_or(|(last, _)| *last != number) {
            self.files.push((number, FilePlan { name: String::new(), pieces: Vec::new(), n_bytes: 0 }));
        }
        let Some((_, file)) = self.files.last_mut() else { return };
        file.n_bytes += n_bytes;
        match file.pieces.last_mut().filter(|piece| piece.part == part) {
            Some(piece) => piece.rows = *piece.rows.start()..=row,
            None => file.pieces.push(Piece { part, rows: row..=row }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Part, first and last row.
    type Rows = (usize, u32, u32);

    /// Files of documents, each given as (part, row, bytes), by 100 bytes.
    fn check(documents: &[(usize, u32, u64)], expected: &[(u64, &[Rows])]) {
        let mut cutter = Cutter { file_bytes: 100, before: 0, files: Vec::new() };
        documents.iter().for_each(|&(part, row, n_bytes)| cutter.add(part, row, n_bytes));
        let found: Vec<(u64, Vec<Rows>)> = (cutter.files.iter())
            .map(|(_, file)| {
                let pieces = file.pieces.iter();
                (file.n_bytes, pieces.map(|p| (p.part, *p.rows.start(), *p.rows.end())).collect())
            })
            .collect();
        let expected: Vec<(u64, Vec<Rows>)> =
            expected.iter().map(|(n_bytes, pieces)| (*n_bytes, pieces.to_vec())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn files_end_where_the_bytes_do_whatever_the_parts() {
        check(&[], &[]);
        let one = [(0, 0, 60), (0, 2, 60), (0, 3, 10), (0, 7, 70), (0, 8, 1)];
        check(&one, &[(120, &[(0, 0, 2)]), (80, &[(0, 3, 7)]), (1, &[(0, 8, 8)])]);
        let two = [(0, 0, 60), (1, 0, 60), (1, 1, 10), (1, 5, 70), (2, 0, 1)];
        check(&two, &[(120, &[(0, 0, 0), (1, 0, 0)]), (80, &[(1, 1, 5)]), (1, &[(2, 0, 0)])]);
        // A document of many files' size leaves no empty file behind.
        check(&[(0, 0, 1000), (0, 1, 5)], &[(1000, &[(0, 0, 0)]), (5, &[(0, 1, 1)])]);
    }
}
