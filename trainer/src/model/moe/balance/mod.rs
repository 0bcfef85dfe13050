//! What keeps experts evenly loaded: losses of the router, and selection biases.
//!
//! A balancer is one file here and one line of the registry below. Its value appears in the metrics under its
//! name.
//!
//! Notation: T real tokens, E experts, k choices per token, logits z, scores p (softmax) or s (sigmoid),
//! `n_i` the number of choices of expert i; padding is in none of them. All counts are those of the whole
//! batch of an optimizer step, so that no loss depends on the micro-batches it comes in.

mod bias;
mod importance;
mod likely_load;
mod orthogonality;
mod quantile;
mod sequence;
mod switch;
mod variation;
mod z;

use std::fmt::Debug;

use burn::tensor::Tensor;

pub use bias::Bias;
pub use importance::Importance;
pub use likely_load::LikelyLoad;
pub use orthogonality::Orthogonality;
pub use quantile::Quantile;
pub use sequence::Sequence;
pub use switch::Switch;
pub use z::Z;

use super::routing::Routed;
use crate::model::facts::Facts;

/// What a balancer does.
pub trait Balance: Debug + Send + Sync {
    /// What the documentation says about it.
    fn facts(&self) -> Facts;

    /// Its name in the metrics.
    fn name(&self) -> &'static str;

    /// Coefficient of its loss; 0 turns it off, but its value is still reported.
    fn coefficient(&self) -> f64;

    /// `factor` times its part of the loss, `[1]`: the parts of all micro-batches of a step add up to the
    /// loss of the batch. None for a balancer without a loss.
    fn loss(&self, routed: &Routed, factor: f64) -> Option<Tensor<1>>;

    /// Whether the loss needs the choices of the whole batch, which costs another forward pass when there
    /// are several micro-batches.
    fn counts_batch(&self) -> bool {
        false
    }

    /// What the loss needs as a sum over all tokens of the batch, `[experts]`; available as
    /// [`Routed::batch_sum`] under its name, at the cost of another forward pass when there are several
    /// micro-batches.
    fn batch_sum(&self, routed: &Routed) -> Option<Tensor<1>> {
        let _ = routed;
        None
    }

    /// What [`Balance::next_bias`] needs to know about choices made with this selection bias, `[experts]`;
    /// summed over micro-batches.
    fn statistic(&self, routed: &Routed, bias: Tensor<1>) -> Option<Tensor<1>> {
        let (_, _) = (routed, bias);
        None
    }

    /// The selection bias after a step in which `load` tokens went to each expert; none if it stays.
    ///
    /// # Shapes
    /// - bias, load, statistic: `[experts]`, f32, and so is the result
    fn next_bias(&self, bias: Tensor<1>, load: Tensor<1>, statistic: Option<Tensor<1>>) -> Option<Tensor<1>> {
        let (_, _, _) = (bias, load, statistic);
        None
    }
}

/// Makes the registry of balancers: their settings as `BalanceConfig`.
#[macro_export]
macro_rules! balancers {
    ($($(#[doc = $doc:literal])+ $field:ident: $balancer:ty;)+) => {
        /// All balancers; those with a rate or a coefficient above 0 are active.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct BalanceConfig {
            $($(#[doc = $doc])+ pub $field: $balancer,)+
        }

        impl BalanceConfig {
            /// The keys of all balancers.
            pub fn keys() -> Vec<$crate::settings::Key> {
                use $crate::settings::Section;
                [$(<$balancer>::keys()),+].concat()
            }

            /// The first key of each balancer, and what the documentation says about it.
            pub fn facts() -> Vec<(&'static str, $crate::model::facts::Facts)> {
                use $crate::settings::Section;
                vec![$((
                    <$balancer>::keys()[0].name.rsplit('.').next().unwrap_or_default(),
                    $crate::model::moe::balance::Balance::facts(&<$balancer>::default()),
                )),+]
            }

            /// The settings of all balancers.
            ///
            /// # Errors
            /// If a value is not valid.
            pub fn read(values: &dyn $crate::settings::Values) -> Result<Self, String> {
                Ok(Self { $($field: $crate::settings::read(values)?),+ })
            }

            /// The balancers, in the order in which their losses are added.
            pub fn all(&self) -> Vec<&dyn $crate::model::moe::balance::Balance> {
                vec![$(&self.$field),+]
            }
        }
    };
}

balancers! {
    /// Moves the selection bias against the load.
    bias: Bias;
    /// The Switch loss, over the whole batch.
    switch: Switch;
    /// The same over each sequence.
    sequence: Sequence;
    /// Keeps logits small.
    z: Z;
    /// Sets the selection bias so that the last choices would have been even.
    quantile: Quantile;
    /// Keeps the total weights of experts alike.
    importance: Importance;
    /// Keeps the expected numbers of tokens of a noisy router's experts alike.
    likely_load: LikelyLoad;
    /// Keeps the directions of experts in the router apart.
    orthogonality: Orthogonality;
}

#[cfg(test)]
pub(super) mod testing {
    use burn::tensor::{Device, TensorData};

    use super::super::routing::Routing;
    use super::*;
    use crate::model::context::{BatchCounts, Context, Pass};
    use crate::model::rope::Ropes;
    use crate::model::{Input, PADDING};
    use crate::ops::routing::{Score, from_integers, scores};

    /// The value of a balancer for logits of two experts, top 1; absent choices are padding.
    pub(in super::super) fn value(
        balance: &dyn Balance,
        logits: &[f32],
        choices: &[i64],
        n_samples: usize,
        score: Score,
    ) -> f64 {
        let device = Device::flex();
        let n = choices.len();
        let segments: Vec<u32> = choices.iter().map(|&c| if c < 0 { PADDING } else { 0 }).collect();
        let input = Input::new(&vec![0; n], &vec![0; n], &segments, [n_samples, n / n_samples], &device);
        let ctx = Context::new(&input, Pass::EVAL, BatchCounts::of(&input.valid), &Ropes::default());
        let logits = Tensor::<2>::from_data(TensorData::new(logits.to_vec(), [n, 2]), &device);
        let choices = from_integers(choices.to_vec(), [n, 1], &device);
        let routing = Routing {
            unbiased: choices.clone(),
            choices,
            weights: Tensor::ones([n, 1], &device),
            scores: scores(logits.clone(), score),
            logits,
            is_distribution: score == Score::Softmax,
            n_counted: 1,
            likelihood: None,
        };
        let loss = balance.loss(&Routed::new(routing, 0, &ctx), 1.0).expect("a loss");
        f64::from(loss.into_scalar::<f32>())
    }

    /// Logits of token 0 give p = (3/4, 1/4), those of token 1 p = (1/2, 1/2).
    pub(in super::super) fn two_tokens() -> [f32; 4] {
        [3f32.ln(), 0.0, 0.0, 0.0]
    }

    /// Padding with wild logits must change nothing.
    pub(in super::super) fn check_padding(balance: &dyn Balance) {
        let logits = two_tokens();
        let padded = [logits[0], logits[1], logits[2], logits[3], 50.0, -50.0];
        let a = value(balance, &padded, &[0, 0, -1], 1, Score::Sigmoid);
        let b = value(balance, &logits, &[0, 0], 1, Score::Sigmoid);
        assert!((a - b).abs() < 1e-6 && b > 0.0, "{a} {b}");
    }
}
