//! `metrics.jsonl`: one line of flat keys for each interval of steps.

mod crash;
mod groups;
mod interval;
mod jsonl;
mod loads;
mod record;

pub use crash::write_crash;
pub use groups::{GroupLosses, Mean};
pub use interval::{Interval, Took};
pub use jsonl::MetricsFile;
pub use loads::{GroupLoads, information, shares};
pub use record::{Facts, GroupFacts, SCHEMA, ValidatedRouter, tasks_record, validation_record};
