//! How our keys correspond to fields of a `config.json`.

use serde_json::{Map, Value as Json, json};

use super::{Facts, same};

/// Something that a class can express.
#[derive(Debug, Clone, Copy)]
pub enum Field {
    /// A key and the field with its value.
    Same(&'static str, &'static str),
    /// A key and the fields that all have its value, of which imported models may lack some.
    Either(&'static str, &'static [&'static str]),
    /// A field that is written, with its value as JSON, and ignored on import.
    Written(&'static str, &'static str),
    /// A key with one of these values; imported models get the first.
    Only(&'static str, &'static [&'static str]),
    /// How many tokens a token sees, including itself, `sliding_window`; null if it sees all.
    Window,
    /// Width of heads, `head_dim`; if missing, the width of the residual stream divided by the heads.
    HeadDim,
    /// Rotary positions: the key of theta, and that of the fraction of channels if the class supports one.
    Rope(&'static str, Option<&'static str>),
    /// Leading dense blocks as the list of their numbers, `mlp_only_layers`.
    DenseList,
    /// Width of gated shared experts, `shared_expert_intermediate_size`.
    SharedWidth,
    /// The router.
    Router(Router),
}

/// The routers that a class supports.
#[derive(Debug, Clone, Copy)]
pub struct Router {
    /// Its scores.
    pub score: &'static str,
    /// The field that says whether weights are divided by their sum; without such a field they are.
    pub norm: Option<&'static str>,
    /// The field of the factor of weights; without one, the factor is multiplied into the experts' down
    /// matrices.
    pub scale: Option<&'static str>,
    /// Whether it has groups, `n_group` and `topk_group`.
    pub has_groups: bool,
}

const ATTENTION: &str = "attention.kind";
const WINDOW: &str = "attention.swa.window";
const SCALING: &str = "attention.rope.scaling";
const FACTOR: &str = "attention.rope.factor";
const ORIGINAL: &str = "attention.rope.original";
const KIND: &str = "moe.router.kind";
const GROUPS: &str = "moe.router.group_limited.groups";
const KEPT: &str = "moe.router.group_limited.kept_groups";
const GROUP_SCORE: &str = "moe.router.group_limited.group_score";
const OF_ROUTERS: [&str; 10] = [
    KIND,
    "moe.router.score",
    "moe.router.norm_weights",
    "moe.router.route_scale",
    GROUPS,
    KEPT,
    GROUP_SCORE,
    "moe.router.group_limited.score",
    "moe.router.group_limited.norm_weights",
    "moe.router.group_limited.route_scale",
];

impl Field {
    /// The keys involved.
    pub fn keys(&self) -> Vec<&'static str> {
        match *self {
            Self::Same(key, _) | Self::Either(key, _) | Self::Only(key, _) => vec![key],
            Self::Written(..) => Vec::new(),
            Self::Window => vec![ATTENTION, WINDOW],
            Self::HeadDim => vec!["attention.head_dim"],
            Self::Rope(theta, fraction) => {
                [Some(theta), fraction].into_iter().flatten().chain([SCALING, FACTOR, ORIGINAL]).collect()
            }
            Self::DenseList => vec!["model.dense_layers"],
            Self::SharedWidth => vec!["moe.shared"],
            Self::Router(_) => OF_ROUTERS.to_vec(),
        }
    }

    /// What it cannot express about a model, by key.
    pub fn problems(&self, facts: Facts) -> Vec<String> {
        let is_of_mixtures = self.keys().iter().all(|key| key.starts_with("moe."));
        match self {
            _ if is_of_mixtures && facts.is_dense() => Vec::new(),
            Self::Only(key, values) => only(facts, key, values).into_iter().collect(),
            Self::Window => only(facts, ATTENTION, &["gqa", "swa"]).into_iter().collect(),
            Self::SharedWidth if facts.number("moe.shared") == 0 => {
                vec!["moe.shared = 0: must be 1 or more".into()]
            }
            Self::Rope(..) => only(facts, SCALING, &["none", "yarn"]).into_iter().collect(),
            Self::Router(router) => router.problems(facts),
            _ => Vec::new(),
        }
    }

    /// Adds its fields to a `config.json`.
    pub fn describe(&self, facts: Facts, config: &mut Map<String, Json>) {
        let mut put = |name: &str, value: Json| {
            config.insert(name.to_string(), value);
        };
        match *self {
            Self::Same(key, field) => put(field, facts.json(key)),
            Self::Either(key, fields) => fields.iter().for_each(|field| put(field, facts.json(key))),
            // A test of all classes checks that it is JSON.
            Self::Written(field, json) => put(field, serde_json::from_str(json).unwrap_or_default()),
            Self::Only(..) => {}
            Self::Window => {
                let is_windowed = facts.text(ATTENTION) == "swa";
                put("sliding_window", if is_windowed { facts.json(WINDOW) } else { Json::Null });
            }
            Self::HeadDim => put("head_dim", facts.model.attention(0).head_dim(facts.model.d_model).into()),
            Self::Rope(theta, fraction) => {
                let mut rope = json!({ "rope_type": "default", "rope_theta": facts.json(theta) });
                let mut before = Json::Null;
                if facts.text(SCALING) == "yarn" {
                    for (name, value) in yarn(facts, is_latent(theta)) {
                        rope[name] = value;
                    }
                    before = rope.clone();
                    before["type"] = "yarn".into();
                }
                if let Some(fraction) = fraction {
                    rope["partial_rotary_factor"] = facts.json(fraction);
                    put("partial_rotary_factor", facts.json(fraction));
                }
                put("rope_parameters", rope);
                // Versions of transformers before 5 look here.
                put("rope_theta", facts.json(theta));
                put("rope_scaling", before);
            }
            Self::DenseList => {
                put("mlp_only_layers", (0..facts.model.n_dense_layers).collect::<Vec<_>>().into());
            }
            Self::SharedWidth => {
                let width = facts.number("moe.shared") * facts.number("moe.expert_ffn");
                put("shared_expert_intermediate_size", width.into());
            }
            Self::Router(router) => router.describe(facts, config),
        }
    }

    /// The settings, as `key=value`, that a `config.json` gives its keys.
    ///
    /// # Errors
    /// What is missing or cannot be expressed.
    pub fn settings(&self, config: &Map<String, Json>) -> Result<Vec<String>, String> {
        let integer =
            |name: &str| number(config, name)?.as_u64().ok_or_else(|| not(name, "a whole number", config));
        match *self {
            Self::Same(key, field) => match config.get(field) {
                // Absent in our exports.
                Some(Json::Null) => Ok(Vec::new()),
                Some(value) => Ok(vec![format!("{key}={value}")]),
                None => Err(format!("{field} is missing")),
            },
            Self::Either(key, fields) => match fields.iter().find_map(|field| config.get(*field)) {
                Some(value) => Ok(vec![format!("{key}={value}")]),
                None => Err(format!("{} is missing", fields.join(" or "))),
            },
            Self::Written(..) => Ok(Vec::new()),
            Self::Only(key, values) => {
                Ok(values.first().map(|value| format!("{key}={value}")).into_iter().collect())
            }
            Self::Window => match config.get("sliding_window") {
                None => Err(
                    "sliding_window is missing: give the number of tokens that a token sees, or null for all"
                        .into(),
                ),
                Some(Json::Null) => Ok(vec![format!("{ATTENTION}=gqa")]),
                Some(_) => {
                    Ok(vec![format!("{ATTENTION}=swa"), format!("{WINDOW}={}", integer("sliding_window")?)])
                }
            },
            Self::HeadDim => {
                let width = match config.get("head_dim") {
                    Some(Json::Number(_)) => integer("head_dim")?,
                    _ => integer("hidden_size")? / integer("num_attention_heads")?.max(1),
                };
                Ok(vec![format!("attention.head_dim={width}")])
            }
            Self::Rope(theta, fraction) => rope(config, theta, fraction),
            Self::DenseList => dense_list(config),
            Self::SharedWidth => {
                let (width, of_one) =
                    (integer("shared_expert_intermediate_size")?, integer("moe_intermediate_size")?);
                if of_one == 0 || !width.is_multiple_of(of_one) {
                    return Err(format!(
                        "shared_expert_intermediate_size: expected a multiple of moe_intermediate_size = {of_one}, found {width}"
                    ));
                }
                Ok(vec![format!("moe.shared={}", width / of_one)])
            }
            Self::Router(router) => router.settings(config),
        }
    }

    /// What the experts' down matrices are multiplied by, if the class has no field for it.
    pub fn weight_scale(&self, facts: Facts) -> Option<f32> {
        match self {
            Self::Router(router) if router.scale.is_none() => {
                Some(facts.json(router.key(facts, "route_scale").as_str()).as_f64()? as f32)
            }
            _ => None,
        }
    }
}

impl Router {
    fn key(&self, facts: Facts, name: &str) -> String {
        match facts.text(KIND) == "group_limited" {
            true => format!("moe.router.group_limited.{name}"),
            false => format!("moe.router.{name}"),
        }
    }

    fn problems(&self, facts: Facts) -> Vec<String> {
        let kinds: &[&str] = if self.has_groups { &["top_k", "group_limited"] } else { &["top_k"] };
        if let Some(problem) = only(facts, KIND, kinds) {
            return vec![problem];
        }
        let mut problems: Vec<String> =
            only(facts, &self.key(facts, "score"), &[self.score]).into_iter().collect();
        if self.norm.is_none() {
            problems.extend(only(facts, &self.key(facts, "norm_weights"), &["true"]));
        }
        if facts.text(KIND) == "group_limited" {
            problems.extend(only(facts, GROUP_SCORE, &["top_two"]));
        }
        problems
    }

    fn describe(&self, facts: Facts, config: &mut Map<String, Json>) {
        let mut put = |field: Option<&str>, key: &str| {
            if let Some(field) = field {
                config.insert(field.to_string(), facts.json(&self.key(facts, key)));
            }
        };
        put(self.norm, "norm_weights");
        put(self.scale, "route_scale");
        if self.has_groups {
            let (groups, kept) = match facts.text(KIND) == "group_limited" {
                true => (facts.number(GROUPS), facts.number(KEPT)),
                false => (1, 1),
            };
            config.insert("n_group".into(), groups.into());
            config.insert("topk_group".into(), kept.into());
        }
    }

    fn settings(&self, config: &Map<String, Json>) -> Result<Vec<String>, String> {
        let groups = match config.get("n_group") {
            Some(Json::Number(n)) if self.has_groups => n.as_u64().unwrap_or(1),
            _ => 1,
        };
        let mut settings = Vec::new();
        let section = match groups > 1 {
            true => {
                settings.push(format!("{KIND}=group_limited"));
                settings.push(format!("{GROUPS}={groups}"));
                settings.push(format!("{KEPT}={}", number(config, "topk_group")?));
                "moe.router.group_limited"
            }
            false => {
                settings.push(format!("{KIND}=top_k"));
                "moe.router"
            }
        };
        settings.push(format!("{section}.score={}", self.score));
        let value = |field: Option<&str>, without: Json| match field {
            Some(field) => config.get(field).cloned().ok_or_else(|| format!("{field} is missing")),
            None => Ok(without),
        };
        settings.push(format!("{section}.norm_weights={}", value(self.norm, true.into())?));
        settings.push(format!("{section}.route_scale={}", value(self.scale, 1.0.into())?));
        Ok(settings)
    }
}

/// The problem of a key that has none of these values.
fn only(facts: Facts, key: &str, values: &[&str]) -> Option<String> {
    let found = facts.text(key);
    (!values.contains(&found.as_str())).then(|| format!("{key} = {found}: must be {}", values.join(" or ")))
}

fn number<'a>(config: &'a Map<String, Json>, name: &str) -> Result<&'a Json, String> {
    match config.get(name) {
        Some(value @ Json::Number(_)) => Ok(value),
        Some(_) => Err(not(name, "a number", config)),
        None => Err(format!("{name} is missing")),
    }
}

fn not(name: &str, expected: &str, config: &Map<String, Json>) -> String {
    format!("{name}: expected {expected}, found {}", config.get(name).unwrap_or(&Json::Null))
}

/// Whether a theta belongs to latent attention.
fn is_latent(theta: &str) -> bool {
    theta.starts_with("attention.mla.")
}

/// Frequencies of YaRN. Latent attention sharpens whole scores, which requires both factors to be 1.
fn yarn(facts: Facts, is_latent: bool) -> Vec<(&'static str, Json)> {
    let mut fields = vec![
        ("rope_type", "yarn".into()),
        ("factor", facts.json(FACTOR)),
        ("original_max_position_embeddings", facts.json(ORIGINAL)),
    ];
    fields.extend(YARN_TURNS.map(|(name, turns)| (name, turns.into())));
    if is_latent {
        fields.extend(YARN_SHARPNESS.map(|name| (name, 1.0.into())));
    }
    fields
}

/// Turns between which YaRN interpolates from one frequency to the other.
const YARN_TURNS: [(&str, f64); 2] = [("beta_fast", 32.0), ("beta_slow", 1.0)];
const YARN_SHARPNESS: [&str; 2] = ["mscale", "mscale_all_dim"];

fn rope(config: &Map<String, Json>, theta: &str, fraction: Option<&str>) -> Result<Vec<String>, String> {
    let none = Map::new();
    let table = |name: &str| config.get(name).and_then(Json::as_object);
    // The second of versions of transformers before 5.
    let parameters = table("rope_parameters").or_else(|| table("rope_scaling")).unwrap_or(&none);
    let of = |name: &str| parameters.get(name).filter(|value| !value.is_null());
    let kind = of("rope_type").or_else(|| of("type")).and_then(Json::as_str).unwrap_or("default");
    let base = of("rope_theta").or_else(|| config.get("rope_theta")).ok_or("rope_theta is missing")?;
    let mut settings = vec![format!("{theta}={base}")];
    match kind {
        "default" => settings.push(format!("{SCALING}=none")),
        "yarn" => {
            let number = |name: &str| number(parameters, name);
            settings.push(format!("{SCALING}=yarn"));
            settings.push(format!("{FACTOR}={}", number("factor")?));
            settings.push(format!("{ORIGINAL}={}", number("original_max_position_embeddings")?));
            let sharpness = YARN_SHARPNESS.map(|name| (name, is_latent(theta).then_some(1.0), None));
            let turns = YARN_TURNS.map(|(name, turns)| (name, Some(turns), Some(turns)));
            let whole = [("attention_factor", None, None)];
            for (name, expected, absent) in turns.into_iter().chain(sharpness).chain(whole) {
                let found = of(name).and_then(Json::as_f64).or(absent);
                if found != expected {
                    let show = |value: Option<f64>| value.map_or("nothing".to_string(), |x| x.to_string());
                    return Err(format!(
                        "rope_parameters.{name}: expected {}, found {}",
                        show(expected),
                        show(found)
                    ));
                }
            }
        }
        other => return Err(format!("rope_parameters.rope_type: expected default or yarn, found {other}")),
    }
    let share = of("partial_rotary_factor").or_else(|| config.get("partial_rotary_factor"));
    match (fraction, share) {
        (Some(key), Some(share)) => settings.push(format!("{key}={share}")),
        // The default of the only class that has it.
        (Some(key), None) => settings.push(format!("{key}=0.5")),
        (None, Some(share)) if !same(share, &1.into()) => {
            return Err(format!("partial_rotary_factor: 1 expected, {share} found"));
        }
        (None, _) => {}
    }
    Ok(settings)
}

fn dense_list(config: &Map<String, Json>) -> Result<Vec<String>, String> {
    let found = config.get("mlp_only_layers").cloned().unwrap_or(Json::Null);
    let list = match &found {
        Json::Null => &[][..],
        Json::Array(list) => list.as_slice(),
        _ => return Err(not("mlp_only_layers", "a list", config)),
    };
    let is_leading = list.iter().zip(0u64..).all(|(value, number)| value.as_u64() == Some(number));
    match is_leading {
        true => Ok(vec![format!("model.dense_layers={}", list.len())]),
        false => Err(not("mlp_only_layers", "the numbers of the first blocks", config)),
    }
}
