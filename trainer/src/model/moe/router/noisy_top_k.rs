//! Noisy top-k gating (Shazeer et al. 2017, arXiv 1701.06538, eq. 3-5 and appendix A): logits get normal
//! noise whose width is learned, and the weights are the softmax over the k that are kept.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, activation};

use super::{Route, RouterShape};
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::facts::Facts;
use crate::model::init::Init;
use crate::model::moe::routing::Routing;
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::ops::routing::{Score, choose, scores};
use crate::settings;
use crate::settings::float;

settings! {
    /// The noisy router.
    pub struct NoisyTopKSettings in "moe.router.noisy_top_k" {
        /// factor for the noise in training, on top of the learned width; 0 is off
        noise: f64 = 1.0, float(0.0, 10.0);
    }
}

/// `H = x W + n softplus(x W_noise)` with n normal in training and 0 otherwise.
#[derive(Module, Debug)]
pub struct NoisyTopK {
    /// `[d_model, experts]`, zero at first, so that only noise decides.
    weight: Param<Tensor<2>>,
    /// `[d_model, experts]`, zero at first: a width of ln 2.
    noise_weight: Param<Tensor<2>>,
    top_k: usize,
    noise: f64,
    #[module(skip)]
    name: String,
}

impl Route for NoisyTopK {
    type Settings = NoisyTopKSettings;

    const FACTS: Facts = Facts::plain(
        "the k experts with the highest logits after noise of a learned width; weights are their softmax",
        "arXiv 1701.06538",
    )
    .with_fast_choice();
    const HAS_MATRIX: bool = true;

    const HAS_LIKELIHOOD: bool = true;

    fn new(settings: &NoisyTopKSettings, shape: RouterShape, name: &str, init: &Init) -> Self {
        let zeros =
            |part: &str| init.normal(&format!("{name}.{part}"), [shape.d_model, shape.n_experts], 0.0);
        Self {
            weight: zeros("weight"),
            noise_weight: zeros("noise_weight"),
            top_k: shape.top_k,
            noise: settings.noise,
            name: name.to_string(),
        }
    }

    fn problems(_: &NoisyTopKSettings, shape: RouterShape) -> Vec<String> {
        let mut problems = Vec::new();
        let RouterShape { top_k, n_experts, .. } = shape;
        if top_k >= n_experts {
            problems.push(format!(
                "moe.router.kind = \"noisy_top_k\" compares each expert with the best one left out: moe.top_k = \
                 {top_k} must be less than moe.experts = {n_experts}"
            ));
        }
        if top_k == 1 {
            problems.push(
                "moe.router.kind = \"noisy_top_k\" divides weights by their sum: with moe.top_k = 1 all are 1, and the loss \
                 cannot train the router; take 2 or more, or moe.router.kind = \"switch\""
                    .to_string(),
            );
        }
        problems
    }

    fn cost(_: &NoisyTopKSettings, shape: RouterShape) -> Cost {
        let (d, n, k) = (shape.d_model as u64, shape.n_experts as u64, shape.top_k as u64);
        Cost { f32_values: d + 9 * n + 4 * k, ..Cost::of_weights(2 * d * n) }
    }

    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        let x = cast_f32(x);
        let logits = matmul(x.clone(), self.weight.val());
        let width = activation::softplus(matmul(x, self.noise_weight.val()), 1.0);
        let [_, n_experts] = logits.dims();
        let is_noisy = ctx.is_training() && self.noise > 0.0;
        let noise = is_noisy.then(|| ctx.normal(&self.name, n_experts) * self.noise);
        answer(logits, width, noise, self.top_k, ctx)
    }

    fn matrix(&self) -> Option<Tensor<2>> {
        Some(self.weight.val())
    }
}

/// The routing for logits and noise widths, `[tokens, experts]`, with normal numbers of the same shape.
pub fn answer(
    logits: Tensor<2>,
    width: Tensor<2>,
    noise: Option<Tensor<2>>,
    top_k: usize,
    ctx: &Context,
) -> Routing {
    let noisy = match noise {
        Some(noise) => logits.clone() + noise * width.clone(),
        None => logits.clone(),
    };
    let ([tokens, n_experts], keys) = (noisy.dims(), noisy.clone().without_autodiff());
    // One more than are kept: the best one that is left out.
    let ranked =
        choose(keys.clone(), Tensor::zeros([n_experts], &keys.device()), ctx.valid.flags(), top_k + 1);
    let choices = ranked.clone().slice([0..tokens, 0..top_k]);
    let kept = noisy.clone().gather(1, choices.clone().clamp_min(0));
    let weights = activation::softmax(kept, 1) * ctx.valid.column();
    let likelihood = likelihood(&logits, &noisy, width, ranked, top_k);
    let scores = scores(logits.clone(), Score::Softmax);
    Routing {
        unbiased: choices.clone(),
        choices,
        weights,
        logits,
        scores,
        is_distribution: true,
        n_counted: top_k,
        likelihood: Some(likelihood * ctx.valid.column()),
    }
}

/// `Phi((z_i - t_i) / width_i)`, the probability that expert i is among the top k when its own noise is drawn
/// again: t_i is the k-th largest of the others (eq. 8-9).
fn likelihood(
    logits: &Tensor<2>,
    noisy: &Tensor<2>,
    width: Tensor<2>,
    ranked: Tensor<2, Int>,
    top_k: usize,
) -> Tensor<2> {
    let [tokens, n_experts] = noisy.dims();
    let ranks = noisy.clone().gather(1, ranked.clamp_min(0));
    let of_rank = |rank: usize| ranks.clone().slice([0..tokens, rank..rank + 1]).expand([tokens, n_experts]);
    let (last, next) = (of_rank(top_k - 1), of_rank(top_k));
    let is_kept = noisy.clone().detach().greater_equal(last.clone().detach());
    let threshold = last.mask_where(is_kept, next);
    // The constant only matters for a width that has underflowed.
    let distance = (logits.clone() - threshold) / width.add_scalar(1e-10);
    (distance * std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0) * 0.5
}
