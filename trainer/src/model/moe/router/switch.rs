//! Switch routing (Fedus et al. 2021, arXiv 2101.03961, sections 2.1 and 2.4): one expert per token, whose
//! probability is the weight, so that the loss trains the router.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{Route, RouterShape};
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::facts::Facts;
use crate::model::init::Init;
use crate::model::moe::routing::Routing;
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::ops::routing::{Score, choose, scores, scores_for_choice};
use crate::settings;
use crate::settings::float;

settings! {
    /// The Switch router.
    pub struct SwitchSettings in "moe.router.switch" {
        /// in training, the router's input is multiplied by numbers between 1 - jitter and 1 + jitter; 0 is
        /// off
        jitter: f64 = 1e-2, float(0.0, 0.5);
        /// factor for the standard deviation of the router's initial weights
        init_scale: f64 = 0.1, float(1e-3, 10.0);
    }
}

/// `argmax softmax(x W)`, with that probability as weight.
#[derive(Module, Debug)]
pub struct Switch {
    /// `[d_model, experts]`
    weight: Param<Tensor<2>>,
    jitter: f64,
    #[module(skip)]
    name: String,
}

impl Route for Switch {
    type Settings = SwitchSettings;

    const FACTS: Facts = Facts::plain(
        "the expert with the highest probability, which is the weight; input jitter in training, small initial weights",
        "arXiv 2101.03961",
    )
    .with_fast_choice();
    const HAS_MATRIX: bool = true;

    fn new(settings: &SwitchSettings, shape: RouterShape, name: &str, init: &Init) -> Self {
        let size = [shape.d_model, shape.n_experts];
        Self {
            weight: init.normal(&format!("{name}.weight"), size, settings.init_scale),
            jitter: settings.jitter,
            name: name.to_string(),
        }
    }

    fn problems(_: &SwitchSettings, shape: RouterShape) -> Vec<String> {
        let mut problems = Vec::new();
        if shape.top_k != 1 {
            problems.push(format!(
                "moe.router.kind = \"switch\" sends each token to one expert: expected moe.top_k = 1, found {}",
                shape.top_k
            ));
        }
        problems
    }

    fn cost(_: &SwitchSettings, shape: RouterShape) -> Cost {
        let (d, n) = (shape.d_model as u64, shape.n_experts as u64);
        // Its input in f32, and once more with jitter.
        Cost { f32_values: 2 * d + 3 * n + 2, ..Cost::of_weights(d * n) }
    }

    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        let mut x = cast_f32(x);
        if ctx.is_training() && self.jitter > 0.0 {
            let [_, width] = x.dims();
            // Experts see the input without jitter.
            let noise = ctx.uniform(&self.name, width) * (2.0 * self.jitter) + (1.0 - self.jitter);
            x = x * noise;
        }
        let logits = matmul(x, self.weight.val());
        let keys = scores_for_choice(logits.clone(), Score::Softmax);
        let [_, n_experts] = keys.dims();
        let choices = choose(keys.clone(), Tensor::zeros([n_experts], &keys.device()), ctx.valid.flags(), 1);
        let scores = scores(logits.clone(), Score::Softmax);
        let weights = scores.clone().gather(1, choices.clone().clamp_min(0)) * ctx.valid.column();
        Routing {
            unbiased: choices.clone(),
            choices,
            weights,
            logits,
            scores,
            is_distribution: true,
            n_counted: 1,
            likelihood: None,
        }
    }

    fn matrix(&self) -> Option<Tensor<2>> {
        Some(self.weight.val())
    }
}
