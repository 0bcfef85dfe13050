//! Capacity: a maximum number of tokens per expert, and what happens to the rest.
//!
//! `C = max(min, ceil(factor k T / E))` for the T real tokens of a forward pass (GShard, arXiv 2006.16668,
//! section 2.2, in slots per choice). A choice whose expert is full is dropped: its weight is zero, and the
//! token keeps its residual and its shared experts. T and therefore C depend on the micro-batch, whose
//! samples compete with each other.
//!
//! Position in token order is causal: whether a choice is dropped depends only on earlier tokens. The other
//! policies are not.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::routing::{Routing, only};
use crate::model::context::Context;
use crate::ops::row_functions::shares;
use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{float, int};

/// Which choices a full expert keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The first.
    Position,
    /// Those of highest weight.
    Probs,
    /// Those with the highest random numbers, redrawn in each step; in evaluation, the first.
    Random,
}

/// The order of choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// All choices of a token, then those of the next (DeepSpeed's top-k).
    Token,
    /// The first choices of all tokens, then all second ones (GShard, Mesh TensorFlow).
    Rank,
}

settings! {
    /// Capacity of experts.
    pub struct CapacitySettings in "moe.capacity" {
        /// slots of an expert in training, relative to its even load k T / E; 0: as many as there are
        /// choices, nothing is dropped
        factor: f64 = 0.0, float(0.0, 65_536.0);
        /// the same in evaluation
        eval_factor: f64 = 0.0, float(0.0, 65_536.0), free;
        /// minimum slots of an expert
        min: usize = 4, int(0, 1 << 20);
        /// which choices of a full expert are kept: the first ones (position), those with the highest weights
        /// (probs), or random ones (random; the first ones in evaluation)
        policy: Policy = Policy::Position, Kind::Choice(&["position", "probs", "random"]);
        /// order of choices: token by token, which is causal, or by rank, all first choices before all second
        /// ones
        order: Order = Order::Token, Kind::Choice(&["token", "rank"]);
        /// divide the weights of what a token keeps by their sum
        renormalize: bool = false, Kind::Bool;
    }
}

impl CapacitySettings {
    /// Slots of an expert; none if nothing is dropped.
    pub fn slots(&self, is_training: bool, n_tokens: usize, top_k: usize, n_experts: usize) -> Option<usize> {
        let factor = if is_training { self.factor } else { self.eval_factor };
        if factor == 0.0 || n_experts == 0 {
            return None;
        }
        let even = (n_tokens * top_k) as f64 / n_experts as f64;
        let slots = (factor * even).ceil().max(self.min as f64) as usize;
        // An expert occurs at most once among the choices of a token.
        (slots < n_tokens).then_some(slots)
    }

    /// The routing of a router with `top_k` choices, without those whose expert is full.
    pub fn drop(&self, routing: Routing, top_k: usize, name: &str, ctx: &Context) -> Routing {
        let [_, n_experts] = routing.logits.dims();
        match self.slots(ctx.is_training(), ctx.valid.n_valid(), top_k, n_experts) {
            None => routing,
            Some(slots) => {
                let kept = self.kept(&routing, slots, name, ctx);
                let choices = only(routing.choices, kept.clone().int());
                let mut weights = routing.weights * kept;
                if self.renormalize {
                    // A token that keeps nothing has nothing to divide.
                    weights = shares(weights);
                }
                Routing { choices, weights, ..routing }
            }
        }
    }

    /// 1 for the choices that stay and 0 for the others, `[tokens, k]`.
    fn kept(&self, routing: &Routing, slots: usize, name: &str, ctx: &Context) -> Tensor<2> {
        let ([tokens, k], [_, n_experts]) = (routing.choices.dims(), routing.logits.dims());
        let (n, device) = (tokens * k, routing.logits.device());
        let at = Tensor::<1, Int>::arange(0..n as i64, &device);
        // The choices in the order in which they reach their expert.
        let mut order = match self.order {
            Order::Token => at,
            Order::Rank => at.reshape([tokens, k]).swap_dims(0, 1).reshape([n]),
        };
        let keys = match self.policy {
            Policy::Position => None,
            Policy::Probs => Some(routing.weights.clone().detach()),
            Policy::Random => ctx.is_training().then(|| ctx.uniform(&format!("{name}.capacity"), k)),
        };
        if let Some(keys) = keys {
            let keys = keys.reshape([n]).select(0, order.clone());
            order = order.clone().select(0, keys.argsort_descending(0));
        }
        let chosen = routing.choices.clone().reshape([n]).select(0, order.clone());
        // For each, the number of choices of the same expert so far, including itself.
        let is_made = chosen.clone().greater_equal_elem(0).float().reshape([n, 1]);
        let expert = chosen.clamp_min(0).reshape([n, 1]);
        let counted = Tensor::<2>::zeros([n, n_experts], &device).scatter(
            1,
            expert.clone(),
            is_made.clone(),
            IndexingUpdateOp::Add,
        );
        let rank = counted.cumsum(0).gather(1, expert);
        let fits = (rank.lower_equal_elem(slots as f64).float() * is_made).reshape([n]);
        let kept = Tensor::<1>::zeros([n], &device).scatter(0, order, fits, IndexingUpdateOp::Add);
        kept.reshape([tokens, k])
    }
}
