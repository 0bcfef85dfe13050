//! Parameters and moments as safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::Hash;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{Error, Result};
use crate::model::parameters::Parameter;

/// A tensor on the host: shape and values.
pub(super) type HostTensor = (Vec<usize>, Vec<f32>);

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
        hasher.update(&to_bytes(&parameter.to_host()));
    }
    Hash(*hasher.finalize().as_bytes())
}

/// The bytes of a safetensors file.
pub(super) fn encode(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<Vec<u8>> {
    let refused = |error| Error::checkpoint(path, format!("cannot be encoded: {error}"));
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, _, values)| to_bytes(values)).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    safetensors::serialize(views, None).map_err(refused)
}

/// All tensors of a safetensors file, by name.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, HostTensor>> {
    let refused = |problem: String| Error::checkpoint(path, problem);
    let file = SafeTensors::deserialize(bytes).map_err(|error| refused(format!("is damaged: {error}")))?;
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            if view.dtype() != Dtype::F32 {
                return Err(refused(format!("tensor {name}: expected f32, found {:?}", view.dtype())));
            }
            let values =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            Ok((name, (view.shape().to_vec(), values)))
        })
        .collect()
}

/// Takes a tensor of known name and shape out of a file.
pub(super) fn take(
    tensors: &mut BTreeMap<String, HostTensor>,
    name: &str,
    shape: &[usize],
    path: &Path,
) -> Result<Vec<f32>> {
    match tensors.remove(name) {
        Some((found, values)) if found == shape => Ok(values),
        Some((found, _)) => {
            Err(Error::checkpoint(path, format!("tensor {name}: shape {shape:?} expected, {found:?} found")))
        }
        None => Err(Error::checkpoint(path, format!("tensor {name} is missing"))),
    }
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
