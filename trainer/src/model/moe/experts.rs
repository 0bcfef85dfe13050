//! The routed experts: `E` SwiGLUs with stacked weights.
//!
//! Rows are sorted by expert, without gaps; each expert multiplies its own, so that no padding is multiplied.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, activation};

use super::{Activation, router_shape};
use crate::model::config::ModelConfig;
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::ops::grouped::{grouped_matmul, grouped_swiglu};
use crate::ops::routing::Routes;
use crate::ops::rows::{combine_rows, gather_rows};

/// `y_t = sum_j g_tj * expert_{e(t,j)}(x_t)` over the k experts chosen for token t.
#[derive(Module, Debug)]
pub struct Experts {
    /// Absent without gates.
    w_gate: Option<Param<Tensor<3>>>,
    w_up: Param<Tensor<3>>,
    w_down: Param<Tensor<3>>,
    dropout: f64,
    #[module(skip)]
    name: String,
}

/// The matrices of all experts, `[experts, rows, columns]` each.
#[derive(Debug, Clone)]
pub struct ExpertWeights {
    /// Into the gate; none for experts without.
    pub gate: Option<Tensor<3>>,
    /// Into the values.
    pub up: Tensor<3>,
    /// Back to the width of the input.
    pub down: Tensor<3>,
}

impl Experts {
    /// The experts of one block, as wide as [`ModelConfig::expert_width`]; `out_scale` as in
    /// [`SwiGlu::new`](crate::model::feed_forward::SwiGlu::new).
    pub fn new(config: &ModelConfig, out_scale: f64, name: &str, init: &Init) -> Self {
        let moe = &config.moe;
        let (n, width, hidden) = (moe.n_experts, config.expert_width(), moe.expert_ffn);
        let into = |part: &str| init.normal(&format!("{name}.{part}"), [n, width, hidden], 1.0);
        Self {
            w_gate: (moe.expert_activation == Activation::Swiglu).then(|| into("w_gate")),
            w_up: into("w_up"),
            w_down: init.normal(&format!("{name}.w_down"), [n, hidden, width], out_scale),
            dropout: moe.expert_dropout,
            name: name.to_string(),
        }
    }

    /// What they cost: rows before and after them, gate, up and their product are kept, and what dropout
    /// leaves.
    pub fn cost(config: &ModelConfig) -> Cost {
        let (d, f) = (config.expert_width() as u64, config.moe.expert_ffn as u64);
        let (n, k) = (config.moe.n_experts as u64, config.moe.top_k as u64);
        // Rows are made for all choices that a token may have.
        let slots = config.moe.router.slots(router_shape(config)) as u64;
        let (matrices, mut hidden) = match config.moe.expert_activation {
            Activation::Swiglu => (3, 3),
            Activation::Relu2 => (2, 3),
        };
        if config.moe.expert_dropout > 0.0 {
            hidden += 2;
        }
        let visited = Cost::of_weights(matrices * k * d * f);
        Cost { parameters: matrices * n * d * f, values: slots * (2 * d + hidden * f), ..visited }
    }

    /// All matrices.
    pub fn weights(&self) -> ExpertWeights {
        let gate = self.w_gate.as_ref().map(Param::val);
        ExpertWeights { gate, up: self.w_up.val(), down: self.w_down.val() }
    }

    /// # Shapes
    /// - x: `[tokens, width]`, and so is the result
    /// - weights: `[tokens, k]`, f32, zero on padding
    pub fn forward(&self, x: Tensor<2>, weights: Tensor<2>, routes: &Routes, ctx: &Context) -> Tensor<2> {
        let keep = (ctx.is_training() && self.dropout > 0.0).then(|| self.kept(routes, ctx));
        combine_rows(self.on_rows(gather_rows(x, routes), routes, keep), weights, routes)
    }

    /// Each expert on its rows; `keep`, `[rows, hidden]`, multiplies the hidden values.
    ///
    /// # Shapes
    /// - rows: `[rows, width]`, and so is the result
    pub fn on_rows(&self, rows: Tensor<2>, routes: &Routes, keep: Option<Tensor<2>>) -> Tensor<2> {
        let ExpertWeights { gate, up, down } = self.weights();
        let inner = match gate {
            Some(gate) => grouped_swiglu(rows, gate, up, routes.offsets.clone()),
            None => {
                let positive = activation::relu(grouped_matmul(rows, up, routes.offsets.clone()));
                positive.clone() * positive
            }
        };
        let inner = match keep {
            Some(keep) => inner.clone() * keep.cast(inner.dtype()),
            None => inner,
        };
        grouped_matmul(inner, down, routes.offsets.clone())
    }

    /// Dropout factors of the hidden values of each row. Draws belong to the choices of a token, so that
    /// neither the order of rows nor the micro-batch changes them.
    fn kept(&self, routes: &Routes, ctx: &Context) -> Tensor<2> {
        let [_, _, hidden] = self.w_up.dims();
        let draws = ctx.uniform(&format!("{}.dropout", self.name), routes.top_k * hidden);
        let [tokens, _] = draws.dims();
        let is_kept = draws.greater_equal_elem(self.dropout).float() * (1.0 / (1.0 - self.dropout));
        is_kept.reshape([tokens * routes.top_k, hidden]).select(0, routes.choice_of_row.clone().clamp_min(0))
    }
}
