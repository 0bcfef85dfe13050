//! The routed experts: `E` SwiGLUs with stacked weights.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::dispatch::{Dispatch, ExpertWeights};
use crate::model::config::ModelConfig;
use crate::model::init::Init;

/// `y_t = sum_j g_tj * expert_{e(t,j)}(x_t)` over the k experts chosen for token t.
#[derive(Module, Debug)]
pub struct Experts {
    w_gate: Param<Tensor<3>>,
    w_up: Param<Tensor<3>>,
    w_down: Param<Tensor<3>>,
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

    /// All matrices.
    pub fn weights(&self) -> ExpertWeights {
        ExpertWeights { gate: self.w_gate.val(), up: self.w_up.val(), down: self.w_down.val() }
    }

    /// # Shapes
    /// - x: `[tokens, d_model]`, and so is the result
    /// - weights: `[tokens, k]`, zero on padding
    pub fn forward(&self, x: Tensor<2>, weights: Tensor<2>, dispatch: &Dispatch) -> Tensor<2> {
        dispatch.apply(x, weights, self.weights())
    }
}
