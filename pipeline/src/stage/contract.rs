//! What a stage is.

use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::inputs::Inputs;
use super::report::Report;
use crate::error::Result;
use crate::watch::Watch;

/// A stage: its parameters, with what it is called, what it reads and what it does.
pub trait Stage: Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// Its name, which is that of its folder in the work folder.
    const NAME: &'static str;

    /// The files of earlier stages that it reads.
    type Inputs: Inputs;

    /// Does a task, in its folder, which is empty. The same parameters and inputs give the same files.
    ///
    /// # Errors
    /// What it ran into; [`crate::Error::Interrupted`] when `watch` says so.
    fn run(&self, inputs: &Self::Inputs, folder: &Path, watch: &Watch) -> Result<Report>;
}
