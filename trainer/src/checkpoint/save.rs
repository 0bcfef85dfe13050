//! Writing a checkpoint: all files in a hidden folder, flushed, then one rename.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use moe_shards::{Hash, atomic};

use super::{
    CONFIG, FileEntry, FilesManifest, LATEST, MANIFEST, MODEL, OPTIM, STATE, StateFile, TOKENIZER, VERSION,
    checkpoint_name, checkpoints_dir, parameter_hash, retain, tensors,
};
use crate::config::Values;
use crate::data::Corpus;
use crate::error::{Error, Result};
use crate::model::parameters::{self, host};
use crate::optim;
use crate::train::TrainState;

/// Saves the state of a run and returns the checkpoint's folder. Of the older checkpoints the
/// newest `keep - 1` stay.
///
/// # Errors
/// When a file cannot be written; the earlier checkpoints are then untouched.
pub fn save(
    run: &Path,
    state: &TrainState,
    config: &Values,
    corpus: &Corpus,
    keep: usize,
) -> Result<PathBuf> {
    let parent = checkpoints_dir(run);
    let name = checkpoint_name(state.step);
    let target = parent.join(&name);
    let temp = parent.join(format!(".tmp-{name}"));
    retain::remove_if_there(&temp)?;
    std::fs::create_dir_all(&temp).map_err(Error::io("create", &temp))?;

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
    };
    let model: Vec<_> = all.iter().map(|p| (p.name.clone(), p.shape.clone(), p.to_host())).collect();
    let moments: Vec<_> = optim::trained(&state.model)
        .into_iter()
        .zip(state.optimizer.moments())
        .flat_map(|(p, moments)| {
            [("m", &moments.first), ("v", &moments.second)]
                .map(|(kind, values)| (format!("{kind}.{}", p.name), p.shape.clone(), host(values.clone())))
        })
        .collect();
    let files = [
        (MODEL, tensors::encode(&temp.join(MODEL), &model)?),
        (OPTIM, tensors::encode(&temp.join(OPTIM), &moments)?),
        (STATE, json(&temp, &state_file)?),
        (CONFIG, config.to_toml(false).into_bytes()),
        (TOKENIZER, corpus.tokenizer.clone()),
    ];
    let mut manifest = FilesManifest { version: VERSION, files: Vec::new() };
    for (name, bytes) in &files {
        write_flushed(&temp.join(name), bytes)?;
        let (bytes, blake3) = (bytes.len() as u64, Hash::of(bytes));
        manifest.files.push(FileEntry { name: (*name).to_string(), bytes, blake3 });
    }
    write_flushed(&temp.join(MANIFEST), &json(&temp, &manifest)?)?;
    atomic::sync_dir(&temp)?;

    // A checkpoint of the same step exists when a run was resumed from an earlier one.
    let replaced = parent.join(format!(".old-{name}"));
    retain::remove_if_there(&replaced)?;
    if target.exists() {
        std::fs::rename(&target, &replaced).map_err(Error::io("rename", &target))?;
    }
    std::fs::rename(&temp, &target).map_err(Error::io("rename", &temp))?;
    atomic::sync_dir(&parent)?;
    atomic::write_file(&parent.join(LATEST), format!("{name}\n").as_bytes())?;
    retain::remove_if_there(&replaced)?;
    retain::keep_newest(&parent, state.step, keep)?;
    Ok(target)
}

fn json<T: serde::Serialize>(path: &Path, value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::checkpoint(path, format!("cannot be encoded: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn write_flushed(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("flush", path))
}
