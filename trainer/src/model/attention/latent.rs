//! Multi-head latent attention (DeepSeek-AI 2024, arXiv 2405.04434, section 2.1): keys and values of all
//! heads come from one narrow vector per token, and positions rotate separate channels, of which keys have a
//! single head.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::cache::Kept;
use super::{Attend, Forward, Place};
use crate::model::context::Context;
use crate::model::cost::{Cost, PLAIN_SCORES};
use crate::model::init::Init;
use crate::model::norm::RmsNorm;
use crate::ops::attention::{Scoring, Spans, attend, by_head, by_token};
use crate::ops::linear::{cast_like, linear};
use crate::ops::matmul::matmul;
use crate::ops::rotary::rotate;
use crate::settings;
use crate::settings::{Key, Section, Values, WIDE, float, int};

/// Added to the mean square of latent vectors regardless of `model.norm_eps`, as in the published models.
pub const LATENT_EPS: f64 = 1e-6;

settings! {
    /// Multi-head latent attention.
    pub struct LatentSettings in "attention.mla" {
        /// heads of queries, keys and values
        heads: usize = 4, int(1, 4096);
        /// width of the vector that keys and values of all heads come from
        kv_rank: usize = 64, int(1, WIDE);
        /// width of the vector that queries of all heads come from. Absent: they come from the residual
        /// stream
        q_rank: Option<usize> = None, int(1, WIDE);
        /// channels of a key without position
        nope_dim: usize = 32, int(0, 4096);
        /// channels of a key with rotary positions; 0 is attention without positions
        rope_dim: usize = 16, int(0, 4096);
        /// channels of a value
        value_dim: usize = 32, int(1, 4096);
        /// base of the rotary frequencies
        rope_theta: f64 = 10_000.0, float(1.0, 1e9);
    }
}

/// `softmax((q_n k_n^T + q_r k_r^T) / sqrt(n + r) + mask) v` for each head, where `[k_n, v] = norm(c) w_kv`,
/// `[c, k_r] = x w_latent`, and all heads share `k_r`.
#[derive(Module, Debug)]
pub struct Latent {
    /// `[d_model, q_rank]`, with low-rank queries.
    w_q_latent: Option<Param<Tensor<2>>>,
    q_norm: Option<RmsNorm>,
    /// Queries of each head: channels without and with positions. From d_model or q_rank.
    w_q: Param<Tensor<2>>,
    /// `[d_model, kv_rank + rope_dim]`
    w_latent: Param<Tensor<2>>,
    kv_norm: RmsNorm,
    /// `[kv_rank, heads * (nope_dim + value_dim)]`: key and value of each head.
    w_kv: Param<Tensor<2>>,
    w_out: Param<Tensor<2>>,
    n_heads: usize,
    kv_rank: usize,
    nope_dim: usize,
    rope_dim: usize,
    value_dim: usize,
    rope_theta: f64,
    /// Factor for the products of queries and keys.
    scale: f64,
    tile_from: usize,
}

impl Attend for LatentSettings {
    type Layer = Latent;

    fn keys() -> Vec<Key> {
        <Self as Section>::keys()
    }

    fn read(values: &dyn Values) -> Result<Self, String> {
        settings::read(values)
    }

    fn build(&self, place: Place, name: &str, init: &Init) -> Latent {
        let Self { heads, kv_rank, q_rank, nope_dim, rope_dim, value_dim, rope_theta } = *self;
        let d = place.d_model;
        let normal = |field: &str, shape| init.normal(&format!("{name}.{field}"), shape, 1.0);
        let norm = |width| RmsNorm::new(width, LATENT_EPS, init.device());
        Latent {
            w_q_latent: q_rank.map(|rank| normal("w_q_latent", [d, rank])),
            q_norm: q_rank.map(norm),
            w_q: normal("w_q", [q_rank.unwrap_or(d), heads * (nope_dim + rope_dim)]),
            w_latent: normal("w_latent", [d, kv_rank + rope_dim]),
            kv_norm: norm(kv_rank),
            w_kv: normal("w_kv", [kv_rank, heads * (nope_dim + value_dim)]),
            w_out: init.normal(&format!("{name}.w_out"), [heads * value_dim, d], place.out_scale),
            n_heads: heads,
            kv_rank,
            nope_dim,
            rope_dim,
            value_dim,
            rope_theta,
            // As in DeepSeek's models, the whole score is sharper if positions are stretched.
            scale: place.stretch.filter(|_| rope_dim > 0).map_or(1.0, |stretch| stretch.sharpness().powi(2))
                * ((nope_dim + rope_dim) as f64).powf(-0.5)
                * init.transfer().queries(nope_dim + rope_dim),
            tile_from: place.tile_from,
        }
    }

    fn problems(&self, _: usize) -> Vec<String> {
        let Self { nope_dim, rope_dim, .. } = *self;
        let mut problems = Vec::new();
        if !rope_dim.is_multiple_of(2) {
            problems.push(format!(
                "attention.mla.rope_dim = {rope_dim} is odd: rotary positions need pairs of channels"
            ));
        }
        if nope_dim + rope_dim == 0 {
            problems
                .push("attention.mla.nope_dim and attention.mla.rope_dim are both 0: keys are empty".into());
        }
        problems
    }

    /// It keeps its input, the latent vectors before and after their norms, queries, keys and values, and its
    /// output.
    fn cost(&self, d_model: usize, seq_len: usize) -> Cost {
        let (d, seq, heads) = (d_model as u64, seq_len as u64, self.heads as u64);
        let [rank, nope, rope, value] =
            [self.kv_rank, self.nope_dim, self.rope_dim, self.value_dim].map(|width| width as u64);
        let (q_rank, key) = (self.q_rank.unwrap_or(0) as u64, nope + rope);
        let q_from = if q_rank > 0 { q_rank } else { d };
        let products = d * q_rank + q_from * heads * key + d * (rank + rope);
        let weights = Cost::of_weights(products + rank * heads * (nope + value) + heads * value * d);
        let norms = rank + q_rank;
        Cost {
            parameters: weights.parameters + norms,
            active: weights.active + norms,
            flops: weights.flops + 3 * seq * heads * (key + value),
            values: d + 2 * norms + rope + heads * (2 * key + 2 * value),
            f32_values: 1 + u64::from(q_rank > 0),
            scores: heads * seq,
            gpu_scores: PLAIN_SCORES * heads * seq,
        }
    }

    fn head_dim(&self, _: usize) -> usize {
        0
    }

    fn rotary(&self, _: usize) -> Option<(usize, f64)> {
        (self.rope_dim > 0).then_some((self.rope_dim, self.rope_theta))
    }
}

impl Latent {
    /// The heads of `x`, each from channel `from` on.
    ///
    /// # Shapes
    /// - x: `[tokens, heads * head_width]`
    /// - result: `[tokens, heads * width]`
    fn part(&self, x: Tensor<2>, from: usize, width: usize) -> Tensor<2> {
        let [tokens, columns] = x.dims();
        let heads = x.reshape([tokens, self.n_heads, columns / self.n_heads]);
        heads.narrow(2, from, width).reshape([tokens, self.n_heads * width])
    }

    fn turn(&self, x: Tensor<2>, n_heads: usize, ctx: &Context) -> Tensor<2> {
        let rotary = ctx.rotary(self.rope_dim, self.rope_theta);
        rotate(x, rotary.cos.clone(), rotary.sin.clone(), n_heads)
    }

    /// Queries of each head, without and with positions; the latent vectors; and the shared key with
    /// positions.
    fn down(&self, x: Tensor<2>, ctx: &Context) -> Down {
        let Self { n_heads: heads, kv_rank, nope_dim: nope, rope_dim: rope, .. } = *self;
        let [_, seq] = ctx.dims();
        let latent = linear(x.clone(), self.w_latent.val());
        let kv = self.kv_norm.forward(latent.clone().narrow(1, 0, kv_rank));
        let query = match (&self.w_q_latent, &self.q_norm) {
            (Some(w_q_latent), Some(norm)) => norm.forward(linear(x, w_q_latent.val())),
            _ => x,
        };
        let query = linear(query, self.w_q.val());
        Down {
            nope: (nope > 0).then(|| by_head(self.part(query.clone(), 0, nope), seq, heads)),
            rope: (rope > 0).then(|| {
                let query = by_head(self.turn(self.part(query, nope, rope), heads, ctx), seq, heads);
                (query, by_head(self.turn(latent.narrow(1, kv_rank, rope), 1, ctx), seq, 1))
            }),
            kv,
        }
    }
}

/// The parts that attention needs, by head: `[batch, heads, seq, width]`.
struct Down {
    /// Queries without positions.
    nope: Option<Tensor<4>>,
    /// Queries and the key with positions.
    rope: Option<(Tensor<4>, Tensor<4>)>,
    /// Normalized latent vectors, `[tokens, kv_rank]`.
    kv: Tensor<2>,
}

impl Forward for Latent {
    /// Latent vectors, each followed by the key with positions.
    type Cache = Kept<4>;

    fn forward(&self, x: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let Self { n_heads: heads, nope_dim: nope, value_dim, .. } = *self;
        let [batch, seq] = ctx.dims();
        let Down { nope: query, rope, kv } = self.down(x, ctx);
        let kv = linear(kv, self.w_kv.val());
        let (mut queries, mut keys) = (Vec::new(), Vec::new());
        if let Some(query) = query {
            queries.push(query);
            keys.push(by_head(self.part(kv.clone(), 0, nope), seq, heads));
        }
        if let Some((query, key)) = rope {
            queries.push(query);
            keys.push(key.expand([batch, heads, seq, self.rope_dim]));
        }
        let value = by_head(self.part(kv, nope, value_dim), seq, heads);
        let spans = Arc::new(Spans::causal(&ctx.starts, seq, seq));
        let parts = [Tensor::cat(queries, 3), Tensor::cat(keys, 3), value];
        let y = attend(parts, &spans, &Scoring::scaled(self.scale, self.tile_from));
        linear(by_token(y), self.w_out.val())
    }

    /// Queries go through the key matrix and outputs through the value matrix (section 2.1.2), so that all
    /// heads attend to the latent vectors directly.
    fn extend(&self, x: Tensor<2>, ctx: &Context, cache: &mut Kept<4>) -> Tensor<2> {
        let Self { n_heads: heads, kv_rank, nope_dim: nope, value_dim, .. } = *self;
        let [tokens, _] = x.dims();
        let Down { nope: query, rope, kv } = self.down(x, ctx);
        let w_kv = cast_like(self.w_kv.val(), &kv).reshape([1, kv_rank, heads, nope + value_dim]);
        let w_kv = w_kv.swap_dims(1, 2);
        let device = kv.device();
        let kv = by_head(kv, tokens, 1);
        // Without such channels, the whole score comes from positions.
        let query = match query {
            Some(query) => matmul(query, w_kv.clone().narrow(3, 0, nope).swap_dims(2, 3)),
            None => Tensor::zeros([1, heads, tokens, kv_rank], (&device, kv.dtype())),
        };
        let (mut queries, mut rows) = (vec![query], vec![kv]);
        if let Some((query, key)) = rope {
            queries.push(query);
            rows.push(key);
        }
        let key = cache.push(Tensor::cat(rows, 3), 2);
        let (value, keys) = (key.clone().narrow(3, 0, kv_rank), key.dims()[2]);
        let spans = Arc::new(Spans::causal(&vec![0; tokens], tokens, keys));
        let scoring = Scoring::scaled(self.scale, self.tile_from);
        let y = attend([Tensor::cat(queries, 3), key, value], &spans, &scoring);
        linear(by_token(matmul(y, w_kv.narrow(3, nope, value_dim))), self.w_out.val())
    }
}
