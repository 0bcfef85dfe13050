//! The driver's side: Ballista's scheduler, and one job after the other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ballista::prelude::{SessionConfigExt, SessionContextExt};
use ballista_core::config::{BALLISTA_ADAPTIVE_PLANNER_ENABLED, BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use url::Url;

use crate::cores::CountedCores;
use crate::error::Error;
use crate::{pairs, tasks};

/// How a driver is reached.
#[derive(Clone, Copy, Debug)]
pub struct DriverConfig {
    /// Where executors find it; port 0 takes any that is free. Whoever reaches it can have executors run tasks.
    pub listen: SocketAddr,
    /// How long an executor may be silent before its tasks go to others. Executors that are busy speak every five seconds.
    pub executor_timeout: Duration,
}

/// A scheduler with the executors that have found it.
pub struct Driver {
    address: SocketAddr,
    scheduler: SchedulerServer<LogicalPlanNode, PhysicalPlanNode>,
    /// Absent only while it is dropped.
    runtime: Option<Runtime>,
}

/// The longest message: a plan names all files of a table.
pub(crate) const MAX_MESSAGE_BYTES: u32 = 256 << 20;
/// How often a caller is asked whether to go on.
const TICK: Duration = Duration::from_millis(200);
/// How long jobs wait for executors when the last one is lost.
const WITHOUT_EXECUTORS: Duration = Duration::from_secs(180);

/// Sessions as scheduler and driver have them.
fn state(config: SessionConfig) -> datafusion::error::Result<SessionState> {
    let mut state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    state.register_udf(Arc::new(tasks::planned_function()))?;
    Ok(state)
}

impl Driver {
    /// Starts a scheduler.
    ///
    /// # Errors
    /// [`Error::Listen`], or the machine has no threads left.
    pub fn start(config: DriverConfig) -> Result<Driver, Error> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|e| Error::Failed(format!("cannot start threads: {e}")))?;
        let (address, scheduler) = runtime.block_on(listen(config))?;
        Ok(Driver { address, scheduler, runtime: Some(runtime) })
    }

    /// Where executors find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs tasks and returns their answers in the order of the tasks; earlier ones start earlier. `folder` is for files that executors
    /// read, and must be there for all of them. `go_on` is asked about five times a second.
    ///
    /// # Errors
    /// [`Error::Stopped`] when `go_on` says so, or a task failed for good.
    pub fn run(
        &self,
        tasks: &[String],
        folder: &Path,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<String>, Error> {
        let mut answers = vec![None; tasks.len()];
        tasks::write(folder, tasks)?;
        let config = config("tasks", tasks.len()).with_repartition_file_scans(false);
        let table = (tasks::TABLE, tasks::schema(), vec![url(folder, true)?]);
        self.job(config, table, &tasks::query(), go_on, &mut |batch| tasks::collect(batch, &mut answers))?;
        let missing = || Error::Failed("Ballista left a task out; this is a bug".to_owned());
        answers.into_iter().map(|answer| answer.ok_or_else(missing)).collect()
    }

    /// Calls `pair` with the id of the first row of a key and that of each other row of this key: in the order of keys and rows, or else
    /// once for each two ids. Tables are Parquet files with columns of unsigned 64-bit numbers, the same in all: `key…`, `order…`, `id`.
    ///
    /// # Errors
    /// That of `pair`, [`Error::Stopped`], or a table cannot be read.
    pub fn pairs<E: From<Error>>(
        &self,
        tables: &[PathBuf],
        in_order: bool,
        go_on: &mut dyn FnMut() -> bool,
        pair: &mut impl FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(first) = tables.first() else { return Ok(()) };
        let schema = pairs::schema(first)?;
        let n_cores = self.wait_for_executors(go_on)?;
        let size = |table: &PathBuf| {
            let failed = |e| Error::Failed(format!("{}: {e}", table.display()));
            std::fs::metadata(table).map(|data| data.len()).map_err(failed)
        };
        let n_bytes = tables.iter().map(size).sum::<Result<u64, Error>>()?;
        let config = config("pairs", pairs::n_partitions(n_bytes, n_cores));
        let urls = tables.iter().map(|table| url(table, false)).collect::<Result<_, Error>>()?;
        let query = pairs::query(&schema, in_order);
        let table = (pairs::TABLE, schema, urls);
        self.job(config, table, &query, go_on, &mut |batch| pairs::each(batch, pair))
    }

    /// The cores of all executors, once there are any.
    fn wait_for_executors(&self, go_on: &mut dyn FnMut() -> bool) -> Result<usize, Error> {
        loop {
            let n_cores = self.block_on(self.n_cores())?;
            if n_cores > 0 {
                return Ok(n_cores);
            }
            if !go_on() {
                return Err(Error::Stopped);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Runs a query over a table, batch by batch.
    fn job<E: From<Error>>(
        &self,
        config: SessionConfig,
        (name, schema, urls): (&str, SchemaRef, Vec<ListingTableUrl>),
        query: &str,
        go_on: &mut dyn FnMut() -> bool,
        each: &mut dyn FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
        let table =
            ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(schema);
        let table = Arc::new(ListingTable::try_new(table).map_err(Error::from)?);
        self.block_on(self.query(config, (name, table), query, go_on, each))
    }

    async fn query<E: From<Error>>(
        &self,
        config: SessionConfig,
        (name, table): (&str, Arc<ListingTable>),
        query: &str,
        go_on: &mut dyn FnMut() -> bool,
        each: &mut dyn FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |e: DataFusionError| E::from(Error::from(e));
        let scheduler = format!("df://{}", SocketAddr::new(local(self.address.ip()), self.address.port()));
        let context = state(config).map_err(failed)?;
        let context = SessionContext::remote_with_state(&scheduler, context).await.map_err(failed)?;
        // A session for a scheduler forgets the functions of the state it is made of.
        context.register_udf(tasks::planned_function());
        context.register_table(name, table).map_err(failed)?;
        let frame = context.sql(query).await.map_err(failed)?;
        let mut batches = frame.execute_stream().await.map_err(failed)?;
        loop {
            match tokio::time::timeout(TICK, batches.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(batch)) => each(&batch.map_err(failed)?)?,
                Err(_) => {}
            }
            if !go_on() {
                self.cancel_all().await;
                return Err(Error::Stopped.into());
            }
        }
    }

    /// The cores of the executors that are alive.
    async fn n_cores(&self) -> Result<usize, Error> {
        let executors = self.scheduler.state.executor_manager.get_executors_state().await;
        let executors = executors.map_err(|e| Error::Failed(e.to_string()))?;
        Ok(executors.into_iter().map(|(data, ..)| data.specification.vcores as usize).sum())
    }

    /// Best effort: whatever is still running does no harm.
    async fn cancel_all(&self) {
        let jobs = self.scheduler.state.task_manager.get_running_jobs().await.unwrap_or_default();
        for job in jobs {
            self.scheduler.cancel_job(job.job_id).await.ok();
        }
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => unreachable!("the runtime is there until the driver is dropped"),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Nothing is left to wait for, and executors notice that it is gone.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(
    config: DriverConfig,
) -> Result<(SocketAddr, SchedulerServer<LogicalPlanNode, PhysicalPlanNode>), Error> {
    let failed = |source| Error::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let timeout = config.executor_timeout.as_secs();
    let settings = Arc::new(SchedulerConfig {
        bind_host: address.ip().to_string(),
        external_host: local(address.ip()).to_string(),
        bind_port: address.port(),
        executor_timeout_seconds: timeout,
        expire_dead_executor_interval_seconds: 1,
        no_executors_grace_period_seconds: timeout.max(WITHOUT_EXECUTORS.as_secs()),
        finished_job_data_clean_up_interval_seconds: 60,
        grpc_server_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MAX_MESSAGE_BYTES,
        grpc_client_max_message_size: MAX_MESSAGE_BYTES,
        override_session_builder: Some(Arc::new(state)),
        ..SchedulerConfig::default()
    });
    let started = async {
        let cluster = BallistaCluster::new_from_config(&settings).await?;
        let cores = CountedCores::new(cluster.cluster_state());
        let cluster = BallistaCluster::new(Arc::new(cores), cluster.job_state());
        create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, settings.clone()).await
    };
    let scheduler = started.await.map_err(|e| Error::Failed(e.to_string()))?;
    tokio::spawn(start_grpc_service_with_listener(listener, scheduler.clone()));
    Ok((address, scheduler))
}

/// The address at which this machine reaches what listens at `address`.
fn local(address: IpAddr) -> IpAddr {
    match address.is_unspecified() {
        true => Ipv4Addr::LOCALHOST.into(),
        false => address,
    }
}

fn config(name: &str, n_partitions: usize) -> SessionConfig {
    SessionConfig::new_with_ballista()
        .with_target_partitions(n_partitions.max(1))
        .with_round_robin_repartition(false)
        .with_collect_statistics(false)
        .with_ballista_job_name(name)
        .with_ballista_grpc_client_max_message_size(MAX_MESSAGE_BYTES as usize)
        // Adaptive plans do not survive the loss of an executor with rows of a stage that was finished.
        .set_str(BALLISTA_ADAPTIVE_PLANNER_ENABLED, "false")
        // What is lost with an executor is then one partition for each of its cores.
        .set_str(BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK, "1")
}

/// A file or folder as a URL: in a plain path, some characters would be taken for a pattern.
fn url(path: &Path, is_folder: bool) -> Result<ListingTableUrl, Error> {
    let wrong = |e: String| Error::Failed(format!("{}: {e}", path.display()));
    let path = std::path::absolute(path).map_err(|e| wrong(e.to_string()))?;
    let url = match is_folder {
        true => Url::from_directory_path(&path),
        false => Url::from_file_path(&path),
    };
    let url = url.map_err(|()| wrong("is no path of a URL".to_owned()))?;
    ListingTableUrl::parse(url.as_str()).map_err(|e| wrong(e.to_string()))
}
