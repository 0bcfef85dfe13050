//! One training step and the state it changes; no file is touched here.

mod average;
mod micro_step;
mod spikes;
mod state;
mod step;

pub use average::{Average, AverageConfig, averaged};
pub use spikes::{Limits, SkipConfig, Spikes};
pub use state::{Position, TrainState};
pub use step::{StepConfig, StepError, StepReport, train_step};
