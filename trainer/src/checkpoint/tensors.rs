//! Parameters and moments as safetensors, one tensor after the other: in addition to the model, neither
//! writing nor reading holds more than one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, bf16, f16};
use moe_shards::Hash;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;

use super::FileEntry;
use super::hashed::HashedFile;
use crate::error::{Error, Result};
use crate::model::parameters::{Parameter, host};

/// Values that are converted to bytes, or back, at a time.
const CHUNK: usize = 1 << 16;

/// Longest header that is accepted; the limit of the library.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor to write.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// Flat.
    pub(super) values: Tensor<1>,
}

/// blake3 over name, shape and little-endian bytes of each parameter, in the model's order: equal
/// exactly when two models are equal, bit for bit.
pub fn parameter_hash(parameters: &[Parameter]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for parameter in parameters {
        hasher.update(parameter.name.as_bytes());
        hasher.update(&[0]);
        for dimension in &parameter.shape {
            hasher.update(&(*dimension as u64).to_le_bytes());
        }
        for chunk in parameter.to_host().chunks(CHUNK) {
            hasher.update(&Number::F32.encode(chunk));
        }
    }
    Hash(*hasher.finalize().as_bytes())
}

/// Writes a safetensors file, its tensors by name.
pub(super) fn write(path: &Path, mut tensors: Vec<Named>) -> Result<FileEntry> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let head = |tensor: &Named| TensorHead {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        number: Number::F32,
    };
    let mut file = TensorWriter::create(path, tensors.iter().map(head).collect())?;
    for tensor in tensors {
        file.write(&host(tensor.values))?;
    }
    file.finish()
}

/// How the numbers of a tensor are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32, rounded to the nearest, ties to even.
    Bf16,
    /// 16 bits of IEEE 754, rounded to the nearest, ties to even.
    F16,
}

impl Number {
    /// Bytes per number.
    pub const fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The numbers of these values, little-endian.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        }
    }

    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let halves = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        match self {
            Self::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Self::Bf16 => halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            Self::F16 => halves().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|number| format!("{:?}", number.dtype()) == word)
    }

    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }
}

/// A tensor of a file to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorHead {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub number: Number,
}

impl TensorHead {
    /// Bytes of its values.
    pub fn n_bytes(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product::<u64>() * self.number.n_bytes() as u64
    }
}

/// A safetensors file that is written one tensor after the other.
pub struct TensorWriter {
    file: HashedFile,
    left: std::vec::IntoIter<TensorHead>,
    /// Type of the current tensor, and how many of its values are still to come.
    number: Number,
    missing: usize,
}

impl TensorWriter {
    /// Writes the header of a file of these tensors, in their order.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, tensors: Vec<TensorHead>) -> Result<Self> {
        let refused = |problem: String| Error::checkpoint(path, format!("cannot be encoded: {problem}"));
        let mut end = 0;
        let infos = tensors.iter().map(|tensor| {
            let start = end;
            end += tensor.number.n_bytes() * tensor.shape.iter().product::<usize>();
            let data_offsets = (start, end);
            let info = TensorInfo { dtype: tensor.number.dtype(), shape: tensor.shape.clone(), data_offsets };
            (tensor.name.clone(), info)
        });
        // transformers requires it; the values are as other programs expect them either way.
        let about = [("format".to_string(), "pt".to_string())].into();
        let metadata =
            Metadata::new(Some(about), infos.collect()).map_err(|error| refused(error.to_string()))?;
        let mut header = serde_json::to_vec(&metadata).map_err(|error| refused(error.to_string()))?;
        // Values are aligned to 8 bytes.
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = HashedFile::create(path)?;
        file.write(&(header.len() as u64).to_le_bytes())?;
        file.write(&header)?;
        Ok(Self { file, left: tensors.into_iter(), number: Number::F32, missing: 0 })
    }

    /// Writes the next values of the current tensor, or the first of the next one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        if let (0, Some(head)) = (self.missing, self.left.as_slice().first()) {
            (self.number, self.missing) = (head.number, head.shape.iter().product());
            self.left.next();
        }
        self.missing = self.missing.saturating_sub(values.len());
        values.chunks(CHUNK).try_for_each(|chunk| self.file.write(&self.number.encode(chunk)))
    }

    /// Flushes the file to disk, and returns its expected size and hash.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self) -> Result<FileEntry> {
        self.file.finish()
    }
}

/// An open safetensors file whose header has been checked against its size.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor is.
#[derive(Debug)]
struct Place {
    number: Number,
    shape: Vec<usize>,
    start: u64,
}

/// A tensor's entry in the header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

impl TensorFile {
    /// Opens a file of a checkpoint, whose values are f32.
    ///
    /// # Errors
    /// As [`TensorFile::open_any`], and when it holds another type.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Self::open_any(path)?;
        match file.tensors.iter().find(|(_, place)| place.number != Number::F32) {
            None => Ok(file),
            Some((name, place)) => {
                let problem =
                    format!("is damaged: tensor {name}: expected type F32, found {:?}", place.number.dtype());
                Err(Error::checkpoint(path, problem))
            }
        }
    }

    /// Opens a file of f32, bf16 or f16. Nothing is allocated for a number that is inconsistent with the
    /// file's size.
    ///
    /// # Errors
    /// When it cannot be read or is not such a file.
    pub fn open_any(path: &Path) -> Result<Self> {
        let refused = |problem: String| Error::checkpoint(path, format!("is damaged: {problem}"));
        let mut file = File::open(path).map_err(Error::io(path, "open"))?;
        let size = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut length = [0; 8];
        if size < 8 {
            return Err(refused(format!("expected at least 8 bytes, found {size}")));
        }
        file.read_exact(&mut length).map_err(Error::io(path, "read"))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER.min(size - 8) {
            return Err(refused(format!("its header has {length} bytes, but the file has {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(Error::io(path, "read"))?;
        let entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|error| refused(format!("header: {error}")))?;

        let mut places = Vec::new();
        for (name, value) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
            let of_tensor = |problem: String| refused(format!("tensor {name}: {problem}"));
            let entry: Entry = serde_json::from_value(value).map_err(|error| of_tensor(error.to_string()))?;
            let Some(number) = Number::of_word(&entry.dtype) else {
                return Err(of_tensor(format!("expected type F32, BF16 or F16, found {}", entry.dtype)));
            };
            let of_one = number.n_bytes() as u64;
            let bytes = entry.shape.iter().try_fold(of_one, |n, &size| n.checked_mul(size as u64));
            let [start, end] = entry.data_offsets;
            if bytes.is_none() || bytes != end.checked_sub(start) {
                return Err(of_tensor(format!("shape {:?} does not fill bytes {start}..{end}", entry.shape)));
            }
            places.push((start, end, name, entry.shape, number));
        }
        places.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        let mut tensors = BTreeMap::new();
        let mut filled = 0;
        for (start, end, name, shape, number) in places {
            if start != filled {
                return Err(refused(format!("tensor {name} begins at byte {start} instead of {filled}")));
            }
            filled = end;
            tensors.insert(name, Place { number, shape, start: 8 + length + start });
        }
        if filled != size - 8 - length {
            let found = size - 8 - length;
            return Err(refused(format!("its tensors have {filled} bytes, but {found} follow the header")));
        }
        Ok(Self { path: path.to_path_buf(), file, tensors })
    }

    /// Names and shapes of all tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, place)| (name.as_str(), place.shape.as_slice()))
    }

    /// Values of all tensors.
    pub(super) fn n_values(&self) -> u64 {
        let values = |place: &Place| place.shape.iter().product::<usize>() as u64;
        self.tensors.values().map(values).sum()
    }

    /// Refuses a file with other tensors, naming the first that differs.
    ///
    /// # Errors
    /// Which one.
    pub fn expect(&self, expected: &[(String, &[usize])]) -> Result<()> {
        let refused = |problem: String| {
            Err(Error::checkpoint(
                &self.path,
                format!("is of a different model from {}: {problem}", super::CONFIG),
            ))
        };
        for (name, shape) in expected {
            match self.tensors.get(name) {
                Some(place) if place.shape == *shape => {}
                Some(place) => {
                    return refused(format!(
                        "tensor {name}: expected shape {shape:?}, found {:?}",
                        place.shape
                    ));
                }
                None => return refused(format!("tensor {name} is missing")),
            }
        }
        let names: BTreeSet<&String> = expected.iter().map(|(name, _)| name).collect();
        match self.tensors.keys().find(|name| !names.contains(name)) {
            Some(surplus) => refused(format!("tensor {surplus} is not part of the model")),
            None => Ok(()),
        }
    }

    /// The values of a tensor.
    ///
    /// # Errors
    /// When there is none of that name, or the file cannot be read.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some(place) = self.tensors.get(name) else {
            return Err(Error::checkpoint(&self.path, format!("tensor {name} is missing")));
        };
        let (n, of_one) = (place.shape.iter().product(), place.number.n_bytes());
        self.file.seek(SeekFrom::Start(place.start)).map_err(Error::io(&self.path, "read"))?;
        let mut values = Vec::with_capacity(n);
        let mut bytes = vec![0; of_one * CHUNK.min(n)];
        while values.len() < n {
            let bytes = &mut bytes[..of_one * CHUNK.min(n - values.len())];
            self.file.read_exact(bytes).map_err(Error::io(&self.path, "read"))?;
            values.extend(place.number.decode(bytes));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn named(name: &str, shape: &[usize], values: &[f32]) -> Named {
        let values = Tensor::from_data(TensorData::from(values), &Device::flex());
        Named { name: name.into(), shape: shape.to_vec(), values }
    }

    #[test]
    fn what_is_written_is_safetensors_and_reads_back() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("model.safetensors");
        let tensors = vec![named("b", &[2, 1], &[1.5, -2.0]), named("a", &[3], &[0.0, f32::MIN, 3.25])];
        let entry = write(&path, tensors).expect("write");
        let bytes = std::fs::read(&path).expect("read");
        assert_eq!((entry.bytes, entry.blake3), (bytes.len() as u64, Hash::of(&bytes)));
        let library = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        assert_eq!(library.tensor("b").expect("b").data(), [1.5f32, -2.0].map(f32::to_le_bytes).concat());

        let mut file = TensorFile::open(&path).expect("open");
        assert_eq!(file.n_values(), 5);
        assert_eq!(file.read("a").expect("a"), [0.0, f32::MIN, 3.25]);
        let (a, b) = (("a".to_string(), &[3usize][..]), ("b".to_string(), &[2usize, 1][..]));
        assert!(file.expect(&[a.clone(), b.clone()]).is_ok());
        let problem =
            |expected: &[(String, &[usize])]| file.expect(expected).expect_err("refused").to_string();
        assert!(problem(std::slice::from_ref(&a)).contains("tensor b is not part of the model"));
        assert!(
            problem(&[a.clone(), ("b".into(), &[1usize, 2][..])])
                .contains("expected shape [1, 2], found [2, 1]")
        );
        assert!(problem(&[("c".into(), &[1usize][..]), a, b]).contains("tensor c is missing"));
    }

    #[test]
    fn headers_that_lie_about_sizes_are_refused_before_anything_is_allocated() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("model.safetensors");
        let tensor = |shape: &str, offsets: &str| {
            format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
        };
        let huge = (1u64 << 62).to_string();
        let headers = [
            tensor("[1]", "[0,8]"),
            tensor("[3]", "[4,16]"),
            tensor(&format!("[{huge},4]"), "[0,8]"),
            tensor(&format!("[{huge},{huge},{huge}]"), &format!("[0,{huge}]")),
            tensor(&format!("[{huge},{huge},{huge}]"), "[8,0]"),
            tensor(&format!("[{huge}]"), &format!("[0,{huge}]")),
            tensor("[-1]", "[0,8]"),
            tensor("[2]", "[8,0]"),
            tensor("[2]", "[0,8]").replace("F32", "BF16"),
            "{\"a\":7}".to_string(),
            "[".to_string(),
        ];
        for header in headers {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.bytes());
            bytes.extend([0; 8]);
            std::fs::write(&path, bytes).expect("write");
            let error = TensorFile::open(&path).map(|_| ()).expect_err(&header);
            assert_eq!(error.exit_code(), 4, "{header}");
        }
        for bytes in [&b"abc"[..], &u64::MAX.to_le_bytes(), &[0; 8]] {
            std::fs::write(&path, bytes).expect("write");
            assert!(TensorFile::open(&path).is_err(), "{bytes:?}");
        }
    }
}
