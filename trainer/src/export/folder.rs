//! A checkpoint as a transformers folder: weights, `config.json`, tokenizer, model card.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json, json};
use tokenizers::Tokenizer;

use super::class::{Class, Facts};
use super::mapping::Mapped;
use super::tokenizer::Chat;
use super::{card, tokenizer};
use crate::checkpoint::{Loaded, MODEL, Number, TensorFile, TensorHead, TensorWriter};
use crate::error::{Error, Result};
use crate::model::parameters::outline;

/// Largest file of weights, in bytes, as transformers itself writes them.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// The result of an export.
#[derive(Debug)]
pub struct Exported {
    /// The class of the model.
    pub class: &'static Class,
    /// Tensors written.
    pub n_tensors: usize,
    /// Bytes of all tensors.
    pub n_bytes: u64,
    /// Files of weights.
    pub n_files: usize,
    /// What other programs do differently.
    pub warnings: Vec<String>,
}

/// Writes a checkpoint to a folder, which must be empty or not exist. Numbers have the requested type, except
/// for routers and their biases, which stay f32. Tensors are read and written one at a time; `config.json`
/// comes last, so that a folder without it is unfinished.
///
/// # Errors
/// [`Error::Usage`] when no class supports the model, by key, or the folder is not empty; otherwise when a
/// file cannot be read or written.
pub fn export(loaded: &Loaded, dir: &Path, number: Number, shard_bytes: u64) -> Result<Exported> {
    let model = loaded.config.model(loaded.state.vocab_size, loaded.state.seq_len);
    let facts = Facts { values: &loaded.config.values, model: &model };
    let class = Class::choose(facts)?;
    let mut source = Source::open(loaded, class, facts)?;
    let tokens = Tokenizer::from_bytes(&loaded.tokenizer).map_err(|error| {
        Error::checkpoint(&loaded.path.join("tokenizer.json"), format!("is not a tokenizer: {error}"))
    })?;
    let chat = Chat::of(loaded)?;
    make_empty(dir)?;

    let shards = shards(&class.tensors(facts), number, shard_bytes);
    let (n_files, mut places, mut n_bytes, mut n_tensors) = (shards.len(), BTreeMap::new(), 0, 0);
    for (index, shard) in shards.iter().enumerate() {
        let name = match n_files {
            1 => MODEL.to_string(),
            n => format!("model-{:05}-of-{n:05}.safetensors", index + 1),
        };
        let heads: Vec<TensorHead> = shard.iter().map(|mapped| head(mapped, number)).collect();
        n_bytes += heads.iter().map(TensorHead::n_bytes).sum::<u64>();
        n_tensors += heads.len();
        places.extend(heads.iter().map(|head| (head.name.clone(), name.clone())));
        let mut file = TensorWriter::create(&dir.join(&name), heads)?;
        for mapped in shard {
            file.write(&source.values(mapped)?)?;
        }
        file.finish()?;
    }
    if n_files > 1 {
        let index = json!({ "metadata": { "total_size": n_bytes }, "weight_map": places });
        write(dir, "model.safetensors.index.json", &index)?;
    }
    let eod = loaded.state.eod;
    for (name, content) in tokenizer::files(&tokens, eod, model.seq_len, &chat) {
        write(dir, name, &content)?;
    }
    chat.write(dir)?;
    moe_shards::atomic::write_file(&dir.join("tokenizer.json"), &loaded.tokenizer)?;
    write(
        dir,
        "generation_config.json",
        &json!({ "eos_token_id": one_or_all(&chat.ends(&tokens, eod)), "do_sample": false }),
    )?;
    let card = card::card(loaded, class, facts);
    moe_shards::atomic::write_file(&dir.join("README.md"), card.as_bytes())?;
    write(dir, "config.json", &Json::Object(config(class, facts, eod, number)))?;
    Ok(Exported { class, n_tensors, n_bytes, n_files, warnings: Vec::new() })
}

/// One id as a number, several as a list.
fn one_or_all(ids: &[u32]) -> Json {
    match ids {
        [id] => json!(id),
        ids => json!(ids),
    }
}

/// The whole `config.json`.
fn config(class: &Class, facts: Facts, eod: u32, number: Number) -> Map<String, Json> {
    let mut config = class.describe(facts);
    let dtype = match number {
        Number::F32 => "float32",
        Number::Bf16 => "bfloat16",
        Number::F16 => "float16",
    };
    // Versions of transformers before 5 look for the second name.
    let more = [
        ("dtype", json!(dtype)),
        ("torch_dtype", json!(dtype)),
        ("bos_token_id", Json::Null),
        ("eos_token_id", eod.into()),
        ("pad_token_id", Json::Null),
        ("initializer_range", facts.json("model.init_std")),
        ("use_cache", true.into()),
    ];
    config.extend(more.map(|(name, value)| (name.to_string(), value)));
    config
}

/// The tensors of each file: as many as fit, at least one.
fn shards(tensors: &[Mapped], number: Number, shard_bytes: u64) -> Vec<Vec<Mapped>> {
    let mut shards: Vec<Vec<Mapped>> = Vec::new();
    let mut used = 0;
    for mapped in tensors {
        let n_bytes = head(mapped, number).n_bytes();
        match shards.last_mut().filter(|_| used + n_bytes <= shard_bytes) {
            Some(shard) => shard.push(mapped.clone()),
            None => {
                shards.push(vec![mapped.clone()]);
                used = 0;
            }
        }
        used += n_bytes;
    }
    shards
}

fn head(mapped: &Mapped, number: Number) -> TensorHead {
    let number = if mapped.stays_f32 { Number::F32 } else { number };
    TensorHead { name: mapped.theirs.clone(), shape: mapped.shape.clone(), number }
}

fn make_empty(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
    match std::fs::read_dir(dir).map_err(Error::io(dir, "read"))?.next() {
        None => Ok(()),
        Some(_) => Err(Error::Usage(format!("{}: is not empty; name an empty or new folder", dir.display()))),
    }
}

fn write(dir: &Path, name: &str, content: &Json) -> Result<()> {
    Ok(moe_shards::atomic::write_file(&dir.join(name), format!("{content:#}\n").as_bytes())?)
}

/// The parameters of a checkpoint, one in memory at a time.
pub struct Source {
    file: TensorFile,
    shapes: BTreeMap<String, Vec<usize>>,
    held: Option<(String, Vec<f32>)>,
}

impl Source {
    /// Opens the parameters, each of which must have a place in the class, except for selection biases that
    /// are zero.
    ///
    /// # Errors
    /// The first parameter without a place, or as [`TensorFile::open`].
    pub fn open(loaded: &Loaded, class: &Class, facts: Facts) -> Result<Self> {
        let path = loaded.path.join(MODEL);
        let mut file = TensorFile::open(&path)?;
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for mapped in class.tensors(facts) {
            *places.entry(mapped.ours.clone()).or_default() += mapped.len();
        }
        let parameters = outline(facts.model);
        let expected: Vec<_> = parameters.iter().map(|p| (p.name.clone(), p.shape.as_slice())).collect();
        file.expect(&expected)?;
        for parameter in &parameters {
            let placed = places.remove(&parameter.name).unwrap_or_default();
            let is_zero = |values: Vec<f32>| values.iter().all(|value| *value == 0.0);
            if placed == 0 && is_zero(file.read(&parameter.name)?) {
                continue;
            }
            if placed != parameter.len() {
                return Err(Error::Usage(format!(
                    "{} has no place for {}, which is not zero{}",
                    class.architecture,
                    parameter.name,
                    match parameter.name.ends_with("balance_bias") {
                        true => ": a model trained with moe.balance.bias_rate = 0 has no such bias",
                        false => "",
                    }
                )));
            }
        }
        let shapes = parameters.into_iter().map(|p| (p.name, p.shape)).collect();
        Ok(Self { file, shapes, held: None })
    }

    /// The values of one of the class's tensors.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn values(&mut self, mapped: &Mapped) -> Result<Vec<f32>> {
        if self.held.as_ref().is_none_or(|(name, _)| *name != mapped.ours) {
            // The previous one is freed first, so that there is only one.
            self.held = None;
            self.held = Some((mapped.ours.clone(), self.file.read(&mapped.ours)?));
        }
        let shape = self.shapes.get(&mapped.ours).map_or(&[][..], Vec::as_slice);
        Ok(self.held.as_ref().map_or_else(Vec::new, |(_, values)| mapped.gather(values, shape)))
    }
}
