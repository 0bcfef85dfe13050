//! NumPy's `.npy` files, version 1.0 (NumPy enhancement proposal 1): a header with type and shape,
//! then the values, row after row, little-endian. They can be mapped with
//! `numpy.load(path, mmap_mode="r")`.

use std::path::Path;

use super::{Exported, HashedFile};
use crate::error::{Error, Result};

/// Offset of the values: a page, so that a mapped file is as aligned as a raw one.
const HEADER_BYTES: usize = 4096;
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";

/// A `.npy` file under construction; it appears once complete.
pub(super) struct NpyWriter {
    file: HashedFile,
    missing_bytes: u64,
}

impl NpyWriter {
    /// Starts a file: `kind` is NumPy's name of the type (`<u2`), `shape` the extents, outermost first.
    ///
    /// # Errors
    /// A write fails.
    pub fn create(path: &Path, kind: Kind, shape: &[u64]) -> Result<NpyWriter> {
        let extents: Vec<String> = shape.iter().map(u64::to_string).collect();
        // Python writes one-element tuples with a comma.
        let comma = if shape.len() == 1 { "," } else { "" };
        let (name, width) = kind.name_and_bytes();
        let extents = extents.join(", ");
        let head = format!("{{'descr': '{name}', 'fortran_order': False, 'shape': ({extents}{comma}), }}");
        let text_bytes = HEADER_BYTES - MAGIC.len() - 2;
        let mut file = HashedFile::create(path)?;
        file.write(MAGIC)?;
        file.write(&(text_bytes as u16).to_le_bytes())?;
        file.write(format!("{head:<width$}\n", width = text_bytes - 1).as_bytes())?;
        Ok(NpyWriter { file, missing_bytes: shape.iter().product::<u64>() * width })
    }

    /// Appends values, already little-endian.
    ///
    /// # Errors
    /// A write fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.missing_bytes = self.missing_bytes.wrapping_sub(bytes.len() as u64);
        self.file.write(bytes)
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// A write fails, or the number of values differs from the shape.
    pub fn finish(self) -> Result<Exported> {
        if self.missing_bytes != 0 {
            let message =
                "changed while it was exported: other values than its shape says; run the export again";
            return Err(Error::data(&self.file.path, message));
        }
        self.file.commit()
    }
}

/// Type of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U16,
    U32,
    U64,
    I32,
    I64,
}

impl Kind {
    fn name_and_bytes(self) -> (&'static str, u64) {
        match self {
            Kind::U16 => ("<u2", 2),
            Kind::U32 => ("<u4", 4),
            Kind::U64 => ("<u8", 8),
            Kind::I32 => ("<i4", 4),
            Kind::I64 => ("<i8", 8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_numpys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for (shape, said) in [(&[3][..], "(3,)"), (&[3, 2], "(3, 2)"), (&[0, 5], "(0, 5)")] {
            let mut writer = NpyWriter::create(&path, Kind::U16, shape).unwrap();
            let n_bytes = shape.iter().product::<u64>() as usize * 2;
            writer.write(&vec![7; n_bytes]).unwrap();
            let file = writer.finish().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(file.bytes, bytes.len() as u64);
            assert_eq!(bytes.len(), 4096 + n_bytes);
            // Magic, version 1.0, length of the text: 4096 - 10.
            assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\xf6\x0f");
            let text = std::str::from_utf8(&bytes[10..4096]).unwrap();
            let expected = format!("{{'descr': '<u2', 'fortran_order': False, 'shape': {said}, }}");
            assert_eq!((text.trim_end(), text.ends_with(" \n")), (expected.as_str(), true));
        }
    }

    #[test]
    fn a_file_with_too_few_values_does_not_appear() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let mut writer = NpyWriter::create(&path, Kind::I32, &[2]).unwrap();
        writer.write(&[0; 4]).unwrap();
        assert!(writer.finish().is_err());
        assert!(!path.exists());
    }
}
