//! The dense feed-forward: SwiGLU (Shazeer 2020, arXiv 2002.05202, section 2).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::cost::Cost;
use super::init::Init;
use crate::ops::grouped::linear_swiglu;
use crate::ops::linear::linear;

/// `y = (silu(x W_gate) * (x W_up)) W_down`, without biases.
#[derive(Module, Debug)]
pub struct SwiGlu {
    w_gate: Param<Tensor<2>>,
    w_up: Param<Tensor<2>>,
    w_down: Param<Tensor<2>>,
}

impl SwiGlu {
    /// A feed-forward from `width` channels through `hidden` and back. `out_scale` multiplies the
    /// initial standard deviation of the projection back into the residual stream.
    pub fn new(width: usize, hidden: usize, out_scale: f64, name: &str, init: &Init) -> Self {
        Self {
            w_gate: init.normal(&format!("{name}.w_gate"), [width, hidden], 1.0),
            w_up: init.normal(&format!("{name}.w_up"), [width, hidden], 1.0),
            w_down: init.normal(&format!("{name}.w_down"), [hidden, width], out_scale),
        }
    }

    /// What it costs: its input, gate, up and their product are kept.
    pub fn cost(width: usize, hidden: usize) -> Cost {
        let (width, hidden) = (width as u64, hidden as u64);
        Cost { values: width + 3 * hidden, ..Cost::of_weights(3 * width * hidden) }
    }

    /// # Shapes
    /// - x: `[tokens, width]`, and so is the result
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(linear_swiglu(x, self.w_gate.val(), self.w_up.val()), self.w_down.val())
    }
}
