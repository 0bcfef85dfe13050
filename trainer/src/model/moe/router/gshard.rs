//! GShard top-2 (Lepikhin et al. 2020, arXiv 2006.16668, algorithm 1): always the best expert, and the second
//! at random, with a probability that grows with its share. Balancing losses count only first choices.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{Route, RouterShape};
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::facts::Facts;
use crate::model::init::Init;
use crate::model::moe::routing::{Routing, only};
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::ops::routing::{Score, choose, scores, scores_for_choice};
use crate::settings;
use crate::settings::value::Kind;

/// When a token goes to its second expert, of share g2 = p2 / (p1 + p2), for u uniform in [0, 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Second {
    /// Always.
    All,
    /// `2 g2 > u`, as in GShard.
    RandomGshard,
    /// `g2 / 0.2 > u`, as in Mesh TensorFlow.
    RandomMesh,
    /// `g2 > 0.2`, as in ST-MoE (Zoph et al. 2022, arXiv 2202.08906).
    Threshold,
}

/// The share above which [`Second::Threshold`] and [`Second::RandomMesh`] always send.
const THRESHOLD: f64 = 0.2;

settings! {
    /// The GShard router.
    pub struct GShardSettings in "moe.router.gshard" {
        /// when a token goes to its second expert, which has share g2: all: always; random_gshard: with
        /// probability 2 g2; random_mesh: with probability g2 / 0.2; threshold: if g2 > 0.2. Outside
        /// training, the random ones always send
        second: Second = Second::RandomGshard, Kind::Choice(&["all", "random_gshard", "random_mesh", "threshold"]);
        /// divide both probabilities by their sum, before a second expert is left out
        norm_weights: bool = true, Kind::Bool;
    }
}

/// The two best experts by `softmax(x W)`.
#[derive(Module, Debug)]
pub struct GShard {
    /// `[d_model, experts]`
    weight: Param<Tensor<2>>,
    #[module(skip)]
    settings: GShardSettings,
    #[module(skip)]
    name: String,
}

impl Route for GShard {
    type Settings = GShardSettings;

    const FACTS: Facts = Facts::plain(
        "the best expert, and the second always, by chance, or above a share of 0.2; weights are both probabilities, divided by \
         their sum or not",
        "arXiv 2006.16668; Mesh TensorFlow; ST-MoE, arXiv 2202.08906",
    )
    .with_fast_choice();
    const HAS_MATRIX: bool = true;

    fn new(settings: &GShardSettings, shape: RouterShape, name: &str, init: &Init) -> Self {
        Self {
            weight: init.normal(&format!("{name}.weight"), [shape.d_model, shape.n_experts], 1.0),
            settings: settings.clone(),
            name: name.to_string(),
        }
    }

    fn problems(_: &GShardSettings, shape: RouterShape) -> Vec<String> {
        let mut problems = Vec::new();
        if shape.top_k != 2 {
            problems.push(format!(
                "moe.router.kind = \"gshard\" sends each token to two experts: expected moe.top_k = 2, found {}",
                shape.top_k
            ));
        }
        problems
    }

    fn cost(_: &GShardSettings, shape: RouterShape) -> Cost {
        let (d, n) = (shape.d_model as u64, shape.n_experts as u64);
        Cost { f32_values: d + 3 * n + 6, ..Cost::of_weights(d * n) }
    }

    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        let draws = ctx.is_training().then(|| ctx.uniform(&self.name, 1));
        self.settings.answer(matmul(cast_f32(x), self.weight.val()), draws, ctx)
    }

    fn matrix(&self) -> Option<Tensor<2>> {
        Some(self.weight.val())
    }
}

impl GShardSettings {
    /// The routing for logits `[tokens, experts]`, with draws `[tokens, 1]` from [0, 1) in training.
    pub fn answer(&self, logits: Tensor<2>, draws: Option<Tensor<2>>, ctx: &Context) -> Routing {
        let keys = scores_for_choice(logits.clone(), Score::Softmax);
        let ([tokens, n_experts], device) = (keys.dims(), keys.device());
        let both = choose(keys, Tensor::zeros([n_experts], &device), ctx.valid.flags(), 2);
        let scores = scores(logits.clone(), Score::Softmax);
        let raw = scores.clone().gather(1, both.clone().clamp_min(0));
        let shares = raw.clone() / raw.clone().sum_dim(1).add_scalar(1e-9);
        let g2 = shares.clone().detach().slice([0..tokens, 1..2]);
        let is_sent = match (self.second, draws) {
            (Second::Threshold, _) => g2.greater_elem(THRESHOLD),
            (Second::RandomGshard, Some(u)) => (g2 * 2.0).greater(u),
            (Second::RandomMesh, Some(u)) => (g2 / THRESHOLD).greater(u),
            (Second::All | Second::RandomGshard | Second::RandomMesh, _) => g2.greater_equal_elem(0.0),
        };
        let is_sent = is_sent.float();
        let sent = Tensor::cat(vec![is_sent.ones_like(), is_sent], 1);
        let weights = if self.norm_weights { shares } else { raw };
        let weights = weights * sent.clone() * ctx.valid.column();
        let first = both.clone().slice([0..tokens, 0..1]);
        let choices = only(both, sent.int());
        Routing {
            choices,
            unbiased: first,
            weights,
            logits,
            scores,
            is_distribution: true,
            n_counted: 1,
            likelihood: None,
        }
    }
}
