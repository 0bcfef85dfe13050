//! Reading a checkpoint back: sizes and hashes first, then the tensors.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::find::{file_name, newest_whole};
use super::tensors::TensorFile;
use super::verify::verify;
use super::{AVERAGE, CONFIG, MODEL, OPTIM, STATE, StateFile, TOKENIZER, VERSION, retain};
use crate::config::{RunConfig, Values};
use crate::data::{ChatFile, DataDigest, chat_files};
use crate::device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::parameters::{self, from_host};
use crate::model::size;
use crate::ops::{Compute, is_cpu};
use crate::optim::{self, Optimizer};
use crate::train::{Average, TrainState};

/// What a checkpoint says about itself, verified.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The checkpoint's folder.
    pub path: PathBuf,
    /// The state of the run.
    pub state: StateFile,
    /// The configuration it ran with.
    pub config: RunConfig,
    /// Contents of the tokenizer's file.
    pub tokenizer: Vec<u8>,
    /// How conversations are written, if the model was trained on any.
    pub chat: Vec<ChatFile>,
    /// Whether it has a moving average of the weights.
    pub has_average: bool,
}

/// Reads and verifies everything but the tensors.
///
/// # Errors
/// [`Error::Checkpoint`] when a file is missing or is not what the manifest says; the message names the
/// newest intact checkpoint before it.
pub fn load(path: &Path) -> Result<Loaded> {
    let has_average = verify(path).map_err(|error| with_previous(error, path))?;
    let state = read_state(path)?;
    let config_path = path.join(CONFIG);
    let text = std::fs::read_to_string(&config_path).map_err(Error::io(&config_path, "read"))?;
    let (mut values, mut problems) = (Values::default(), Vec::new());
    values.read_toml(&text, &config_path.display().to_string(), &mut problems);
    let config = RunConfig::new(values, problems)?;
    check_state(&path.join(STATE), &state, &config)?;
    let tokenizer_path = path.join(TOKENIZER);
    let tokenizer = std::fs::read(&tokenizer_path).map_err(Error::io(&tokenizer_path, "read"))?;
    let chat = chat_files(path)?;
    Ok(Loaded { path: path.to_path_buf(), state, config, tokenizer, chat, has_average })
}

/// The model of a checkpoint. Its tensors are read one after the other into a model of zeros.
///
/// # Errors
/// [`Error::Checkpoint`] when tensors are missing or have other shapes, naming the first that differs;
/// [`Error::Config`] when the device cannot compute the model.
pub fn load_model(loaded: &Loaded, device: &Device) -> Result<Model> {
    let path = loaded.path.join(MODEL);
    let mut file = TensorFile::open(&path)?;
    let geometry = loaded.config.model(loaded.state.vocab_size, loaded.state.seq_len);
    // What a CPU computes in f32 may have been trained in bf16 elsewhere.
    let compute = if is_cpu(device) { Compute::F32 } else { geometry.compute };
    device::check(device, compute, geometry.head_dim())?;
    let (described, found) = (size::size(&geometry).total, file.n_values());
    if described / 2 > found {
        let problem =
            format!("{CONFIG} describes a model with {described} parameters, but the file has {found}");
        return Err(Error::checkpoint(&path, problem));
    }
    let model = Model::zeros(&geometry, device);
    let parameters = parameters::parameters(&model);
    let expected: Vec<_> = parameters.iter().map(|p| (p.name.clone(), p.shape.as_slice())).collect();
    file.expect(&expected)?;
    let inner = device.clone().without_autodiff();
    let values = parameters.iter().map(|p| Ok(from_host(file.read(&p.name)?, &inner)));
    let values = values.collect::<Result<Vec<_>>>()?;
    Ok(parameters::replace_all(model, values))
}

/// The model of a checkpoint with the moving average of its weights; values that no gradient trains come from
/// the model itself.
///
/// # Errors
/// [`Error::Checkpoint`] when it has none; and as [`load_model`].
fn load_average(loaded: &Loaded, device: &Device) -> Result<Model> {
    if !loaded.has_average {
        let problem = "has no moving average of weights, which `run.ema_decay` makes";
        return Err(Error::checkpoint(&loaded.path, problem));
    }
    let model = load_model(loaded, device)?;
    Ok(read_average(loaded, &model, device)?.model(&model))
}

/// The model of a checkpoint, or with the moving average of its weights.
///
/// # Errors
/// The folder has no such checkpoint, or one that is damaged or of another model: as [`load_model`].
pub fn load_weights(loaded: &Loaded, is_average: bool, device: &Device) -> Result<Model> {
    if is_average { load_average(loaded, device) } else { load_model(loaded, device) }
}

fn read_average(loaded: &Loaded, model: &Model, device: &Device) -> Result<Average> {
    let mut file = TensorFile::open(&loaded.path.join(AVERAGE))?;
    let trained = optim::trained(model);
    let expected: Vec<_> = trained.iter().map(|p| (p.name.clone(), p.shape.as_slice())).collect();
    file.expect(&expected)?;
    let inner = device.clone().without_autodiff();
    let values = trained.iter().map(|p| Ok(from_host(file.read(&p.name)?, &inner)));
    Ok(Average(values.collect::<Result<_>>()?))
}

impl Loaded {
    /// The whole state, ready to continue.
    ///
    /// # Errors
    /// As [`load_model`].
    pub fn train_state(&self, device: &Device) -> Result<TrainState> {
        let model = load_model(self, device)?;
        let path = self.path.join(OPTIM);
        let mut file = TensorFile::open(&path)?;
        let groups = self.config.groups.clone();
        let kept = optim::kept(&groups, &model);
        let expected: Vec<_> = kept.iter().map(|kept| (kept.name.clone(), kept.shape.as_slice())).collect();
        file.expect(&expected)?;
        let inner = device.clone().without_autodiff();
        let optimizer = Optimizer::restore(groups, &model, |name| Ok(from_host(file.read(name)?, &inner)))?;
        let is_averaged = self.has_average && self.config.run.ema_decay.is_some();
        Ok(TrainState {
            average: is_averaged.then(|| read_average(self, &model, device)).transpose()?,
            spikes: self.state.spikes.clone().unwrap_or_default(),
            optimizer,
            model,
            step: self.state.step,
            t: self.state.t,
            origin: self.state.origin.unwrap_or_default(),
            tokens_seen: self.state.tokens_seen,
            digest: DataDigest::resume(self.state.data_hash),
        })
    }
}

/// Longest sequence that a plan can have.
const MAX_SEQ_LEN: usize = 1 << 24;

/// Refuses inconsistent numbers before anything is allocated by them.
fn check_state(path: &Path, state: &StateFile, config: &RunConfig) -> Result<()> {
    let refused = |problem: String| Err(Error::checkpoint(path, format!("is damaged: {problem}")));
    let StateFile { step, t, tokens_seen, vocab_size, seq_len, .. } = *state;
    if !(1..=u32::MAX as usize).contains(&vocab_size) {
        return refused(format!("expected vocab_size from 1 to {}, found {vocab_size}", u32::MAX));
    }
    if !(1..=MAX_SEQ_LEN).contains(&seq_len) {
        return refused(format!("expected seq_len from 1 to {MAX_SEQ_LEN}, found {seq_len}"));
    }
    let origin = state.origin.unwrap_or_default();
    let read = step.checked_sub(origin.step).map(|_| config.batches.between(origin.step, step));
    if read.and_then(|read| read.checked_add(origin.t)) != Some(t) {
        return refused(format!(
            "t = {t} is not {} and {} steps of data.batch = {}",
            origin.t,
            step.saturating_sub(origin.step),
            config.data.batch
        ));
    }
    let (samples, learned) = (t - origin.t, tokens_seen.checked_sub(origin.tokens_seen));
    let most = samples.checked_mul(seq_len as u64);
    if learned.zip(most).is_none_or(|(learned, most)| learned > most) {
        return refused(format!(
            "tokens_seen = {tokens_seen} is not {} and what {samples} samples of {seq_len} tokens have",
            origin.tokens_seen
        ));
    }
    match state.spikes.as_ref().and_then(|spikes| spikes.problem(step)) {
        Some(problem) => refused(problem),
        None => Ok(()),
    }
}

/// The state of a run at a checkpoint, without looking at its other files.
///
/// # Errors
/// [`Error::Checkpoint`] when it is damaged or newer than this program.
pub fn read_state(path: &Path) -> Result<StateFile> {
    let path = path.join(STATE);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    let damaged = |error| Error::checkpoint(&path, format!("is damaged: {error}"));
    let value: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
    // The version first: a later one may have other fields.
    if let Some(newer) = value["version"].as_u64().filter(|version| *version > u64::from(VERSION)) {
        let program = value["program"].as_str().unwrap_or("a newer one");
        return Err(Error::checkpoint(
            &path,
            format!(
                "version {newer}; this program reads up to {VERSION}: use the program that wrote it ({program})"
            ),
        ));
    }
    serde_json::from_value(value).map_err(damaged)
}

/// Adds the newest intact earlier checkpoint to an error.
fn with_previous(error: Error, path: &Path) -> Error {
    let Error::Checkpoint { path: file, problem } = error else { return error };
    let step = retain::step_of(&file_name(path)).unwrap_or(u64::MAX);
    let hint = match path.parent().and_then(|parent| newest_whole(parent, Some(step))) {
        Some(good) => format!("the newest intact one before it: --from {good}"),
        None => "no earlier checkpoint is whole".to_string(),
    };
    Error::Checkpoint { path: file, problem: format!("{problem}; {hint}") }
}
