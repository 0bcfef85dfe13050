//! Rules by which parameters move.
//!
//! A rule is one file here and one line of [`REGISTRY`]. It sees one parameter at a time, with its name and
//! shape, and keeps as many tensors of that shape as it names; checkpoints hold them under these names.

mod adamw;

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::Tensor;

pub use adamw::AdamWConfig;

use crate::model::parameters::Parameter;
use crate::settings::{self, Key, Section, Values};

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

/// Makes a rule from the values of its keys, or says why there is none.
type Read = fn(&dyn Values) -> Result<Arc<dyn Rule>, String>;

/// One line of the registry.
#[derive(Debug)]
pub struct Entry {
    /// The word for it, `optim.kind`.
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
pub const REGISTRY: &[Entry] = &[Entry::of::<AdamWConfig>("adamw")];

/// The kinds of rules.
pub fn kinds() -> Vec<&'static str> {
    REGISTRY.iter().map(|entry| entry.kind).collect()
}

/// The rule of a kind.
///
/// # Errors
/// Why there is none.
pub fn read(kind: &str, values: &dyn Values) -> Result<Arc<dyn Rule>, String> {
    match REGISTRY.iter().find(|entry| entry.kind == kind) {
        Some(entry) => (entry.read)(values),
        None => Err(settings::unknown_kind("optim.kind", &kinds(), kind)),
    }
}
