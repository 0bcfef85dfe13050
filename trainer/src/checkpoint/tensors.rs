//! Parameters and moments as safetensors, one tensor after the other: beside the model, neither
//! writing nor reading holds more than one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use moe_shards::Hash;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;

use super::FileEntry;
use super::hashed::HashedFile;
use crate::error::{Error, Result};
use crate::model::parameters::{Parameter, host};

/// Values that are turned into bytes, or back, at once.
const CHUNK: usize = 1 << 16;

/// Longest header that is read; the limit of the library.
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
            hasher.update(&to_bytes(chunk));
        }
    }
    Hash(*hasher.finalize().as_bytes())
}

/// Writes a safetensors file, its tensors by name.
pub(super) fn write(path: &Path, mut tensors: Vec<Named>) -> Result<FileEntry> {
    let refused = |problem: String| Error::checkpoint(path, format!("cannot be encoded: {problem}"));
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += 4 * tensor.shape.iter().product::<usize>();
        let info = TensorInfo { dtype: Dtype::F32, shape: tensor.shape.clone(), data_offsets: (start, end) };
        (tensor.name.clone(), info)
    });
    let metadata = Metadata::new(None, infos.collect()).map_err(|error| refused(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| refused(error.to_string()))?;
    // Values are to lie at multiples of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = HashedFile::create(path)?;
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;
    for tensor in tensors {
        for chunk in host(tensor.values).chunks(CHUNK) {
            file.write(&to_bytes(chunk))?;
        }
    }
    file.finish()
}

/// An open safetensors file whose header has been checked against its size.
pub(super) struct TensorFile {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor lies.
struct Place {
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
    /// Opens a file. Nothing is allocated by a number that the file's own size does not bear out.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let refused = |problem: String| Error::checkpoint(path, format!("is damaged: {problem}"));
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let mut length = [0; 8];
        if size < 8 {
            return Err(refused(format!("at least 8 bytes expected, {size} found")));
        }
        file.read_exact(&mut length).map_err(Error::io("read", path))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER.min(size - 8) {
            return Err(refused(format!("a header of {length} bytes in a file of {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(Error::io("read", path))?;
        let entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|error| refused(format!("header: {error}")))?;

        let mut places = Vec::new();
        for (name, value) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
            let of_tensor = |problem: String| refused(format!("tensor {name}: {problem}"));
            let entry: Entry = serde_json::from_value(value).map_err(|error| of_tensor(error.to_string()))?;
            if entry.dtype != "F32" {
                return Err(of_tensor(format!("type F32 expected, {} found", entry.dtype)));
            }
            let bytes = entry.shape.iter().try_fold(4u64, |n, &size| n.checked_mul(size as u64));
            let [start, end] = entry.data_offsets;
            if bytes.is_none() || bytes != end.checked_sub(start) {
                return Err(of_tensor(format!("shape {:?} does not fill bytes {start}..{end}", entry.shape)));
            }
            places.push((start, end, name, entry.shape));
        }
        places.sort();
        let mut tensors = BTreeMap::new();
        let mut filled = 0;
        for (start, end, name, shape) in places {
            if start != filled {
                return Err(refused(format!("tensor {name} begins at byte {start} instead of {filled}")));
            }
            filled = end;
            tensors.insert(name, Place { shape, start: 8 + length + start });
        }
        if filled != size - 8 - length {
            let found = size - 8 - length;
            return Err(refused(format!("its tensors have {filled} bytes, but {found} follow the header")));
        }
        Ok(Self { path: path.to_path_buf(), file, tensors })
    }

    /// Values of all tensors.
    pub(super) fn n_values(&self) -> u64 {
        let values = |place: &Place| place.shape.iter().product::<usize>() as u64;
        self.tensors.values().map(values).sum()
    }

    /// Refuses a file that holds other tensors, naming the first that differs.
    pub(super) fn expect(&self, expected: &[(String, &[usize])]) -> Result<()> {
        let refused = |problem: String| {
            Err(Error::checkpoint(
                &self.path,
                format!("is of another model than {}: {problem}", super::CONFIG),
            ))
        };
        for (name, shape) in expected {
            match self.tensors.get(name) {
                Some(place) if place.shape == *shape => {}
                Some(place) => {
                    return refused(format!(
                        "tensor {name}: shape {shape:?} expected, {:?} found",
                        place.shape
                    ));
                }
                None => return refused(format!("tensor {name} is missing")),
            }
        }
        let names: BTreeSet<&String> = expected.iter().map(|(name, _)| name).collect();
        match self.tensors.keys().find(|name| !names.contains(name)) {
            Some(surplus) => refused(format!("tensor {surplus} is no part of the model")),
            None => Ok(()),
        }
    }

    /// The values of a tensor that [`TensorFile::expect`] has seen.
    pub(super) fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some(place) = self.tensors.get(name) else {
            return Err(Error::checkpoint(&self.path, format!("tensor {name} is missing")));
        };
        let n = place.shape.iter().product();
        self.file.seek(SeekFrom::Start(place.start)).map_err(Error::io("read", &self.path))?;
        let mut values = Vec::with_capacity(n);
        let mut bytes = vec![0; 4 * CHUNK.min(n)];
        while values.len() < n {
            let bytes = &mut bytes[..4 * CHUNK.min(n - values.len())];
            self.file.read_exact(bytes).map_err(Error::io("read", &self.path))?;
            values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        Ok(values)
    }
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
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
        assert!(problem(std::slice::from_ref(&a)).contains("tensor b is no part of the model"));
        assert!(
            problem(&[a.clone(), ("b".into(), &[1usize, 2][..])]).contains("[1, 2] expected, [2, 1] found")
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
