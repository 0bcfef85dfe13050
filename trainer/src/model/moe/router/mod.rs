//! Routers: choose the experts of each token of a batch.
//!
//! A router is one file here and one line of the registry below. Nothing after it depends on which one it
//! was.

pub mod expert_choice;
pub mod group_limited;
pub mod gshard;
pub mod hierarchical;
pub mod noisy_top_k;
pub mod switch;
pub mod top_k;

use burn::module::Param;
use burn::tensor::Tensor;

pub use expert_choice::ExpertChoice;
pub use group_limited::GroupLimited;
pub use gshard::GShard;
pub use hierarchical::Hierarchical;
pub use noisy_top_k::NoisyTopK;
pub use switch::Switch;
pub use top_k::TopK;

use super::routing::Routing;
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::facts::Facts;
use crate::model::init::Init;
use crate::settings::Section;

/// What a router must know about its block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouterShape {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Routed experts.
    pub n_experts: usize,
    /// Experts that each token visits.
    pub top_k: usize,
    /// Step by which a balancer moves the selection bias; 0 if none does.
    pub bias_rate: f64,
    /// Whether a balancer sets a selection bias of logits instead of scores.
    pub by_logits: bool,
    /// Whether a balancer needs [`Routing::likelihood`].
    pub needs_likelihood: bool,
    /// Whether a balancer needs [`Route::matrix`].
    pub needs_matrix: bool,
}

/// What a router does.
pub trait Route: Sized {
    /// Its settings.
    type Settings: Section;

    /// What the documentation says about it.
    const FACTS: Facts;

    /// Whether it has a selection bias for a balancer to move.
    const HAS_BIAS: bool = false;

    /// Whether it can choose by logits plus that bias.
    const CHOOSES_BY_LOGITS: bool = false;

    /// Whether a token's result depends on the other tokens of the forward pass.
    const SEES_THE_PASS: bool = false;

    /// Whether its routings have a [`Routing::likelihood`].
    const HAS_LIKELIHOOD: bool = false;

    /// Whether it has a [`Route::matrix`].
    const HAS_MATRIX: bool = false;

    /// The router of one block; parameters are called `NAME.` and the name of their field.
    fn new(settings: &Self::Settings, shape: RouterShape, name: &str, init: &Init) -> Self;

    /// Problems with such a router, each with the reason; empty if there are none.
    fn problems(settings: &Self::Settings, shape: RouterShape) -> Vec<String> {
        let (_, _) = (settings, shape);
        Vec::new()
    }

    /// Warnings: allowed, but unlikely to be intended; each with the reason.
    fn warnings(settings: &Self::Settings, shape: RouterShape) -> Vec<String> {
        let (_, _) = (settings, shape);
        Vec::new()
    }

    /// Maximum number of choices of a token.
    fn slots(shape: RouterShape) -> usize {
        shape.top_k
    }

    /// What it costs.
    fn cost(settings: &Self::Settings, shape: RouterShape) -> Cost;

    /// Chooses experts for each token.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing;

    /// The matrix from hidden states to logits, `[d_model, experts]`; none for a router without one.
    fn matrix(&self) -> Option<Tensor<2>> {
        None
    }

    /// What is added to the scores when experts are chosen, `[experts]`; none for a router that cannot.
    fn bias(&self) -> Option<Tensor<1>> {
        None
    }

    /// The same router with another bias, which is outside of any graph.
    fn with_bias(self, bias: Tensor<1>) -> Self {
        let _ = bias;
        self
    }
}

/// The balancers that a router of this kind does not support, each with the reason.
pub fn unfit<R: Route>(kind: &str, shape: RouterShape) -> Vec<String> {
    let mut problems = Vec::new();
    if shape.bias_rate > 0.0 && !R::HAS_BIAS {
        problems.push(format!("moe.balance.bias_rate: moe.router.kind = {kind:?} has no selection bias"));
    }
    if shape.by_logits && !R::CHOOSES_BY_LOGITS {
        problems.push(format!(
            "moe.balance.quantile sets a logit bias, as in moe.router.kind = \"top_k\"; found {kind:?}"
        ));
    }
    if shape.by_logits && shape.bias_rate > 0.0 {
        problems.push(
            "moe.balance.quantile and moe.balance.bias_rate both set the selection bias; leave one of them off".to_string(),
        );
    }
    if shape.by_logits && shape.top_k >= shape.n_experts {
        problems.push(format!(
            "moe.balance.quantile compares each expert with the best one left out: moe.top_k = {} must be less than \
             moe.experts = {}",
            shape.top_k, shape.n_experts
        ));
    }
    if shape.needs_likelihood && !R::HAS_LIKELIHOOD {
        problems.push(format!(
            "moe.balance.load is a loss for noisy routers, such as moe.router.kind = \"noisy_top_k\"; found {kind:?}"
        ));
    }
    if shape.needs_matrix && !R::HAS_MATRIX {
        problems.push(format!(
            "moe.balance.orthogonality compares the columns of one matrix, which moe.router.kind = {kind:?} does not have"
        ));
    }
    problems
}

/// The problem of weights that are all 1.
fn without_weight_of_one(top_k: usize, is_normalized: bool, section: &str) -> Option<String> {
    (top_k == 1 && is_normalized).then(|| {
        format!(
            "moe.top_k = 1 with {section}.norm_weights = true makes every weight 1, so the loss cannot train the \
             router; set {section}.norm_weights = false"
        )
    })
}

/// A selection bias with other values, which are outside of any graph.
fn replaced(old: Param<Tensor<1>>, bias: Tensor<1>) -> Param<Tensor<1>> {
    let bias = if old.val().is_autodiff() { Tensor::from_inner(bias) } else { bias };
    Param::initialized(old.id, bias).set_require_grad(false)
}

/// Makes the registry of routers: their settings as `RouterConfig`, chosen by `moe.router.kind`, and the
/// routers as `Router`.
#[macro_export]
macro_rules! routers {
    ($($(#[doc = $doc:literal])+ $kind:literal => $variant:ident($router:ty);)+) => {
        /// Settings of a router.
        #[derive(Debug, Clone, PartialEq)]
        pub enum RouterConfig {
            $($(#[doc = $doc])+ $variant(<$router as $crate::model::moe::Route>::Settings),)+
        }

        /// A router.
        #[derive(burn::module::Module, Debug)]
        pub enum Router {
            $($(#[doc = $doc])+ $variant($router),)+
        }

        impl RouterConfig {
            /// The kinds of routers.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The kinds, and what the documentation says about each.
            pub fn facts() -> Vec<(&'static str, $crate::model::facts::Facts)> {
                vec![$(($kind, <$router as $crate::model::moe::Route>::FACTS)),+]
            }

            /// The keys of all kinds, and the kind of each.
            pub fn keys() -> Vec<(&'static str, Vec<$crate::settings::Key>)> {
                use $crate::settings::Section;
                vec![$(($kind, <<$router as $crate::model::moe::Route>::Settings>::keys())),+]
            }

            /// The settings of a kind.
            ///
            /// # Errors
            /// If a value is not valid.
            pub fn read(kind: &str, values: &dyn $crate::settings::Values) -> Result<Self, String> {
                match kind {
                    $($kind => Ok(Self::$variant($crate::settings::read(values)?)),)+
                    other => Err($crate::settings::unknown_kind("moe.router.kind", Self::KINDS, other)),
                }
            }

            /// As `Route::SEES_THE_PASS`.
            pub fn sees_the_pass(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$router as $crate::model::moe::Route>::SEES_THE_PASS,)+
                }
            }

            /// As `Route::slots`.
            pub fn slots(&self, shape: $crate::model::moe::RouterShape) -> usize {
                match self {
                    $(Self::$variant(_) => <$router as $crate::model::moe::Route>::slots(shape),)+
                }
            }

            /// Problems with such a router, each with the reason.
            pub fn problems(&self, shape: $crate::model::moe::RouterShape) -> Vec<String> {
                match self {
                    $(Self::$variant(settings) => [
                        $crate::model::moe::router::unfit::<$router>($kind, shape),
                        <$router as $crate::model::moe::Route>::problems(settings, shape),
                    ]
                    .concat(),)+
                }
            }

            /// Warnings: allowed, but unlikely to be intended; each with the reason.
            pub fn warnings(&self, shape: $crate::model::moe::RouterShape) -> Vec<String> {
                match self {
                    $(Self::$variant(settings) => <$router as $crate::model::moe::Route>::warnings(settings, shape),)+
                }
            }

            /// What the router of one block costs.
            pub fn cost(&self, shape: $crate::model::moe::RouterShape) -> $crate::model::cost::Cost {
                match self {
                    $(Self::$variant(settings) => <$router as $crate::model::moe::Route>::cost(settings, shape),)+
                }
            }

            /// The router of one block.
            pub fn build(
                &self,
                shape: $crate::model::moe::RouterShape,
                name: &str,
                init: &$crate::model::init::Init,
            ) -> Router {
                match self {
                    $(Self::$variant(settings) => Router::$variant(
                        <$router as $crate::model::moe::Route>::new(settings, shape, name, init),
                    ),)+
                }
            }
        }

        impl Router {
            /// As `Route::route`.
            pub fn route(
                &self,
                x: burn::tensor::Tensor<2>,
                ctx: &$crate::model::context::Context,
            ) -> $crate::model::moe::Routing {
                match self {
                    $(Self::$variant(router) => $crate::model::moe::Route::route(router, x, ctx),)+
                }
            }

            /// As `Route::matrix`.
            pub fn matrix(&self) -> Option<burn::tensor::Tensor<2>> {
                match self {
                    $(Self::$variant(router) => $crate::model::moe::Route::matrix(router),)+
                }
            }

            /// As `Route::bias`.
            pub fn bias(&self) -> Option<burn::tensor::Tensor<1>> {
                match self {
                    $(Self::$variant(router) => $crate::model::moe::Route::bias(router),)+
                }
            }

            /// As `Route::with_bias`.
            pub fn with_bias(self, bias: burn::tensor::Tensor<1>) -> Self {
                match self {
                    $(Self::$variant(router) => {
                        Self::$variant($crate::model::moe::Route::with_bias(router, bias))
                    })+
                }
            }
        }
    };
}

routers! {
    /// Every token goes to the k experts with the highest scores.
    "top_k" => TopK(TopK);
    /// The same among the experts of the best groups.
    "group_limited" => GroupLimited(GroupLimited);
    /// Every token goes to one expert, with its probability as weight.
    "switch" => Switch(Switch);
    /// Every token goes to its best expert, and to the second at random.
    "gshard" => GShard(GShard);
    /// Scores with learned noise.
    "noisy_top_k" => NoisyTopK(NoisyTopK);
    /// Groups first, then experts of each chosen group.
    "hierarchical" => Hierarchical(Hierarchical);
    /// Every expert takes the tokens with the highest scores.
    "expert_choice" => ExpertChoice(ExpertChoice);
}
