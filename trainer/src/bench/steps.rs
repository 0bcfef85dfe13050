//! Whole steps.

use std::time::Instant;

use super::{Setup, WARM_UP, batch};
use crate::model::Model;
use crate::ops;
use crate::optim::Optimizer;
use crate::train::{StepError, TrainState, train_step};

/// What whole steps cost.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Steps {
    /// Steps measured.
    pub n: u64,
    /// Mean milliseconds of a step.
    pub ms: f64,
    /// Mean CPU milliseconds of a step, over all threads; absent where the system does not report it.
    pub cpu_ms: Option<f64>,
    /// The fastest and the slowest.
    pub ms_range: [f64; 2],
    /// Tokens of a step per second.
    pub tokens_per_second: f64,
    /// How often a step waits for values from the device; absent on a CPU, which never waits.
    pub reads: Option<u64>,
    /// Mean milliseconds of a step in which the host issues work; for the rest it waits for the device. Where
    /// this is nearly all of a step, the host is the bottleneck.
    pub host_ms: Option<f64>,
    /// Loss of the last step in nats.
    pub loss: f64,
    /// Bytes of the device's allocator after the last step: in use, and reserved; absent where it has none.
    pub memory: Option<[u64; 2]>,
    /// Rows of an expert in a step: fewest, mean, most.
    pub rows_per_expert: Option<[f64; 3]>,
}

impl Steps {
    /// Runs steps on synthetic tokens.
    ///
    /// # Errors
    /// When the device fails, or a step's loss is not finite.
    pub fn measure(setup: &Setup) -> crate::Result<Self> {
        let config = &setup.geometry;
        let model = Model::new(config, 1, &setup.device.clone().autodiff());
        let optimizer = Optimizer::new(setup.groups.clone(), &model);
        let mut state = TrainState::new(model, optimizer);
        let (mut times, mut waited) = (Vec::new(), 0.0);
        let mut last = None;
        let mut cpu = None;
        for step in 0..u64::from(WARM_UP) + setup.n_steps {
            let batch = batch(setup.batch, config.seq_len, config.vocab_size, state.t);
            let (start, waited_before) = (Instant::now(), ops::waited());
            let report = train_step(&mut state, &batch, &setup.step).map_err(|error| match error {
                StepError::Device(error) => error,
                StepError::NotFinite(report) => crate::Error::Diverged(format!(
                    "step {step} of the benchmark: loss {} and gradient norm {} must be finite",
                    report.cross_entropy, report.grad_norm
                )),
            })?;
            if step + 1 == u64::from(WARM_UP) {
                cpu = cpu_seconds();
            }
            if step >= u64::from(WARM_UP) {
                times.push(1e3 * start.elapsed().as_secs_f64());
                waited += 1e3 * (ops::waited() - waited_before).as_secs_f64();
            }
            last = Some(report);
        }
        let n = times.len().max(1) as f64;
        let ms = times.iter().sum::<f64>() / n;
        let report = last.ok_or_else(|| crate::Error::Usage("--steps must be at least 1".into()))?;
        let loads = report.routers.iter().flat_map(|(_, stats)| &stats.load).map(|&n| n as f64);
        let rows = loads.clone().count();
        let is_gpu = !ops::is_cpu(&setup.device);
        Ok(Self {
            n: setup.n_steps,
            ms,
            cpu_ms: cpu.zip(cpu_seconds()).map(|(before, after)| 1e3 * (after - before) / n),
            ms_range: [
                times.iter().copied().fold(f64::INFINITY, f64::min),
                times.iter().copied().fold(0.0, f64::max),
            ],
            tokens_per_second: (setup.batch * config.seq_len) as f64 / ms * 1e3,
            reads: is_gpu.then_some(report.n_reads),
            host_ms: is_gpu.then_some(ms - waited / n),
            loss: report.cross_entropy,
            memory: setup.device.memory_pool_usage().map(|usage| [usage.bytes_in_use, usage.bytes_reserved]),
            rows_per_expert: (rows > 0).then(|| {
                let mean = loads.clone().sum::<f64>() / rows as f64;
                [loads.clone().fold(f64::INFINITY, f64::min), mean, loads.fold(0.0, f64::max)]
            }),
        })
    }
}

/// CPU seconds of this process so far.
fn cpu_seconds() -> Option<f64> {
    seconds_of(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// User and system time of a line of `/proc/self/stat`, which counts hundredths.
fn seconds_of(stat: &str) -> Option<f64> {
    // The name of the program, in parentheses, may contain anything; after it come the fields from the third
    // (the state) on.
    let (_, numbers) = stat.rsplit_once(')')?;
    let ticks = numbers.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().ok());
    let ticks = ticks.collect::<Option<Vec<u64>>>().filter(|ticks| ticks.len() == 2)?;
    Some(ticks.iter().sum::<u64>() as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_process_are_read() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0";
        assert_eq!((seconds_of(stat), seconds_of("7 (a) S 1")), (Some(3.0), None));
    }
}
