//! Cuts: stretches of normalized text that deduplication takes out of documents that stay. The
//! list of a part lies under the work folder, named by its content, so that a part with the same cuts as
//! before needs no new tokenization and a damaged list is noticed when it is read. Every stage that reads
//! text after deduplication reads it through [`Cuts`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::{Hash, atomic};

use super::rows::{CutRow, Row};
use crate::error::{Error, Result};

/// Which method made a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// The paragraph also occurs in other documents.
    Paragraph,
    /// The bytes also occur elsewhere.
    Substring,
    /// The text is in an evaluation set.
    Contamination,
}

impl Method {
    /// All methods, in the order in which they run.
    pub const ALL: [Method; 3] = [Method::Paragraph, Method::Substring, Method::Contamination];

    /// Name in the ledger and the audit.
    pub fn name(self) -> &'static str {
        match self {
            Method::Paragraph => "paragraph",
            Method::Substring => "substring",
            Method::Contamination => "contamination",
        }
    }

    /// Number in a [`CutRow`].
    pub fn number(self) -> u8 {
        self as u8
    }

    fn of_number(number: u8) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.number() == number)
    }
}

/// The cuts of a part.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    path: PathBuf,
    rows: Vec<CutRow>,
}

/// Digits of the content's hash in a file name.
const NAME_DIGITS: usize = 24;

impl Cuts {
    /// Writes a list and returns its place in `work`.
    ///
    /// # Errors
    /// The rows overlap or are out of order, which is a bug, or a write fails.
    pub fn write(work: &Path, rows: &[CutRow]) -> Result<PathBuf> {
        let mut bytes = Vec::with_capacity(rows.len() * CutRow::BYTES);
        rows.iter().for_each(|row| row.put(&mut bytes));
        let place = Path::new("cuts").join(format!("{}.rows", &Hash::of(&bytes).to_string()[..NAME_DIGITS]));
        let path = work.join(&place);
        check_order(&path, rows)?;
        atomic::write_file(&path, &bytes)?;
        Ok(place)
    }

    /// Reads a list.
    ///
    /// # Errors
    /// It is missing, or its content is not what its name says.
    pub fn read(path: &Path) -> Result<Cuts> {
        let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if Hash::of(&bytes).to_string()[..NAME_DIGITS] != *name || bytes.len() % CutRow::BYTES != 0 {
            return Err(damaged(path));
        }
        let rows: Vec<CutRow> = bytes.chunks_exact(CutRow::BYTES).map(CutRow::get).collect();
        check_order(path, &rows)?;
        Ok(Cuts { path: path.to_owned(), rows })
    }

    /// A list in memory; rows must be sorted and must not overlap.
    pub fn of_rows(rows: Vec<CutRow>) -> Cuts {
        Cuts { path: PathBuf::new(), rows }
    }

    /// All rows, sorted.
    pub fn rows(&self) -> &[CutRow] {
        &self.rows
    }

    /// The cuts of one document, possibly none.
    pub fn of(&self, row: u32) -> DocumentCuts<'_> {
        let start = self.rows.partition_point(|cut| cut.row < row);
        let n_rows = self.rows[start..].partition_point(|cut| cut.row == row);
        DocumentCuts { path: &self.path, rows: &self.rows[start..start + n_rows] }
    }
}

/// The cuts of one document, ascending and without overlap.
#[derive(Clone, Copy, Debug)]
pub struct DocumentCuts<'a> {
    path: &'a Path,
    rows: &'a [CutRow],
}

impl<'a> DocumentCuts<'a> {
    /// Whether nothing is cut.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows.
    pub fn rows(&self) -> &'a [CutRow] {
        self.rows
    }

    /// The rest of a text, as stretches between the cuts, each with its offset in the text.
    /// Stretches of no bytes are left out.
    ///
    /// # Errors
    /// A cut is not within the text or splits a character.
    pub fn pieces<'t>(&self, text: &'t str) -> Result<Vec<(u32, &'t str)>> {
        let mut pieces = Vec::with_capacity(self.rows.len() + 1);
        let mut start = 0;
        let end = (text.len(), text.len());
        for (cut_start, cut_end) in
            self.rows.iter().map(|cut| (cut.start as usize, cut.end as usize)).chain([end])
        {
            let piece = text.get(start..cut_start).ok_or_else(|| damaged(self.path))?;
            if !piece.is_empty() {
                pieces.push((start as u32, piece));
            }
            start = cut_end;
        }
        // The last cut must end at a character too.
        text.get(self.rows.last().map_or(0, |cut| cut.end as usize)..).ok_or_else(|| damaged(self.path))?;
        Ok(pieces)
    }

    /// The text without the cuts.
    ///
    /// # Errors
    /// As [`DocumentCuts::pieces`].
    pub fn apply<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        if self.is_empty() {
            return Ok(Cow::Borrowed(text));
        }
        Ok(Cow::Owned(self.pieces(text)?.into_iter().map(|(_, piece)| piece).collect()))
    }

    /// Bytes as read that each method cut: cuts are positions in the normalized text, whose length may differ from
    /// what was read, so a cut counts by its share, `raw_bytes * cut / text_bytes`, where the sum of
    /// cuts is rounded down, and the share of a later method is what is left of that sum. Where normalization
    /// changed nothing, these are the bytes of the cuts.
    pub fn raw_bytes(&self, raw_bytes: u32, text_bytes: usize) -> BTreeMap<Method, u64> {
        let mut sums = BTreeMap::new();
        let mut cut = 0u128;
        let mut booked = 0u64;
        for method in Method::ALL {
            let of_method = self.rows.iter().filter(|row| row.method == method.number());
            let n_bytes: u64 = of_method.map(|row| u64::from(row.end - row.start)).sum();
            if n_bytes > 0 {
                cut += u128::from(n_bytes);
                // A share of `raw_bytes`, so below 2^32.
                let total = (u128::from(raw_bytes) * cut / (text_bytes.max(1) as u128)) as u64;
                sums.insert(method, total - booked);
                booked = total;
            }
        }
        sums
    }
}

fn check_order(path: &Path, rows: &[CutRow]) -> Result<()> {
    let empty = rows.iter().any(|cut| cut.start >= cut.end || Method::of_number(cut.method).is_none());
    let crossed = rows
        .windows(2)
        .any(|pair| pair[0].row > pair[1].row || (pair[0].row == pair[1].row && pair[0].end > pair[1].start));
    if empty || crossed { Err(damaged(path)) } else { Ok(()) }
}

fn damaged(path: &Path) -> Error {
    Error::data(path, "is a damaged list of cuts; delete the work folder and rerun")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(row: u32, start: u32, end: u32, method: Method) -> CutRow {
        CutRow { row, start, end, method: method.number() }
    }

    fn list(rows: &[CutRow]) -> Cuts {
        let dir = tempfile::tempdir().unwrap();
        let place = Cuts::write(dir.path(), rows).unwrap();
        Cuts::read(&dir.path().join(place)).unwrap()
    }

    #[test]
    fn what_is_left_is_the_text_between_the_cuts() {
        use Method::{Paragraph, Substring};
        let cuts = list(&[cut(1, 0, 2, Paragraph), cut(1, 5, 6, Substring), cut(7, 3, 6, Paragraph)]);
        assert_eq!(cuts.of(1).pieces("abcdefgh").unwrap(), [(2, "cde"), (6, "gh")]);
        assert_eq!(cuts.of(1).apply("abcdefgh").unwrap(), "cdegh");
        assert_eq!(cuts.of(7).apply("abcdef").unwrap(), "abc");
        assert!(cuts.of(0).is_empty() && cuts.of(8).is_empty());
        assert_eq!(cuts.of(0).apply("abc").unwrap(), "abc");
        assert_eq!(cuts.rows().len(), 3);
    }

    #[test]
    fn a_cut_outside_the_text_or_inside_a_character_is_an_error() {
        let cuts = list(&[cut(0, 2, 4, Method::Paragraph)]);
        assert_eq!(cuts.of(0).apply("abcde").unwrap(), "abe");
        assert!(cuts.of(0).apply("abc").is_err());
        assert!(cuts.of(0).apply("aéb").is_err());
        assert!(cuts.of(0).apply("abcé").is_err());
    }

    #[test]
    fn cut_bytes_are_shares_of_the_bytes_as_read() {
        use Method::{Paragraph, Substring};
        let cuts = list(&[cut(0, 0, 10, Paragraph), cut(0, 20, 25, Substring)]);
        // Normalization changed nothing: the bytes themselves.
        assert_eq!(cuts.of(0).raw_bytes(100, 100), [(Paragraph, 10), (Substring, 5)].into());
        // 107 bytes were read: 107 * 10 / 100 = 10, 107 * 15 / 100 = 16.
        assert_eq!(cuts.of(0).raw_bytes(107, 100), [(Paragraph, 10), (Substring, 6)].into());
        assert_eq!(cuts.of(1).raw_bytes(107, 100), [].into());
    }

    #[test]
    fn damaged_and_crossing_lists_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let crossed = [cut(0, 0, 3, Method::Paragraph), cut(0, 2, 4, Method::Paragraph)];
        assert!(Cuts::write(dir.path(), &crossed).is_err());
        assert!(Cuts::write(dir.path(), &[cut(0, 3, 3, Method::Paragraph)]).is_err());
        let place = dir.path().join(Cuts::write(dir.path(), &crossed[..1]).unwrap());
        let mut bytes = fs::read(&place).unwrap();
        bytes[0] ^= 1;
        fs::write(&place, bytes).unwrap();
        assert!(Cuts::read(&place).unwrap_err().to_string().contains("damaged"));
    }
}
