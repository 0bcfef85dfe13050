//! An executor: a process that works for a driver until that is gone.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ballista_core::registry::BallistaFunctionRegistry;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_executor::executor_server::TERMINATING;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use crate::driver::MAX_MESSAGE_BYTES;
use crate::error::Error;
use crate::tasks::{self, TaskFn};

/// The least memory for each core: a sort reserves 10 MiB for what it does once it has spilled.
pub const MIN_MEMORY_BYTES: u64 = 14_000_000;

/// What an executor has, and for whom.
pub struct ExecutorConfig {
    /// Host of the driver.
    pub driver_host: String,
    /// Its port.
    pub driver_port: u16,
    /// The address of this machine at which others fetch what is in `work_dir`.
    pub listen: IpAddr,
    /// Tasks at once.
    pub n_cores: usize,
    /// Memory for rows that are sorted, of all tasks together; at least [`MIN_MEMORY_BYTES`] for each.
    pub memory_bytes: u64,
    /// An empty folder on a disk of this machine.
    pub work_dir: PathBuf,
    /// How long to wait for a driver that does not answer.
    pub patience: Duration,
    /// Ends the executor soon after it is set.
    pub stop: Arc<AtomicBool>,
    /// Does a task.
    pub run: TaskFn,
}

impl fmt::Debug for ExecutorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorConfig").field("driver_host", &self.driver_host).finish_non_exhaustive()
    }
}

/// How often an executor looks whether its driver is there.
const LOOK: Duration = Duration::from_secs(2);

/// How long a driver has to hear that an executor ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// Works for a driver until it is gone, or until it is to stop. `started` is told where other executors find this one.
///
/// # Errors
/// [`Error::NoDriver`] where none ever came, or the executor cannot start.
pub fn execute(config: &ExecutorConfig, started: impl FnOnce(SocketAddr)) -> Result<(), Error> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| Error::Failed(format!("cannot start threads: {e}")))?;
    let mut registry = BallistaFunctionRegistry::default();
    let function = tasks::function(config.run.clone());
    registry.scalar_functions.insert(tasks::FUNCTION.to_owned(), Arc::new(function));
    let outcome = runtime.block_on(work(config, Arc::new(registry), started));
    // A task that is still at work would keep the process from ending.
    runtime.shutdown_background();
    outcome
}

/// Ballista ends an executor that its driver gave up, as after a long stop, and one whose driver did not answer five times in a row. Another
/// one then takes its place, until patience ends.
async fn work(
    config: &ExecutorConfig,
    registry: Arc<BallistaFunctionRegistry>,
    started: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let address = format!("{}:{}", config.driver_host, config.driver_port);
    let mut started = Some(started);
    let mut gone = pin!(until_gone(&address, config.patience));
    loop {
        let addresses = [free_address(config.listen)?, free_address(config.listen)?];
        if let Some(started) = started.take() {
            started(addresses[0]);
        }
        tokio::select! {
            ended = start_executor_process(Arc::new(process(config, addresses, registry.clone()))) => match ended {
                Err(e) => return Err(Error::Failed(format!("the executor ended: {e}"))),
                Ok(()) if config.stop.load(Ordering::Relaxed) => return Ok(()),
                Ok(()) => {}
            },
            () = until_stopped(&config.stop) => return Ok(()),
            was_there = &mut gone => return match was_there {
                true => Ok(()),
                false => Err(Error::NoDriver { address: address.clone(), seconds: config.patience.as_secs() }),
            },
        }
        // Of the process, not of the executor that ended.
        TERMINATING.store(false, Ordering::Release);
        sleep(LOOK).await;
    }
}

/// An executor of Ballista, with an id of its own.
fn process(
    config: &ExecutorConfig,
    [flight, grpc]: [SocketAddr; 2],
    registry: Arc<BallistaFunctionRegistry>,
) -> ExecutorProcessConfig {
    ExecutorProcessConfig {
        bind_host: host(config.listen),
        // Otherwise the driver takes the address that it sees.
        external_host: config.listen.is_loopback().then(|| host(config.listen)),
        port: flight.port(),
        grpc_port: grpc.port(),
        scheduler_host: config.driver_host.clone(),
        scheduler_port: config.driver_port,
        // The end of patience comes first.
        scheduler_connect_timeout_seconds: u16::MAX,
        vcores: config.n_cores,
        work_dir: Some(config.work_dir.display().to_string()),
        memory_pool_size: Some(config.memory_bytes),
        grpc_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_max_encoding_message_size: MAX_MESSAGE_BYTES,
        executor_heartbeat_interval_seconds: 2,
        override_function_registry: Some(registry),
        ..ExecutorProcessConfig::default()
    }
}

/// Returns when nobody has listened at `address` for as long as `patience`, and whether anybody ever did.
async fn until_gone(address: &str, patience: Duration) -> bool {
    let (mut was_there, mut last) = (false, Instant::now());
    while last.elapsed() < patience {
        if let Ok(Ok(_)) = timeout(LOOK, TcpStream::connect(address)).await {
            (was_there, last) = (true, Instant::now());
        }
        sleep(LOOK).await;
    }
    was_there
}

/// Returns when the executor is to stop. Ballista listens to the same signals and tells the driver, but then waits for tasks.
async fn until_stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        sleep(FAREWELL / 10).await;
    }
    sleep(FAREWELL).await;
}

/// A port that nobody has. Ballista wants to know it before it listens.
fn free_address(host: IpAddr) -> Result<SocketAddr, Error> {
    let address = SocketAddr::new(host, 0);
    let bound = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    bound.map_err(|source| Error::Listen { address, source })
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
