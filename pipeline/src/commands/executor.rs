//! `moe-data executor`: a process that does tasks for `moe-data build --engine ballista`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
#[cfg(feature = "cluster")]
use std::time::Duration;

use clap::Args;

use crate::error::Result;
use crate::printer::Printer;
use crate::recipe::ByteSize;

/// Flags of `executor`.
#[derive(Clone, Debug, Args)]
pub struct ExecutorArgs {
    /// Where the build is: host and port of its --listen
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    pub scheduler: (String, u16),
    /// Tasks at once [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub vcores: Option<u16>,
    /// Folder on a fast disk of this machine for rows on their way between executors [default: that for temporary files]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Memory for what tasks could as well leave on the disk, at least 14MB for each [default: 1GiB]; the result does not depend on it
    #[arg(long, value_name = "SIZE", value_parser = super::parse_memory)]
    pub memory: Option<ByteSize>,
    /// Address of this machine at which the build and other executors fetch rows: 0.0.0.0 for all of them, and only on a network
    /// that you trust
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen: IpAddr,
    /// How long to wait for a build that does not answer, at the start and at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u64,
}

/// What a program says that was compiled without executors.
#[cfg(not(feature = "cluster"))]
pub(crate) fn absent() -> crate::Error {
    let message = "this program was compiled without executors; cargo build --profile cluster --package moe-data --features cluster compiles one with them";
    crate::Error::Usage(message.to_owned())
}

/// Does tasks until the driver is gone.
///
/// # Errors
/// [`crate::error::Error::Interrupted`], too little memory, no driver, or a program without executors.
#[cfg(feature = "cluster")]
pub fn run(args: &ExecutorArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    use crate::cluster;

    let engine = super::engine(args.vcores, args.memory)?;
    let executor = cluster::Executor {
        driver: args.scheduler.clone(),
        listen: args.listen,
        work_dir: args.work_dir.clone().unwrap_or_else(std::env::temp_dir),
        patience: Duration::from_secs(args.patience),
    };
    cluster::execute(&executor, engine, printer, stop)
}

/// Says how to get a program with executors.
///
/// # Errors
/// [`crate::Error::Usage`].
#[cfg(not(feature = "cluster"))]
pub fn run(_: &ExecutorArgs, _: &Printer, _: Arc<AtomicBool>) -> Result<()> {
    Err(absent())
}

/// `HOST:PORT`.
fn parse_address(text: &str) -> std::result::Result<(String, u16), String> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parsed {
        Some((host, port)) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(format!("`{text}` is no address; expected HOST:PORT, such as node7:50050")),
    }
}
