//! The container: keys with values, the heads of all tensors, then their values, each at a multiple of 32
//! bytes.

use std::path::Path;

use moe_shards::atomic::AtomicFile;

use crate::error::Result;

/// Version of the format.
const VERSION: u32 = 3;

/// Values of tensors are aligned to this many bytes.
const ALIGNMENT: u64 = 32;

/// A value of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Meta {
    /// A whole number.
    U32(u32),
    /// A number.
    F32(f32),
    /// A Boolean.
    Bool(bool),
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Whole numbers.
    I32s(Vec<i32>),
}

impl Meta {
    /// The number of its type in the format.
    const fn kind(&self) -> u32 {
        match self {
            Self::U32(_) => 4,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::I32s(_) => 9,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let list = |out: &mut Vec<u8>, kind: u32, n: usize| {
            out.extend(kind.to_le_bytes());
            out.extend((n as u64).to_le_bytes());
        };
        match self {
            Self::U32(n) => out.extend(n.to_le_bytes()),
            Self::F32(x) => out.extend(x.to_le_bytes()),
            Self::Bool(b) => out.push(u8::from(*b)),
            Self::Text(text) => put_text(out, text),
            Self::Texts(texts) => {
                list(out, 8, texts.len());
                texts.iter().for_each(|text| put_text(out, text));
            }
            Self::I32s(numbers) => {
                list(out, 5, numbers.len());
                numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
        }
    }
}

/// How the values of a tensor are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// 32 bits.
    F32,
    /// 16 bits of IEEE 754.
    F16,
    /// 8 bits, with a factor of 16 bits for each 32 values of a row.
    Q8_0,
}

/// Values of a block of [`Type::Q8_0`].
const BLOCK: usize = 32;

impl Type {
    /// The number of the type in the format.
    const fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
        }
    }

    /// Bytes of this many values.
    pub const fn n_bytes(self, n: usize) -> u64 {
        match self {
            Self::F32 => 4 * n as u64,
            Self::F16 => 2 * n as u64,
            Self::Q8_0 => (n / BLOCK * (BLOCK + 2)) as u64,
        }
    }

    /// This type for rows of `width` values, or the next wider one that can hold them.
    pub const fn for_rows(self, width: usize) -> Self {
        match self {
            Self::Q8_0 if !width.is_multiple_of(BLOCK) => Self::F16,
            other => other,
        }
    }

    /// Values of whole rows, little-endian.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        use burn::tensor::f16;
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            Self::Q8_0 => {
                let mut bytes = Vec::with_capacity(self.n_bytes(values.len()) as usize);
                for block in values.chunks_exact(BLOCK) {
                    let largest = block.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                    let step = largest / 127.0;
                    let by = if step > 0.0 { 1.0 / step } else { 0.0 };
                    bytes.extend(f16::from_f32(step).to_le_bytes());
                    bytes.extend(block.iter().flat_map(|value| ((value * by).round() as i8).to_le_bytes()));
                }
                bytes
            }
        }
    }
}

/// A tensor of a file to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Its name.
    pub name: String,
    /// Its shape, rows last.
    pub shape: Vec<usize>,
    /// Its values.
    pub kind: Type,
}

impl Head {
    /// Bytes of its values.
    pub fn n_bytes(&self) -> u64 {
        self.kind.n_bytes(self.shape.iter().product())
    }
}

/// A file that is written one tensor after the other; it appears under its name when it is complete.
pub struct GgufWriter {
    file: AtomicFile,
    left: std::vec::IntoIter<Head>,
    /// Bytes that the current tensor still lacks, and the padding after it.
    missing: u64,
    gap: u64,
}

impl GgufWriter {
    /// Writes keys and heads.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, meta: &[(String, Meta)], heads: Vec<Head>) -> Result<Self> {
        let mut header = b"GGUF".to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend((heads.len() as u64).to_le_bytes());
        header.extend((meta.len() as u64).to_le_bytes());
        for (key, value) in meta {
            put_text(&mut header, key);
            header.extend(value.kind().to_le_bytes());
            value.encode(&mut header);
        }
        let mut offset = 0u64;
        for head in &heads {
            put_text(&mut header, &head.name);
            header.extend((head.shape.len() as u32).to_le_bytes());
            head.shape.iter().rev().for_each(|&size| header.extend((size as u64).to_le_bytes()));
            header.extend(head.kind.number().to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset += head.n_bytes().next_multiple_of(ALIGNMENT);
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        let mut file = AtomicFile::create(path)?;
        file.write(&header)?;
        Ok(Self { file, left: heads.into_iter(), missing: 0, gap: 0 })
    }

    /// Writes the next bytes of the current tensor, or the first of the next one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.missing == 0 {
            let n_bytes = self.left.next().map_or(0, |head| head.n_bytes());
            (self.missing, self.gap) = (n_bytes, n_bytes.next_multiple_of(ALIGNMENT) - n_bytes);
        }
        self.file.write(bytes)?;
        self.missing = self.missing.saturating_sub(bytes.len() as u64);
        match self.missing {
            0 => Ok(self.file.write(&vec![0; self.gap as usize])?),
            _ => Ok(()),
        }
    }

    /// Moves the file to its final name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<()> {
        Ok(self.file.commit()?)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_eight_bits_have_a_common_factor() {
        let mut values = [0.0f32; 64];
        (values[0], values[1], values[2]) = (127.0, -63.4, 0.6);
        let bytes = Type::Q8_0.encode(&values);
        assert_eq!(bytes.len() as u64, Type::Q8_0.n_bytes(64));
        assert_eq!(bytes.len(), 68);
        // The factor is 1, 0x3c00 in 16 bits; the second block is all zero.
        assert_eq!(bytes[..5], [0x00, 0x3c, 127, (-63i8).to_le_bytes()[0], 1]);
        assert!(bytes[34..].iter().all(|byte| *byte == 0));
        assert_eq!((Type::Q8_0.for_rows(48), Type::Q8_0.for_rows(64)), (Type::F16, Type::Q8_0));
    }

    #[test]
    fn a_file_by_hand() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("m.gguf");
        let meta = [("a".to_string(), Meta::U32(7)), ("b".to_string(), Meta::Texts(vec!["x".into()]))];
        let head = Head { name: "t".into(), shape: vec![1, 2], kind: Type::F32 };
        let mut file = GgufWriter::create(&path, &meta, vec![head]).expect("create");
        file.write(&Type::F32.encode(&[1.0, 2.0])).expect("write");
        assert!(!path.exists());
        file.finish().expect("finish");
        let mut expected = b"GGUF".to_vec();
        let mut put = |bytes: &[u8]| expected.extend(bytes);
        put(&[3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        put(&[1, 0, 0, 0, 0, 0, 0, 0, b'a', 4, 0, 0, 0, 7, 0, 0, 0]);
        put(&[1, 0, 0, 0, 0, 0, 0, 0, b'b', 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        put(&[1, 0, 0, 0, 0, 0, 0, 0, b'x']);
        // Name, two sizes with the width first, type, offset.
        put(&[1, 0, 0, 0, 0, 0, 0, 0, b't', 2, 0, 0, 0]);
        put(&[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.resize(expected.len().next_multiple_of(32), 0);
        expected.extend([0, 0, 128, 63, 0, 0, 0, 64]);
        expected.resize(expected.len() + 24, 0);
        assert_eq!(std::fs::read(&path).expect("read"), expected);
    }
}
