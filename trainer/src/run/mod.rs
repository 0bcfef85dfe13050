//! A run from its first step to its last: reading, stepping, measuring, validating and saving.

mod alarms;
mod motion;
mod run_loop;
mod validate;

pub use alarms::{ALARMS, Alarm, AlarmKind};
pub use run_loop::{Observer, Progress, Run, Summary, run};
pub use validate::{TokenScore, Validation, Validator};
