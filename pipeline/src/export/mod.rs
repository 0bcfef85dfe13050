//! Shards and plans for programs that are not ours: Megatron-LM's index beside the same tokens,
//! NumPy files, and a plan as an index that Python reads with `numpy.load`. The layouts are in
//! `docs/interop.md`.

mod megatron;
mod npy;
mod plan;
mod tokens;

pub use self::megatron::megatron;
pub use self::plan::{PlanExport, plan};
pub use self::tokens::tokens;

use std::path::PathBuf;

use serde::Serialize;

/// A file that an export wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Its path.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}
