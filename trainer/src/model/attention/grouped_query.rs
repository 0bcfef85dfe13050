//! Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245, section 2.2), over a whole document or a
//! sliding window, with common additions: normalized queries and keys (Henry et al. 2020, arXiv 2010.04245,
//! with RMSNorm as in Qwen3), gated outputs (Qiu et al. 2025, arXiv 2505.06708, G1), sinks (OpenAI 2025,
//! gpt-oss), and rotary positions in some of the channels or blocks.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::cache::KeyValueCache;
use super::{Attend, Forward, Place};
use crate::model::context::Context;
use crate::model::cost::{Cost, PLAIN_SCORES};
use crate::model::init::Init;
use crate::model::norm::RmsNorm;
use crate::ops::attention::{
    AttentionShape, Scoring, Spans, attend, attention, attention_in_window, by_head, by_token,
};
use crate::ops::linear::{cast_f32, cast_like, linear};
use crate::ops::rotary::rotate_part;
use crate::ops::row_functions::logistic;
use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{Key, Section, Values, float, int};

settings! {
    /// Grouped-query attention with rotary positions.
    pub struct GroupedQuerySettings in "attention" {
        /// query heads
        heads: usize = 4, int(1, 4096);
        /// key and value heads; divides attention.heads
        kv_heads: usize = 2, int(1, 4096);
        /// width of a head, in channels. Absent: model.d_model / attention.heads
        head_dim: Option<usize> = None, int(1, 4096);
        /// base of the rotary frequencies
        rope_theta: f64 = 10_000.0, float(1.0, 1e9);
        /// blocks with rotary positions: all, only those with a window, or none
        rotary: RotaryBlocks = RotaryBlocks::All, Kind::Choice(&["all", "window", "none"]);
        /// fraction of a head's channels, from the first, that have rotary positions
        rotary_fraction: f64 = 1.0, float(0.01, 1.0);
        /// normalize each head of queries and keys by its root mean square, before rotary positions, with one
        /// trained scale per channel
        qk_norm: bool = false, Kind::Bool;
        /// multiply outputs, before the output projection, by the sigmoid of a projection of the block's
        /// normalized input: one gate per head or per channel
        gate: Gate = Gate::None, Kind::Choice(&["none", "head", "channel"]);
        /// give each head a trained logit, initially 0, that takes part in the softmax and has no value
        sinks: bool = false, Kind::Bool;
        /// bound c of scores, which become c tanh(score / c) before the softmax. Absent: none
        softcap: Option<f64> = None, float(1e-2, 1e6);
    }
}

/// Which blocks have rotary positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotaryBlocks {
    /// All.
    All,
    /// Those with a window.
    Window,
    /// None: causality alone gives the order.
    None,
}

/// Gates of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// No gate.
    None,
    /// One for each head.
    Head,
    /// One for each channel of each head.
    Channel,
}

/// `softmax(q k^T / sqrt(h) + mask) v` for each query head, where groups of query heads share one key and
/// value head; h is the width of a head. A sink adds `e^sink` to the denominator of its head's softmax.
#[derive(Module, Debug)]
pub struct GroupedQuery {
    /// Queries, keys and values in one product, in this order.
    w_qkv: Param<Tensor<2>>,
    w_out: Param<Tensor<2>>,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    /// `[d_model, heads]` or `[d_model, heads * head_dim]`.
    w_gate: Option<Param<Tensor<2>>>,
    /// `[heads]`
    sinks: Option<Param<Tensor<1>>>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    /// Channels of a head that are rotated, and the base of their frequencies.
    rotary: Option<(usize, f64)>,
    /// Tokens that a token sees, including itself.
    window: Option<usize>,
    softcap: Option<f64>,
    /// Factor for rotated queries and keys.
    sharpness: f64,
    tile_from: usize,
    /// Factor for queries.
    query_scale: f64,
}

impl GroupedQuerySettings {
    /// The attention of one block, of the last `window` tokens or of all.
    pub(super) fn layer(&self, window: Option<usize>, place: Place, name: &str, init: &Init) -> GroupedQuery {
        let Self { heads, kv_heads, .. } = *self;
        let head_dim = self.dim(place.d_model);
        let (qkv, out) = ((heads + 2 * kv_heads) * head_dim, heads * head_dim);
        let norm = || self.qk_norm.then(|| RmsNorm::new(head_dim, place.norm_eps, init.device()));
        let gate = |width| init.normal(&format!("{name}.w_gate"), [place.d_model, width], 1.0);
        GroupedQuery {
            w_qkv: init.normal(&format!("{name}.w_qkv"), [place.d_model, qkv], 1.0),
            w_out: init.normal(&format!("{name}.w_out"), [out, place.d_model], place.out_scale),
            q_norm: norm(),
            k_norm: norm(),
            w_gate: (self.gate != Gate::None).then(|| gate(self.gate_width(out))),
            sinks: self.sinks.then(|| Param::from_tensor(Tensor::zeros([heads], init.device()))),
            n_heads: heads,
            n_kv_heads: kv_heads,
            head_dim,
            rotary: self.turned(place.d_model, window.is_some()),
            window,
            softcap: self.softcap,
            sharpness: place.stretch.map_or(1.0, |stretch| stretch.sharpness()),
            tile_from: place.tile_from,
            query_scale: init.transfer().queries(head_dim),
        }
    }

    /// Width of a head, in channels.
    pub(super) fn dim(&self, d_model: usize) -> usize {
        self.head_dim.unwrap_or(d_model / self.heads)
    }

    fn gate_width(&self, out: usize) -> usize {
        match self.gate {
            Gate::None => 0,
            Gate::Head => self.heads,
            Gate::Channel => out,
        }
    }

    /// Channels of a head that are rotated, and the base of their frequencies.
    pub(super) fn turned(&self, d_model: usize, has_window: bool) -> Option<(usize, f64)> {
        let turns = match self.rotary {
            RotaryBlocks::All => true,
            RotaryBlocks::Window => has_window,
            RotaryBlocks::None => false,
        };
        let width = (self.rotary_fraction * self.dim(d_model) as f64) as usize;
        turns.then_some((width, self.rope_theta))
    }

    /// Problems that do not depend on the window.
    pub(super) fn all_problems(&self, d_model: usize) -> Vec<String> {
        let Self { heads, kv_heads, rotary, rotary_fraction: fraction, .. } = *self;
        let mut problems = Vec::new();
        let dim = self.dim(d_model);
        let is_fixed = self.head_dim.is_some();
        let (is_whole, turns) = (is_fixed || d_model.is_multiple_of(heads), rotary != RotaryBlocks::None);
        let turned = self.turned(d_model, true).map_or(0, |(width, _)| width);
        if !is_fixed && (!is_whole || turns && fraction == 1.0 && !dim.is_multiple_of(2)) {
            problems.push(format!(
                "model.d_model = {d_model} is not an even multiple of attention.heads = {heads}: rotary \
                 positions turn pairs of channels of a head"
            ));
        } else if turns && (turned == 0 || !turned.is_multiple_of(2)) {
            problems.push(format!(
                "attention.rotary_fraction = {fraction} of heads of {dim} channels is {turned}: rotary positions turn \
                 pairs of channels"
            ));
        } else if !turns && fraction < 1.0 {
            problems.push(format!(
                "attention.rotary_fraction = {fraction} has no effect with attention.rotary = \"none\""
            ));
        }
        if !heads.is_multiple_of(kv_heads) {
            problems.push(format!(
                "attention.heads = {heads} is not a multiple of attention.kv_heads = {kv_heads}"
            ));
        }
        problems
    }

    /// What the attention costs where a token is compared with `compared` keys, of which it sees `seen` on
    /// average.
    ///
    /// Its input, queries, keys, values and output are kept, and two statistics per head (on a GPU one).
    pub(super) fn cost_of(&self, d_model: usize, compared: u64, seen: f64) -> Cost {
        let (heads, kv_heads) = (self.heads as u64, self.kv_heads as u64);
        let (d, dim) = (d_model as u64, self.dim(d_model) as u64);
        let (qkv, out) = ((heads + 2 * kv_heads) * dim, heads * dim);
        let gate = self.gate_width(out as usize) as u64;
        let (norms, sinks) = (u64::from(self.qk_norm), u64::from(self.sinks));
        let weights = Cost::of_weights(d * qkv + out * d + d * gate);
        let few = 2 * dim * norms + heads * sinks;
        // A gate keeps its logits, its output and what it multiplies; a norm keeps its input.
        let gated = if gate > 0 { 2 * gate + out } else { 0 };
        let normed = norms * (heads + kv_heads) * dim;
        // No GPU kernel supports sinks or a cap.
        let is_plain = !self.sinks && self.softcap.is_none();
        let in_plain = if is_plain { 0 } else { PLAIN_SCORES * heads * (compared + 1) };
        Cost {
            parameters: weights.parameters + few,
            active: weights.active + few,
            flops: weights.flops + (12.0 * seen * out as f64) as u64,
            values: d + qkv + out + gated + normed,
            f32_values: 2 * heads + norms * (heads + kv_heads),
            scores: 0,
            gpu_scores: in_plain,
        }
    }
}

impl Attend for GroupedQuerySettings {
    type Layer = GroupedQuery;

    fn keys() -> Vec<Key> {
        <Self as Section>::keys()
    }

    fn read(values: &dyn Values) -> Result<Self, String> {
        settings::read(values)
    }

    fn build(&self, place: Place, name: &str, init: &Init) -> GroupedQuery {
        self.layer(None, place, name, init)
    }

    fn problems(&self, d_model: usize) -> Vec<String> {
        self.all_problems(d_model)
    }

    /// A token sees half of its sequence on average.
    fn cost(&self, d_model: usize, seq_len: usize) -> Cost {
        self.cost_of(d_model, seq_len as u64, seq_len as f64 / 2.0)
    }

    fn head_dim(&self, d_model: usize) -> usize {
        self.dim(d_model)
    }

    fn rotary(&self, d_model: usize) -> Option<(usize, f64)> {
        self.turned(d_model, false)
    }
}

impl GroupedQuery {
    /// Queries and keys normalized per head; values unchanged.
    ///
    /// # Shapes
    /// - qkv: `[tokens, (heads + 2 * kv_heads) * head_dim]`, and so is the result
    fn normed(&self, qkv: Tensor<2>) -> Tensor<2> {
        let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) else { return qkv };
        let (tokens, dim) = (qkv.dims()[0], self.head_dim);
        let columns = |from: usize, n: usize| qkv.clone().narrow(1, from * dim, n * dim);
        let by_head = |norm: &RmsNorm, from: usize, n: usize| {
            norm.forward(columns(from, n).reshape([tokens * n, dim])).reshape([tokens, n * dim])
        };
        let (heads, kv_heads) = (self.n_heads, self.n_kv_heads);
        let query = by_head(q_norm, 0, heads);
        let key = by_head(k_norm, heads, kv_heads);
        Tensor::cat(vec![query, key, columns(heads + kv_heads, kv_heads)], 1)
    }

    /// Queries scaled for the parametrization; keys and values unchanged.
    ///
    /// # Shapes
    /// As in `normed`.
    fn scaled(&self, qkv: Tensor<2>) -> Tensor<2> {
        if self.query_scale == 1.0 {
            return qkv;
        }
        let (columns, of_queries) = (qkv.dims()[1], self.n_heads * self.head_dim);
        let queries = qkv.clone().narrow(1, 0, of_queries) * self.query_scale;
        Tensor::cat(vec![queries, qkv.narrow(1, of_queries, columns - of_queries)], 1)
    }

    /// Queries, keys and values side by side, with queries and keys normalized and rotated.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    /// - result: `[tokens, (heads + 2 * kv_heads) * head_dim]`
    fn qkv(&self, x: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let qkv = self.normed(linear(x, self.w_qkv.val()));
        let turned = match self.rotary {
            None => qkv,
            Some((width, theta)) => {
                let [cos, sin] = ctx.rotary(width, theta).times(self.sharpness);
                // Queries and keys are rotated by the same angles, so in one operation.
                rotate_part(qkv, cos, sin, self.n_heads + self.n_kv_heads, self.head_dim)
            }
        };
        self.scaled(turned)
    }

    fn scoring(&self) -> Scoring {
        Scoring {
            softcap: self.softcap,
            sinks: self.sinks.as_ref().map(Param::val),
            ..Scoring::scaled((self.head_dim as f64).powf(-0.5), self.tile_from)
        }
    }

    /// Attention between tokens, within documents and windows.
    ///
    /// # Shapes
    /// - qkv: as [`Self::qkv`] gives it
    /// - result: `[tokens, heads * head_dim]`
    fn among_themselves(&self, qkv: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let (scoring, [_, seq]) = (self.scoring(), ctx.dims());
        let shape =
            AttentionShape { seq, heads: self.n_heads, kv_heads: self.n_kv_heads, head_dim: self.head_dim };
        match self.window {
            None => attention(qkv, ctx.first.clone(), &ctx.starts, shape, &scoring),
            Some(window) => attention_in_window(qkv, &ctx.starts, window, shape, &scoring),
        }
    }

    /// The heads of each token, `[tokens, heads * head_dim]`, through the gate and back into the residual
    /// stream.
    fn output(&self, mut y: Tensor<2>, gate: Option<Tensor<2>>) -> Tensor<2> {
        if let Some(gate) = gate {
            let [tokens, columns] = y.dims();
            let n_gates = gate.dims()[1];
            let gate = cast_like(logistic(cast_f32(gate)), &y).unsqueeze_dim::<3>(2);
            y = (y.reshape([tokens, n_gates, columns / n_gates]) * gate).reshape([tokens, columns]);
        }
        linear(y, self.w_out.val())
    }

    fn gate(&self, x: &Tensor<2>) -> Option<Tensor<2>> {
        self.w_gate.as_ref().map(|w_gate| linear(x.clone(), w_gate.val()))
    }
}

impl Forward for GroupedQuery {
    type Cache = KeyValueCache;

    fn forward(&self, x: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let (gate, qkv) = (self.gate(&x), self.qkv(x, ctx));
        self.output(self.among_themselves(qkv, ctx), gate)
    }

    /// Keys and values of all tokens are kept; with a window, only those of its tokens.
    fn extend(&self, x: Tensor<2>, ctx: &Context, cache: &mut KeyValueCache) -> Tensor<2> {
        let (gate, [tokens, _]) = (self.gate(&x), x.dims());
        let qkv = self.qkv(x, ctx);
        let (heads, kv_heads, dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let columns = |from: usize, n: usize| by_head(qkv.clone().narrow(1, from * dim, n * dim), tokens, n);
        let [key, value] = cache.push(columns(heads, kv_heads), columns(heads + kv_heads, kv_heads));
        let keys = key.dims()[2];
        let y = if keys == tokens {
            // A prompt: with the training kernel, which keeps no scores.
            self.among_themselves(qkv, ctx)
        } else {
            let window = self.window.unwrap_or(keys);
            let first: Vec<usize> = (keys - tokens..keys).map(|at| (at + 1).saturating_sub(window)).collect();
            let spans = Arc::new(Spans::causal(&first, tokens, keys));
            by_token(attend([columns(0, heads), key, value], &spans, &self.scoring()))
        };
        // The next token sees itself.
        cache.only_last(self.window.map_or(usize::MAX, |window| window - 1));
        self.output(y, gate)
    }

    fn side_by_side(&self, field: &str) -> Vec<usize> {
        let (query, key) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        if field == "w_qkv" { vec![query, key, key] } else { Vec::new() }
    }
}
