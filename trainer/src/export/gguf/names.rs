//! The tensors of a GGUF file, from those of the class: other names, experts of a block in one stack, and for
//! the architecture of Llama rotary pairs that are neighbors.

use super::super::class::Facts;
use super::super::mapping::Mapped;
use super::file::{Head, Type};

/// A tensor as the concatenation of its parts; without parts it is zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Stacked {
    /// Its name, shape and type.
    pub head: Head,
    /// Its parts.
    pub parts: Vec<Mapped>,
}

/// Parts of names, theirs and GGUF's.
const WORDS: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("gate_proj", "ffn_gate_exps"),
    ("up_proj", "ffn_up_exps"),
    ("down_proj", "ffn_down_exps"),
    ("w1", "ffn_gate_exps"),
    ("w3", "ffn_up_exps"),
    ("w2", "ffn_down_exps"),
];

/// All tensors of an architecture; matrices have the requested type, except for routers.
pub fn stacked(arch: &str, mapped: Vec<Mapped>, facts: Facts, kind: Type) -> Vec<Stacked> {
    let mut all: Vec<Stacked> = Vec::new();
    for part in mapped {
        let name = name(arch, &part.theirs);
        let part = if arch == "llama" { neighbours(part, facts) } else { part };
        if let Some(stack) = all.last_mut().filter(|stack| stack.head.name == name) {
            stack.parts.push(part);
            continue;
        }
        let is_expert = name.ends_with("_exps.weight");
        let shape = if is_expert { [&[0], &part.shape[..]].concat() } else { part.shape.clone() };
        let width = shape.last().copied().unwrap_or(1);
        let kind = if part.stays_f32 || shape.len() < 2 { Type::F32 } else { kind.for_rows(width) };
        all.push(Stacked { head: Head { name, shape, kind }, parts: vec![part] });
    }
    for stack in all.iter_mut().filter(|stack| stack.head.shape.first() == Some(&0)) {
        stack.head.shape[0] = stack.parts.len();
    }
    if arch == "glm4moe" {
        // It requires biases of queries, keys and values, which are zero here.
        let biases = all.iter().filter_map(|stack| {
            let name = stack.head.name.strip_suffix(".weight")?;
            let is_asked_for = ["attn_q", "attn_k", "attn_v"].iter().any(|word| name.ends_with(word));
            let shape = vec![*stack.head.shape.first()?];
            let head = Head { name: format!("{name}.bias"), shape, kind: Type::F32 };
            is_asked_for.then_some(Stacked { head, parts: Vec::new() })
        });
        all.extend(biases.collect::<Vec<_>>());
    }
    if arch == "deepseek2" && facts.model.tie_embeddings {
        // It requires a separate head.
        let embedding = all.iter().find(|stack| stack.head.name == "token_embd.weight").cloned();
        all.extend(embedding.map(|stack| Stacked {
            head: Head { name: "output.weight".into(), ..stack.head },
            parts: stack.parts,
        }));
    }
    all
}

fn name(arch: &str, theirs: &str) -> String {
    match theirs {
        "model.embed_tokens.weight" => return "token_embd.weight".into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let rest = theirs.strip_prefix("model.layers.").unwrap_or(theirs);
    let (layer, rest) = rest.split_once('.').unwrap_or(("", rest));
    let word = rest.strip_suffix(".weight").unwrap_or(rest);
    let word = match word.split_once(".experts.") {
        Some((_, expert)) => expert.split_once('.').map_or(expert, |(_, matrix)| matrix),
        None => word,
    };
    let word = match word {
        "mlp.gate.e_score_correction_bias" => return format!("blk.{layer}.exp_probs_b.bias"),
        "post_attention_layernorm" if arch == "glm4moe" => "post_attention_norm",
        "post_attention_layernorm" => "ffn_norm",
        word => WORDS.iter().find(|(theirs, _)| *theirs == word).map_or(word, |(_, ours)| ours),
    };
    format!("blk.{layer}.{word}.weight")
}

/// Queries and keys with the pairs (i, i + half) of each head as neighbors.
fn neighbours(part: Mapped, facts: Facts) -> Mapped {
    let is_turned = ["q_proj.weight", "k_proj.weight"].iter().any(|end| part.theirs.ends_with(end));
    let dim = facts.model.attention(0).head_dim(facts.model.d_model).max(1);
    match part.columns {
        Some(columns) if is_turned => {
            let of_head = |head: &[usize]| {
                let half = head.len() / 2;
                (0..half).flat_map(|i| [head[i], head[i + half]]).collect::<Vec<_>>()
            };
            Mapped { columns: Some(columns.chunks(dim).flat_map(of_head).collect()), ..part }
        }
        columns => Mapped { columns, ..part },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_llama_cpp() {
        let cases = [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.3.self_attn.kv_a_proj_with_mqa.weight", "blk.3.attn_kv_a_mqa.weight"),
            ("model.layers.12.mlp.experts.7.up_proj.weight", "blk.12.ffn_up_exps.weight"),
            ("model.layers.0.block_sparse_moe.experts.1.w2.weight", "blk.0.ffn_down_exps.weight"),
            ("model.layers.1.mlp.gate.weight", "blk.1.ffn_gate_inp.weight"),
            ("model.layers.1.mlp.gate_proj.weight", "blk.1.ffn_gate.weight"),
            ("model.layers.1.mlp.gate.e_score_correction_bias", "blk.1.exp_probs_b.bias"),
            ("model.layers.1.mlp.shared_experts.down_proj.weight", "blk.1.ffn_down_shexp.weight"),
            ("model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight"),
        ];
        for (theirs, expected) in cases {
            assert_eq!(name("deepseek2", theirs), expected);
        }
        let norm = name("glm4moe", "model.layers.1.post_attention_layernorm.weight");
        assert_eq!(norm, "blk.1.post_attention_norm.weight");
    }
}
