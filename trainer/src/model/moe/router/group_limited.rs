//! Group-limited top-k (DeepSeek-V2, arXiv 2405.04434, section 2.1.2; DeepSeek-V3, arXiv 2412.19437, section
//! 2.1.2): the k experts with the highest scores in the best groups, so that a token visits few machines.

use burn::module::{Module, Param};
use burn::tensor::{IndexingUpdateOp, Tensor};

use super::top_k::TopKSettings;
use super::{Route, RouterShape};
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::facts::Facts;
use crate::model::init::Init;
use crate::model::moe::routing::Routing;
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::ops::routing::{Score, choose, scores_for_choice};
use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{float, int};

/// How groups are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupScore {
    /// The sum of its two best scores, as in DeepSeek-V3.
    TopTwo,
    /// Its best score, as in DeepSeek-V2.
    Max,
}

settings! {
    /// How groups and experts are chosen, and how scores become weights.
    pub struct GroupLimitedSettings in "moe.router.group_limited" {
        /// number of groups, of equal size
        groups: usize = 4, int(1, 4096);
        /// groups that a token may visit
        kept_groups: usize = 2, int(1, 4096);
        /// what groups are ranked by: the sum of the two best scores with bias, or the best score
        group_score: GroupScore = GroupScore::TopTwo, Kind::Choice(&["top_two", "max"]);
        /// function from router logits to scores
        score: Score = Score::Sigmoid, Kind::Choice(&["softmax", "sigmoid"]);
        /// divide the weights of the chosen experts by their sum
        norm_weights: bool = true, Kind::Bool;
        /// factor for the weights, after the division
        route_scale: f64 = 1.0, float(1e-3, 1e3);
    }
}

/// Below every score with its bias: an expert of a group that was not chosen.
const OUT: f64 = -1e30;

/// Logits `z = x W`, and a selection bias.
#[derive(Module, Debug)]
pub struct GroupLimited {
    /// `[d_model, experts]`
    weight: Param<Tensor<2>>,
    /// As in [`TopK`](super::TopK).
    balance_bias: Param<Tensor<1>>,
    top_k: usize,
    #[module(skip)]
    settings: GroupLimitedSettings,
}

impl Route for GroupLimited {
    type Settings = GroupLimitedSettings;

    const FACTS: Facts = Facts {
        elsewhere: "sigmoid, `top_two`: Glm4Moe, DeepseekV3",
        ..Facts::plain(
            "the same within the best groups, ranked by their best score or their two best scores; weights as in `top_k`",
            "DeepSeek-V2, arXiv 2405.04434; V3, arXiv 2412.19437",
        )
    }
    .with_fast_choice();
    const HAS_MATRIX: bool = true;

    const HAS_BIAS: bool = true;

    fn new(settings: &GroupLimitedSettings, shape: RouterShape, name: &str, init: &Init) -> Self {
        let bias = Tensor::<1>::zeros([shape.n_experts], init.device());
        Self {
            weight: init.normal(&format!("{name}.weight"), [shape.d_model, shape.n_experts], 1.0),
            balance_bias: Param::from_tensor(bias).set_require_grad(false),
            top_k: shape.top_k,
            settings: settings.clone(),
        }
    }

    fn problems(settings: &GroupLimitedSettings, shape: RouterShape) -> Vec<String> {
        let GroupLimitedSettings { groups, kept_groups, group_score, .. } = *settings;
        let (n, k) = (shape.n_experts, shape.top_k);
        let size = n / groups.max(1);
        let mut problems = Vec::new();
        if !n.is_multiple_of(groups) {
            problems.push(format!(
                "moe.router.group_limited.groups = {groups} does not divide moe.experts = {n}"
            ));
        }
        if kept_groups > groups {
            problems.push(format!(
                "moe.router.group_limited.kept_groups = {kept_groups} is more than its groups = {groups}"
            ));
        }
        if k > kept_groups * size {
            problems.push(format!(
                "moe.top_k = {k} is more than the {} experts of moe.router.group_limited.kept_groups = {kept_groups}",
                kept_groups * size
            ));
        }
        if group_score == GroupScore::TopTwo && size < 2 {
            problems.push(format!(
                "moe.router.group_limited.group_score = \"top_two\" needs two experts in a group, found {size}; use \"max\""
            ));
        }
        problems.extend(super::without_weight_of_one(k, settings.norm_weights, "moe.router.group_limited"));
        problems
    }

    fn cost(_: &GroupLimitedSettings, shape: RouterShape) -> Cost {
        let (d, n, k) = (shape.d_model as u64, shape.n_experts as u64, shape.top_k as u64);
        Cost { f32_values: d + 4 * n + 3 * k, ..Cost::of_weights(d * n) }
    }

    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        let logits = matmul(cast_f32(x), self.weight.val());
        self.settings.answer(logits, self.balance_bias.val(), self.top_k, ctx)
    }

    fn bias(&self) -> Option<Tensor<1>> {
        Some(self.balance_bias.val().without_autodiff())
    }

    fn with_bias(mut self, bias: Tensor<1>) -> Self {
        self.balance_bias = super::replaced(self.balance_bias, bias);
        self
    }

    fn matrix(&self) -> Option<Tensor<2>> {
        Some(self.weight.val())
    }
}

impl GroupLimitedSettings {
    /// The routing for logits `[tokens, experts]` with a bias `[experts]`.
    pub fn answer(&self, logits: Tensor<2>, bias: Tensor<1>, top_k: usize, ctx: &Context) -> Routing {
        let keys = scores_for_choice(logits.clone(), self.score);
        let [_, n_experts] = keys.dims();
        let none = Tensor::zeros([n_experts], &keys.device());
        let choices = choose(
            self.in_groups(keys.clone() + bias.without_autodiff().reshape([1, n_experts]), ctx),
            none.clone(),
            ctx.valid.flags(),
            top_k,
        );
        // Losses count the choices without bias.
        let unbiased = choose(self.in_groups(keys, ctx), none, ctx.valid.flags(), top_k);
        let Self { score, norm_weights, route_scale, .. } = *self;
        TopKSettings { score, norm_weights, route_scale }.answer(logits, choices, unbiased, ctx)
    }

    /// Scores `[tokens, experts]`, with those of other groups made too low to be chosen.
    fn in_groups(&self, scores: Tensor<2>, ctx: &Context) -> Tensor<2> {
        let ([tokens, n_experts], device) = (scores.dims(), scores.device());
        let size = n_experts / self.groups;
        let by_group = scores.clone().reshape([tokens * self.groups, size]);
        let (best, at) = by_group.clone().max_dim_with_indices(1);
        let judged = match self.group_score {
            GroupScore::Max => best,
            GroupScore::TopTwo => {
                let away = Tensor::full([tokens * self.groups, 1], OUT, &device);
                let rest = by_group.scatter(1, at, away, IndexingUpdateOp::Add);
                best + rest.max_dim(1)
            }
        };
        let judged = judged.reshape([tokens, self.groups]);
        let none = Tensor::zeros([self.groups], &device);
        let groups = choose(judged, none, ctx.valid.flags(), self.kept_groups).clamp_min(0);
        let ones = Tensor::ones([tokens, self.kept_groups], &device);
        let kept = Tensor::<2>::zeros([tokens, self.groups], &device).scatter(
            1,
            groups,
            ones,
            IndexingUpdateOp::Add,
        );
        // Padding has chosen the first group for every choice; it still chooses no expert.
        let out = kept.reshape([tokens, self.groups, 1]).expand([tokens, self.groups, size]);
        let out = out.reshape([tokens, n_experts]).lower_elem(0.5);
        scores.mask_fill(out, OUT)
    }
}
