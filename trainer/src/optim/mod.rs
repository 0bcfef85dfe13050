//! The optimizer: which parameters move how.

mod adamw;
mod clip;
mod schedule;

use burn::tensor::Tensor;

pub use adamw::{AdamWConfig, Moments, Update, update, update_on_gpu};
pub use clip::{clip_factor, clip_factor_on_device, global_norm, global_norm_on_device, norm};
pub use schedule::{Schedule, ScheduleKind};

use crate::model::Model;
use crate::model::parameters::{self, Parameter};

/// The factor of all gradients, from clipping.
#[derive(Debug, Clone)]
pub enum Factor {
    /// Known to the host.
    Host(f64),
    /// Known to the device, `[1]`; not a number leaves parameters and moments as they are.
    Gpu(Box<Tensor<1>>),
}

/// Moments of every trained parameter, in the model's order.
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: AdamWConfig,
    moments: Vec<Moments>,
}

impl Optimizer {
    /// An optimizer that has not seen a gradient.
    pub fn new(config: AdamWConfig, model: &Model) -> Self {
        Self { config, moments: trained(model).iter().map(Moments::zeros).collect() }
    }

    /// An optimizer with the moments of a checkpoint, in the order of [`trained`].
    pub fn with_moments(config: AdamWConfig, moments: Vec<Moments>) -> Self {
        Self { config, moments }
    }

    /// The moments, in the order of [`trained`].
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// The model after one update. `gradients` are in the order of [`trained`].
    pub fn step(
        &mut self,
        model: Model,
        gradients: Vec<Option<Tensor<1>>>,
        number: u64,
        rate: f64,
        factor: &Factor,
    ) -> Model {
        let parameters = trained(&model);
        let moments = std::mem::take(&mut self.moments);
        let mut values = Vec::with_capacity(parameters.len());
        for ((parameter, gradient), moments) in parameters.into_iter().zip(gradients).zip(moments) {
            let decay = parameters::is_decayed(&parameter.name, &parameter.shape);
            let change = |gradient_factor| Update { number, rate, gradient_factor, decay };
            let (value, moments) = match factor {
                Factor::Host(factor) => {
                    update(&self.config, parameter.value, gradient, moments, change(*factor))
                }
                Factor::Gpu(factor) => update_on_gpu(
                    &self.config,
                    parameter.value,
                    gradient,
                    moments,
                    change(1.0),
                    Tensor::clone(factor),
                ),
            };
            values.push(value);
            self.moments.push(moments);
        }
        parameters::replace_trained(model, values)
    }
}

/// The parameters that gradients train, in the model's order.
pub fn trained(model: &Model) -> Vec<Parameter> {
    let mut all = parameters::parameters(model);
    all.retain(|parameter| parameters::is_trained(&parameter.name));
    all
}
