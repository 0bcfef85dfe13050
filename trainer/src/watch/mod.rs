//! A run in the terminal while it continues: its files, followed line by line. `moe-train watch` shows the
//! run of any process, `--ui` that of its own, with the step that has not been written yet.
//!
//! ```text
//! follow (files -> RunLog) -> view (what to show) -> draw (lines of a screen) -> ui (a screen that is kept up to date)
//! ```

mod canvas;
mod draw;
mod follow;
mod ui;
mod view;

pub use draw::{Size, frame};
pub use follow::{Follower, Status};
pub use ui::{Screen, Ui};
pub use view::View;
