//! Projections to and from experts that work on fewer channels than the residual stream has (NVIDIA's
//! LatentMoE, as in Megatron-LM). Rows of tokens and matrices of experts shrink by the same factor, so that
//! more experts cost as much.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::ops::linear::linear;

/// `y = MoE(x W_down) W_up`, without norm or activation between.
#[derive(Module, Debug)]
pub(super) struct Latent {
    /// `[d_model, latent]`
    w_down: Param<Tensor<2>>,
    /// `[latent, d_model]`
    w_up: Param<Tensor<2>>,
}

impl Latent {
    /// From `width` channels to `latent` and back; `out_scale` as in
    /// [`SwiGlu::new`](crate::model::feed_forward::SwiGlu::new).
    pub(super) fn new(width: usize, latent: usize, out_scale: f64, name: &str, init: &Init) -> Self {
        Self {
            w_down: init.normal(&format!("{name}.w_down"), [width, latent], 1.0),
            w_up: init.normal(&format!("{name}.w_up"), [latent, width], out_scale),
        }
    }

    /// What it costs: what experts return is kept; the input is kept for the router anyway.
    pub(super) fn cost(width: usize, latent: usize) -> Cost {
        let (width, latent) = (width as u64, latent as u64);
        Cost { values: latent, ..Cost::of_weights(2 * width * latent) }
    }

    /// # Shapes
    /// - x: `[tokens, d_model]`, result: `[tokens, latent]`
    pub(super) fn down(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.w_down.val())
    }

    /// # Shapes
    /// - y: `[tokens, latent]`, result: `[tokens, d_model]`
    pub(super) fn up(&self, y: Tensor<2>) -> Tensor<2> {
        linear(y, self.w_up.val())
    }
}
