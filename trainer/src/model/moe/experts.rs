//! The routed experts: `E` SwiGLUs with stacked weights.
//!
//! Rows are sorted by expert and lie without gaps; each expert multiplies its own, so that no padding is multiplied.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::model::config::ModelConfig;
use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::ops::grouped::{grouped_matmul, grouped_swiglu};
use crate::ops::routing::Routes;
use crate::ops::rows::{combine_rows, gather_rows};

/// `y_t = sum_j g_tj * expert_{e(t,j)}(x_t)` over the k experts chosen for token t.
#[derive(Module, Debug)]
pub struct Experts {
    w_gate: Param<Tensor<3>>,
    w_up: Param<Tensor<3>>,
    w_down: Param<Tensor<3>>,
}

/// The matrices of all experts, `[experts, rows, columns]` each.
#[derive(Debug, Clone)]
pub struct ExpertWeights {
    /// Into the gate.
    pub gate: Tensor<3>,
    /// Into the values.
    pub up: Tensor<3>,
    /// Back into the residual stream.
    pub down: Tensor<3>,
}

impl Experts {
    /// The experts of one block; `out_scale` as in
    /// [`SwiGlu::new`](crate::model::feed_forward::SwiGlu::new).
    pub fn new(config: &ModelConfig, out_scale: f64, name: &str, init: &Init) -> Self {
        let (n, width, hidden) = (config.moe.n_experts, config.d_model, config.moe.expert_ffn);
        Self {
            w_gate: init.normal(&format!("{name}.w_gate"), [n, width, hidden], 1.0),
            w_up: init.normal(&format!("{name}.w_up"), [n, width, hidden], 1.0),
            w_down: init.normal(&format!("{name}.w_down"), [n, hidden, width], out_scale),
        }
    }

    /// What they cost: rows before and after them, gate, up and their product are kept.
    pub fn cost(config: &ModelConfig) -> Cost {
        let (d, f) = (config.d_model as u64, config.moe.expert_ffn as u64);
        let (n, k) = (config.moe.n_experts as u64, config.moe.top_k as u64);
        let visited = Cost::of_weights(3 * k * d * f);
        Cost { parameters: 3 * n * d * f, values: k * (2 * d + 3 * f), ..visited }
    }

    /// All matrices.
    pub fn weights(&self) -> ExpertWeights {
        ExpertWeights { gate: self.w_gate.val(), up: self.w_up.val(), down: self.w_down.val() }
    }

    /// # Shapes
    /// - x: `[tokens, d_model]`, and so is the result
    /// - weights: `[tokens, k]`, f32, zero on padding
    pub fn forward(&self, x: Tensor<2>, weights: Tensor<2>, routes: &Routes) -> Tensor<2> {
        combine_rows(self.on_rows(gather_rows(x, routes), routes), weights, routes)
    }

    /// Each expert on its rows.
    ///
    /// # Shapes
    /// - rows: `[rows, d_model]`, and so is the result
    pub fn on_rows(&self, rows: Tensor<2>, routes: &Routes) -> Tensor<2> {
        let ExpertWeights { gate, up, down } = self.weights();
        let inner = grouped_swiglu(rows, gate, up, routes.offsets.clone());
        grouped_matmul(inner, down, routes.offsets.clone())
    }
}
