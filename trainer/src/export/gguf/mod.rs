//! A checkpoint as a GGUF file, which llama.cpp opens.

mod file;
mod names;
mod vocabulary;

use std::path::Path;

use super::class::{Class, Facts};
use super::folder::{Exported, Source};
use super::tokenizer::Chat;
use crate::checkpoint::Loaded;
use crate::error::{Error, Result};
use crate::model::attention::latent::LATENT_EPS;

pub use file::Type;
use file::{GgufWriter, Meta};

/// Writes a checkpoint to a file, which must not exist. Matrices have the requested type, norms and routers
/// are f32. Tensors are read and written one at a time.
///
/// # Errors
/// [`Error::Usage`] when no architecture supports the model, by key, or the file exists; otherwise when a
/// file cannot be read or written.
pub fn export(loaded: &Loaded, path: &Path, kind: Type) -> Result<Exported> {
    let model = loaded.config.model(loaded.state.vocab_size, loaded.state.seq_len);
    let facts = Facts { values: &loaded.config.values, model: &model };
    let class = Class::choose(facts)?;
    let arch = arch(class, facts).map_err(|problems| {
        Error::Usage(format!(
            "llama.cpp cannot compute this {}:\n  {}",
            class.architecture,
            problems.join("\n  ")
        ))
    })?;
    if path.exists() {
        return Err(Error::Usage(format!("{}: exists; name a new file", path.display())));
    }
    let mut source = Source::open(loaded, class, facts)?;
    let mut meta = keys(arch, loaded, facts, kind);
    let chat = Chat::of(loaded)?;
    let tokens = vocabulary::keys(&loaded.tokenizer, model.vocab_size, loaded.state.eod, &chat);
    meta.extend(tokens.map_err(|problem| Error::checkpoint(&loaded.path.join("tokenizer.json"), problem))?);

    let tensors = names::stacked(arch, class.tensors(facts), facts, kind);
    let heads: Vec<_> = tensors.iter().map(|tensor| tensor.head.clone()).collect();
    let n_bytes = heads.iter().map(|head| head.n_bytes()).sum();
    let mut file = GgufWriter::create(path, &meta, heads)?;
    for tensor in &tensors {
        if tensor.parts.is_empty() {
            file.write(&vec![0; tensor.head.n_bytes() as usize])?;
        }
        for part in &tensor.parts {
            file.write(&tensor.head.kind.encode(&source.values(part)?))?;
        }
    }
    file.finish()?;
    Ok(Exported { class, n_tensors: tensors.len(), n_bytes, n_files: 1, warnings: warnings(arch, facts) })
}

/// What llama.cpp does differently.
fn warnings(arch: &str, facts: Facts) -> Vec<String> {
    match arch == "deepseek2" && facts.model.norm_eps != LATENT_EPS {
        true => vec![format!(
            "model.norm_eps = {}: llama.cpp also uses it for latent vectors, which have {LATENT_EPS:e} here",
            facts.model.norm_eps
        )],
        false => Vec::new(),
    }
}

/// The architecture of a class, if it can compute the model.
///
/// # Errors
/// What it cannot compute, by key.
fn arch(class: &Class, facts: Facts) -> Result<&'static str, Vec<String>> {
    let Some(arch) = class.gguf else {
        return Err(vec![
            "moe.shared_gate = true: must be false, with moe.router.score = \"sigmoid\"".into(),
        ]);
    };
    let mut problems = Vec::new();
    if facts.text("attention.kind") == "swa" {
        problems.push("attention.kind = swa: must be gqa".into());
    }
    let scaling = facts.text("attention.rope.scaling");
    if scaling != "none" {
        problems.push(format!("attention.rope.scaling = {scaling}: must be none"));
    }
    if arch == "deepseek2" && facts.number("attention.mla.q_rank") == 0 {
        problems.push("attention.mla.q_rank is absent: must be set".into());
    }
    if arch == "qwen3moe" {
        if facts.model.n_dense_layers > 0 {
            problems.push(format!("model.dense_layers = {}: must be 0", facts.model.n_dense_layers));
        }
        if facts.text("moe.router.norm_weights") != "true" {
            problems.push("moe.router.norm_weights = false: must be true".into());
        }
    }
    if problems.is_empty() { Ok(arch) } else { Err(problems) }
}

/// The keys that describe the model.
fn keys(arch: &str, loaded: &Loaded, facts: Facts, kind: Type) -> Vec<(String, Meta)> {
    let (model, moe) = (facts.model, &facts.model.moe);
    let mut keys: Vec<(String, Meta)> = Vec::new();
    let mut general = |key: &str, value: Meta| keys.push((format!("general.{key}"), value));
    general("architecture", Meta::Text(arch.into()));
    general("name", Meta::Text(format!("moe-train {}", loaded.state.parameter_hash.short())));
    general("alignment", Meta::U32(32));
    let file_type = match kind {
        Type::F32 => 0,
        Type::F16 => 1,
        Type::Q8_0 => 7,
    };
    general("file_type", Meta::U32(file_type));
    general("quantization_version", Meta::U32(2));

    let mut put = |key: &str, value: Meta| keys.push((format!("{arch}.{key}"), value));
    let number = |n: usize| Meta::U32(u32::try_from(n).unwrap_or(u32::MAX));
    let real = |key: &str| Meta::F32(facts.json(key).as_f64().unwrap_or_default() as f32);
    put("vocab_size", number(model.vocab_size));
    put("context_length", number(model.seq_len));
    put("embedding_length", number(model.d_model));
    put("block_count", number(model.n_layers));
    let hidden = if facts.is_dense() || arch != "llama" { model.dense_ffn } else { moe.expert_ffn };
    put("feed_forward_length", number(hidden));
    put("attention.layer_norm_rms_epsilon", Meta::F32(model.norm_eps as f32));
    if arch == "deepseek2" {
        let of = |name: &str| facts.number(&format!("attention.mla.{name}"));
        put("attention.head_count", number(of("heads")));
        put("attention.head_count_kv", number(of("heads")));
        put("attention.key_length", number(of("nope_dim") + of("rope_dim")));
        put("attention.value_length", number(of("value_dim")));
        put("attention.kv_lora_rank", number(of("kv_rank")));
        if of("q_rank") > 0 {
            put("attention.q_lora_rank", number(of("q_rank")));
        }
        put("rope.dimension_count", number(of("rope_dim")));
        put("rope.freq_base", real("attention.mla.rope_theta"));
    } else {
        let dim = model.attention(0).head_dim(model.d_model);
        let turned = model.attention(0).rotary(model.d_model).map_or(0, |(turned, _)| turned);
        put("attention.head_count", number(facts.number("attention.heads")));
        put("attention.head_count_kv", number(facts.number("attention.kv_heads")));
        put("attention.key_length", number(dim));
        put("attention.value_length", number(dim));
        put("rope.dimension_count", number(turned));
        put("rope.freq_base", real("attention.rope_theta"));
    }
    if facts.is_dense() {
        return keys;
    }
    put("expert_count", number(moe.n_experts));
    put("expert_used_count", number(moe.top_k));
    put("expert_feed_forward_length", number(moe.expert_ffn));
    if ["glm4moe", "deepseek2"].contains(&arch) {
        let is_grouped = facts.text("moe.router.kind") == "group_limited";
        let section = if is_grouped { "moe.router.group_limited" } else { "moe.router" };
        let of_groups = |key: &str| if is_grouped { facts.number(&format!("{section}.{key}")) } else { 1 };
        put("expert_shared_count", number(moe.n_shared));
        put("leading_dense_block_count", number(model.n_dense_layers));
        put("expert_weights_scale", real(&format!("{section}.route_scale")));
        put("expert_weights_norm", Meta::Bool(facts.text(&format!("{section}.norm_weights")) == "true"));
        // Sigmoid.
        put("expert_gating_func", Meta::U32(2));
        put("expert_group_count", number(of_groups("groups")));
        put("expert_group_used_count", number(of_groups("kept_groups")));
        put("nextn_predict_layers", Meta::U32(0));
    }
    keys
}
