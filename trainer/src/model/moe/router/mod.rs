//! Routers: from the tokens of a batch to the experts of each.
//!
//! A router is one file here and one line of [`Router`]. Nothing after it asks which one it was.

mod top_k;

use burn::module::Module;
use burn::tensor::Tensor;

pub use top_k::TopK;

use super::routing::Routing;
use crate::model::config::ModelConfig;
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::init::Init;

/// What a router does.
pub trait Route {
    /// Chooses experts for each token.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing;

    /// What is added to the scores when experts are chosen, `[experts]`; none for a router that cannot.
    fn bias(&self) -> Option<Tensor<1>> {
        None
    }

    /// The same router with another bias, which lies outside of any graph.
    fn with_bias(self, bias: Tensor<1>) -> Self;
}

/// The routers.
#[derive(Module, Debug)]
pub enum Router {
    /// Every token goes to the k experts of highest score.
    TopK(TopK),
}

impl Router {
    /// The router of one block.
    pub fn new(config: &ModelConfig, name: &str, init: &Init) -> Self {
        Self::TopK(TopK::new(config, name, init))
    }

    /// What the router of one block costs.
    pub fn cost(config: &ModelConfig) -> Cost {
        TopK::cost(config)
    }
}

impl Route for Router {
    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        match self {
            Self::TopK(router) => router.route(x, ctx),
        }
    }

    fn bias(&self) -> Option<Tensor<1>> {
        match self {
            Self::TopK(router) => router.bias(),
        }
    }

    fn with_bias(self, bias: Tensor<1>) -> Self {
        match self {
            Self::TopK(router) => Self::TopK(router.with_bias(bias)),
        }
    }
}
