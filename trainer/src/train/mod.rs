//! The order of a training run.

mod state;
mod step;

pub use state::TrainState;
pub use step::{StepConfig, StepReport, train_step};
