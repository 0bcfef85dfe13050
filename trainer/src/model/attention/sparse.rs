//! Native sparse attention (Yuan et al. 2025, arXiv 2502.11089): a token sees the means of blocks, the tokens
//! of the blocks whose means it attends to most, and the last tokens, with a gate for each of these.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

use super::cache::KeyValueCache;
use super::{Attend, Forward, Place};
use crate::model::context::Context;
use crate::model::cost::{Cost, PLAIN_SCORES};
use crate::model::init::Init;
use crate::model::scaled;
use crate::ops::attention::{Scoring, by_head, by_token};
use crate::ops::linear::{cast_f32, cast_like, linear};
use crate::ops::native_sparse::{Branches, sparse_attention};
use crate::ops::rotary::rotate;
use crate::settings;
use crate::settings::{Key, MANY, Section, Values, float, int};

settings! {
    /// Native sparse attention.
    pub struct SparseSettings in "attention.nsa" {
        /// query heads
        heads: usize = 4, int(1, 4096);
        /// key and value heads; divides attention.nsa.heads. Heads that share keys select the same blocks
        kv_heads: usize = 1, int(1, 4096);
        /// channels of a head, an even number
        head_dim: usize = 32, int(2, 4096);
        /// tokens of a block; its keys and values are compressed to their means, and it is selected as a
        /// whole
        block: usize = 64, int(1, MANY);
        /// blocks that a token selects, including its own
        selected: usize = 16, int(1, MANY);
        /// last tokens that a token sees, including itself
        window: usize = 512, int(1, MANY);
        /// base of the rotary frequencies
        rope_theta: f64 = 10_000.0, float(1.0, 1e9);
    }
}

/// `y = (sum_c sigmoid(x w_gate)_c attend^c(q, k, v)) w_out`, with queries and keys rotated by position; see
/// [`sparse_attention`].
#[derive(Module, Debug)]
pub struct Sparse {
    /// Queries, keys and values in one product, in this order.
    w_qkv: Param<Tensor<2>>,
    /// `[d_model, heads * 3]`: for each head, the gates of means, selected blocks, and last tokens.
    w_gate: Param<Tensor<2>>,
    w_out: Param<Tensor<2>>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    rope_theta: f64,
    /// Factor for rotated queries and keys.
    sharpness: f64,
    tile_from: usize,
    /// Factor for queries.
    query_scale: f64,
    #[module(skip)]
    branches: Branches,
}

impl Attend for SparseSettings {
    type Layer = Sparse;

    fn keys() -> Vec<Key> {
        <Self as Section>::keys()
    }

    fn read(values: &dyn Values) -> Result<Self, String> {
        settings::read(values)
    }

    fn build(&self, place: Place, name: &str, init: &Init) -> Sparse {
        let Self { heads, kv_heads, head_dim, block, selected, window, rope_theta } = *self;
        let (d, out) = (place.d_model, heads * head_dim);
        Sparse {
            w_qkv: init.normal(&format!("{name}.w_qkv"), [d, (heads + 2 * kv_heads) * head_dim], 1.0),
            w_gate: init.normal(&format!("{name}.w_gate"), [d, 3 * heads], 1.0),
            w_out: init.normal(&format!("{name}.w_out"), [out, d], place.out_scale),
            n_heads: heads,
            n_kv_heads: kv_heads,
            head_dim,
            rope_theta,
            sharpness: place.stretch.map_or(1.0, |stretch| stretch.sharpness()),
            tile_from: place.tile_from,
            query_scale: init.transfer().queries(head_dim),
            branches: Branches { block, selected, window },
        }
    }

    fn problems(&self, _: usize) -> Vec<String> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        let mut problems = Vec::new();
        if !heads.is_multiple_of(kv_heads) {
            problems.push(format!(
                "attention.nsa.heads = {heads} is not a multiple of attention.nsa.kv_heads = {kv_heads}"
            ));
        }
        if !head_dim.is_multiple_of(2) {
            problems.push(format!(
                "attention.nsa.head_dim = {head_dim} is odd: rotary positions need pairs of channels"
            ));
        }
        problems
    }

    /// It keeps its input, queries, keys and values, each branch's output before and after its gate, and the
    /// result.
    fn cost(&self, d_model: usize, seq_len: usize) -> Cost {
        let [d, heads, kv_heads, dim, block, selected, window, seq] = [
            d_model,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.block,
            self.selected,
            self.window,
            seq_len,
        ]
        .map(|n| n as u64);
        let (qkv, out) = ((heads + 2 * kv_heads) * dim, heads * dim);
        let weights = Cost::of_weights(d * qkv + d * 3 * heads + out * d);
        let half = seq / 2;
        let seen = half / block + half.min(selected.saturating_mul(block)) + half.min(window);
        let in_window = seq.min(window.saturating_mul(2));
        Cost {
            flops: weights.flops + 12 * seen * out,
            values: d + qkv + 7 * out + 6 * heads,
            f32_values: 3 * heads,
            // On the CPU, the branches over blocks keep none.
            scores: heads * in_window,
            gpu_scores: PLAIN_SCORES * heads * (seq / block + seq + in_window),
            ..weights
        }
    }

    fn head_dim(&self, _: usize) -> usize {
        0
    }

    fn rotary(&self, _: usize) -> Option<(usize, f64)> {
        Some((self.head_dim, self.rope_theta))
    }
}

impl Sparse {
    /// Queries, keys and values of some tokens, and the gates, by head.
    fn parts(&self, x: Tensor<2>, ctx: &Context) -> ([Tensor<4>; 3], Tensor<4>) {
        let (heads, kv_heads, dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let [_, seq] = ctx.dims();
        let gate = linear(x.clone(), self.w_gate.val());
        let gate = by_head(cast_like(sigmoid(cast_f32(gate)), &x), seq, heads);
        let [cos, sin] = ctx.rotary(dim, self.rope_theta).times(self.sharpness);
        let qkv = rotate(linear(x, self.w_qkv.val()), cos, sin, heads + kv_heads);
        let columns = |from: usize, n: usize| by_head(qkv.clone().narrow(1, from * dim, n * dim), seq, n);
        let query = scaled(columns(0, heads), self.query_scale);
        ([query, columns(heads, kv_heads), columns(heads + kv_heads, kv_heads)], gate)
    }

    fn attend(&self, parts: [Tensor<4>; 3], gate: Tensor<4>, starts: &[usize]) -> Tensor<2> {
        let scoring = Scoring::scaled((self.head_dim as f64).powf(-0.5), self.tile_from);
        let y = sparse_attention(parts, gate, starts, self.branches, &scoring);
        linear(by_token(y), self.w_out.val())
    }
}

impl Forward for Sparse {
    type Cache = KeyValueCache;

    fn forward(&self, x: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let (parts, gate) = self.parts(x, ctx);
        self.attend(parts, gate, &ctx.starts)
    }

    /// Keys and values of all tokens are kept: any block may be selected later.
    fn extend(&self, x: Tensor<2>, ctx: &Context, cache: &mut KeyValueCache) -> Tensor<2> {
        let ([query, key, value], gate) = self.parts(x, ctx);
        let [key, value] = cache.push(key, value);
        let starts = vec![0; key.dims()[2]];
        self.attend([query, key, value], gate, &starts)
    }

    fn side_by_side(&self, field: &str) -> Vec<usize> {
        let (query, key) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        if field == "w_qkv" { vec![query, key, key] } else { Vec::new() }
    }
}
