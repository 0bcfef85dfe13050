//! Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245, section 2.2).

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use moe_kernels::attention::{AttentionShape, attention};

use super::Placement;
use super::placement::{Form, OnDevice};
use crate::kernel::{Angles, Spans, attention_softmax, rotate};
use crate::model::config::ModelConfig;
use crate::model::init::Init;
use crate::model::linear::linear;

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
        }
    }

    /// # Shapes
    /// - x: `[batch * seq, d_model]`, and so is the result
    pub fn forward(&self, x: Tensor<2>, placement: &Placement) -> Tensor<2> {
        let attended = self.attend(linear(x, self.w_qkv.val()), placement);
        linear(attended, self.w_out.val())
    }

    /// Between both projections.
    ///
    /// # Shapes
    /// - qkv: `[batch * seq, (heads + 2 kv_heads) head_dim]`: queries, keys, values
    /// - result: `[batch * seq, heads * head_dim]`
    pub fn attend(&self, qkv: Tensor<2>, placement: &Placement) -> Tensor<2> {
        match placement.form() {
            Form::Host { angles, spans } => self.on_host(qkv, placement.dims(), angles, spans),
            Form::Gpu(tables) => self.on_gpu(qkv, placement.dims(), tables),
        }
    }

    /// `[batch * seq, heads * head_dim]`
    fn on_host(
        &self,
        qkv: Tensor<2>,
        [batch, seq]: [usize; 2],
        angles: &Arc<Angles>,
        spans: &Arc<Spans>,
    ) -> Tensor<2> {
        let (heads, kv_heads, dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let n_turned = heads + kv_heads;
        let by_head = |x: Tensor<2>, n: usize| x.reshape([batch, seq, n, dim]).swap_dims(1, 2);

        let value = by_head(qkv.clone().narrow(1, n_turned * dim, kv_heads * dim), kv_heads);
        // Queries and keys turn by the same angles, so they turn together.
        let turned = by_head(rotate(qkv.narrow(1, 0, n_turned * dim), angles), n_turned);
        let key = turned.clone().narrow(1, heads, kv_heads);
        // The queries of one group lie one below the other, so that keys and values are used
        // where they are and never repeated.
        let query = turned.narrow(1, 0, heads).reshape([batch, kv_heads, heads / kv_heads * seq, dim]);

        let scores = query.matmul(key.swap_dims(2, 3)).reshape([batch * heads * seq, seq]);
        let weights = attention_softmax(scores, spans, (dim as f64).powf(-0.5));
        let weights = weights.reshape([batch, kv_heads, heads / kv_heads * seq, seq]);
        let output = weights.matmul(value).reshape([batch, heads, seq, dim]);
        output.swap_dims(1, 2).reshape([batch * seq, heads * dim])
    }

    /// `[batch * seq, heads * head_dim]`
    fn on_gpu(&self, qkv: Tensor<2>, [_, seq]: [usize; 2], tables: &OnDevice) -> Tensor<2> {
        let (heads, kv_heads, head_dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let turned =
            moe_kernels::rotary::rotate(qkv, tables.cos.clone(), tables.sin.clone(), heads + kv_heads);
        attention(turned, tables.first.clone(), AttentionShape { seq, heads, kv_heads, head_dim })
    }
}
