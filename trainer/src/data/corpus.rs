//! What a run trains on: samples, and the facts about them that the trainer needs.

use std::path::Path;
use std::sync::Arc;

use moe_shards::{Hash, Plan};

use super::SampleSource;
use super::checked_plan::{AT_ONCE_BYTES, CheckedPlan};
use crate::error::{Error, Result};

/// Training targets that the unigram model counts, in samples: enough for any vocabulary here, and
/// read in about a second.
const UNIGRAM_SAMPLES: u64 = 8192;

/// An open plan with the facts about it.
#[derive(Clone)]
pub struct Corpus {
    /// The samples.
    pub samples: Arc<dyn SampleSource>,
    /// Identity of the plan.
    pub plan_id: Hash,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// The end-of-document token.
    pub eod: u32,
    /// UTF-8 bytes of each token; special tokens have 0.
    pub token_bytes: Vec<u16>,
    /// Names of the pools, by number.
    pub pool_names: Vec<String>,
    /// Content of the tokenizer's file.
    pub tokenizer: Vec<u8>,
    /// How conversations are written, where the data has any.
    pub chat: Vec<ChatFile>,
}

/// A file of the chat template, by its name, which is one of [`CHAT_FILES`].
pub type ChatFile = (&'static str, Vec<u8>);

/// The chat template and the tokens that it names, as transformers calls the files.
pub const CHAT_FILES: [&str; 2] = ["chat_template.jinja", "tokenizer_config.json"];

/// The files of the chat template in a folder; none without a template.
///
/// # Errors
/// When one is there and cannot be read.
pub fn chat_files(dir: &Path) -> Result<Vec<ChatFile>> {
    if !dir.join(CHAT_FILES[0]).exists() {
        return Ok(Vec::new());
    }
    let read = |name: &'static str| match std::fs::read(dir.join(name)) {
        Ok(bytes) => Some(Ok((name, bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(Error::io(&dir.join(name), "read")(error))),
    };
    CHAT_FILES.into_iter().filter_map(read).collect()
}

impl Corpus {
    /// Opens the plan in `dir`.
    ///
    /// # Errors
    /// When the folder has no plan, or plan, shards and tokenizer do not match, or a shard is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::Data(format!(
                "{}: no such folder; make one with `moe-data build` and `moe-data mix --epochs 4`",
                dir.display()
            )));
        }
        let plan = Plan::open(dir)?;
        let info = plan.manifest().tokenizer.clone();
        let path = dir.join(&info.file);
        let tokenizer = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        let found = Hash::of(&tokenizer);
        if found != info.blake3 {
            return Err(Error::Data(format!(
                "{}: expected blake3 {}, found {}; the shards were made with another tokenizer: restore \
                 the file or run `moe-data build` again",
                path.display(),
                info.blake3.short(),
                found.short()
            )));
        }
        Ok(Self {
            plan_id: plan.id(),
            vocab_size: info.vocab_size as usize,
            eod: info.eod_id,
            token_bytes: plan.token_bytes().to_vec(),
            pool_names: plan.pool_names(),
            tokenizer,
            chat: chat_files(dir)?,
            samples: Arc::new(CheckedPlan::start(plan, AT_ONCE_BYTES)?),
        })
    }

    /// The tokens of a sample as text: one number, or the largest where phases differ.
    pub fn sample_tokens(&self) -> String {
        let (n, longest) = (self.samples.len(), self.samples.seq_len());
        let is_of_one_length = self.samples.tokens_before(n) == n.saturating_mul(longest as u64);
        format!("{}{longest}", if is_of_one_length { "" } else { "up to " })
    }

    /// The name of a pool.
    pub fn pool_name(&self, pool: u16) -> String {
        self.pool_names.get(usize::from(pool)).cloned().unwrap_or_else(|| format!("pool-{pool}"))
    }

    /// Negative logarithm of each token's frequency among training targets, with one added to each count: the
    /// losses of a model that knows only frequencies. A pure function of the plan.
    ///
    /// # Errors
    /// When a sample cannot be read.
    pub fn unigram_losses(&self) -> Result<Vec<f64>> {
        let mut counts = vec![1u64; self.vocab_size];
        for t in 0..self.samples.len().min(UNIGRAM_SAMPLES) {
            let sample = self.samples.sample(t)?;
            for (&target, &counts_here) in sample.targets.iter().zip(&sample.loss_mask) {
                if let (true, Some(count)) = (counts_here, counts.get_mut(target as usize)) {
                    *count += 1;
                }
            }
        }
        let total = counts.iter().sum::<u64>() as f64;
        Ok(counts.into_iter().map(|count| (total / count as f64).ln()).collect())
    }
}

impl std::fmt::Debug for Corpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Corpus").field("plan_id", &self.plan_id).finish_non_exhaustive()
    }
}
