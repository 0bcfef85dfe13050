//! Every token goes to the k experts with the highest scores, with or without a selection bias.
//!
//! Scores and weights are computed in f32 and differentiated. The choice itself has no gradient; ties
//! go to the lowest expert.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use super::{Route, RouterShape};
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::facts::{Facts, Written};
use crate::model::init::Init;
use crate::model::moe::routing::Routing;
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::ops::routing::{Score, choose, scores, scores_for_choice};
use crate::ops::row_functions::shares;
use crate::settings;
use crate::settings::float;
use crate::settings::value::Kind;

settings! {
    /// How scores become choices and weights.
    pub struct TopKSettings in "moe.router" {
        /// function from router logits to scores
        score: Score = Score::Sigmoid, Kind::Choice(&["softmax", "sigmoid"]);
        /// divide the weights of the chosen experts by their sum
        norm_weights: bool = true, Kind::Bool;
        /// factor for the weights, after the division
        route_scale: f64 = 1.0, float(1e-3, 1e3);
    }
}

/// Logits `z = x W`, scores `softmax(z)` or `sigmoid(z)`, and a selection bias.
#[derive(Module, Debug)]
pub struct TopK {
    /// `[d_model, experts]`
    weight: Param<Tensor<2>>,
    /// Added to the scores when choosing experts, never to the weights
    /// (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). Not trained by gradients.
    balance_bias: Param<Tensor<1>>,
    top_k: usize,
    /// Whether the bias may be other than zero.
    is_biased: bool,
    /// Whether experts are chosen by logits, to which the bias is then added, instead of scores.
    by_logits: bool,
    #[module(skip)]
    settings: TopKSettings,
}

impl TopKSettings {
    /// The routing with these scores, weights and choices.
    pub(super) fn answer(
        &self,
        logits: Tensor<2>,
        choices: Tensor<2, Int>,
        unbiased: Tensor<2, Int>,
        ctx: &Context,
    ) -> Routing {
        let scores = scores(logits.clone(), self.score);
        // Padding may choose any expert: its weight is zero.
        let mut weights = scores.clone().gather(1, choices.clone().clamp_min(0));
        if self.norm_weights {
            weights = shares(weights);
        }
        let weights = weights * ctx.valid.column() * self.route_scale;
        let is_distribution = self.score == Score::Softmax;
        let [_, n_counted] = unbiased.dims();
        Routing { n_counted, choices, unbiased, weights, logits, scores, is_distribution, likelihood: None }
    }
}

impl Route for TopK {
    type Settings = TopKSettings;

    const FACTS: Facts = Facts {
        cpu: Written::Fast,
        gpu: Written::Fast,
        elsewhere: "softmax: Mixtral, Qwen2Moe, Qwen3Moe, Olmoe; sigmoid: Glm4Moe, DeepseekV3",
        ..Facts::plain(
            "the k experts with the highest softmax or sigmoid scores, with or without selection bias; weights are the scores, divided by \
             their sum or not, times `route_scale`",
            "DeepSeek-V3, arXiv 2412.19437; Mixtral, arXiv 2401.04088",
        )
    };
    const HAS_MATRIX: bool = true;

    const HAS_BIAS: bool = true;
    const CHOOSES_BY_LOGITS: bool = true;

    fn new(settings: &TopKSettings, shape: RouterShape, name: &str, init: &Init) -> Self {
        let RouterShape { d_model, n_experts, top_k, bias_rate, by_logits, .. } = shape;
        let bias = Tensor::<1>::zeros([n_experts], init.device());
        Self {
            weight: init.normal(&format!("{name}.weight"), [d_model, n_experts], 1.0),
            balance_bias: Param::from_tensor(bias).set_require_grad(false),
            top_k,
            is_biased: bias_rate > 0.0 || by_logits,
            by_logits,
            settings: settings.clone(),
        }
    }

    fn problems(settings: &TopKSettings, shape: RouterShape) -> Vec<String> {
        let problem = super::without_weight_of_one(shape.top_k, settings.norm_weights, "moe.router");
        problem.into_iter().collect()
    }

    fn warnings(settings: &TopKSettings, shape: RouterShape) -> Vec<String> {
        let RouterShape { bias_rate, n_experts, .. } = shape;
        if bias_rate > 0.0 && settings.score == Score::Softmax {
            return vec![format!(
                "moe.balance.bias_rate = {bias_rate} with softmax scores, which are about 1 / {n_experts} here: the \
                 bias may outweigh them; the method was made for moe.router.score = sigmoid"
            )];
        }
        Vec::new()
    }

    /// Its input in f32; logits, scores and shares for weights and losses.
    fn cost(_: &TopKSettings, shape: RouterShape) -> Cost {
        let (d, n, k) = (shape.d_model as u64, shape.n_experts as u64, shape.top_k as u64);
        Cost { f32_values: d + 4 * n + 3 * k, ..Cost::of_weights(d * n) }
    }

    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        // In f32 regardless of the type of x: small differences of logits decide.
        let logits = matmul(cast_f32(x), self.weight.val());
        let keys = match self.by_logits {
            true => logits.clone().without_autodiff(),
            false => scores_for_choice(logits.clone(), self.settings.score),
        };
        let bias = self.balance_bias.val().without_autodiff();
        let choices = choose(keys.clone(), bias.clone(), ctx.valid.flags(), self.top_k);
        let unbiased = match self.is_biased {
            true => choose(keys, bias.zeros_like(), ctx.valid.flags(), self.top_k),
            false => choices.clone(),
        };
        self.settings.answer(logits, choices, unbiased, ctx)
    }

    fn bias(&self) -> Option<Tensor<1>> {
        Some(self.balance_bias.val().without_autodiff())
    }

    fn with_bias(mut self, bias: Tensor<1>) -> Self {
        self.balance_bias = super::replaced(self.balance_bias, bias);
        self.is_biased = true;
        self
    }

    fn matrix(&self) -> Option<Tensor<2>> {
        Some(self.weight.val())
    }
}
