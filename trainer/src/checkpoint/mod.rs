//! Checkpoints: folders that appear atomically, contain the hashes of their files, and have everything that a
//! resumed run, an evaluation or sampling needs.
//!
//! ```text
//! RUN/checkpoints/latest                 name of the newest, as text
//! RUN/checkpoints/step-00001000/
//!   model.safetensors                    parameters and router biases, f32, by name
//!   optim.safetensors                    moments: `m.NAME` and `v.NAME`, f32
//!   ema.safetensors                      only with `run.ema_decay`: moving average of the trained parameters, f32
//!   state.json                           step, t, identities, unwritten metrics
//!   config.toml                          the resolved configuration
//!   tokenizer.json                       a copy, so that text can be sampled
//!   manifest.json                        size and blake3 of each file above
//! ```

mod find;
mod hashed;
mod load;
mod retain;
mod save;
mod tensors;
mod verify;

use std::path::{Path, PathBuf};

use moe_shards::Hash;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Values;
use crate::error::{Error, Result};
use crate::train::{Position, Spikes};

pub use find::{has_begun, later_than, resolve, run_of, tidy};
pub use load::{Loaded, load, load_model, load_weights, read_state};
pub use save::{Circumstances, save, write_latest};
pub use tensors::{Number, TensorFile, TensorHead, TensorWriter, parameter_hash};

/// Version of the folder's layout and of `state.json`. Version 1 had no [`StateFile::interval`].
pub const VERSION: u32 = 2;

/// The file of the parameters in a checkpoint's folder.
pub const MODEL: &str = "model.safetensors";
const OPTIM: &str = "optim.safetensors";
const AVERAGE: &str = "ema.safetensors";
const STATE: &str = "state.json";
const CONFIG: &str = "config.toml";
const TOKENIZER: &str = "tokenizer.json";
const MANIFEST: &str = "manifest.json";
const LATEST: &str = "latest";
/// For a run whose weights come from another one: which, and how it differs.
pub const PARENT: &str = "parent.json";

/// `state.json`: the state of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    /// [`VERSION`] of the program that wrote it.
    pub version: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// Steps done.
    pub step: u64,
    /// First sample of the next step.
    pub t: u64,
    /// Training targets so far.
    pub tokens_seen: u64,
    /// Identity of the plan.
    pub plan_id: Hash,
    /// Hash of all samples read.
    pub data_hash: Hash,
    /// Hash of names, shapes and values of all parameters.
    pub parameter_hash: Hash,
    /// Hash of the configuration's identity keys.
    pub config_fingerprint: Hash,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// The end-of-document token.
    pub eod: u32,
    /// Where the run began, if in another run; absent for step 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Position>,
    /// The arithmetic of the last steps, as [`arithmetic`](crate::ops::arithmetic) names it; absent in
    /// checkpoints of programs that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<String>,
    /// Measurements since the last line of the metrics; absent in version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Value>,
    /// What tells a spike from a normal step, and how many were skipped; absent where neither is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spikes: Option<Spikes>,
}

/// `manifest.json`: the expected sizes and hashes of the other files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilesManifest {
    version: u32,
    files: Vec<FileEntry>,
}

/// A file with its expected size and hash.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub blake3: Hash,
}

/// Writes `config.lock.toml`, the resolved configuration of a run, into its folder.
///
/// # Errors
/// When the file cannot be written.
pub fn write_config_lock(run: &Path, config: &Values) -> Result<()> {
    Ok(moe_shards::atomic::write_file(&run.join("config.lock.toml"), config.to_toml(false).as_bytes())?)
}

/// Writes `parent.json` into the folder of a run: which run its weights come from.
///
/// # Errors
/// When the file cannot be written.
pub fn write_parent(run: &Path, parent: &Value) -> Result<()> {
    Ok(moe_shards::atomic::write_file(&run.join(PARENT), format!("{parent:#}\n").as_bytes())?)
}

/// Removes what a fork recorded before it was killed without a checkpoint, so that another run can begin
/// there.
///
/// # Errors
/// When the file cannot be removed.
pub fn forget_parent(run: &Path) -> Result<()> {
    let path = run.join(PARENT);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path, "remove")(error)),
        _ => Ok(()),
    }
}

/// The folder of a run's checkpoints.
pub fn checkpoints_dir(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// The name of the checkpoint of a step.
pub fn checkpoint_name(step: u64) -> String {
    format!("step-{step:08}")
}
