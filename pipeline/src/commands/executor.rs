//! `moe-data executor`: a process that does tasks for `moe-data build --engine ballista`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::error::Result;
use crate::printer::Printer;
use crate::recipe::ByteSize;

/// What `executor` is asked for.
#[derive(Clone, Debug)]
pub struct ExecutorArgs {
    /// Host and port of the driver.
    pub scheduler: (String, u16),
    /// The address of this machine at which others fetch rows.
    pub listen: IpAddr,
    /// Tasks at once; one for each core when absent.
    pub vcores: Option<usize>,
    /// Memory of all tasks; [`crate::engine::LocalEngine`]'s own default when absent.
    pub memory: Option<ByteSize>,
    /// Where rows on their way are kept; the folder for temporary files when absent.
    pub work_dir: Option<PathBuf>,
    /// How long to wait for a driver that does not answer.
    pub patience: Duration,
}

/// What a program says that was compiled without executors.
#[cfg(not(feature = "cluster"))]
pub(crate) fn absent() -> crate::Error {
    let message = "this program was compiled without executors; cargo build --release --package moe-data --features cluster compiles one with them";
    crate::Error::Usage(message.to_owned())
}

/// Does tasks until the driver is gone.
///
/// # Errors
/// [`crate::error::Error::Interrupted`], too little memory, no driver, or a program without executors.
#[cfg(feature = "cluster")]
pub fn run(args: &ExecutorArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    use crate::cluster;
    use crate::engine::LocalEngine;

    let n_cores =
        args.vcores.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let engine = LocalEngine::new(n_cores)?;
    let engine = match args.memory {
        Some(memory) => engine.with_memory(memory.0),
        None => engine,
    };
    let executor = cluster::Executor {
        driver: args.scheduler.clone(),
        listen: args.listen,
        work_dir: args.work_dir.clone().unwrap_or_else(std::env::temp_dir),
        patience: args.patience,
    };
    cluster::execute(&executor, engine, printer, stop)
}

/// Says how to get a program with executors.
///
/// # Errors
/// [`Error::Usage`].
#[cfg(not(feature = "cluster"))]
pub fn run(_: &ExecutorArgs, _: &Printer, _: Arc<AtomicBool>) -> Result<()> {
    Err(absent())
}
