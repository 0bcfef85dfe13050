//! The measurements as a table for people and as JSON.

use std::fmt;

use serde::Serialize;

use super::{Part, Roofline, Setup, Steps};
use crate::model::memory::MemoryPlan;
use crate::model::size::size;
use crate::ops::Form;
use crate::optim::kept_bytes;

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this program.
    pub version: &'static str,
    /// The device it ran on.
    pub device: String,
    /// `f32` or `bf16`.
    pub compute: &'static str,
    /// Whether blocks were computed again in the backward pass.
    pub recompute: bool,
    /// Tokens of a sample, samples of a step and of a micro-batch, entries of the vocabulary.
    pub seq_len: usize,
    /// See [`Report::seq_len`].
    pub batch: usize,
    /// See [`Report::seq_len`].
    pub micro_batch: usize,
    /// See [`Report::seq_len`].
    pub vocab: usize,
    /// All parameters.
    pub parameters: u64,
    /// Parameters of one token.
    pub active_parameters: u64,
    /// Floating-point operations of one token, forward and backward.
    pub flops_per_token: u64,
    /// Bytes that the plan expects.
    pub planned_memory: u64,
    /// What the machine can do.
    pub roofline: Roofline,
    /// The parts of a step.
    pub parts: Vec<PartRow>,
    /// Whole steps.
    pub steps: Steps,
    /// Milliseconds of a step that no part explains: the host, and operations that are not listed.
    pub other_ms: f64,
    /// TFLOP/s of the model: `flops_per_token * tokens_per_second`.
    pub model_tflops: f64,
    /// Peak in TFLOP/s for [`Report::mfu`].
    pub peak_tflops: f64,
    /// `flops_per_token * tokens_per_second / peak`.
    pub mfu: f64,
}

/// A part with its rates and its share of a step.
#[derive(Debug, Clone, Serialize)]
pub struct PartRow {
    /// The part.
    #[serde(flatten)]
    pub part: Part,
    /// TFLOP/s of its products; absent without products.
    pub tflops: Option<f64>,
    /// The same as a share of the measured large product.
    pub share_of_matmul: Option<f64>,
    /// GB/s of the bytes that it must move at least.
    pub gb_per_s: f64,
    /// The same as a share of the measured copy.
    pub share_of_copy: f64,
    /// Its milliseconds in a step.
    pub step_ms: f64,
}

impl Report {
    pub(super) fn new(setup: &Setup, roofline: Roofline, parts: Vec<Part>, steps: Steps) -> Self {
        let config = &setup.geometry;
        let size = size(config);
        let parts: Vec<PartRow> = parts.into_iter().map(|part| PartRow::new(part, &roofline)).collect();
        let explained: f64 = parts.iter().map(|row| row.step_ms).sum();
        let model_tflops = size.flops_per_token as f64 * steps.tokens_per_second / 1e12;
        let peak_tflops = setup.peak_tflops.unwrap_or(roofline.matmul_tflops);
        let samples = setup.step.micro_batch.min(setup.batch);
        let kept = kept_bytes(&setup.groups, config).moments;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            device: setup.device_name.clone(),
            compute: config.compute.name(),
            recompute: setup.step.recompute,
            seq_len: config.seq_len,
            batch: setup.batch,
            micro_batch: setup.step.micro_batch,
            vocab: config.vocab_size,
            parameters: size.total,
            active_parameters: size.active,
            flops_per_token: size.flops_per_token,
            planned_memory: MemoryPlan::new(
                config,
                kept,
                samples,
                Form::on(&setup.device),
                setup.step.recompute,
            )
            .total(),
            roofline,
            other_ms: steps.ms - explained,
            model_tflops,
            peak_tflops,
            mfu: model_tflops / peak_tflops,
            parts,
            steps,
        }
    }
}

impl PartRow {
    fn new(part: Part, roofline: &Roofline) -> Self {
        let tflops = (part.flops > 0.0).then(|| part.tflops());
        Self {
            tflops,
            share_of_matmul: tflops.map(|rate| rate / roofline.matmul_tflops),
            gb_per_s: part.gb_per_s(),
            share_of_copy: part.gb_per_s() / roofline.copy_gb_per_s,
            step_ms: part.ms() * part.times as f64,
            part,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { roofline, steps, .. } = self;
        writeln!(
            f,
            "{}: {:.1} M parameters, {:.1} M active, {}{}; {} samples of {} tokens, {} at a time, vocabulary {}",
            self.device,
            self.parameters as f64 / 1e6,
            self.active_parameters as f64 / 1e6,
            self.compute,
            if self.recompute { " with recomputation" } else { "" },
            self.batch,
            self.seq_len,
            self.micro_batch,
            self.vocab
        )?;
        writeln!(
            f,
            "limits: copy {:.1} GB/s, product of {} rows {:.3} TFLOP/s",
            roofline.copy_gb_per_s, roofline.matmul_rows, roofline.matmul_tflops
        )?;
        writeln!(
            f,
            "{:22} {:>10} {:>10} {:>6} {:>10} {:>9} {:>8} {:>9} {:>7}",
            "part", "fwd ms", "bwd ms", "times", "step ms", "TFLOP/s", "product", "GB/s", "copy"
        )?;
        for row in &self.parts {
            let part = &row.part;
            let rate = row.tflops.map_or("-".into(), |rate| format!("{rate:.3}"));
            let share = row.share_of_matmul.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share));
            writeln!(
                f,
                "{:22} {:>10.3} {:>10.3} {:>6} {:>10.2} {rate:>9} {share:>8} {:>9.1} {:>5.0} %",
                part.name,
                part.forward_ms,
                part.backward_ms,
                part.times,
                row.step_ms,
                row.gb_per_s,
                100.0 * row.share_of_copy
            )?;
        }
        writeln!(
            f,
            "{:22} {:>40.2}   (other products, norms, residual stream, recomputation, host)",
            "all else", self.other_ms
        )?;
        writeln!(
            f,
            "step {:.2} ms ({:.2} to {:.2}, {} steps): {:.0} tokens/s, loss {:.3}",
            steps.ms, steps.ms_range[0], steps.ms_range[1], steps.n, steps.tokens_per_second, steps.loss
        )?;
        writeln!(
            f,
            "model {:.3} TFLOP/s = {:.1} % of {:.3} (6 x active parameters in products + causal attention, \
             {:.3} GFLOP per token)",
            self.model_tflops,
            100.0 * self.mfu,
            self.peak_tflops,
            self.flops_per_token as f64 / 1e9
        )?;
        if let Some([fewest, mean, most]) = steps.rows_per_expert {
            writeln!(f, "rows per expert and step: {mean:.0} on average, {fewest:.0} to {most:.0}")?;
        }
        if let (Some(reads), Some(host_ms)) = (steps.reads, steps.host_ms) {
            writeln!(
                f,
                "the host waits for the device {reads} time(s) in a step, after giving out work for {host_ms:.2} ms"
            )?;
        }
        let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
        match steps.memory {
            Some([used, reserved]) => writeln!(
                f,
                "memory: {:.2} GiB planned, {:.2} GiB in use after a step, {:.2} GiB reserved",
                gib(self.planned_memory),
                gib(used),
                gib(reserved)
            ),
            None => writeln!(f, "memory: {:.2} GiB planned", gib(self.planned_memory)),
        }
    }
}
