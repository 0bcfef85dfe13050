//! The optimizer: which parameters move how.

mod group;
pub mod rule;
mod schedule;
mod settings;

use burn::tensor::Tensor;

pub use group::{Group, Groups};
pub use rule::{AdamWConfig, Lion, Muon, NorMuon, Rule, Scale, Sgd, Update};
pub use schedule::{Schedule, ScheduleKind};
pub use settings::{OptimSettings, ScheduleSettings};

use crate::error::Result;
use crate::model::parameters::{self, Parameter};
use crate::model::{Model, ModelConfig};

/// Groups of parameters, and what their rules keep of every trained parameter, in the model's order.
#[derive(Debug, Clone)]
pub struct Optimizer {
    groups: Groups,
    states: Vec<Vec<Tensor<1>>>,
}

/// A tensor that a rule keeps.
#[derive(Debug, Clone)]
pub struct StateTensor {
    /// Its name, as in `m.embedding`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The values, flat.
    pub value: Tensor<1>,
}

impl Optimizer {
    /// An optimizer that has not seen a gradient.
    pub fn new(groups: impl Into<Groups>, model: &Model) -> Self {
        let groups = groups.into();
        let zeros = |p: Parameter| -> Vec<Tensor<1>> {
            let options = (&p.value.device(), p.value.dtype());
            let shapes = groups.kept(&p).into_iter().map(|(_, shape)| shape);
            shapes.map(|shape| Tensor::zeros([shape.iter().product::<usize>()], options)).collect()
        };
        let states = trained(model).into_iter().map(zeros).collect();
        Self { groups, states }
    }

    /// An optimizer with tensors that are given by name, flat, each asked for once in the order of [`kept`].
    ///
    /// # Errors
    /// What `tensor` refuses.
    pub fn restore(
        groups: Groups,
        model: &Model,
        mut tensor: impl FnMut(&str) -> Result<Tensor<1>>,
    ) -> Result<Self> {
        let mut states = Vec::new();
        for parameter in trained(model) {
            let of_parameter = groups.kept(&parameter).into_iter().map(|(name, _)| tensor(&name));
            states.push(of_parameter.collect::<Result<_>>()?);
        }
        Ok(Self { groups, states })
    }

    /// All tensors that the rules keep, by parameter in the order of [`trained`].
    pub fn state(&self, model: &Model) -> Vec<StateTensor> {
        let tensors = |(p, state): (Parameter, &Vec<Tensor<1>>)| -> Vec<StateTensor> {
            let kept = self.groups.kept(&p).into_iter().zip(state);
            kept.map(|((name, shape), value)| StateTensor { name, shape, value: value.clone() }).collect()
        };
        trained(model).into_iter().zip(&self.states).flat_map(tensors).collect()
    }

    /// Whether a parameter stays as it is.
    pub fn is_frozen(&self, name: &str) -> bool {
        self.groups.of(name).is_frozen
    }

    /// The gradients without those of frozen parameters; both in the order of [`trained`].
    pub fn unfrozen(&self, model: &Model, gradients: Vec<Option<Tensor<1>>>) -> Vec<Option<Tensor<1>>> {
        let parameters = trained(model).into_iter().zip(gradients);
        parameters.map(|(p, gradient)| gradient.filter(|_| !self.is_frozen(&p.name))).collect()
    }

    /// The model after one update. `gradients` are in the order of [`trained`]; an absent one is a gradient
    /// of zero, which moves a parameter by what its rule remembers.
    pub fn step(&mut self, model: Model, gradients: Vec<Option<Tensor<1>>>, update: &Update) -> Model {
        let states = std::mem::take(&mut self.states);
        let mut values = Vec::with_capacity(states.len());
        for ((parameter, gradient), state) in trained(&model).into_iter().zip(gradients).zip(states) {
            let group = self.groups.of(&parameter.name);
            if group.is_frozen {
                values.push(parameter.value);
                self.states.push(state);
                continue;
            }
            let update = Update { rate: update.rate * group.rate, ..*update };
            let gradient = gradient.unwrap_or_else(|| parameter.value.zeros_like());
            let (value, state) = group.rule_of(&parameter).update(&parameter, gradient, state, &update);
            values.push(value);
            self.states.push(state);
        }
        parameters::replace_trained(model, values)
    }
}

/// Names and shapes of all tensors that the rules keep, by parameter in the order of [`trained`].
pub fn kept(groups: &Groups, model: &Model) -> Vec<(String, Vec<usize>)> {
    trained(model).iter().flat_map(|parameter| groups.kept(parameter)).collect()
}

/// Number of values that the rules keep of a model that need not be there.
pub fn kept_values(groups: &Groups, config: &ModelConfig) -> u64 {
    let trained = parameters::outline(config).into_iter().filter(|p| parameters::is_trained(&p.name));
    let shapes = trained.flat_map(|parameter| groups.kept(&parameter)).map(|(_, shape)| shape);
    shapes.map(|shape| shape.iter().map(|n| *n as u64).product::<u64>()).sum()
}

/// The parameters that gradients train, in the model's order.
pub fn trained(model: &Model) -> Vec<Parameter> {
    let mut all = parameters::parameters(model);
    all.retain(|parameter| parameters::is_trained(&parameter.name));
    all
}
