//! Rules by which parameters move.
//!
//! A rule is one file here and one line of [`REGISTRY`]. It sees one parameter at a time, with its name and
//! shape, and keeps as many tensors of that shape as it names; checkpoints hold them under these names.

mod adamw;

use std::fmt::Debug;

use burn::tensor::Tensor;

pub use adamw::AdamWConfig;

use crate::model::parameters::Parameter;

/// What one update needs besides parameter and gradient.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// Number of this update, from 1.
    pub number: u64,
    /// Learning rate.
    pub rate: f64,
    /// Factor of the gradient, from clipping, `[1]`. One that is not finite must leave value and state as
    /// they are.
    pub factor: &'a Tensor<1>,
}

/// A rule.
pub trait Rule: Debug + Send + Sync {
    /// Its name in a configuration.
    fn name(&self) -> &'static str;

    /// Names of the tensors it keeps for each parameter, all zero at first.
    fn state(&self) -> &'static [&'static str];

    /// The new value and state. Called outside of any graph.
    ///
    /// # Shapes
    /// - gradient and state: flat, with as many values as the parameter, and so are the results
    fn update(
        &self,
        parameter: &Parameter,
        gradient: Tensor<1>,
        state: Vec<Tensor<1>>,
        update: &Update,
    ) -> (Tensor<1>, Vec<Tensor<1>>);
}
