//! Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245, section 2.2).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::model::config::ModelConfig;
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::ops::attention::{AttentionShape, attention};
use crate::ops::linear::linear;
use crate::ops::rotary::rotate;

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

impl GroupedQuery {
    /// The attention of one block. `out_scale` multiplies the initial standard deviation of the
    /// projection back into the residual stream.
    pub fn new(config: &ModelConfig, out_scale: f64, name: &str, init: &Init) -> Self {
        let (n_heads, n_kv_heads) = (config.attention.n_heads, config.attention.n_kv_heads);
        let head_dim = config.head_dim();
        let qkv = (n_heads + 2 * n_kv_heads) * head_dim;
        Self {
            w_qkv: init.normal(&format!("{name}.w_qkv"), [config.d_model, qkv], 1.0),
            w_out: init.normal(&format!("{name}.w_out"), [n_heads * head_dim, config.d_model], out_scale),
            n_heads,
            n_kv_heads,
            head_dim,
            rope_theta: config.attention.rope_theta,
        }
    }

    /// What the attention of one block costs: its input, queries, keys and values and its output are kept,
    /// and a statistic of each head. A token sees half of its sequence on average.
    pub fn cost(config: &ModelConfig) -> Cost {
        let (d, seq, dim) = (config.d_model as u64, config.seq_len as u64, config.head_dim() as u64);
        let (heads, kv_heads) = (config.attention.n_heads as u64, config.attention.n_kv_heads as u64);
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

    /// # Shapes
    /// - x: `[batch * seq, d_model]`, and so is the result
    pub fn forward(&self, x: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let attended = self.attend(linear(x, self.w_qkv.val()), ctx);
        linear(attended, self.w_out.val())
    }

    /// Between both projections.
    ///
    /// # Shapes
    /// - qkv: `[batch * seq, (heads + 2 kv_heads) head_dim]`: queries, keys, values
    /// - result: `[batch * seq, heads * head_dim]`
    pub fn attend(&self, qkv: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let (heads, kv_heads, head_dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let rotary = ctx.rotary(head_dim, self.rope_theta);
        // Queries and keys turn by the same angles, so they turn together.
        let turned = rotate(qkv, rotary.cos.clone(), rotary.sin.clone(), heads + kv_heads);
        let [_, seq] = ctx.dims();
        attention(turned, ctx.first.clone(), AttentionShape { seq, heads, kv_heads, head_dim })
    }
}
