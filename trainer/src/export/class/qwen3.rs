//! Qwen3: dense blocks with normalized queries and keys.

use super::Class;
use super::field::Field;
use super::glm4_moe::{COMMON, HEADS};
use super::layout::PLAIN;

/// Fields of dense models.
pub const DENSE: &[Field] =
    &[Field::Same("model.dense_ffn", "intermediate_size"), Field::Rope("attention.rope_theta", None)];

/// The class.
pub const CLASS: Class = Class {
    architecture: "Qwen3ForCausalLM",
    model_type: "qwen3",
    gguf: Some("qwen3"),
    is_moe: false,
    fields: &[COMMON, HEADS, DENSE, &[Field::Only("attention.qk_norm", &["true"])]],
    constants: &[("hidden_act", "\"silu\""), ("attention_bias", "false"), ("use_sliding_window", "false")],
    names: PLAIN,
};
