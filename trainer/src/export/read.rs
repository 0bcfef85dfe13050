//! Reads a transformers folder: its class, its settings, and its tensors as ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Map, Value as Json};

use super::class::{Class, Facts};
use super::mapping::Mapped;
use crate::checkpoint::{MODEL, TensorFile};
use crate::config::{RunConfig, Values};
use crate::error::{Error, Result};
use crate::model::parameters::{from_host, is_trained, parameters, replace_all};
use crate::model::{Model, ModelConfig};

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";

/// Tensors with a row for each vocabulary entry: those after the last token are padding.
const OF_THE_VOCABULARY: [&str; 2] = ["model.embed_tokens.weight", "lm_head.weight"];

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// Its class.
    pub class: &'static Class,
    /// The settings that its `config.json` describes, as `key=value`.
    pub settings: Vec<String>,
    /// Rows of its embedding.
    pub vocab_size: usize,
    /// Positions that it supports.
    pub max_positions: usize,
    files: Vec<TensorFile>,
    /// The file of each tensor, and its shape.
    places: BTreeMap<String, (usize, Vec<usize>)>,
}

impl Folder {
    /// Opens a folder and checks everything but the values.
    ///
    /// # Errors
    /// When a file is missing or damaged, or its class or a field is not known here; all fields are named.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let config = match json(&path)? {
            Json::Object(config) => config,
            _ => return Err(Error::checkpoint(&path, "is damaged: expected an object")),
        };
        let class = Class::of_config(&config).map_err(|problem| Error::checkpoint(&path, problem))?;
        let settings = class.settings(&config).map_err(|problems| {
            let problem = format!("cannot be imported:\n  {}", problems.join("\n  "));
            Error::checkpoint(&path, problem)
        })?;
        let number = |name: &str| number(&config, name).map_err(|problem| Error::checkpoint(&path, problem));
        let (vocab_size, max_positions) = (number("vocab_size")?, number("max_position_embeddings")?);
        let mut files = Vec::new();
        let mut places = BTreeMap::new();
        for name in names(dir)? {
            let file = TensorFile::open_any(&dir.join(&name))?;
            let of_file =
                file.tensors().map(|(tensor, shape)| (tensor.to_string(), (files.len(), shape.to_vec())));
            places.extend(of_file.collect::<Vec<_>>());
            files.push(file);
        }
        Ok(Self { dir: dir.to_path_buf(), class, settings, vocab_size, max_positions, files, places })
    }

    /// The configuration of a run of this model: the model comes from the folder, the rest from other values.
    ///
    /// # Errors
    /// When the other values describe a different model.
    pub fn config(&self, mut values: Values, mut problems: Vec<String>) -> Result<RunConfig> {
        self.settings.iter().for_each(|setting| values.read_assignment(setting, &mut problems));
        let config = RunConfig::new(values, problems)?;
        let model = config.model(self.vocab_size, self.max_positions);
        let problems = self.class.problems(Facts { values: &config.values, model: &model });
        match problems.is_empty() {
            true => Ok(config),
            false => Err(Error::Config(
                problems.iter().map(|problem| format!("{}: {problem}", self.class.architecture)).collect(),
            )),
        }
    }

    /// The contents of its tokenizer's file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tokenizer(&self) -> Result<Vec<u8>> {
        let path = self.dir.join("tokenizer.json");
        std::fs::read(&path).map_err(Error::io(&path, "read"))
    }

    /// The model of a configuration of [`Folder::config`], with the first rows of the vocabulary if it has
    /// fewer. Tensors are read one at a time.
    ///
    /// # Errors
    /// When tensors are missing, unexpected or of another shape, naming the first.
    pub fn model(&mut self, values: &Values, geometry: &ModelConfig, device: &Device) -> Result<Model> {
        let mapped = self.class.tensors(Facts { values, model: geometry });
        self.expect(&mapped, geometry)?;
        let model = Model::zeros(geometry, device);
        let inner = device.clone().without_autodiff();
        let mut replaced = Vec::new();
        for parameter in parameters(&model) {
            let mut ours = vec![0.0; parameter.len()];
            let mut n_placed = 0;
            for part in mapped.iter().filter(|part| part.ours == parameter.name) {
                part.scatter(&self.read(&part.theirs)?, &mut ours, &parameter.shape);
                n_placed += part.len();
            }
            // In a class without a selection bias, the bias is zero.
            if n_placed != ours.len() && (is_trained(&parameter.name) || n_placed > 0) {
                let problem = format!("{} has nothing for {}", self.class.architecture, parameter.name);
                return Err(Error::checkpoint(&self.dir, problem));
            }
            replaced.push(from_host(ours, &inner));
        }
        Ok(replace_all(model, replaced))
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        match self.places.get(name).and_then(|(file, _)| self.files.get_mut(*file)) {
            Some(file) => file.read(name),
            None => Err(Error::checkpoint(&self.dir, format!("tensor {name} is missing"))),
        }
    }

    /// Refuses tensors that are missing, unexpected or of other shapes.
    fn expect(&self, mapped: &[Mapped], geometry: &ModelConfig) -> Result<()> {
        let refused = |problem: String| Err(Error::checkpoint(&self.dir, problem));
        for part in mapped {
            let Some((_, found)) = self.places.get(&part.theirs) else {
                return refused(format!("tensor {} is missing", part.theirs));
            };
            let is_longer = OF_THE_VOCABULARY.contains(&part.theirs.as_str())
                && found.len() == part.shape.len()
                && found[1..] == part.shape[1..]
                && found[0] >= part.shape[0];
            if *found != part.shape && !is_longer {
                return refused(format!(
                    "tensor {}: expected shape {:?}, found {found:?}",
                    part.theirs, part.shape
                ));
            }
        }
        let known: BTreeSet<&str> = mapped.iter().map(|part| part.theirs.as_str()).collect();
        match self.places.keys().find(|name| !known.contains(name.as_str()) && !is_idle(name, geometry)) {
            None => Ok(()),
            Some(name) => refused(format!(
                "tensor {name} is not part of {} as its {CONFIG} describes it",
                self.class.architecture
            )),
        }
    }
}

/// Whether a tensor does not affect what a model computes: extra blocks that predict later tokens, tables,
/// and a tied head.
fn is_idle(name: &str, geometry: &ModelConfig) -> bool {
    let layer =
        name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    layer.is_some_and(|layer| layer >= geometry.n_layers)
        || name.ends_with("rotary_emb.inv_freq")
        || geometry.tie_embeddings && name == "lm_head.weight"
}

/// The names of the files of weights.
fn names(dir: &Path) -> Result<Vec<String>> {
    let index = dir.join(INDEX);
    if !index.is_file() {
        return Ok(vec![MODEL.to_string()]);
    }
    let found = json(&index)?;
    let Some(map) = found["weight_map"].as_object() else {
        return Err(Error::checkpoint(&index, "is damaged: weight_map is missing"));
    };
    let files: BTreeSet<&str> = map.values().filter_map(Json::as_str).collect();
    // A file next to the index, not elsewhere.
    match files.iter().find(|name| Path::new(name).file_name().is_none_or(|base| base != **name)) {
        Some(name) => {
            Err(Error::checkpoint(&index, format!("{name:?} is not the name of a file next to it")))
        }
        None => Ok(files.into_iter().map(str::to_string).collect()),
    }
}

fn json(path: &Path) -> Result<Json> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    serde_json::from_str(&text).map_err(|error| Error::checkpoint(path, format!("is damaged: {error}")))
}

/// A size within what a plan or a vocabulary can have.
fn number(config: &Map<String, Json>, name: &str) -> Result<usize, String> {
    match config.get(name).and_then(Json::as_u64) {
        Some(n) if (1..=1 << 32).contains(&n) => Ok(n as usize),
        _ => {
            let found = config.get(name).unwrap_or(&Json::Null);
            Err(format!("{name}: expected a whole number from 1 to 2^32, found {found}"))
        }
    }
}
