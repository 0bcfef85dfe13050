//! Stopping on request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit code of a process that a signal stopped.
pub const INTERRUPTED: u8 = 130;

/// A flag that the first SIGINT or SIGTERM sets; the second ends the process at once.
///
/// # Errors
/// The system refuses to listen to a signal.
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal finds the flag unset, and the second one set.
        flag::register_conditional_shutdown(signal, INTERRUPTED.into(), stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|e| io::Error::new(e.kind(), format!("cannot listen to signal {signal}: {e}")))?;
    }
    Ok(stop)
}
