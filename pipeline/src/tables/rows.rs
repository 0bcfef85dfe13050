//! Tables of fixed-size little-endian rows. Rows compare field by field in the order of their
//! declaration, so a sorted table answers range queries by bisection.

use std::fs::File;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;

use crate::error::{Error, Result};

/// A row of a table.
pub trait Row: Sized + Ord + Clone {
    /// Bytes of a row.
    const BYTES: usize;
    /// Appends the row's bytes.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads a row from exactly [`Row::BYTES`] bytes.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! row {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }

        impl Row for $name {
            const BYTES: usize = 0 $(+ size_of::<$kind>())*;

            fn put(&self, out: &mut Vec<u8>) {
                $(out.extend_from_slice(&self.$field.to_le_bytes());)*
            }

            fn get(mut bytes: &[u8]) -> $name {
                $(
                    let mut field = [0; size_of::<$kind>()];
                    field.copy_from_slice(&bytes[..size_of::<$kind>()]);
                    bytes = &bytes[size_of::<$kind>()..];
                    let $field = <$kind>::from_le_bytes(field);
                )*
                debug_assert!(bytes.is_empty());
                $name { $($field,)* }
            }
        }
    };
}

pub(crate) use row;

row! {
    /// A document that passed the filters, for deduplication. Of rows with one key, the lowest
    /// survives: the earlier source, the original before its variants, then the lower document id;
    /// the fields after that only make the order total for documents that share an id.
    KeyRow {
        /// XXH3-128 of the normalized text.
        key: u128,
        /// Position of the source in the recipe.
        source: u16,
        /// Variant.
        variant: u8,
        /// Document id.
        document_id: u64,
        /// Family.
        family: u64,
        /// Bytes of the text as read.
        raw_bytes: u32,
        /// Hash of the metadata.
        metadata_hash: u64,
        /// Row in the part's documents.
        row: u32,
    }
}

row! {
    /// A document that was read.
    IdRow {
        /// Document id.
        document_id: u64,
    }
}

row! {
    /// A document in one band of its MinHash signature. Rows with one key are candidate pairs, so the
    /// rows of all bands and documents are sorted together.
    BandRow {
        /// Hash of the band's number and of its values.
        key: u64,
        /// Number of the document among all documents of the build.
        document: u64,
    }
}

row! {
    /// A document that passed the filters, in the order of the part.
    KeptRow {
        /// Row in the part's documents.
        row: u32,
        /// Document id.
        document_id: u64,
        /// Bytes of the text as read.
        raw_bytes: u32,
    }
}

row! {
    /// A document that deduplication removes from a part.
    RemovedRow {
        /// Row in the part's documents.
        row: u32,
    }
}

row! {
    /// Tags that filters gave to a document.
    TagRow {
        /// Row in the part's documents.
        row: u32,
        /// Bit `i` is tag `i` of the part's `tags.json`.
        bits: u8,
    }
}

row! {
    /// A document that deduplication puts into another family.
    FamilyRow {
        /// Row in the part's documents.
        row: u32,
        /// Family.
        family: u64,
        /// Variant there.
        variant: u8,
    }
}

row! {
    /// A stretch that is cut from the normalized text of a document that stays.
    CutRow {
        /// Row in the part's documents.
        row: u32,
        /// First byte, at the start of a character.
        start: u32,
        /// Byte after the last.
        end: u32,
        /// [`crate::tables::cuts::Method`] that made the cut.
        method: u8,
    }
}

row! {
    /// A tokenized document, sorted so that a shard is one range and the first of several
    /// documents with one (variant, family) is the one to keep.
    TokenRow {
        /// Variant.
        variant: u8,
        /// Family.
        family: u64,
        /// Document id.
        document_id: u64,
        /// XXH3-128 of the normalized text.
        text_hash: u128,
        /// Bytes of the text as read.
        raw_bytes: u32,
        /// Hash of the metadata.
        metadata_hash: u64,
        /// 0 = unknown, else the quality bucket and 1.
        quality: u16,
        /// 0 = none, else the bits of [`crate::tables::scores`], which decide the quality where the record does not.
        score: u32,
        /// 0 = unknown, else the language's number in the part's names and 1.
        language: u16,
        /// Bit `i` is tag `i` of the part's names.
        tags: u8,
        /// First token in the part's token file.
        token_start: u64,
        /// Tokens, without end of document.
        n_tokens: u32,
        /// First byte of the id in the part's id file.
        id_start: u64,
        /// Bytes of the id.
        id_bytes: u32,
        /// First byte of the normalized text in the part's stored texts.
        stored_start: u64,
        /// Bytes of its zstd frame there; 0 when the tokens give the text back.
        stored_bytes: u32,
        /// Bytes of the normalized text.
        text_bytes: u32,
    }
}

/// Writes a table.
///
/// # Errors
/// A write fails.
pub fn write<R: Row>(path: &Path, rows: &[R]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    let mut bytes = Vec::new();
    for block in rows.chunks(4096) {
        bytes.clear();
        block.iter().for_each(|row| row.put(&mut bytes));
        file.write(&bytes)?;
    }
    Ok(file.commit()?)
}

/// Reads a whole table.
///
/// # Errors
/// It is missing or does not hold whole rows.
pub fn read<R: Row>(path: &Path) -> Result<Vec<R>> {
    let table = Table::open(path)?;
    table.read(0, table.len())
}

/// A table on the disk.
#[derive(Debug)]
pub struct Table<R> {
    path: PathBuf,
    file: File,
    len: u64,
    row: PhantomData<R>,
}

impl<R: Row> Table<R> {
    /// Opens a table.
    ///
    /// # Errors
    /// It is missing or does not hold whole rows.
    pub fn open(path: &Path) -> Result<Table<R>> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let n_bytes = file.metadata().map_err(Error::io(path, "read"))?.len();
        if n_bytes % R::BYTES as u64 != 0 {
            let message = format!(
                "{n_bytes} bytes are not whole rows of {}; delete this file's folder and rerun",
                R::BYTES
            );
            return Err(Error::data(path, message));
        }
        Ok(Table { path: path.to_owned(), file, len: n_bytes / R::BYTES as u64, row: PhantomData })
    }

    /// Rows.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there do not count.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of the first row of a sorted table where `before` is false.
    ///
    /// # Errors
    /// A write fails.
    pub fn bisect(&self, before: impl Fn(&R) -> bool) -> Result<u64> {
        let (mut low, mut high) = (0, self.len);
        let mut bytes = vec![0; R::BYTES];
        while low < high {
            let middle = low + (high - low) / 2;
            self.file
                .read_exact_at(&mut bytes, middle * R::BYTES as u64)
                .map_err(Error::io(&self.path, "read"))?;
            if before(&R::get(&bytes)) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Rows `start..end`.
    ///
    /// # Errors
    /// A write fails.
    pub fn read(&self, start: u64, end: u64) -> Result<Vec<R>> {
        let n_rows = end.saturating_sub(start) as usize;
        let mut bytes = vec![0; n_rows * R::BYTES];
        self.file
            .read_exact_at(&mut bytes, start * R::BYTES as u64)
            .map_err(Error::io(&self.path, "read"))?;
        Ok(bytes.chunks_exact(R::BYTES).map(R::get).collect())
    }
}

/// Reads tokens or text at any offset of a file.
#[derive(Debug)]
pub struct Blob {
    path: PathBuf,
    file: File,
}

impl Blob {
    /// Opens a file.
    ///
    /// # Errors
    /// It is missing.
    pub fn open(path: &Path) -> Result<Blob> {
        Ok(Blob { path: path.to_owned(), file: File::open(path).map_err(Error::io(path, "open"))? })
    }

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// The file is shorter, or a write fails.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(Error::io(&self.path, "read"))
    }
}

/// Rows that the filters kept and deduplication did not remove.
///
/// # Errors
/// A table is missing or damaged.
pub fn survivors(kept: &Path, removed: &Path) -> Result<Vec<KeptRow>> {
    let mut rows: Vec<KeptRow> = read(kept)?;
    let mut removed = read::<RemovedRow>(removed)?.into_iter().map(|r| r.row).peekable();
    rows.retain(|kept| {
        while removed.next_if(|row| *row < kept.row).is_some() {}
        removed.peek() != Some(&kept.row)
    });
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(row: u32) -> KeptRow {
        KeptRow { row, document_id: u64::from(row) << 40, raw_bytes: row * 2 }
    }

    #[test]
    fn rows_survive_the_disk_and_bisect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        let rows: Vec<KeptRow> = (0..10_000).map(|i| kept(i * 3)).collect();
        write(&path, &rows).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 10_000 * 16);
        assert_eq!(read::<KeptRow>(&path).unwrap(), rows);
        let table = Table::<KeptRow>::open(&path).unwrap();
        assert_eq!(table.bisect(|r| r.row < 300).unwrap(), 100);
        assert_eq!(table.bisect(|r| r.row < 301).unwrap(), 101);
        assert_eq!(table.bisect(|_| true).unwrap(), 10_000);
        assert_eq!(table.read(1, 3).unwrap(), &rows[1..3]);
    }

    #[test]
    fn a_cut_table_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0; 17]).unwrap();
        assert!(Table::<KeptRow>::open(file.path()).unwrap_err().to_string().contains("whole rows"));
    }

    #[test]
    fn key_rows_put_the_survivor_first() {
        let row = |source, variant, document_id| KeyRow {
            key: 1,
            source,
            variant,
            document_id,
            family: 0,
            raw_bytes: 0,
            metadata_hash: 0,
            row: 0,
        };
        let mut rows = [row(1, 0, 1), row(0, 1, 2), row(0, 0, 9), row(0, 0, 8)];
        rows.sort();
        assert_eq!(rows, [row(0, 0, 8), row(0, 0, 9), row(0, 1, 2), row(1, 0, 1)]);
    }

    #[test]
    fn survivors_are_kept_minus_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("kept"), dir.path().join("removed"));
        write(&a, &[1, 2, 5, 9].map(kept)).unwrap();
        write(&b, &[2, 9].map(|row| RemovedRow { row })).unwrap();
        let rows: Vec<u32> = survivors(&a, &b).unwrap().iter().map(|r| r.row).collect();
        assert_eq!(rows, [1, 5]);
    }
}
