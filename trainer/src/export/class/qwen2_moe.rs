//! Qwen2Moe: softmax scores and gated shared experts.

use super::field::Field;
use super::glm4_moe::{COMMON, EXPERTS, HEADS};
use super::layout::PLAIN;
use super::qwen3_moe::QWEN_EXPERTS;
use super::{Class, Names};

/// The class.
pub const CLASS: Class = Class {
    architecture: "Qwen2MoeForCausalLM",
    model_type: "qwen2_moe",
    gguf: None,
    is_moe: true,
    fields: &[
        COMMON,
        HEADS,
        EXPERTS,
        QWEN_EXPERTS,
        &[
            Field::SharedWidth,
            Field::Only("moe.shared_gate", &["true"]),
            Field::Rope("attention.rope_theta", None),
        ],
    ],
    constants: &[
        ("hidden_act", "\"silu\""),
        ("qkv_bias", "false"),
        ("decoder_sparse_step", "1"),
        ("use_sliding_window", "false"),
    ],
    names: Names { shared: Some("shared_expert"), shared_gate: Some("shared_expert_gate"), ..PLAIN },
};
