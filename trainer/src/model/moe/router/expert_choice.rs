//! Expert choice (Zhou et al. 2022, arXiv 2202.09368): every expert takes the same number of tokens, those
//! with the highest probability. Loads are even by construction; a token has any number of experts, even
//! none.
//!
//! It is not causal: whether an expert takes a token depends on later tokens in the same forward pass. Token
//! by token, such a model predicts differently from what it learned, so `allow_noncausal` must be set.

use burn::module::{Module, Param};
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::{Route, RouterShape};
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::facts::Facts;
use crate::model::init::Init;
use crate::model::moe::routing::{Routing, only};
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::ops::routing::{Score, scores};
use crate::settings;
use crate::settings::value::Kind;

settings! {
    /// Expert choice; moe.top_k is the mean number of experts of a token.
    pub struct ExpertChoiceSettings in "moe.router.expert_choice" {
        /// train a model whose routing of a token depends on later tokens, which generation cannot repeat
        allow_noncausal: bool = false, Kind::Bool;
    }
}

/// `softmax(x W)`, read by expert.
#[derive(Module, Debug)]
pub struct ExpertChoice {
    /// `[d_model, experts]`
    weight: Param<Tensor<2>>,
    top_k: usize,
}

impl Route for ExpertChoice {
    type Settings = ExpertChoiceSettings;

    const FACTS: Facts = Facts {
        is_causal: false,
        ..Facts::plain(
            "experts choose tokens, the same number each; weights are the probabilities; needs `allow_noncausal = true`",
            "arXiv 2202.09368",
        )
    };
    const HAS_MATRIX: bool = true;

    const SEES_THE_PASS: bool = true;

    fn new(_: &ExpertChoiceSettings, shape: RouterShape, name: &str, init: &Init) -> Self {
        let weight = init.normal(&format!("{name}.weight"), [shape.d_model, shape.n_experts], 1.0);
        Self { weight, top_k: shape.top_k }
    }

    fn problems(settings: &ExpertChoiceSettings, _: RouterShape) -> Vec<String> {
        let mut problems = Vec::new();
        if !settings.allow_noncausal {
            problems.push(
                "moe.router.kind = \"expert_choice\": the experts of a token depend on later tokens, which a language model \
                 does not have when it generates; moe.router.expert_choice.allow_noncausal = true trains it all the same"
                    .to_string(),
            );
        }
        problems
    }

    fn slots(shape: RouterShape) -> usize {
        shape.n_experts
    }

    fn cost(_: &ExpertChoiceSettings, shape: RouterShape) -> Cost {
        let (d, n) = (shape.d_model as u64, shape.n_experts as u64);
        // One slot per expert, though few are filled.
        Cost { f32_values: d + 7 * n, ..Cost::of_weights(d * n) }
    }

    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        answer(matmul(cast_f32(x), self.weight.val()), self.top_k, ctx)
    }

    fn matrix(&self) -> Option<Tensor<2>> {
        Some(self.weight.val())
    }
}

/// The routing for logits `[tokens, experts]`, with `top_k` experts per token on average.
pub fn answer(logits: Tensor<2>, top_k: usize, ctx: &Context) -> Routing {
    let ([tokens, n_experts], device) = (logits.dims(), logits.device());
    let scores = scores(logits.clone(), Score::Softmax);
    let n_taken = (ctx.valid.n_valid() * top_k / n_experts).max(1);
    // Padding comes last, and has no expert even if there is nothing else.
    let real = scores.clone().detach() * ctx.valid.column().detach();
    let taken = real.clone().swap_dims(0, 1).argsort_descending(1).slice([0..n_experts, 0..n_taken]);
    let ones = Tensor::<2>::ones([n_experts, n_taken], &device);
    let none = Tensor::<2>::zeros([n_experts, tokens], &device);
    let kept =
        none.scatter(1, taken, ones, IndexingUpdateOp::Add).swap_dims(0, 1) * ctx.valid.column().detach();
    let experts = Tensor::<1, Int>::arange(0..n_experts as i64, &device).reshape([1, n_experts]);
    let choices = only(experts.expand([tokens, n_experts]), kept.clone().int());
    let weights = scores.clone() * kept;
    Routing {
        unbiased: choices.clone(),
        choices,
        weights,
        logits,
        scores,
        is_distribution: true,
        n_counted: top_k,
        likelihood: None,
    }
}
