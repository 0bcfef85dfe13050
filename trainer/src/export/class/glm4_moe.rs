//! Glm4Moe: sigmoid scores with a selection bias, shared experts, leading dense blocks, grouped-query
//! attention with rotary positions in some of the channels.

use super::field::{Field, Router};
use super::layout::PLAIN;
use super::{Class, Names};

/// Widths and depth, which have the same names in all classes.
pub const COMMON: &[Field] = &[
    Field::Same("model.d_model", "hidden_size"),
    Field::Same("model.layers", "num_hidden_layers"),
    Field::Same("model.norm_eps", "rms_norm_eps"),
    Field::Same("model.tie_embeddings", "tie_word_embeddings"),
    Field::Only("moe.expert_activation", &["swiglu"]),
];

/// Grouped-query attention.
pub const HEADS: &[Field] = &[
    Field::Only("attention.kind", &["gqa"]),
    Field::Same("attention.heads", "num_attention_heads"),
    Field::Same("attention.kv_heads", "num_key_value_heads"),
    Field::HeadDim,
];

/// The same, with a window if the class has one.
pub const WINDOWED: &[Field] = &[
    Field::Window,
    Field::Same("attention.heads", "num_attention_heads"),
    Field::Same("attention.kv_heads", "num_key_value_heads"),
    Field::HeadDim,
];

/// Experts of a class with a field for their width.
pub const EXPERTS: &[Field] = &[
    Field::Same("moe.top_k", "num_experts_per_tok"),
    Field::Same("moe.expert_ffn", "moe_intermediate_size"),
    Field::Same("model.dense_ffn", "intermediate_size"),
];

/// Experts of DeepSeek's kind.
pub const DEEPSEEK_EXPERTS: &[Field] = &[
    Field::Same("moe.experts", "n_routed_experts"),
    Field::Same("moe.shared", "n_shared_experts"),
    Field::Same("model.dense_layers", "first_k_dense_replace"),
    // Extra blocks that predict later tokens; there are none.
    Field::Written("num_nextn_predict_layers", "0"),
    Field::Router(Router {
        score: "sigmoid",
        norm: Some("norm_topk_prob"),
        scale: Some("routed_scaling_factor"),
        has_groups: true,
    }),
];

/// Their names.
pub const DEEPSEEK_NAMES: Names =
    Names { bias: Some("gate.e_score_correction_bias"), shared: Some("shared_experts"), ..PLAIN };

/// The class.
pub const CLASS: Class = Class {
    architecture: "Glm4MoeForCausalLM",
    model_type: "glm4_moe",
    gguf: Some("glm4moe"),
    is_moe: true,
    fields: &[
        COMMON,
        HEADS,
        EXPERTS,
        DEEPSEEK_EXPERTS,
        &[
            Field::Same("attention.qk_norm", "use_qk_norm"),
            Field::Rope("attention.rope_theta", Some("attention.rotary_fraction")),
        ],
    ],
    constants: &[("hidden_act", "\"silu\""), ("attention_bias", "false")],
    names: DEEPSEEK_NAMES,
};
