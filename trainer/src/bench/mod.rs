//! Where the time of a training step goes: the parts of a step one by one, compared with what the machine can
//! do, then whole steps.
//!
//! Tokens are synthetic, and each sample is one document, the most work for attention. Parts are measured on
//! one micro-batch of one block; a part's time in a step is that times its blocks and micro-batches.

mod attention;
mod parts;
mod report;
mod roofline;
mod steps;

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};

use crate::data::Batch;
use crate::model::ModelConfig;
use crate::optim::Groups;
use crate::random::Stream;
use crate::train::StepConfig;

pub use attention::{Measured, measure_attention, table};
pub use parts::Part;
pub use report::Report;
pub use roofline::Roofline;
pub use steps::Steps;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The model.
    pub geometry: ModelConfig,
    /// Which rule updates which parameters.
    pub groups: Groups,
    /// The step; its schedule must allow all steps.
    pub step: StepConfig,
    /// Samples of a step.
    pub batch: usize,
    /// Whole steps to measure, after three for warming up.
    pub n_steps: u64,
    /// Repetitions of each part.
    pub n_repeats: u32,
    /// The device, without gradients.
    pub device: Device,
    /// Its name.
    pub device_name: String,
    /// Peak in TFLOP/s, for the MFU; absent: the measured rate of a large product.
    pub peak_tflops: Option<f64>,
}

/// Measures everything.
///
/// # Errors
/// When the device fails, or a step's loss is not finite.
pub fn run(setup: &Setup, say: &mut dyn FnMut(String)) -> crate::Result<Report> {
    say("measuring what the machine can do".into());
    let roofline = Roofline::measure(setup)?;
    say("measuring the parts of a step".into());
    let parts = parts::measure(setup)?;
    say(format!("measuring {} steps", setup.n_steps));
    let steps = Steps::measure(setup)?;
    Ok(Report::new(setup, roofline, parts, steps))
}

/// Measures whole steps.
///
/// # Errors
/// As [`run`].
pub fn steps(setup: &Setup) -> crate::Result<Steps> {
    Steps::measure(setup)
}

/// Calls before the clock starts: the first ones compile kernels and choose among them.
const WARM_UP: u32 = 3;

/// Groups of calls that are timed separately.
const N_CHUNKS: u32 = 3;

/// Seconds of one call: the mean over the fastest third of `n` calls, so that a kernel that is still being
/// compiled in one of them does not count. Only the end of each third waits for the device.
fn time<T>(device: &Device, n: u32, mut call: impl FnMut() -> T) -> crate::Result<f64> {
    let wait = || device.sync().map_err(|error| crate::Error::Device(format!("the device failed: {error}")));
    let mut last = None;
    for _ in 0..WARM_UP {
        last = Some(call());
    }
    wait()?;
    let n = n.div_ceil(N_CHUNKS).max(1);
    let mut fastest = f64::INFINITY;
    for _ in 0..N_CHUNKS {
        let start = Instant::now();
        for _ in 0..n {
            last = Some(call());
        }
        wait()?;
        fastest = fastest.min(start.elapsed().as_secs_f64() / f64::from(n));
    }
    drop(last);
    Ok(fastest)
}

/// Normal numbers, different for every name.
fn noise<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let stream = Stream::new(1, name);
    let n = shape.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..n).map(|i| stream.normal(i) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Samples of one synthetic document each.
fn batch(n_samples: usize, seq: usize, vocab: usize, first_t: u64) -> Batch {
    let stream = Stream::new(2, "bench");
    let mut batch = Batch { seq_len: seq, ..Batch::new(first_t, &[]) };
    let n = n_samples * seq;
    let token = |i: usize| (stream.bits(first_t * seq as u64 + i as u64) % vocab as u64) as u32;
    batch.tokens = (0..n).map(token).collect();
    batch.targets = (1..=n).map(token).collect();
    batch.loss_mask = vec![true; n];
    batch.segments = vec![0; n];
    batch.positions = (0..n).map(|i| (i % seq) as u32).collect();
    batch.variants = vec![0; n];
    batch.ids =
        (0..n_samples).map(|i| moe_shards::SampleId { pool: 0, pass: 0, bin: first_t + i as u64 }).collect();
    batch
}
