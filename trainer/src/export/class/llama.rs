//! Llama: dense blocks.

use super::Class;
use super::glm4_moe::{COMMON, HEADS};
use super::layout::PLAIN;
use super::qwen3::DENSE;

/// The class.
pub const CLASS: Class = Class {
    architecture: "LlamaForCausalLM",
    model_type: "llama",
    gguf: Some("llama"),
    is_moe: false,
    fields: &[COMMON, HEADS, DENSE],
    constants: &[("hidden_act", "\"silu\""), ("attention_bias", "false"), ("mlp_bias", "false")],
    names: PLAIN,
};
