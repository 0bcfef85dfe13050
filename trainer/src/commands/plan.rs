//! `moe-train plan`: what a run would need, before it starts.

use moe_shards::Plan;
use serde_json::{Value, json};

use super::memory::{self, gib};
use super::{bench, source};
use crate::bench::Steps;
use crate::cli::PlanArgs;
use crate::config::RunConfig;
use crate::data::Corpus;
use crate::device;
use crate::error::Result;
use crate::model::cost::Cost;
use crate::model::memory::MemoryPlan;
use crate::model::{Model, ModelConfig};
use crate::ops::{Compute, Form, is_cpu};
use crate::printer::Printer;

pub(super) fn run(args: PlanArgs, printer: &mut Printer) -> Result<u8> {
    let mut source = source::read(&args.source)?;
    source.apply(args.shards.as_deref(), args.steps, args.device);
    let config = RunConfig::new(source.values, source.problems)?;
    moe_kernels::allow_tensor_cores(config.precision.tensor_cores);
    let chosen = device::open(config.run.device)?;
    printer.say(format!("device {}", chosen.reason));
    printer.say(&source.origin);
    config.warnings().iter().for_each(|warning| printer.warn(warning));
    let corpus = Corpus::open(&config.data.shards)?;
    let config = config.with_plan_len(&*corpus.samples)?;
    let geometry = config.model(corpus.vocab_size, corpus.samples.seq_len());
    // A run for another machine can be planned here, but not measured.
    let is_elsewhere = args.measure.is_none() && geometry.compute == Compute::Bf16 && is_cpu(&chosen.device);
    let form = match is_elsewhere {
        true => {
            printer.say("bf16 needs a GPU: memory is estimated for one");
            Form::Gpu
        }
        false => {
            device::check(&chosen.device, geometry.compute, geometry.head_dim())?;
            Form::on(&chosen.device)
        }
    };
    let memory = memory::plan(&config, &geometry, form);
    // A run that cannot fit is reported in full, and not measured.
    let fits = if is_elsewhere { Ok(()) } else { memory::fits(&config, &geometry, &chosen.device) };
    let speed = match (args.tokens_per_second, args.measure, &fits) {
        (Some(speed), _, _) => Some(speed),
        (None, Some(n_steps), Ok(())) => {
            printer.say(format!("measuring {n_steps} steps"));
            let setup = bench::setup(&config, geometry.clone(), chosen, n_steps);
            Some(Steps::measure(&setup)?.tokens_per_second)
        }
        _ => None,
    };
    let n_samples = config.batches.before(config.run.steps.unwrap_or_default());
    let shares = shares(&Plan::open(&config.data.shards)?, n_samples)?;
    let report = Report {
        config: &config,
        geometry: &geometry,
        memory,
        is_cpu: form == Form::Cpu,
        shares,
        tokens: corpus.samples.tokens_before(n_samples),
        speed,
    };
    match args.json {
        true => printer.data(format!("{:#}", report.json(&corpus)))?,
        false => printer.data(report.text(&corpus).trim_end())?,
    }
    fits.map(|()| 0)
}

/// What a run reads of a source.
struct Share {
    name: String,
    samples: u64,
    /// Whole and partial passes over its families.
    passes: f64,
}

/// The first `n_samples` samples of a plan by pool.
fn shares(plan: &Plan, n_samples: u64) -> Result<Vec<Share>> {
    let pools = &plan.lock().pools;
    let mut used = vec![0; pools.len()];
    for phase in plan.lock().phases.iter().filter(|phase| phase.t_start < n_samples.min(phase.t_end())) {
        let last = phase.t_end().min(n_samples) - 1;
        let (_, counts) = plan.counts_before(last)?;
        counts.iter().zip(&mut used).for_each(|(count, used)| *used += count);
        used[usize::from(plan.locate(last)?.pool)] += 1;
    }
    let share = |((pool, lock), &samples): ((&moe_shards::Pool, &moe_shards::PoolLock), &u64)| {
        let passes = match samples.checked_sub(1) {
            None => 0.0,
            Some(last) => {
                let (pass, bin) = pool.pass_of(last)?;
                let n_bins = lock.pass(pass).map_or(1, moe_shards::PassLock::n_bins).max(1);
                // The first pass of a pool that continues another one is what remains of the other's last
                // pass.
                let before = lock.continues.filter(|c| c.pass == pass).map_or(0, |c| c.bins);
                f64::from(pass) + (before + bin + 1) as f64 / (before + n_bins) as f64
            }
        };
        Ok(Share { name: lock.name.clone(), samples, passes })
    };
    plan.pools().iter().zip(pools).zip(&used).map(share).collect()
}

/// What is printed.
struct Report<'a> {
    config: &'a RunConfig,
    geometry: &'a ModelConfig,
    memory: MemoryPlan,
    /// Whether the device is a CPU.
    is_cpu: bool,
    shares: Vec<Share>,
    /// Tokens of all steps, padding included.
    tokens: u64,
    /// Tokens per second.
    speed: Option<f64>,
}

impl Report<'_> {
    fn steps(&self) -> u64 {
        self.config.run.steps.unwrap_or_default()
    }

    /// Bytes per token that the backward pass needs.
    fn kept(&self, cost: &Cost) -> u64 {
        let scores = if self.is_cpu { cost.scores } else { cost.gpu_scores };
        cost.values * self.geometry.compute.bytes() + 4 * (cost.f32_values + scores)
    }

    /// Minimum bytes moved through memory per token: in each forward pass weights are read, in each backward
    /// pass read again, and their gradients written; each step reads parameter, gradient and both moments and
    /// writes all but the gradient; what the backward pass needs is written and read once.
    fn moved(&self, cost: &Cost) -> u64 {
        let weights = cost.parameters;
        let per_pass = weights * (2 * self.geometry.compute.bytes() + 4);
        let tokens = |samples: usize| (samples * self.geometry.seq_len).max(1) as u64;
        let (pass, step) = (tokens(self.config.data.samples_per_pass()), tokens(self.config.data.batch));
        per_pass / pass + weights * 28 / step + 2 * self.kept(cost)
    }

    /// Mean rows of an expert in a step and in a forward pass; none without experts.
    fn rows(&self) -> Option<[f64; 2]> {
        let (data, moe) = (&self.config.data, &self.geometry.moe);
        let has_mixture = self.geometry.n_dense_layers < self.geometry.n_layers;
        let rows =
            |samples: usize| (samples * self.geometry.seq_len * moe.top_k) as f64 / moe.n_experts as f64;
        has_mixture.then(|| [rows(data.batch), rows(data.samples_per_pass())])
    }

    fn purposes(&self) -> [(&'static str, u64); 9] {
        let MemoryPlan {
            parameters,
            casts,
            gradients,
            moments,
            average,
            activations,
            scores,
            logits,
            packed,
        } = self.memory;
        [
            ("parameters", parameters),
            ("copies in the type of products", casts),
            ("gradients", gradients),
            ("moments", moments),
            ("moving average of weights", average),
            ("activations", activations),
            ("attention scores", scores),
            ("logits", logits),
            ("matrices in the order of products", packed),
        ]
    }

    fn json(&self, corpus: &Corpus) -> Value {
        let whole = Model::cost(self.geometry);
        let parts: serde_json::Map<String, Value> = Model::costs(self.geometry)
            .iter()
            .map(|(name, cost)| {
                let part = json!({
                    "parameters": cost.parameters,
                    "active": cost.active,
                    "flops_per_token": cost.flops,
                    "bytes_kept_per_token": self.kept(cost),
                });
                ((*name).to_string(), part)
            })
            .collect();
        let sources: serde_json::Map<String, Value> = self
            .shares
            .iter()
            .map(|share| (share.name.clone(), json!({ "samples": share.samples, "passes": share.passes })))
            .collect();
        json!({
            "parameters": whole.parameters,
            "active_parameters": whole.active,
            "parts": parts,
            "per_token": {
                "flops": whole.flops,
                "bytes_kept": self.kept(&whole),
                "bytes_moved": self.moved(&whole),
            },
            "memory": { "bytes": self.memory, "total": self.memory.total(), "limit": device::memory_limit() },
            "plan": corpus.plan_id,
            "steps": self.steps(),
            "tokens": self.tokens,
            "flops": self.tokens as f64 * whole.flops as f64,
            "sources": sources,
            "rows_per_expert": self.rows().map(|[step, pass]| json!({ "of_a_step": step, "of_a_pass": pass })),
            "tokens_per_second": self.speed,
            "seconds": self.speed.map(|speed| self.tokens as f64 / speed),
        })
    }

    fn text(&self, corpus: &Corpus) -> String {
        let whole = Model::cost(self.geometry);
        let mut text = String::new();
        let mut line = |cells: std::fmt::Arguments| text.push_str(&format!("{cells}\n"));
        line(format_args!(
            "{:<20} {:>15} {:>15} {:>15} {:>17}",
            "part", "parameters", "active", "MFLOP/token", "bytes kept/token"
        ));
        let all = [("total", whole)];
        for (name, cost) in Model::costs(self.geometry).iter().chain(&all) {
            line(format_args!(
                "{name:<20} {:>15} {:>15} {:>15.3} {:>17}",
                cost.parameters,
                cost.active,
                cost.flops as f64 / 1e6,
                self.kept(cost)
            ));
        }
        let (moved, flops) = (self.moved(&whole), whole.flops);
        line(format_args!(
            "at least {moved} bytes of memory traffic per token, {:.1} FLOP per byte\n",
            flops as f64 / moved.max(1) as f64
        ));

        line(format_args!("{:<35} {:>10}", "memory", "GiB"));
        for (name, bytes) in self.purposes().iter().filter(|(_, bytes)| *bytes > 0) {
            line(format_args!("{name:<35} {:>10.3}", gib(*bytes)));
        }
        let limit = device::memory_limit().filter(|_| self.is_cpu);
        let of = limit
            .map_or_else(String::new, |limit| format!(" of {:.3} that this process may use", gib(limit)));
        line(format_args!("{:<35} {:>10.3}{of}\n", "total", gib(self.memory.total())));

        let (steps, batch) = (self.steps(), self.config.data.batch);
        let up_to = if self.config.batches.is_ramp() { "up to " } else { "" };
        line(format_args!(
            "plan {}: {steps} steps of {up_to}{batch} samples of {} tokens = {} tokens, {:.3e} FLOP",
            corpus.plan_id.short(),
            corpus.sample_tokens(),
            self.tokens,
            self.tokens as f64 * flops as f64
        ));
        line(format_args!("{:<35} {:>10} {:>8} {:>8}", "source", "samples", "share", "passes"));
        let n_samples = self.config.batches.before(steps).max(1);
        for Share { name, samples, passes } in &self.shares {
            let share = 100.0 * *samples as f64 / n_samples as f64;
            line(format_args!("{name:<35} {samples:>10} {share:>6.1} % {passes:>8.2}"));
        }
        if let Some([step, pass]) = self.rows() {
            let experts = self.geometry.moe.n_experts;
            line(format_args!(
                "rows per expert ({experts} experts), on average: {step:.1} in a step, {pass:.1} in a forward pass"
            ));
        }
        match self.speed {
            Some(speed) => {
                let time = duration(self.tokens as f64 / speed);
                line(format_args!("time at {speed:.0} tokens/s: {time}, without validation and saving"));
            }
            None => line(format_args!("time: use --measure to time some steps on this device")),
        }
        text
    }
}

/// Seconds in human-readable form.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, _) => format!("{seconds:.1} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_shown_in_two_units() {
        let told = [0.25, 59.0, 61.0, 7300.0, 180_000.0].map(duration);
        assert_eq!(told, ["0.2 s", "59.0 s", "1 min 1 s", "2 h 1 min", "2 d 2 h"]);
    }
}
