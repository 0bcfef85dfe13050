//! One training step and the state it changes; no file is touched here.

mod micro_step;
mod state;
mod step;

pub use state::{Position, TrainState};
pub use step::{StepConfig, StepError, StepReport, train_step};
