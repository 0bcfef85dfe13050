//! Loss and rank of each target of an evaluation, as an array of records of NumPy.

use std::path::Path;

use moe_shards::atomic::AtomicFile;

use crate::error::Result;
use crate::run::TokenScore;

/// Names and types of the fields, little-endian and without gaps.
const FIELDS: &str = "[('sample', '<u8'), ('position', '<u4'), ('source', '<u4'), ('token', '<u4'), ('rank', '<u4'), \
    ('loss', '<f4')]";

/// Values begin at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// Writes a `.npy` file, version 1.0, with a record for each score.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(path: &Path, scores: &[TokenScore]) -> Result<()> {
    let magic = b"\x93NUMPY\x01\x00";
    let mut head = format!("{{'descr': {FIELDS}, 'fortran_order': False, 'shape': ({},), }}", scores.len());
    let before = magic.len() + 2;
    let padding = (before + head.len() + 1).next_multiple_of(ALIGNMENT) - before - head.len() - 1;
    head.push_str(&" ".repeat(padding));
    head.push('\n');
    let mut file = AtomicFile::create(path)?;
    file.write(magic)?;
    file.write(&(head.len() as u16).to_le_bytes())?;
    file.write(head.as_bytes())?;
    for score in scores {
        let TokenScore { sample, position, source, token, rank, loss } = *score;
        file.write(&sample.to_le_bytes())?;
        for number in [position, source, token, rank] {
            file.write(&number.to_le_bytes())?;
        }
        file.write(&loss.to_le_bytes())?;
    }
    Ok(file.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_numpy() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("scores.npy");
        let score = TokenScore { sample: 3, position: 4, source: 0, token: 7, rank: 1, loss: 0.5 };
        write(&path, &[score, score]).expect("write");
        let bytes = std::fs::read(&path).expect("read");
        let head = usize::from(bytes[8]) + 256 * usize::from(bytes[9]);
        assert!((10 + head).is_multiple_of(64) && bytes[10 + head - 1] == b'\n');
        assert!(String::from_utf8_lossy(&bytes[10..10 + head]).contains("'shape': (2,)"));
        assert_eq!(bytes.len(), 10 + head + 2 * 28);
        assert_eq!(bytes[10 + head..][..12], [3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(bytes[10 + head + 24..][..4], 0.5f32.to_le_bytes());
    }
}
