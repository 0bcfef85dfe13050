//! Qwen3Moe: softmax scores, normalized queries and keys, no shared experts.

use super::Class;
use super::field::{Field, Router};
use super::glm4_moe::{COMMON, EXPERTS, HEADS};
use super::layout::PLAIN;

/// Experts of softmax routers, with leading dense blocks.
pub const QWEN_EXPERTS: &[Field] = &[
    Field::Either("moe.experts", &["num_experts", "num_local_experts"]),
    Field::DenseList,
    Field::Router(Router { score: "softmax", norm: Some("norm_topk_prob"), scale: None, has_groups: false }),
];

/// The class.
pub const CLASS: Class = Class {
    architecture: "Qwen3MoeForCausalLM",
    model_type: "qwen3_moe",
    gguf: Some("qwen3moe"),
    is_moe: true,
    fields: &[
        COMMON,
        HEADS,
        EXPERTS,
        QWEN_EXPERTS,
        &[
            Field::Only("attention.qk_norm", &["true"]),
            Field::Only("moe.shared", &["0"]),
            Field::Rope("attention.rope_theta", None),
        ],
    ],
    constants: &[
        ("hidden_act", "\"silu\""),
        ("attention_bias", "false"),
        ("decoder_sparse_step", "1"),
        ("use_sliding_window", "false"),
    ],
    names: PLAIN,
};
