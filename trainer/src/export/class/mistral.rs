//! Mistral: dense blocks with sliding-window attention.

use super::Class;
use super::glm4_moe::{COMMON, WINDOWED};
use super::layout::PLAIN;
use super::qwen3::DENSE;

/// The class.
pub const CLASS: Class = Class {
    architecture: "MistralForCausalLM",
    model_type: "mistral",
    gguf: Some("llama"),
    is_moe: false,
    fields: &[COMMON, WINDOWED, DENSE],
    constants: &[("hidden_act", "\"silu\"")],
    names: PLAIN,
};
