//! Mixtral: softmax scores over the chosen experts, no shared experts, no dense blocks.

use super::field::{Field, Router};
use super::glm4_moe::{COMMON, WINDOWED};
use super::layout::PLAIN;
use super::{Class, Names};

/// The class.
pub const CLASS: Class = Class {
    architecture: "MixtralForCausalLM",
    model_type: "mixtral",
    gguf: Some("llama"),
    is_moe: true,
    fields: &[
        COMMON,
        WINDOWED,
        &[
            Field::Same("moe.experts", "num_local_experts"),
            Field::Same("moe.top_k", "num_experts_per_tok"),
            Field::Same("moe.expert_ffn", "intermediate_size"),
            Field::Only("moe.shared", &["0"]),
            Field::Only("model.dense_layers", &["0"]),
            Field::Rope("attention.rope_theta", None),
            Field::Router(Router { score: "softmax", norm: None, scale: None, has_groups: false }),
        ],
    ],
    constants: &[("hidden_act", "\"silu\"")],
    names: Names { mixture: "block_sparse_moe", expert: ["w1", "w3", "w2"], ..PLAIN },
};
