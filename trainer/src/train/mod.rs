//! The order of a training run.

mod run_loop;
mod state;
mod step;
mod validate;

pub use run_loop::{Observer, Progress, Run, Summary, run};
pub use state::TrainState;
pub use step::{StepConfig, StepReport, train_step};
pub use validate::{Validation, Validator};
