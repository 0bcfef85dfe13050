//! The classes of models that other programs know: what each supports, its `config.json`, and the names of
//! its tensors.
//!
//! A class is one file here and one line of the registry below.

mod deepseek_v3;
mod field;
mod glm4_moe;
mod layout;
mod llama;
mod mistral;
mod mixtral;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;

use serde_json::{Map, Value as Json};

use super::mapping::Mapped;
use crate::config::Values;
use crate::config::keys::KEYS;
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::settings::value::Value;

pub use field::Field;
pub use layout::Names;

/// A class of models, in the sense of the transformers library.
#[derive(Debug)]
pub struct Class {
    /// Its name.
    pub architecture: &'static str,
    /// Its name in `config.json`.
    pub model_type: &'static str,
    /// Its name in GGUF files.
    pub gguf: Option<&'static str>,
    /// Whether the blocks after the dense ones are mixtures of experts; otherwise all blocks are dense.
    pub is_moe: bool,
    /// Which keys it can express, and how; all other keys that affect what a model computes must have their
    /// defaults.
    pub fields: &'static [&'static [Field]],
    /// Constant fields of `config.json`, with their values as JSON.
    pub constants: &'static [(&'static str, &'static str)],
    /// What its tensors are called.
    pub names: Names,
}

/// All classes; the first that supports a model is taken.
pub const CLASSES: &[&Class] = &[
    &glm4_moe::CLASS,
    &deepseek_v3::CLASS,
    &qwen3_moe::CLASS,
    &qwen2_moe::CLASS,
    &mixtral::CLASS,
    &qwen3::CLASS,
    &llama::CLASS,
    &mistral::CLASS,
];

/// Prefixes of settings that matter only in training, or affect only how something is computed.
const OF_TRAINING: &[&str] =
    &["model.init_std", "attention.tile_from", "moe.expert_dropout", "moe.balance.", "moe.capacity."];

/// Exceptions to these: settings that do affect what a model computes.
const OF_THE_MODEL: &[&str] = &["moe.balance.quantile"];

/// What is known of a model.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its settings.
    pub values: &'a Values,
    /// Its geometry.
    pub model: &'a ModelConfig,
}

impl Facts<'_> {
    /// The value of a key as it is written in a configuration; empty where it has none.
    pub fn text(&self, key: &str) -> String {
        self.values.get(key).map_or_else(String::new, |value| match value {
            Value::Text(word) => word.into_owned(),
            other => other.to_string(),
        })
    }

    /// The value of a key as JSON.
    pub fn json(&self, key: &str) -> Json {
        match self.values.get(key) {
            None => Json::Null,
            Some(Value::Int(n)) => n.into(),
            Some(Value::Float(x)) => x.into(),
            Some(Value::Bool(b)) => b.into(),
            Some(Value::Text(word)) => word.into(),
            Some(Value::Words(words)) => words.into(),
        }
    }

    /// A whole number; 0 where the key has none.
    pub fn number(&self, key: &str) -> usize {
        match self.values.get(key) {
            Some(Value::Int(n)) => usize::try_from(n).unwrap_or_default(),
            _ => 0,
        }
    }

    /// Whether there is no mixture of experts.
    pub fn is_dense(&self) -> bool {
        self.model.n_dense_layers >= self.model.n_layers
    }

    /// Blocks with a mixture of experts, by number.
    pub fn mixtures(&self) -> std::ops::Range<usize> {
        self.model.n_dense_layers.min(self.model.n_layers)..self.model.n_layers
    }
}

impl Class {
    fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().flat_map(|group| group.iter())
    }

    /// Why a model is not of this class, by key; empty if it is.
    pub fn problems(&self, facts: Facts) -> Vec<String> {
        let mut problems = Vec::new();
        let (dense, layers) = (facts.model.n_dense_layers, facts.model.n_layers);
        if self.is_moe && facts.is_dense() {
            problems.push(format!("model.dense_layers = {dense} of {layers}: it has mixtures of experts"));
        }
        if !self.is_moe && !facts.is_dense() {
            problems.push(format!(
                "model.dense_layers = {dense}: it has no mixtures of experts; must be {layers}, as model.layers"
            ));
        }
        problems.extend(self.fields().flat_map(|field| field.problems(facts)));
        let known: Vec<&str> = self.fields().flat_map(|field| field.keys()).collect();
        for key in KEYS.iter() {
            let name = key.name;
            let is_of_mixtures = name.starts_with("moe.");
            let shapes = name.starts_with("model.") || name.starts_with("attention.") || is_of_mixtures;
            let trains = OF_TRAINING.iter().any(|part| name.starts_with(part));
            let counts = shapes && (!trains || OF_THE_MODEL.contains(&name));
            if !counts || known.contains(&name) || !facts.values.applies(key) {
                continue;
            }
            let is_idle = match name {
                "model.dense_layers" => !self.is_moe,
                "model.dense_ffn" => facts.model.n_dense_layers == 0,
                _ => is_of_mixtures && (!self.is_moe || facts.is_dense()),
            };
            if is_idle {
                continue;
            }
            if facts.values.get(name) != key.default {
                let default = key.default.as_ref().map_or("absent".to_string(), ToString::to_string);
                problems.push(format!("{name} = {}: must be {default}", facts.text(name)));
            }
        }
        problems
    }

    /// The class of a model.
    ///
    /// # Errors
    /// What rules out the closest class, by key.
    pub fn choose(facts: Facts) -> Result<&'static Self> {
        let mut nearest: Option<(&Self, Vec<String>)> = None;
        for class in CLASSES {
            let problems = class.problems(facts);
            if problems.is_empty() {
                return Ok(class);
            }
            // Whether there are experts does not count as a problem.
            let is_alike = class.is_moe != facts.is_dense();
            if is_alike && nearest.as_ref().is_none_or(|(_, fewest)| problems.len() < fewest.len()) {
                nearest = Some((class, problems));
            }
        }
        let (name, problems) =
            nearest.map_or(("", Vec::new()), |(class, problems)| (class.architecture, problems));
        Err(Error::Usage(format!(
            "no transformers class can express this model; the nearest is {name}, except for:\n  {}",
            problems.join("\n  ")
        )))
    }

    /// The class that a `config.json` names.
    ///
    /// # Errors
    /// If it names an unknown class.
    pub fn of_config(config: &Map<String, Json>) -> Result<&'static Self, String> {
        let named = config.get("architectures").and_then(|list| list.get(0)).and_then(Json::as_str);
        let model_type = config.get("model_type").and_then(Json::as_str);
        let is_named = |class: &&&Self| match named {
            Some(name) => class.architecture == name,
            None => Some(class.model_type) == model_type,
        };
        CLASSES.iter().find(is_named).copied().ok_or_else(|| {
            let all: Vec<&str> = CLASSES.iter().map(|class| class.architecture).collect();
            let found = named.or(model_type).unwrap_or("nothing");
            format!("architectures: expected one of {}, found {found}", all.join(", "))
        })
    }

    /// Its fields in the `config.json` of a model.
    pub fn describe(&self, facts: Facts) -> Map<String, Json> {
        let mut config = Map::new();
        config.insert("architectures".into(), vec![self.architecture].into());
        config.insert("model_type".into(), self.model_type.into());
        config.insert("vocab_size".into(), facts.model.vocab_size.into());
        config.insert("max_position_embeddings".into(), facts.model.seq_len.into());
        for (name, json) in self.constants {
            // Constants are JSON; a test of all classes checks that.
            config.insert((*name).into(), serde_json::from_str(json).unwrap_or_default());
        }
        self.fields().for_each(|field| field.describe(facts, &mut config));
        config
    }

    /// The settings, as `key=value`, that a `config.json` of this class describes.
    ///
    /// # Errors
    /// All fields that are missing, or that no setting can express.
    pub fn settings(&self, config: &Map<String, Json>) -> Result<Vec<String>, Vec<String>> {
        let (mut settings, mut problems) = (Vec::new(), Vec::new());
        for (name, json) in self.constants {
            let expected: Json = serde_json::from_str(json).unwrap_or_default();
            match config.get(*name) {
                Some(found) if !same(found, &expected) => {
                    problems.push(format!("{name}: expected {expected}, found {found}"));
                }
                _ => {}
            }
        }
        for field in self.fields() {
            match field.settings(config) {
                Ok(found) => settings.extend(found),
                Err(problem) => problems.push(problem),
            }
        }
        if !self.is_moe {
            match config.get("num_hidden_layers").and_then(Json::as_u64) {
                Some(layers) => settings.push(format!("model.dense_layers={layers}")),
                None => problems.push("num_hidden_layers is missing".into()),
            }
        }
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// All tensors, in the order of our own.
    pub fn tensors(&self, facts: Facts) -> Vec<Mapped> {
        layout::tensors(&self.names, self.weight_scale(facts), facts)
    }

    /// What the experts' down matrices are multiplied by: the factor of weights, if the class has no field
    /// for it.
    fn weight_scale(&self, facts: Facts) -> f32 {
        self.fields().find_map(|field| field.weight_scale(facts)).unwrap_or(1.0)
    }
}

/// Whether two numbers, or two other values, are equal: 1 equals 1.0.
fn same(a: &Json, b: &Json) -> bool {
    a == b || a.as_f64().is_some() && a.as_f64() == b.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;

    fn config(assignments: &[&str]) -> RunConfig {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        assignments.iter().for_each(|assignment| values.read_assignment(assignment, &mut problems));
        RunConfig::new(values, problems).expect("a valid configuration")
    }

    fn chosen(assignments: &[&str]) -> Result<&'static str, String> {
        let config = config(assignments);
        let model = config.model(64, 32);
        let facts = Facts { values: &config.values, model: &model };
        Class::choose(facts).map(|class| class.architecture).map_err(|error| error.to_string())
    }

    const SOFTMAX: &str = "moe.router.score=softmax";

    #[test]
    fn a_model_gets_the_class_that_supports_it() {
        let of = |assignments: &[&str]| chosen(assignments).expect("exportable");
        assert_eq!(of(&[]), "Glm4MoeForCausalLM");
        assert_eq!(of(&["attention.rotary_fraction=0.5", "attention.qk_norm=true"]), "Glm4MoeForCausalLM");
        assert_eq!(of(&["moe.router.kind=group_limited"]), "Glm4MoeForCausalLM");
        assert_eq!(of(&["attention.kind=mla"]), "DeepseekV3ForCausalLM");
        assert_eq!(of(&[SOFTMAX, "moe.shared=0", "attention.qk_norm=true"]), "Qwen3MoeForCausalLM");
        assert_eq!(of(&[SOFTMAX, "moe.shared_gate=true"]), "Qwen2MoeForCausalLM");
        assert_eq!(of(&[SOFTMAX, "moe.shared=0", "model.dense_layers=0"]), "MixtralForCausalLM");
        assert_eq!(of(&["model.dense_layers=4"]), "LlamaForCausalLM");
        assert_eq!(of(&["model.dense_layers=4", "attention.qk_norm=true"]), "Qwen3ForCausalLM");
        assert_eq!(of(&["model.dense_layers=4", "attention.kind=swa"]), "MistralForCausalLM");
    }

    #[test]
    fn settings_that_no_class_supports_are_named_with_a_remedy() {
        let problem = |assignments: &[&str]| chosen(assignments).expect_err("not exportable");
        assert!(problem(&["attention.sinks=true"]).contains("attention.sinks = true: must be false"));
        assert!(
            problem(&["moe.balance.quantile=true"]).contains("moe.balance.quantile = true: must be false")
        );
        assert!(problem(&["attention.kind=kda"]).contains("attention.kind = kda: must be gqa"));
        let gated = problem(&["moe.shared_gate=true", "attention.gate=head"]);
        assert!(gated.contains("attention.gate = head") && gated.contains("moe.shared_gate"), "{gated}");
        let switch = problem(&["moe.router.kind=switch", "moe.top_k=1"]);
        assert!(switch.contains("moe.router.kind = switch: must be top_k or group_limited"), "{switch}");
        let scaled = problem(&["attention.rope.scaling=ntk", "attention.rope.factor=4"]);
        assert!(scaled.contains("attention.rope.scaling = ntk: must be none or yarn"), "{scaled}");
        let window = problem(&["attention.pattern=[\"swa\",\"full\"]"]);
        assert!(window.contains("attention.pattern") && window.contains("must be absent"), "{window}");
    }

    #[test]
    fn a_window_is_a_number_or_null() {
        let config = config(&["model.dense_layers=4", "attention.kind=swa", "attention.swa.window=7"]);
        let model = config.model(64, 32);
        let facts = Facts { values: &config.values, model: &model };
        let class = Class::choose(facts).expect("a class");
        let text = serde_json::to_string(&class.describe(facts)).expect("JSON");
        let mut read: Map<String, Json> = serde_json::from_str(&text).expect("JSON");
        read.insert("sliding_window".into(), Json::Null);
        let settings = class.settings(&read).expect("null is none");
        assert!(settings.contains(&"attention.kind=gqa".to_string()), "{settings:?}");
        read.remove("sliding_window");
        let problems = class.settings(&read).expect_err("not said").join("\n");
        assert!(problems.contains("sliding_window is missing"), "{problems}");
    }

    #[test]
    fn a_description_reads_back_as_the_same_settings() {
        const YARN: [&str; 3] =
            ["attention.rope.scaling=yarn", "attention.rope.factor=4", "attention.rope.original=16"];
        const WINDOW: [&str; 2] = ["attention.kind=swa", "attention.swa.window=7"];
        let all: [&[&str]; 13] = [
            &YARN,
            &["attention.kind=mla", YARN[0], YARN[1], YARN[2]],
            &["attention.rotary_fraction=0.5", "attention.head_dim=64", "moe.router.route_scale=2.5"],
            &["moe.router.kind=group_limited", "moe.router.group_limited.route_scale=2.5", "moe.shared=2"],
            &["attention.kind=mla", "attention.mla.q_rank=24", "model.tie_embeddings=false"],
            &["attention.kind=mla", "attention.mla.rope_theta=1e6", "moe.router.norm_weights=false"],
            &[SOFTMAX, "moe.shared=0", "attention.qk_norm=true", "model.dense_layers=2"],
            &[SOFTMAX, "moe.shared_gate=true", "moe.shared=2", "moe.router.norm_weights=false"],
            &[SOFTMAX, "moe.shared=0", "model.dense_layers=0", "model.norm_eps=1e-6"],
            &["model.dense_layers=4", "attention.rope_theta=5e5"],
            &["model.dense_layers=4", "attention.qk_norm=true"],
            &["model.dense_layers=4", WINDOW[0], WINDOW[1]],
            &[SOFTMAX, "moe.shared=0", "model.dense_layers=0", WINDOW[0], WINDOW[1]],
        ];
        for assignments in all {
            let config = config(assignments);
            let model = config.model(64, 32);
            let class = Class::choose(Facts { values: &config.values, model: &model }).expect("a class");
            let described = class.describe(Facts { values: &config.values, model: &model });
            assert!(class.constants.iter().all(|(_, json)| serde_json::from_str::<Json>(json).is_ok()));
            let text = serde_json::to_string(&described).expect("JSON");
            let read: Map<String, Json> = serde_json::from_str(&text).expect("JSON");
            assert_eq!(Class::of_config(&read).expect("known").architecture, class.architecture);
            let settings = class.settings(&read).expect("settings");
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            let again = self::config(&settings).model(64, 32);
            // A description has nothing that matters only in training, and always the width of heads.
            assert_eq!(again.attention(0).head_dim(128), model.attention(0).head_dim(128));
            let facts = |values, model| Facts { values, model };
            let again_config = self::config(&settings);
            let (new, old) = (
                class.tensors(facts(&again_config.values, &again)),
                class.tensors(facts(&config.values, &model)),
            );
            assert_eq!(new, old, "{assignments:?}");
            assert_eq!(class.describe(facts(&again_config.values, &again)), described, "{assignments:?}");
        }
    }
}
