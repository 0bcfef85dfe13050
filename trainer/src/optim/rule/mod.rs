//! Rules that update parameters.
//!
//! A rule is one file here and one line of [`REGISTRY`]. It sees one parameter at a time, with its name and
//! shape, and keeps the tensors that it names, of that shape unless it names another; checkpoints store them
//! under these names.

mod adamw;
mod lion;
mod muon;
mod normuon;
mod sgd;

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::Tensor;

pub use adamw::AdamWConfig;
pub use lion::Lion;
pub use muon::{Muon, Scale};
pub use normuon::NorMuon;
pub use sgd::Sgd;

use crate::model::parameters::Parameter;
use crate::model::transfer::{Multipliers, StepKind};
use crate::settings::{self, Key, Section, Values};

/// What one update needs in addition to parameter and gradient.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// Number of this update, from 1.
    pub number: u64,
    /// Learning rate.
    pub rate: f64,
    /// Factor of the gradient, from clipping, `[1]`. One that is not finite must leave value and state as
    /// they are.
    pub factor: &'a Tensor<1>,
    /// Factors from `model.parametrization` for rate (already in [`Update::rate`]), decay and eps of the
    /// parameter.
    pub multipliers: Multipliers,
}

impl Update<'_> {
    /// The gradient times the factor.
    pub fn clipped(&self, gradient: Tensor<1>) -> Tensor<1> {
        let factor = self.factor.clone().cast(gradient.dtype());
        gradient * factor
    }

    /// What remains of a parameter by decay alone, for a decay per unit of learning rate.
    pub fn decay(&self, parameter: &Parameter, weight_decay: f64) -> f64 {
        if parameter.is_decayed() { 1.0 - self.rate * (weight_decay * self.multipliers.decay) } else { 1.0 }
    }

    /// The new values, or the old ones where the factor is not finite.
    pub fn unless_off(&self, new: Tensor<1>, old: Tensor<1>) -> Tensor<1> {
        let is_off = self.factor.clone().is_finite().bool_not().expand(old.dims());
        new.mask_where(is_off, old)
    }
}

/// The tensors of a rule that keeps `N` per parameter.
///
/// # Panics
/// When they are not those that [`Rule::state`] names, which an optimizer never passes.
fn kept<const N: usize>(state: Vec<Tensor<1>>) -> [Tensor<1>; N] {
    state.try_into().expect("as many tensors as the rule names")
}

/// A rule.
pub trait Rule: Debug + Send + Sync {
    /// Names of the tensors it keeps for each parameter, all initially zero.
    fn state(&self) -> &'static [&'static str];

    /// The shape of one of them.
    fn state_shape(&self, _name: &str, parameter: &Parameter) -> Vec<usize> {
        parameter.shape.clone()
    }

    /// Whether one of them may be kept in bf16, in which an addition of less than a 256th of a value is lost.
    fn may_round(&self, _name: &str) -> bool {
        true
    }

    /// What determines the size of its steps.
    fn kind(&self) -> StepKind {
        StepKind::Adaptive
    }

    /// The rule that updates parameters that this one is not made for, and its name.
    fn instead(&self, _parameter: &Parameter) -> Option<(&'static str, Arc<dyn Rule>)> {
        None
    }

    /// The new value and state. Called outside of any graph.
    ///
    /// # Shapes
    /// - gradient: flat, with as many values as the parameter, and so is the new value
    /// - state: flat, with as many values as its shapes have, and so is the new one
    fn update(
        &self,
        parameter: &Parameter,
        gradient: Tensor<1>,
        state: Vec<Tensor<1>>,
        update: &Update,
    ) -> (Tensor<1>, Vec<Tensor<1>>);
}

/// Makes a rule from the values of its keys, or says why it cannot.
type Read = fn(&dyn Values) -> Result<Arc<dyn Rule>, String>;

/// One line of the registry.
#[derive(Debug)]
pub struct Entry {
    /// Its name in `optim.kind`.
    pub kind: &'static str,
    /// Its keys.
    pub keys: fn() -> Vec<Key>,
    /// The rule from the values of its keys.
    pub read: Read,
}

impl Entry {
    /// The line of a rule.
    pub const fn of<R: Rule + Section + 'static>(kind: &'static str) -> Self {
        let read = |values: &dyn Values| Ok(Arc::new(settings::read::<R>(values)?) as Arc<dyn Rule>);
        Self { kind, keys: R::keys, read }
    }
}

/// All rules.
pub const REGISTRY: &[Entry] = &[
    Entry::of::<AdamWConfig>("adamw"),
    Entry::of::<Sgd>("sgd"),
    Entry::of::<Lion>("lion"),
    Entry::of::<Muon>("muon"),
    Entry::of::<NorMuon>("normuon"),
];

/// The kinds of rules.
pub fn kinds() -> Vec<&'static str> {
    REGISTRY.iter().map(|entry| entry.kind).collect()
}

/// The rule of a kind.
///
/// # Errors
/// If a value is not valid.
pub fn read(kind: &str, values: &dyn Values) -> Result<Arc<dyn Rule>, String> {
    (find(kind)?.read)(values)
}

/// The line of a kind.
///
/// # Errors
/// If there is none.
pub fn find(kind: &str) -> Result<&'static Entry, String> {
    let entry = REGISTRY.iter().find(|entry| entry.kind == kind);
    entry.ok_or_else(|| settings::unknown_kind("optim.kind", &kinds(), kind))
}
