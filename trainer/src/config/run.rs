//! Settings of a run.

use crate::device::DeviceChoice;
use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{MANY, float, int};
use crate::train::AverageConfig;

settings! {
    /// Length, device and intervals of a run.
    pub struct RunSettings in "run" {
        /// seed of the initial parameters; the order of the data is the plan's
        seed: u64 = 1, int(0, i64::MAX);
        /// optimizer steps; absent: as many whole batches as the plan has samples for. A resumed run may be
        /// made longer or shorter if no past learning rate changes: before the decay of wsd, or with constant
        steps: Option<u64> = None, int(1, MANY);
        /// auto, cpu, cuda or cuda:N
        device: DeviceChoice = DeviceChoice::Auto, Kind::Device, free;
        /// steps between lines of metrics.jsonl
        log_every: u64 = 10, int(1, MANY), free;
        /// steps between validations; one more follows the last step
        eval_every: u64 = 200, int(1, MANY), free;
        /// tasks to evaluate during training, in the form of `moe-train eval --tasks`; absent or []: none.
        /// Paths are relative to the folder where the program runs
        eval_tasks: Option<Vec<String>> = None, Kind::TextsOrNone("[\"arc_easy=arc_easy.jsonl.gz\", \"mine.toml\"]"), free;
        /// steps between task evaluations; one more follows the last step; absent: run.eval_every
        eval_tasks_every: Option<u64> = None, int(1, MANY), free;
        /// steps between checkpoints; one more follows the last step
        save_every: u64 = 200, int(1, MANY), free;
        /// keep only the input of each block and recompute the block in the backward pass: a third more work,
        /// far less memory, the same gradients
        recompute: bool = false, Kind::Bool, free;
        /// decay per update of a moving average of the weights, which is evaluated and saved in addition to
        /// them; absent: there is none
        ema_decay: Option<f64> = None, float(0.0, 0.999_999_999), free;
        /// steps after which the moving average of weights begins, with the weights at that point; absent: 0
        ema_from: Option<u64> = None, int(0, MANY), free;
        /// peak of the device in TFLOP/s, for perf/mfu in the metrics; absent: no MFU
        peak_tflops: Option<f64> = None, float(1e-3, 1e7), free;
        /// number of newest checkpoints to keep
        keep: usize = 3, int(1, 1_000_000), free;
    }
}

impl RunSettings {
    /// How weights are averaged; absent: not averaged.
    pub fn average(&self) -> Option<AverageConfig> {
        self.ema_decay.map(|decay| AverageConfig { decay, from: self.ema_from.unwrap_or(0) })
    }
}
