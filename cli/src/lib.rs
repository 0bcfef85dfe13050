//! What `moe-data` and `moe-train` have in common as programs. Nothing here knows about documents or models.

pub mod lock;
pub mod nearest;
pub mod shell;
pub mod signals;
pub mod terminal;
