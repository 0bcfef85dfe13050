//! Writing a checkpoint: all files in a hidden folder, flushed, then one rename.

use std::path::{Path, PathBuf};

use moe_shards::atomic;
use serde_json::Value;

use super::hashed::HashedFile;
use super::tensors::{self, Named};
use super::{
    AVERAGE, CONFIG, FilesManifest, LATEST, MANIFEST, MODEL, OPTIM, STATE, StateFile, TOKENIZER, VERSION,
    checkpoint_name, checkpoints_dir, parameter_hash, retain,
};
use crate::config::Values;
use crate::data::Corpus;
use crate::error::{Error, Result};
use crate::model::parameters;
use crate::ops;
use crate::optim;
use crate::train::{Position, Spikes, TrainState};

/// What a checkpoint has in addition to the state.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// The resolved configuration.
    pub config: &'a Values,
    /// The data.
    pub corpus: &'a Corpus,
    /// Measurements since the last line of the metrics.
    pub interval: Value,
    /// Number of checkpoints to keep, including this one.
    pub keep: usize,
}

/// Saves the state of a run and returns the checkpoint's folder. The newest `keep - 1` older checkpoints
/// stay. Tensors are written one after the other, so that no second copy of the model is ever made.
///
/// # Errors
/// When a file cannot be written; earlier checkpoints are then untouched.
pub fn save(run: &Path, state: &TrainState, with: Circumstances) -> Result<PathBuf> {
    let Circumstances { config, corpus, interval, keep } = with;
    let parent = checkpoints_dir(run);
    let name = checkpoint_name(state.step);
    let target = parent.join(&name);
    std::fs::create_dir_all(&parent).map_err(Error::io(&parent, "create"))?;
    retain::tidy(&parent)?;
    let temp = parent.join(format!("{}{name}", retain::UNFINISHED));
    std::fs::create_dir(&temp).map_err(Error::io(&temp, "create"))?;

    let all = parameters::parameters(&state.model);
    let state_file = StateFile {
        version: VERSION,
        program: concat!("moe-train ", env!("CARGO_PKG_VERSION")).to_string(),
        step: state.step,
        t: state.t,
        tokens_seen: state.tokens_seen,
        plan_id: corpus.plan_id,
        data_hash: state.digest.hash(),
        parameter_hash: parameter_hash(&all),
        config_fingerprint: config.fingerprint(),
        vocab_size: corpus.vocab_size,
        seq_len: corpus.samples.seq_len(),
        eod: corpus.eod,
        origin: (state.origin != Position::default()).then_some(state.origin),
        arithmetic: Some(ops::arithmetic(&state.model.device()).to_string()),
        interval: Some(interval),
        spikes: (state.spikes != Spikes::default()).then(|| state.spikes.clone()),
    };
    let model = all.into_iter().map(|p| Named { name: p.name, shape: p.shape, values: p.value });
    let kept = state.optimizer.state(&state.model).into_iter();
    let kept = kept.map(|tensor| Named { name: tensor.name, shape: tensor.shape, values: tensor.value });
    let mut files = vec![
        tensors::write(&temp.join(MODEL), model.collect())?,
        tensors::write(&temp.join(OPTIM), kept.collect())?,
        write(&temp.join(STATE), &json(&temp, &state_file)?)?,
        write(&temp.join(CONFIG), config.to_toml(false).as_bytes())?,
        write(&temp.join(TOKENIZER), &corpus.tokenizer)?,
    ];
    for (name, bytes) in &corpus.chat {
        files.push(write(&temp.join(name), bytes)?);
    }
    if let Some(average) = &state.average {
        let trained = optim::trained(&state.model).into_iter().zip(&average.0);
        let averages =
            trained.map(|(p, value)| Named { name: p.name, shape: p.shape, values: value.clone() }).collect();
        files.push(tensors::write(&temp.join(AVERAGE), averages)?);
    }
    let manifest = FilesManifest { version: VERSION, files };
    write(&temp.join(MANIFEST), &json(&temp, &manifest)?)?;
    atomic::sync_dir(&temp)?;

    // A checkpoint of the same step exists when a run was resumed from an earlier one.
    let replaced = parent.join(format!("{}{name}", retain::REPLACED));
    if target.exists() {
        std::fs::rename(&target, &replaced).map_err(Error::io(&target, "rename"))?;
    }
    if retain::list(&parent)?.is_empty() {
        // Before the first checkpoint appears, so that it is never without a name.
        write_latest(run, &name)?;
    }
    std::fs::rename(&temp, &target).map_err(Error::io(&temp, "rename"))?;
    atomic::sync_dir(&parent)?;
    write_latest(run, &name)?;
    retain::remove_if_there(&replaced)?;
    retain::keep_newest(&parent, state.step, keep)?;
    Ok(target)
}

/// Names the newest checkpoint of a run.
///
/// # Errors
/// When the file cannot be written.
pub fn write_latest(run: &Path, name: &str) -> Result<()> {
    Ok(atomic::write_file(&checkpoints_dir(run).join(LATEST), format!("{name}\n").as_bytes())?)
}

fn json<T: serde::Serialize>(path: &Path, value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::checkpoint(path, format!("cannot be encoded: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<super::FileEntry> {
    let mut file = HashedFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}
