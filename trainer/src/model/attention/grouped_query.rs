//! Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245, section 2.2).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::Attend;
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::ops::attention::{AttentionShape, attention};
use crate::ops::linear::linear;
use crate::ops::rotary::rotate;
use crate::settings;
use crate::settings::{float, int};

settings! {
    /// Grouped-query attention with rotary positions.
    pub struct GroupedQuerySettings in "attention" {
        /// query heads; the width of a head is d_model / heads
        heads: usize = 4, int(1, 4096);
        /// key and value heads; divides attention.heads
        kv_heads: usize = 2, int(1, 4096);
        /// base of the rotary frequencies
        rope_theta: f64 = 10_000.0, float(1.0, 1e9);
    }
}

/// `softmax(q k^T / sqrt(h) + mask) v` for each query head, where groups of query heads share one
/// key and value head; h is the width of a head.
#[derive(Module, Debug)]
pub struct GroupedQuery {
    /// Queries, keys and values in one product, in this order.
    w_qkv: Param<Tensor<2>>,
    w_out: Param<Tensor<2>>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    rope_theta: f64,
}

impl Attend for GroupedQuery {
    type Settings = GroupedQuerySettings;

    fn new(settings: &GroupedQuerySettings, d_model: usize, out_scale: f64, name: &str, init: &Init) -> Self {
        let GroupedQuerySettings { heads, kv_heads, rope_theta } = *settings;
        let head_dim = d_model / heads;
        let qkv = (heads + 2 * kv_heads) * head_dim;
        Self {
            w_qkv: init.normal(&format!("{name}.w_qkv"), [d_model, qkv], 1.0),
            w_out: init.normal(&format!("{name}.w_out"), [heads * head_dim, d_model], out_scale),
            n_heads: heads,
            n_kv_heads: kv_heads,
            head_dim,
            rope_theta,
        }
    }

    fn problems(settings: &GroupedQuerySettings, d_model: usize) -> Vec<String> {
        let GroupedQuerySettings { heads, kv_heads, .. } = *settings;
        let mut problems = Vec::new();
        if !d_model.is_multiple_of(heads) || !(d_model / heads).is_multiple_of(2) {
            problems.push(format!(
                "model.d_model = {d_model} is not an even multiple of attention.heads = {heads}: rotary \
                 positions turn pairs of channels of a head"
            ));
        }
        if !heads.is_multiple_of(kv_heads) {
            problems.push(format!(
                "attention.heads = {heads} is not a multiple of attention.kv_heads = {kv_heads}"
            ));
        }
        problems
    }

    /// Its input, queries, keys and values and its output are kept, and a statistic of each head. A token
    /// sees half of its sequence on average.
    fn cost(settings: &GroupedQuerySettings, d_model: usize, seq_len: usize) -> Cost {
        let (d, seq, dim) = (d_model as u64, seq_len as u64, Self::head_dim(settings, d_model) as u64);
        let (heads, kv_heads) = (settings.heads as u64, settings.kv_heads as u64);
        let (qkv, out) = ((heads + 2 * kv_heads) * dim, heads * dim);
        let weights = Cost::of_weights(d * qkv + out * d);
        Cost {
            flops: weights.flops + 6 * seq * out,
            values: d + qkv + out,
            f32_values: heads,
            scores: heads * seq,
            ..weights
        }
    }

    fn head_dim(settings: &GroupedQuerySettings, d_model: usize) -> usize {
        d_model / settings.heads
    }

    fn rotary(settings: &GroupedQuerySettings, d_model: usize) -> Option<(usize, f64)> {
        Some((Self::head_dim(settings, d_model), settings.rope_theta))
    }

    fn forward(&self, x: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let (heads, kv_heads, head_dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let qkv = linear(x, self.w_qkv.val());
        let rotary = ctx.rotary(head_dim, self.rope_theta);
        // Queries and keys turn by the same angles, so they turn together.
        let turned = rotate(qkv, rotary.cos.clone(), rotary.sin.clone(), heads + kv_heads);
        let [_, seq] = ctx.dims();
        let shape = AttentionShape { seq, heads, kv_heads, head_dim };
        linear(attention(turned, ctx.first.clone(), shape), self.w_out.val())
    }
}
