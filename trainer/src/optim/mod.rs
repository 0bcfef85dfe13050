//! The optimizer: how each parameter is updated.

mod clip;
mod group;
pub mod rule;
mod schedule;
mod settings;

use burn::tensor::{DType, FloatDType, Tensor};

pub use clip::{Clipping, Norms};
pub use group::{Group, Groups, Kept, Moments};
pub use rule::{AdamWConfig, Lion, Muon, NorMuon, Rule, Scale, Sgd, Update};
pub use schedule::{Schedule, ScheduleKind};
pub use settings::{OptimSettings, ScheduleSettings};

use crate::error::Result;
use crate::model::parameters::{self, Parameter};
use crate::model::{Model, ModelConfig};

/// Parameter groups, and the state that their rules keep for every trained parameter, in the model's order.
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
    /// The values, flat, f32.
    pub value: Tensor<1>,
}

impl Optimizer {
    /// An optimizer that has not seen a gradient.
    pub fn new(groups: impl Into<Groups>, model: &Model) -> Self {
        let groups = groups.into();
        let zeros = |p: Parameter| -> Vec<Tensor<1>> {
            let kept = groups.kept(&p).into_iter();
            let zeros = |kept: Kept| {
                Tensor::zeros(
                    [kept.shape.iter().product::<usize>()],
                    (&p.value.device(), DType::from(kept.dtype)),
                )
            };
            kept.map(zeros).collect()
        };
        let states = trained(model).into_iter().map(zeros).collect();
        Self { groups, states }
    }

    /// An optimizer with tensors that are given by name, flat, each requested once in the order of [`kept`].
    ///
    /// # Errors
    /// Errors of `tensor`.
    pub fn restore(
        groups: Groups,
        model: &Model,
        mut tensor: impl FnMut(&str) -> Result<Tensor<1>>,
    ) -> Result<Self> {
        let mut states = Vec::new();
        for parameter in trained(model) {
            let kept = groups.kept(&parameter).into_iter();
            let of_parameter = kept.map(|kept| Ok(in_type(tensor(&kept.name)?, kept.dtype)));
            states.push(of_parameter.collect::<Result<_>>()?);
        }
        Ok(Self { groups, states })
    }

    /// All tensors that the rules keep, by parameter in the order of [`trained`].
    pub fn state(&self, model: &Model) -> Vec<StateTensor> {
        let tensors = |(p, state): (Parameter, &Vec<Tensor<1>>)| -> Vec<StateTensor> {
            let kept = self.groups.kept(&p).into_iter().zip(state);
            kept.map(|(Kept { name, shape, .. }, value)| {
                let value = in_type(value.clone(), FloatDType::F32);
                StateTensor { name, shape, value }
            })
            .collect()
        };
        trained(model).into_iter().zip(&self.states).flat_map(tensors).collect()
    }

    /// The groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Whether a parameter is frozen.
    pub fn is_frozen(&self, name: &str) -> bool {
        self.groups.of(name).is_frozen
    }

    /// The gradients without those of frozen parameters; both in the order of [`trained`].
    pub fn unfrozen(&self, model: &Model, gradients: Vec<Option<Tensor<1>>>) -> Vec<Option<Tensor<1>>> {
        let parameters = trained(model).into_iter().zip(gradients);
        parameters.map(|(p, gradient)| gradient.filter(|_| !self.is_frozen(&p.name))).collect()
    }

    /// The model after one update. `gradients` are in the order of [`trained`]; an absent one is a gradient
    /// of zero, which updates a parameter only from its rule's state. `own` has the factors of groups that
    /// are clipped separately.
    pub fn step(
        &mut self,
        model: Model,
        gradients: Vec<Option<Tensor<1>>>,
        update: &Update,
        own: &[Option<Tensor<1>>],
    ) -> Model {
        let states = std::mem::take(&mut self.states);
        let mut values = Vec::with_capacity(states.len());
        for ((parameter, gradient), state) in trained(&model).into_iter().zip(gradients).zip(states) {
            let (index, _) = self.groups.find(&parameter.name);
            let group = &self.groups.all()[index];
            if group.is_frozen {
                values.push(parameter.value);
                self.states.push(state);
                continue;
            }
            let rule = group.rule_of(&parameter);
            let multipliers = model.transfer().multipliers(&parameter, rule.kind());
            let update = Update {
                rate: update.rate * group.rate * multipliers.rate,
                factor: own.get(index).and_then(Option::as_ref).unwrap_or(update.factor),
                multipliers,
                ..*update
            };
            let gradient = gradient.unwrap_or_else(|| parameter.value.zeros_like());
            let kept = self.groups.kept(&parameter);
            let state = state.into_iter().map(|tensor| in_type(tensor, FloatDType::F32)).collect();
            let (value, state) = rule.update(&parameter, gradient, state, &update);
            values.push(value);
            self.states
                .push(state.into_iter().zip(kept).map(|(new, kept)| in_type(new, kept.dtype)).collect());
        }
        parameters::replace_trained(model, values)
    }
}

/// A tensor converted to a type, or itself if it already has it.
fn in_type(tensor: Tensor<1>, dtype: FloatDType) -> Tensor<1> {
    if tensor.dtype() == DType::from(dtype) { tensor } else { tensor.cast(dtype) }
}

/// All tensors that the rules keep, by parameter in the order of [`trained`].
pub fn kept(groups: &Groups, model: &Model) -> Vec<Kept> {
    trained(model).iter().flat_map(|parameter| groups.kept(parameter)).collect()
}

/// Bytes of a model that need not be allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptBytes {
    /// What the rules keep.
    pub moments: u64,
    /// A moving average of what is not frozen, f32.
    pub average: u64,
}

/// What is kept for a model in addition to its parameters and their gradients.
pub fn kept_bytes(groups: &Groups, config: &ModelConfig) -> KeptBytes {
    let trained = parameters::outline(config).into_iter().filter(|p| parameters::is_trained(&p.name));
    trained.fold(KeptBytes::default(), |sum, parameter| {
        let average = if groups.of(&parameter.name).is_frozen { 0 } else { 4 * parameter.len() as u64 };
        let moments: u64 = groups.kept(&parameter).iter().map(Kept::bytes).sum();
        KeptBytes { moments: sum.moments + moments, average: sum.average + average }
    })
}

/// The parameters that gradients train, in the model's order.
pub fn trained(model: &Model) -> Vec<Parameter> {
    let mut all = parameters::parameters(model);
    all.retain(|parameter| parameters::is_trained(&parameter.name));
    all
}
