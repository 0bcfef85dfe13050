//! What a stage is.

use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::inputs::Inputs;
use super::report::Report;
use crate::error::Result;
use crate::watch::Watch;

/// A stage: its parameters, name, inputs and work.
pub trait Stage: Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// Its name, also that of its folder in the work folder.
    const NAME: &'static str;

    /// The files of earlier stages that it reads.
    type Inputs: Inputs;

    /// Runs a task in its empty folder. The same parameters and inputs give the same files.
    ///
    /// # Errors
    /// The failure; [`crate::Error::Interrupted`] when `watch` says so.
    fn run(&self, inputs: &Self::Inputs, folder: &Path, watch: &Watch) -> Result<Report>;
}
