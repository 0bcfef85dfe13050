//! Two-level routing (Shazeer et al. 2017, arXiv 1701.06538, appendix B), without noise: groups of experts
//! first, then experts of each chosen group. The weight of expert j of group i is the product of both gates.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, activation};

use super::{Route, RouterShape};
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::facts::Facts;
use crate::model::init::Init;
use crate::model::moe::routing::{Routing, only};
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::ops::routing::choose;
use crate::settings;
use crate::settings::int;

settings! {
    /// The two levels.
    pub struct HierarchicalSettings in "moe.router.hierarchical" {
        /// number of groups, of equal size
        groups: usize = 4, int(1, 4096);
        /// groups that each token visits; divides moe.top_k, and the quotient is the number of experts per
        /// group
        top_groups: usize = 2, int(1, 4096);
    }
}

/// A gate over groups, and one in each group.
#[derive(Module, Debug)]
pub struct Hierarchical {
    /// `[d_model, groups]`
    primary: Param<Tensor<2>>,
    /// `[groups, d_model, experts / groups]`
    secondary: Param<Tensor<3>>,
    top_groups: usize,
    /// Experts of each chosen group.
    top_inner: usize,
}

impl Route for Hierarchical {
    type Settings = HierarchicalSettings;

    const FACTS: Facts = Facts::plain(
        "groups first, then experts of each chosen group; weights are products of both gates",
        "arXiv 1701.06538, appendix B, without noise",
    )
    .with_fast_choice();

    fn new(settings: &HierarchicalSettings, shape: RouterShape, name: &str, init: &Init) -> Self {
        let HierarchicalSettings { groups, top_groups } = *settings;
        let inner = [groups, shape.d_model, shape.n_experts / groups];
        Self {
            primary: init.normal(&format!("{name}.primary"), [shape.d_model, groups], 1.0),
            secondary: init.normal(&format!("{name}.secondary"), inner, 1.0),
            top_groups,
            top_inner: shape.top_k / top_groups,
        }
    }

    fn problems(settings: &HierarchicalSettings, shape: RouterShape) -> Vec<String> {
        let HierarchicalSettings { groups, top_groups } = *settings;
        let RouterShape { n_experts, top_k, .. } = shape;
        let mut problems = Vec::new();
        if !n_experts.is_multiple_of(groups) {
            problems.push(format!(
                "moe.router.hierarchical.groups = {groups} does not divide moe.experts = {n_experts}"
            ));
        }
        if top_groups > groups {
            problems.push(format!(
                "moe.router.hierarchical.top_groups = {top_groups} is more than its groups = {groups}"
            ));
        }
        let size = n_experts / groups.max(1);
        if !top_k.is_multiple_of(top_groups) || top_k / top_groups > size {
            problems.push(format!(
                "moe.top_k = {top_k} must be moe.router.hierarchical.top_groups = {top_groups} times a number of experts \
                 up to {size}, the size of a group"
            ));
        }
        if top_k == 1 {
            problems.push(
                "moe.router.kind = \"hierarchical\" divides weights by their sum: with moe.top_k = 1 all are 1, and the loss \
                 cannot train the router; take 2 or more, or moe.router.kind = \"switch\""
                    .to_string(),
            );
        }
        problems
    }

    fn cost(settings: &HierarchicalSettings, shape: RouterShape) -> Cost {
        let (d, n, k) = (shape.d_model as u64, shape.n_experts as u64, shape.top_k as u64);
        let a = settings.groups as u64;
        Cost { f32_values: d + 2 * a + 5 * n + 5 * k, ..Cost::of_weights(d * (a + n)) }
    }

    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        let x = cast_f32(x);
        let (secondary, top) = (self.secondary.val(), [self.top_groups, self.top_inner]);
        let ([groups, width, size], [tokens, _]) = (secondary.dims(), x.dims());
        let primary = matmul(x.clone(), self.primary.val());
        let secondary = secondary.swap_dims(0, 1).reshape([width, groups * size]);
        answer(primary, matmul(x, secondary).reshape([tokens, groups, size]), top, ctx)
    }
}

/// The routing for logits of groups `[tokens, groups]` and of the experts in them `[tokens, groups, size]`,
/// for the given numbers of groups and of experts in each.
pub fn answer(primary: Tensor<2>, secondary: Tensor<3>, top: [usize; 2], ctx: &Context) -> Routing {
    let [tokens, groups, size] = secondary.dims();
    let [top_groups, top_inner] = top;
    let valid = ctx.valid.flags();
    let best = |scores: Tensor<2>, k: usize| -> Tensor<2, Int> {
        let scores = scores.without_autodiff();
        let none = Tensor::zeros([scores.dims()[1]], &scores.device());
        choose(scores, none, valid.clone(), k).clamp_min(0)
    };
    let chosen = best(primary.clone(), top_groups);
    let gates = activation::softmax(primary.clone().gather(1, chosen.clone()), 1);
    let (mut choices, mut weights) = (Vec::new(), Vec::new());
    for rank in 0..top_groups {
        let group = chosen.clone().slice([0..tokens, rank..rank + 1]);
        let at = group.clone().reshape([tokens, 1, 1]).expand([tokens, 1, size]);
        let logits = secondary.clone().gather(1, at).reshape([tokens, size]);
        let inner = best(logits.clone(), top_inner);
        let gate = activation::softmax(logits.gather(1, inner.clone()), 1);
        weights.push(gate * gates.clone().slice([0..tokens, rank..rank + 1]));
        choices.push(inner + group * size as i64);
    }
    let choices = only(Tensor::cat(choices, 1), valid.reshape([tokens, 1]));
    let weights = Tensor::cat(weights, 1) * ctx.valid.column();
    // The probability of an expert if all were kept: that of its group times that within the group.
    let of_groups = activation::softmax(primary.clone(), 1).reshape([tokens, groups, 1]);
    let scores = (activation::softmax(secondary.clone(), 2) * of_groups).reshape([tokens, groups * size]);
    let logits = (secondary + primary.reshape([tokens, groups, 1])).reshape([tokens, groups * size]);
    Routing {
        unbiased: choices.clone(),
        choices,
        weights,
        logits,
        scores,
        is_distribution: true,
        n_counted: top_groups * top_inner,
        likelihood: None,
    }
}
