//! DeepseekV3: latent attention, sigmoid scores with a selection bias, groups of experts, shared experts,
//! leading dense blocks.

use super::Class;
use super::field::Field;
use super::glm4_moe::{COMMON, DEEPSEEK_EXPERTS, DEEPSEEK_NAMES, EXPERTS};

/// The class.
pub const CLASS: Class = Class {
    architecture: "DeepseekV3ForCausalLM",
    model_type: "deepseek_v3",
    gguf: Some("deepseek2"),
    is_moe: true,
    fields: &[
        COMMON,
        &[
            Field::Only("attention.kind", &["mla"]),
            Field::Either("attention.mla.heads", &["num_attention_heads", "num_key_value_heads"]),
            Field::Same("attention.mla.kv_rank", "kv_lora_rank"),
            Field::Same("attention.mla.q_rank", "q_lora_rank"),
            Field::Same("attention.mla.nope_dim", "qk_nope_head_dim"),
            Field::Same("attention.mla.rope_dim", "qk_rope_head_dim"),
            Field::Same("attention.mla.value_dim", "v_head_dim"),
            Field::Rope("attention.mla.rope_theta", None),
        ],
        EXPERTS,
        DEEPSEEK_EXPERTS,
    ],
    constants: &[
        ("hidden_act", "\"silu\""),
        ("attention_bias", "false"),
        ("rope_interleave", "true"),
        ("scoring_func", "\"sigmoid\""),
        ("topk_method", "\"noaux_tc\""),
    ],
    names: DEEPSEEK_NAMES,
};
