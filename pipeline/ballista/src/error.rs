//! What can end a job, a driver or an executor.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use datafusion::error::DataFusionError;

/// What can end a job, a driver or an executor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not one of this machine.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("{}: cannot write: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
    /// There is no driver at the address, and there was none.
    #[error("no driver at {address} for {seconds} s")]
    NoDriver {
        /// Host and port.
        address: String,
        /// How long it was tried.
        seconds: u64,
    },
    /// Ballista gave up.
    #[error("{0}")]
    Failed(String),
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Error {
        Error::Failed(error.strip_backtrace())
    }
}
