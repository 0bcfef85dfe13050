//! A moving average of the weights: `e <- e + (1 - decay) (w - e)` after each update. It is evaluated and
//! saved, and never trained from.

use burn::tensor::Tensor;

use crate::model::Model;
use crate::model::parameters::{self, Parameter};
use crate::optim::{self, Optimizer};

/// How weights are averaged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AverageConfig {
    /// Fraction of the average that stays in each update.
    pub decay: f64,
    /// Steps before it begins, with the weights after them.
    pub from: u64,
}

/// The averages of all trained parameters, flat and in the order of [`optim::trained`].
#[derive(Debug, Clone)]
pub struct Average(pub Vec<Tensor<1>>);

impl Average {
    /// The average that begins with a model.
    pub fn of(model: &Model) -> Self {
        Self(optim::trained(model).into_iter().map(|parameter| parameter.value).collect())
    }

    /// The average after an update to `model`. Unchanged values take no extra memory.
    pub(super) fn then(self, model: &Model, optimizer: &Optimizer, decay: f64) -> Self {
        let next = |(w, old): (Parameter, Tensor<1>)| match optimizer.is_frozen(&w.name) {
            true => w.value,
            false => averaged(old, w.value, decay),
        };
        Self(optim::trained(model).into_iter().zip(self.0).map(next).collect())
    }

    /// The model with averaged weights; values that no gradient trains are the model's own.
    pub fn model(&self, model: &Model) -> Model {
        parameters::replace_trained(model.clone(), self.0.clone())
    }
}

/// The average after a new value.
pub fn averaged(old: Tensor<1>, new: Tensor<1>, decay: f64) -> Tensor<1> {
    old.clone() + (new - old) * (1.0 - decay)
}
