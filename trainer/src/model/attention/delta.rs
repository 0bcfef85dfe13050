//! Kimi Delta Attention (Kimi Team 2025, arXiv 2510.26692, section 3), and with one decay per head, gated
//! delta networks (Yang et al. 2024, arXiv 2412.06464): each head keeps a matrix that every token of a
//! document corrects toward its value, so that time and memory grow with the length. It needs no positions.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, softplus};
use serde::{Deserialize, Serialize};

use super::cache::Kept;
use super::{Attend, Forward, Place};
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::model::norm::RmsNorm;
use crate::ops::attention::{by_head, by_token};
use crate::ops::delta_rule::{CHUNK, DeltaInput, gated_delta_rule, gated_delta_rule_from};
use crate::ops::linear::{cast_f32, cast_like, linear};
use crate::ops::short_conv::short_conv;
use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{Key, Section, Values, int};

/// Added to the squared length of a query or key before dividing by it.
const LENGTH_EPS: f64 = 1e-6;

settings! {
    /// Kimi Delta Attention.
    pub struct DeltaSettings in "attention.kda" {
        /// heads, each with a state of key_dim times value_dim
        heads: usize = 4, int(1, 4096);
        /// channels of a query and a key
        key_dim: usize = 32, int(1, 4096);
        /// channels of a value; also the width between the two matrices of decays and of gates
        value_dim: usize = 32, int(1, 4096);
        /// tokens that the convolution of each channel of queries, keys and values sees, including the token
        /// itself
        conv: usize = 4, int(1, 64);
        /// what has its own decay rate: each channel of a key, or each head as in a gated delta network
        decay: Decay = Decay::Channel, Kind::Choice(&["channel", "head"]);
    }
}

/// What has its own decay rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Each channel of a key.
    Channel,
    /// Each head.
    Head,
}

/// `S <- diag(exp g) S`, `S <- S + beta k (v - k^T S)^T`, `o = q^T S / sqrt(key_dim)` for each head, and `y =
/// (norm(o) * sigmoid(gate)) w_out`. Queries, keys and values come through a convolution and SiLU, queries
/// and keys have length 1, `g = -exp(a_log) softplus(f + dt_bias)`, `beta = sigmoid(x w_beta)`.
#[derive(Module, Debug)]
pub struct Delta {
    /// Queries, keys and values in one product, in this order.
    w_qkv: Param<Tensor<2>>,
    /// `[channels * conv]`, the weights of one channel next to each other.
    conv: Param<Tensor<1>>,
    /// `[d_model, value_dim]`, with a decay per channel.
    w_decay_in: Option<Param<Tensor<2>>>,
    /// `[value_dim, heads * key_dim]`, or `[d_model, heads]`.
    w_decay: Param<Tensor<2>>,
    /// `[heads]`
    a_log: Param<Tensor<1>>,
    /// `[heads * key_dim]` or `[heads]`.
    dt_bias: Param<Tensor<1>>,
    /// `[d_model, heads]`
    w_beta: Param<Tensor<2>>,
    w_gate_in: Param<Tensor<2>>,
    w_gate: Param<Tensor<2>>,
    b_gate: Param<Tensor<1>>,
    /// One scale per channel of a head.
    norm: RmsNorm,
    w_out: Param<Tensor<2>>,
    n_heads: usize,
    key_dim: usize,
    value_dim: usize,
}

impl DeltaSettings {
    /// Columns of queries, keys and values.
    fn columns(&self) -> usize {
        self.heads * (2 * self.key_dim + self.value_dim)
    }

    fn n_decays(&self) -> usize {
        match self.decay {
            Decay::Channel => self.heads * self.key_dim,
            Decay::Head => self.heads,
        }
    }
}

impl Attend for DeltaSettings {
    type Layer = Delta;

    fn keys() -> Vec<Key> {
        <Self as Section>::keys()
    }

    fn read(values: &dyn Values) -> Result<Self, String> {
        settings::read(values)
    }

    fn build(&self, place: Place, name: &str, init: &Init) -> Delta {
        let Self { heads, key_dim, value_dim, conv, decay } = *self;
        let (d, channels, out) = (place.d_model, self.columns(), heads * value_dim);
        let named = |field: &str| format!("{name}.{field}");
        let normal = |field: &str, shape| init.normal(&named(field), shape, 1.0);
        let has_rank = decay == Decay::Channel;
        // The published initial values: convolution weights as in other libraries, decay rates from 1
        // to 16, steps from 0.001 to 0.1, uniformly in their logarithms except for the rates.
        let bound = (conv as f64).powf(-0.5);
        let step = |u: f64| (0.001f64.ln() + u * 100f64.ln()).exp();
        let before_softplus = |step: f64| step + (-(-step).exp_m1()).ln();
        Delta {
            w_qkv: normal("w_qkv", [d, channels]),
            conv: init.uniform(&named("conv"), [channels * conv], |u| bound * (2.0 * u - 1.0)),
            w_decay_in: has_rank.then(|| normal("w_decay_in", [d, value_dim])),
            w_decay: normal("w_decay", [if has_rank { value_dim } else { d }, self.n_decays()]),
            a_log: init.uniform(&named("a_log"), [heads], |u| (1.0 + 15.0 * u).ln()),
            dt_bias: init.uniform(&named("dt_bias"), [self.n_decays()], |u| before_softplus(step(u))),
            w_beta: normal("w_beta", [d, heads]),
            w_gate_in: normal("w_gate_in", [d, value_dim]),
            w_gate: normal("w_gate", [value_dim, out]),
            b_gate: Param::from_tensor(Tensor::zeros([out], init.device())),
            norm: RmsNorm::new(value_dim, place.norm_eps, init.device()),
            w_out: init.normal(&named("w_out"), [out, d], place.out_scale),
            n_heads: heads,
            key_dim,
            value_dim,
        }
    }

    fn problems(&self, _: usize) -> Vec<String> {
        Vec::new()
    }

    /// In a chunk, every token interacts with every other in each channel of a key, which is most of what is
    /// kept.
    fn cost(&self, d_model: usize, _: usize) -> Cost {
        let [d, heads, key, value, columns, decays, conv] =
            [d_model, self.heads, self.key_dim, self.value_dim, self.columns(), self.n_decays(), self.conv]
                .map(|n| n as u64);
        let (out, chunk) = (heads * value, CHUNK as u64);
        let decay = match self.decay {
            Decay::Channel => d * value + value * decays,
            Decay::Head => d * decays,
        };
        let weights = Cost::of_weights(d * columns + decay + d * heads + d * value + value * out + out * d);
        let few = columns * conv + heads + decays + out + value;
        // Forward: keys and queries with keys, corrections, and the state read twice and written once.
        let products = 2 * chunk * (2 * key + key + 2 * value) + 6 * key * value;
        Cost {
            parameters: weights.parameters + few,
            active: weights.active + few,
            flops: weights.flops + 3 * heads * products,
            values: d + 2 * columns + 3 * out + 2 * value,
            f32_values: (conv + 2) * columns
                + heads * (chunk * (3 * key + 6) + 12 * key + 8 * value + 4 * key * value / chunk),
            ..weights
        }
    }

    fn head_dim(&self, _: usize) -> usize {
        0
    }

    fn rotary(&self, _: usize) -> Option<(usize, f64)> {
        None
    }
}

impl Delta {
    /// Queries, keys and values of each head from the output of the convolutions, with queries and keys of
    /// length 1, in f32.
    fn parts(&self, qkv: Tensor<2>, seq: usize) -> [Tensor<4>; 3] {
        let (heads, width) = (self.n_heads, self.n_heads * self.key_dim);
        let part =
            |from: usize, columns: usize| by_head(cast_f32(qkv.clone().narrow(1, from, columns)), seq, heads);
        let unit = |x: Tensor<4>| {
            let square = (x.clone() * x.clone()).sum_dim(3);
            x / (square + LENGTH_EPS).sqrt()
        };
        [unit(part(0, width)), unit(part(width, width)), part(2 * width, heads * self.value_dim)]
    }

    /// The logarithm of the factor of each channel of the state, `[batch, heads, seq, key_dim]`.
    fn decay(&self, x: Tensor<2>, seq: usize) -> Tensor<4> {
        let x = match &self.w_decay_in {
            Some(w_decay_in) => linear(x, w_decay_in.val()),
            None => x,
        };
        let heads = self.n_heads;
        let step = cast_f32(linear(x, self.w_decay.val())) + self.dt_bias.val().unsqueeze_dim::<2>(0);
        let rate = self.a_log.val().exp().reshape([1, heads, 1, 1]);
        let decay = by_head(softplus(step, 1.0), seq, heads) * rate.neg();
        let [batch, _, _, _] = decay.dims();
        decay.expand([batch, heads, seq, self.key_dim])
    }

    /// The input of the delta rule.
    fn input(&self, x: &Tensor<2>, qkv: Tensor<2>, seq: usize) -> DeltaInput {
        let [query, key, value] = self.parts(qkv, seq);
        let query = query * (self.key_dim as f64).powf(-0.5);
        let decay = self.decay(x.clone(), seq);
        let beta = by_head(sigmoid(cast_f32(linear(x.clone(), self.w_beta.val()))), seq, self.n_heads);
        DeltaInput { query, key, value, decay, beta }
    }

    /// The output of the delta rule, normalized, gated and projected back.
    fn output(&self, x: &Tensor<2>, y: Tensor<4>) -> Tensor<2> {
        let ([tokens, _], heads, value_dim) = (x.dims(), self.n_heads, self.value_dim);
        let y = by_token(y).reshape([tokens * heads, value_dim]);
        let y = self.norm.forward(y).reshape([tokens, heads * value_dim]);
        let gate = linear(linear(x.clone(), self.w_gate_in.val()), self.w_gate.val());
        let gate = sigmoid(cast_f32(gate) + self.b_gate.val().unsqueeze_dim::<2>(0));
        linear(cast_like(y * gate, x), self.w_out.val())
    }
}

/// What a delta rule keeps about a document.
#[derive(Debug, Default)]
pub struct DeltaCache {
    /// What convolutions see of the tokens so far, `[tokens, channels]`.
    tail: Kept<2>,
    /// `[1, heads, key_dim, value_dim]`
    state: Option<Tensor<4>>,
}

impl Forward for Delta {
    type Cache = DeltaCache;

    fn forward(&self, x: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let [_, seq] = ctx.dims();
        let qkv = short_conv(linear(x.clone(), self.w_qkv.val()), self.conv.val(), &ctx.starts, seq);
        let y = gated_delta_rule(self.input(&x, qkv, seq), &ctx.starts);
        self.output(&x, y)
    }

    fn extend(&self, x: Tensor<2>, _: &Context, cache: &mut DeltaCache) -> Tensor<2> {
        let [tokens, _] = x.dims();
        let rows = cache.tail.push(linear(x.clone(), self.w_qkv.val()), 0);
        let [n, channels] = rows.dims();
        let conv = self.conv.val();
        cache.tail.only_last(conv.dims()[0] / channels - 1, 0);
        let qkv = short_conv(rows, conv, &vec![0; n], n).narrow(0, n - tokens, tokens);
        let (y, state) =
            gated_delta_rule_from(self.input(&x, qkv, tokens), &vec![0; tokens], cache.state.take());
        cache.state = Some(state);
        self.output(&x, y)
    }

    fn side_by_side(&self, field: &str) -> Vec<usize> {
        let (key, value) = (self.n_heads * self.key_dim, self.n_heads * self.value_dim);
        if field == "w_qkv" { vec![key, key, value] } else { Vec::new() }
    }
}
