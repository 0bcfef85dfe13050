//! What a running task shares with the outside: a request to stop, and its progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moe_report::progress::Bar;

use crate::error::{Error, Result};

/// Default memory of a task.
const TASK_MEMORY_BYTES: u64 = 256 << 20;

/// Handed to every task; tasks call [`Watch::advance_by_document`] once per document.
#[derive(Clone, Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    bar: Bar,
    memory_bytes: u64,
}

impl Watch {
    /// A watch that stops when `stop` is set and moves `bar`.
    pub fn new(stop: Arc<AtomicBool>, bar: Bar) -> Watch {
        Watch { stop, bar, memory_bytes: TASK_MEMORY_BYTES }
    }

    /// A watch without a bar that never stops.
    pub fn idle() -> Watch {
        Watch::new(Arc::default(), Bar::hidden())
    }

    /// The same with another memory limit.
    pub fn with_memory(&self, memory_bytes: u64) -> Watch {
        Watch { memory_bytes, ..self.clone() }
    }

    /// The same without the bar, for work counted in other units.
    pub fn without_bar(&self) -> Watch {
        Watch { bar: Bar::hidden(), ..self.clone() }
    }

    /// Bytes of memory that a task may use for data it could also keep on disk. Results never depend on it.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Counts a document of `n_bytes` bytes as done.
    ///
    /// # Errors
    /// As [`Watch::advance`].
    pub fn advance_by_document(&self, n_bytes: u64) -> Result<()> {
        self.bar.saw_document();
        self.advance(n_bytes)
    }

    /// Counts `amount` of the stage's work (bytes) as done.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the user asked to stop.
    pub fn advance(&self, amount: u64) -> Result<()> {
        self.bar.inc(amount);
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_when_asked() {
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Watch::new(stop.clone(), Bar::hidden());
        assert!(watch.advance(1).is_ok());
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(watch.advance(1), Err(Error::Interrupted)));
    }
}
