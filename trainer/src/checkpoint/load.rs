//! Reading a checkpoint back: sizes and hashes first, then the tensors.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use moe_shards::Hash;

use super::{
    CONFIG, FilesManifest, LATEST, MANIFEST, MODEL, OPTIM, STATE, StateFile, TOKENIZER, VERSION,
    checkpoints_dir, retain, tensors,
};
use crate::config::{RunConfig, Values};
use crate::data::DataDigest;
use crate::device;
use crate::error::{Error, Result};
use crate::kernel::{Compute, Kernels};
use crate::model::Model;
use crate::model::parameters::{self, from_host};
use crate::optim::{self, Moments, Optimizer};
use crate::train::TrainState;

/// What a checkpoint says about itself, verified.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The checkpoint's folder.
    pub path: PathBuf,
    /// Where the run stands.
    pub state: StateFile,
    /// The configuration it ran with.
    pub config: RunConfig,
    /// Content of the tokenizer's file.
    pub tokenizer: Vec<u8>,
}

/// The checkpoint meant by a path: itself, or of a run the one named `from`, or else the latest.
///
/// # Errors
/// [`Error::Checkpoint`] when there is none.
pub fn resolve(path: &Path, from: Option<&str>) -> Result<PathBuf> {
    if path.join(MANIFEST).is_file() && from.is_none() {
        return Ok(path.to_path_buf());
    }
    let parent = checkpoints_dir(path);
    if !parent.is_dir() {
        let problem = "no run and no checkpoint (expected a folder with `checkpoints/` or `manifest.json`)";
        return Err(Error::checkpoint(path, problem));
    }
    let name = match from {
        Some(name) => name.to_string(),
        None => {
            let latest = parent.join(LATEST);
            if !latest.exists() {
                return Err(Error::checkpoint(
                    path,
                    "the run stopped before its first checkpoint; remove the folder and train again",
                ));
            }
            let name = std::fs::read_to_string(&latest).map_err(Error::io("read", &latest))?;
            name.trim().to_string()
        }
    };
    let found = parent.join(&name);
    if found.is_dir() {
        return Ok(found);
    }
    let names: Vec<String> = retain::list(&parent)?.iter().map(|(_, path)| file_name(path)).collect();
    Err(Error::checkpoint(&found, format!("no such checkpoint; there are: {}", names.join(", "))))
}

/// Reads and verifies everything but the tensors.
///
/// # Errors
/// [`Error::Checkpoint`] when a file is missing or is not what the manifest says; the message
/// names the newest earlier checkpoint that is whole.
pub fn load(path: &Path) -> Result<Loaded> {
    verify(path).map_err(|error| with_previous(error, path))?;
    let state = read_state(path)?;
    let config_path = path.join(CONFIG);
    let text = std::fs::read_to_string(&config_path).map_err(Error::io("read", &config_path))?;
    let (mut values, mut problems) = (Values::default(), Vec::new());
    values.read_toml(&text, &config_path.display().to_string(), &mut problems);
    let config = RunConfig::new(values, problems)?;
    let tokenizer_path = path.join(TOKENIZER);
    let tokenizer = std::fs::read(&tokenizer_path).map_err(Error::io("read", &tokenizer_path))?;
    Ok(Loaded { path: path.to_path_buf(), state, config, tokenizer })
}

/// The model of a checkpoint.
///
/// # Errors
/// [`Error::Checkpoint`] when tensors are missing or have other shapes, [`Error::Config`] when the
/// device cannot compute the model.
pub fn load_model(loaded: &Loaded, device: &Device) -> Result<Model> {
    let path = loaded.path.join(MODEL);
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let mut file = tensors::decode(&path, &bytes)?;
    let geometry = loaded.config.model(loaded.state.vocab_size, loaded.state.seq_len);
    // What a CPU computes in f32 may have been trained in bf16 elsewhere.
    let compute = if Kernels::of(device) == Kernels::Host { Compute::F32 } else { geometry.compute };
    device::check(device, compute, geometry.head_dim())?;
    let model = Model::new(&geometry, loaded.config.seed, device);
    let inner = device.clone().without_autodiff();
    let values = parameters::parameters(&model)
        .iter()
        .map(|p| Ok(from_host(tensors::take(&mut file, &p.name, &p.shape, &path)?, &inner)))
        .collect::<Result<Vec<_>>>()?;
    match file.keys().next() {
        Some(surplus) => Err(Error::checkpoint(&path, format!("tensor {surplus} is no part of the model"))),
        None => Ok(parameters::replace_all(model, values)),
    }
}

impl Loaded {
    /// The whole state, ready to go on.
    ///
    /// # Errors
    /// As [`load_model`].
    pub fn train_state(&self, device: &Device) -> Result<TrainState> {
        let model = load_model(self, device)?;
        let path = self.path.join(OPTIM);
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let mut file = tensors::decode(&path, &bytes)?;
        let inner = device.clone().without_autodiff();
        let mut moment = |kind: &str, p: &parameters::Parameter| -> Result<_> {
            let name = format!("{kind}.{}", p.name);
            Ok(from_host(tensors::take(&mut file, &name, &p.shape, &path)?, &inner))
        };
        let moments = optim::trained(&model)
            .iter()
            .map(|p| Ok(Moments { first: moment("m", p)?, second: moment("v", p)? }))
            .collect::<Result<Vec<_>>>()?;
        Ok(TrainState {
            optimizer: Optimizer::with_moments(self.config.adamw.clone(), moments),
            model,
            step: self.state.step,
            t: self.state.t,
            tokens_seen: self.state.tokens_seen,
            digest: DataDigest::resume(self.state.data_hash),
        })
    }
}

fn read_state(path: &Path) -> Result<StateFile> {
    let path = path.join(STATE);
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let state: StateFile = serde_json::from_str(&text)
        .map_err(|error| Error::checkpoint(&path, format!("is damaged: {error}")))?;
    match state.version {
        VERSION => Ok(state),
        other => Err(Error::checkpoint(
            &path,
            format!(
                "version {VERSION} expected, {other} found; use the program that wrote it ({})",
                state.program
            ),
        )),
    }
}

/// Compares each file with the manifest.
fn verify(path: &Path) -> Result<()> {
    let manifest_path = path.join(MANIFEST);
    let text = std::fs::read_to_string(&manifest_path)
        .map_err(|error| Error::checkpoint(&manifest_path, format!("cannot be read: {error}")))?;
    let manifest: FilesManifest = serde_json::from_str(&text)
        .map_err(|error| Error::checkpoint(&manifest_path, format!("is damaged: {error}")))?;
    for entry in &manifest.files {
        let file = path.join(&entry.name);
        let refused = |problem: String| Err(Error::checkpoint(&file, problem));
        let found = match std::fs::metadata(&file) {
            Ok(metadata) => metadata.len(),
            Err(error) => return refused(format!("cannot be read: {error}")),
        };
        if found != entry.bytes {
            return refused(format!("is damaged: {} bytes expected, {found} found", entry.bytes));
        }
        let found = Hash::of_file(&file)?;
        if found != entry.blake3 {
            return refused(format!(
                "is damaged: blake3 {} expected, {} found",
                entry.blake3.short(),
                found.short()
            ));
        }
    }
    Ok(())
}

/// Adds the newest earlier checkpoint that is whole to an error.
fn with_previous(error: Error, path: &Path) -> Error {
    let Error::Checkpoint { path: file, problem } = error else { return error };
    let earlier = path.parent().and_then(|parent| retain::list(parent).ok()).unwrap_or_default();
    let good = earlier
        .into_iter()
        .rev()
        .map(|(_, other)| other)
        .find(|other| file_name(other) < file_name(path) && verify(other).is_ok());
    let hint = match good {
        Some(good) => format!("the newest whole one before it: --from {}", file_name(&good)),
        None => "no earlier checkpoint is whole".to_string(),
    };
    Error::Checkpoint { path: file, problem: format!("{problem}; {hint}") }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
