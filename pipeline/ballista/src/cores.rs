//! The free cores of executors, counted from the tasks that run.
//!
//! Ballista 55 gives a core back when it hears that its task has ended, and finds in the task's stage how many cores that was. When an
//! executor is lost, stages that read its rows are rolled back, and their tasks on other executors are canceled. Those end without a
//! place in any stage, so their cores are never given back: a query on executors of one core would wait for them forever. Here they
//! are given back when tasks are dealt out the next time, which is right after that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::error::Result;
use ballista_core::serde::protobuf::ExecutorHeartbeat;
use ballista_core::serde::scheduler::{ExecutorData, ExecutorMetadata};
use ballista_scheduler::cluster::{BoundTask, ClusterState, ClusterStateEventStream, ExecutorSlot};
use ballista_scheduler::config::TaskDistributionPolicy;
use ballista_scheduler::state::task_manager::JobInfoCache;
use tokio::sync::Mutex;

/// A [`ClusterState`] that loses no core.
pub(crate) struct CountedCores {
    inner: Arc<dyn ClusterState>,
    /// Cores that `inner` has given to tasks, by executor.
    taken: Mutex<HashMap<String, u32>>,
}

impl CountedCores {
    pub(crate) fn new(inner: Arc<dyn ClusterState>) -> CountedCores {
        CountedCores { inner, taken: Mutex::default() }
    }
}

/// Cores of the tasks that run, by executor.
async fn running(jobs: &HashMap<JobId, JobInfoCache>) -> HashMap<String, u32> {
    let mut cores = HashMap::new();
    for job in jobs.values() {
        let graph = job.execution_graph.read().await;
        for task in graph.running_tasks() {
            let n = graph.task_vcores(task.stage_id, task.task_id).unwrap_or(1);
            *cores.entry(task.executor_id).or_default() += n;
        }
    }
    cores
}

/// Takes out of `taken` what no task has that runs.
fn lost(taken: &mut HashMap<String, u32>, running: &HashMap<String, u32>) -> Vec<ExecutorSlot> {
    let mut lost = Vec::new();
    for (executor, n) in taken {
        let n_lost = n.saturating_sub(running.get(executor).copied().unwrap_or(0));
        if n_lost > 0 {
            *n -= n_lost;
            lost.push((executor.clone(), n_lost));
        }
    }
    lost
}

/// Takes these cores out of `taken`, and returns those that were there: others were given back already.
fn give_back(taken: &mut HashMap<String, u32>, slots: Vec<ExecutorSlot>) -> Vec<ExecutorSlot> {
    let back = slots.into_iter().map(|(executor, n)| {
        let held = taken.entry(executor.clone()).or_default();
        let n = n.min(*held);
        *held -= n;
        (executor, n)
    });
    back.collect()
}

#[async_trait]
impl ClusterState for CountedCores {
    async fn init(&self) -> Result<()> {
        self.inner.init().await
    }

    async fn bind_schedulable_tasks(
        &self,
        distribution: TaskDistributionPolicy,
        active_jobs: Arc<HashMap<JobId, JobInfoCache>>,
        executors: Option<HashSet<String>>,
    ) -> Result<Vec<BoundTask>> {
        let mut taken = self.taken.lock().await;
        let lost = lost(&mut taken, &running(&active_jobs).await);
        if !lost.is_empty() {
            self.inner.unbind_tasks(lost).await?;
        }
        let tasks = self.inner.bind_schedulable_tasks(distribution, active_jobs, executors).await?;
        for (executor, task) in &tasks {
            *taken.entry(executor.clone()).or_default() += task.vcores_consumed;
        }
        Ok(tasks)
    }

    async fn unbind_tasks(&self, executor_slots: Vec<ExecutorSlot>) -> Result<()> {
        let mut taken = self.taken.lock().await;
        self.inner.unbind_tasks(give_back(&mut taken, executor_slots)).await
    }

    async fn register_executor(&self, metadata: ExecutorMetadata, spec: ExecutorData) -> Result<()> {
        self.inner.register_executor(metadata, spec).await
    }

    async fn save_executor_metadata(&self, metadata: ExecutorMetadata) -> Result<()> {
        self.inner.save_executor_metadata(metadata).await
    }

    async fn get_executor_metadata(&self, executor_id: &str) -> Result<ExecutorMetadata> {
        self.inner.get_executor_metadata(executor_id).await
    }

    async fn registered_executor_metadata(&self) -> Vec<ExecutorMetadata> {
        self.inner.registered_executor_metadata().await
    }

    async fn save_executor_heartbeat(&self, heartbeat: ExecutorHeartbeat) -> Result<()> {
        self.inner.save_executor_heartbeat(heartbeat).await
    }

    async fn remove_executor(&self, executor_id: &str) -> Result<()> {
        self.taken.lock().await.remove(executor_id);
        self.inner.remove_executor(executor_id).await
    }

    fn executor_heartbeats(&self) -> HashMap<String, ExecutorHeartbeat> {
        self.inner.executor_heartbeats()
    }

    fn get_executor_heartbeat(&self, executor_id: &str) -> Option<ExecutorHeartbeat> {
        self.inner.get_executor_heartbeat(executor_id)
    }

    async fn cluster_state_events(&self) -> Result<ClusterStateEventStream> {
        self.inner.cluster_state_events().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_without_a_task_are_given_back_once() {
        let slots =
            |slots: &[(&str, u32)]| slots.iter().map(|&(id, n)| (id.to_owned(), n)).collect::<Vec<_>>();
        let mut taken: HashMap<_, _> = slots(&[("a", 3), ("b", 1), ("c", 2)]).into_iter().collect();
        let running = slots(&[("a", 1), ("b", 1), ("d", 1)]).into_iter().collect();
        let mut found = lost(&mut taken, &running);
        found.sort();
        assert_eq!(found, slots(&[("a", 2), ("c", 2)]));
        assert_eq!(lost(&mut taken, &running), []);
        // The ends of these tasks are heard later.
        let ends = slots(&[("a", 1), ("a", 2), ("b", 1), ("c", 1), ("d", 1)]);
        assert_eq!(give_back(&mut taken, ends), slots(&[("a", 1), ("a", 0), ("b", 1), ("c", 0), ("d", 0)]));
    }
}
