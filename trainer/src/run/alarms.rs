//! Warnings while a run can still be saved: experts that get nothing, routers that use few experts, outlier
//! losses, waiting for data, and growing memory. Nothing here changes the run; the history starts over on
//! resume.

use std::collections::{BTreeMap, VecDeque};

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::model::moe::RouterStats;
use crate::train::{Limits, StepReport};

/// The file of alarms in a run's folder. It is separate from `metrics.jsonl`, whose lines are the same for
/// resumed and uninterrupted runs: here, the history starts over on resume, and two kinds depend on the clock
/// and the machine.
pub const ALARMS: &str = "alarms.jsonl";

/// Kinds of alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlarmKind {
    /// Nearly all tokens of a layer have gone to few experts for 100 steps.
    Collapse,
    /// No token has reached an expert for 100 steps.
    Dead,
    /// The loss is far above that of earlier steps.
    Spike,
    /// The update of a step was skipped (`optim.skip_sigma`).
    Skipped,
    /// The memory of the process grows steadily.
    Memory,
    /// Most of the time is spent waiting for samples.
    Stalled,
    /// Loss or gradient is not a number. This always ends a run.
    NonFinite,
}

impl AlarmKind {
    /// Its name in `alarms.jsonl` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            AlarmKind::Collapse => "collapse",
            AlarmKind::Dead => "dead",
            AlarmKind::Spike => "spike",
            AlarmKind::Skipped => "skipped",
            AlarmKind::Memory => "memory",
            AlarmKind::Stalled => "stalled",
            AlarmKind::NonFinite => "non-finite",
        }
    }
}

/// An alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What.
    pub kind: AlarmKind,
    /// The values that triggered it, and what to try.
    pub message: String,
}

impl Alarm {
    pub(super) fn new(kind: AlarmKind, message: String) -> Alarm {
        Alarm { kind, message }
    }

    /// Its line in `alarms.jsonl`.
    pub(super) fn record(&self, step: u64) -> Map<String, Value> {
        let fields = [
            ("schema", json!(1)),
            ("step", json!(step)),
            ("alarm", json!(self.kind.name())),
            ("message", json!(self.message)),
        ];
        fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// Consecutive steps after which experts without a token, or a router that uses few experts, are reported.
const PATIENCE: u32 = 100;
/// Number of losses that a new one is compared with; the same as SkipStep's window in OLMo-core.
const WINDOW: usize = 128;
/// Minimum number of them.
const LEAST: usize = 32;
/// Standard deviations above their mean that count as a spike.
const DEVIATIONS: f64 = 6.0;
/// Steps over which waiting is measured, and the fraction of their time that is too much.
const WAITED_STEPS: u32 = 50;
const WAITED_SHARE: f64 = 0.5;
/// Steps between checks of the process's memory.
const MEMORY_STEPS: u32 = 100;
/// This many checks, each higher than the one before, count as growth if the total reaches this fraction and
/// this many bytes: one-time or occasional allocations do not grow for that long.
const MEMORY_LOOKS: usize = 8;
const MEMORY_SHARE: f64 = 0.05;
const MEMORY_BYTES: u64 = 32 << 20;

/// The alarm for a step whose update was skipped.
pub(super) fn skipped(report: &StepReport) -> Alarm {
    let StepReport { cross_entropy: loss, grad_norm: norm, .. } = report;
    let limits = report.limits.map_or_else(String::new, |Limits { loss, norm }| {
        format!("; optim.skip_sigma allows {loss:.3} and {norm:.3} after the preceding steps")
    });
    let message = format!(
        "the update was skipped: loss {loss:.3} and gradient norm {norm:.3}{limits}. If that happens often, lower optim.lr or \
         look at the samples with `moe-data explain`"
    );
    Alarm::new(AlarmKind::Skipped, message)
}

/// Watches the steps of a run.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    losses: VecDeque<f64>,
    /// Consecutive steps without a token, by layer and expert.
    idle: BTreeMap<usize, Vec<u32>>,
    /// Consecutive steps in which few experts had nearly all tokens, by layer.
    narrow: BTreeMap<usize, u32>,
    waited: f64,
    seconds: f64,
    n_timed: u32,
    n_unseen: u32,
    held: VecDeque<u64>,
}

impl Alarms {
    /// The alarms after a step with this loss (nats), these routers (by layer), and this many seconds, some
    /// of them spent waiting for data.
    pub(super) fn step(
        &mut self,
        loss: f64,
        routers: &[(usize, RouterStats)],
        [seconds, waited]: [f64; 2],
    ) -> Vec<Alarm> {
        let of = |kind| move |message| Alarm::new(kind, message);
        let mut said = Vec::new();
        said.extend(self.spike(loss).map(of(AlarmKind::Spike)));
        for (layer, stats) in routers {
            said.extend(self.dead(*layer, stats).map(of(AlarmKind::Dead)));
            said.extend(self.collapse(*layer, stats).map(of(AlarmKind::Collapse)));
        }
        said.extend(self.stalled(seconds, waited).map(of(AlarmKind::Stalled)));
        said
    }

    /// The alarm about the memory of this process, in bytes, after a step.
    pub(super) fn memory(&mut self, held_bytes: impl FnOnce() -> Option<u64>) -> Option<Alarm> {
        self.n_unseen += 1;
        if self.n_unseen < MEMORY_STEPS {
            return None;
        }
        self.n_unseen = 0;
        self.grown(held_bytes()?).map(|message| Alarm::new(AlarmKind::Memory, message))
    }

    fn grown(&mut self, now: u64) -> Option<String> {
        if self.held.back().is_some_and(|last| now <= *last) {
            self.held.clear();
        }
        self.held.push_back(now);
        if self.held.len() <= MEMORY_LOOKS {
            return None;
        }
        let first = self.held.pop_front().unwrap_or(now);
        let more = now.saturating_sub(first);
        if more < MEMORY_BYTES || (more as f64) < MEMORY_SHARE * first as f64 {
            return None;
        }
        self.held.clear();
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        Some(format!(
            "the memory of this process has grown steadily over {} steps, from {:.2} to {:.2} GiB; lower data.prefetch, and \
             if it continues, stop (Ctrl-C saves) and continue with `moe-train resume` before memory runs out: this is a \
             defect of the program, worth a report",
            MEMORY_LOOKS as u32 * MEMORY_STEPS,
            gib(first),
            gib(now)
        ))
    }

    fn spike(&mut self, loss: f64) -> Option<String> {
        let n = self.losses.len() as f64;
        let mean = self.losses.iter().sum::<f64>() / n.max(1.0);
        let variance = self.losses.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let off = (loss - mean) / variance.sqrt().max(1e-12);
        let is_spike = self.losses.len() >= LEAST && off > DEVIATIONS;
        self.losses.push_back(loss);
        if self.losses.len() > WINDOW {
            self.losses.pop_front();
        }
        is_spike.then(|| {
            format!(
                "the loss {loss:.3} is {off:.0} standard deviations above the mean of the {n} steps before, {mean:.3}; if that \
                 happens often, lower optim.lr or optim.clip, and look at the samples with `moe-data explain`"
            )
        })
    }

    fn dead(&mut self, layer: usize, stats: &RouterStats) -> Option<String> {
        let idle = self.idle.entry(layer).or_insert_with(|| vec![0; stats.load.len()]);
        for (steps, load) in idle.iter_mut().zip(&stats.load) {
            *steps = if *load == 0 { steps.saturating_add(1) } else { 0 };
        }
        let now: Vec<String> = (0..idle.len())
            .filter(|&expert| idle[expert] == PATIENCE)
            .map(|expert| expert.to_string())
            .collect();
        (!now.is_empty()).then(|| {
            format!(
                "layer {layer}: no token has reached expert {} for {PATIENCE} steps; raise moe.balance.bias_rate (sigmoid scores) \
                 or moe.balance.switch, or take fewer moe.experts",
                now.join(", ")
            )
        })
    }

    fn collapse(&mut self, layer: usize, stats: &RouterStats) -> Option<String> {
        let (sent, tokens) = (stats.load.iter().sum::<u64>() + stats.n_dropped, stats.n_tokens.max(1));
        // Mean experts per token.
        let k = sent as f64 / tokens as f64;
        let (n_experts, used) = (stats.load.len() as f64, stats.summary().effective_experts);
        let narrow = self.narrow.entry(layer).or_default();
        // With two experts per token among four or more, fewer than two and a half are in use.
        let is_narrow = n_experts >= 2.0 * k && used < 1.25 * k.max(1.0);
        *narrow = if is_narrow { narrow.saturating_add(1) } else { 0 };
        (*narrow == PATIENCE).then(|| {
            format!(
                "layer {layer}: nearly all tokens have gone to {used:.1} of {n_experts} experts for {PATIENCE} steps, the router has \
                 collapsed; return to an earlier checkpoint with more balancing (moe.balance.bias_rate, moe.balance.switch: \
                 `moe-train resume RUN --from STEP --fork DIR --set ...`) or a lower optim.lr"
            )
        })
    }

    fn stalled(&mut self, seconds: f64, waited: f64) -> Option<String> {
        self.seconds += seconds;
        self.waited += waited;
        self.n_timed += 1;
        if self.n_timed < WAITED_STEPS {
            return None;
        }
        let share = self.waited / self.seconds.max(1e-9);
        (self.seconds, self.waited, self.n_timed) = (0.0, 0.0, 0);
        (share > WAITED_SHARE).then(|| {
            format!(
                "{:.0} % of the time of the last {WAITED_STEPS} steps was spent waiting for samples; raise data.prefetch, or put the \
                 shards on a faster disk",
                100.0 * share
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(load: &[u64]) -> Vec<(usize, RouterStats)> {
        let n_tokens = load.iter().sum::<u64>() / 2;
        vec![(3, RouterStats { load: load.to_vec(), n_tokens, ..RouterStats::default() })]
    }

    /// Steps with an alarm, from 1, and the message of the first.
    fn alarms(
        n: usize,
        mut step: impl FnMut(usize) -> (f64, Vec<(usize, RouterStats)>, [f64; 2]),
    ) -> (Vec<usize>, String) {
        let (mut alarms, mut steps, mut first) = (Alarms::default(), Vec::new(), String::new());
        for number in 1..=n {
            let (loss, routers, times) = step(number);
            let said = alarms.step(loss, &routers, times);
            if !said.is_empty() {
                steps.push(number);
                let texts: Vec<&str> = said.iter().map(|alarm| alarm.message.as_str()).collect();
                first = if first.is_empty() { texts.join("; ") } else { first };
            }
        }
        (steps, first)
    }

    #[test]
    fn a_spike_is_reported_once_there_is_something_to_compare_it_with() {
        let even = stats(&[5, 5, 5, 5]);
        let loss = |number: usize| match number {
            10 | 60 => 9.0,
            n => 3.0 + 0.01 * (n % 5) as f64,
        };
        // Step 10 is too early, and its loss is in the window that step 60 is compared with.
        let (steps, _) = alarms(70, |n| (loss(n), even.clone(), [1.0, 0.0]));
        assert_eq!(steps, [60]);
        let (steps, said) = alarms(70, |n| (if n == 10 { 3.0 } else { loss(n) }, even.clone(), [1.0, 0.0]));
        assert_eq!(steps, [60]);
        assert!(said.contains("9.000") && said.contains("optim.lr"), "{said}");
    }

    #[test]
    fn experts_without_a_token_are_named_after_a_hundred_steps() {
        let load = |n: usize| if n == 50 { stats(&[5, 5, 5, 5]) } else { stats(&[5, 0, 8, 7]) };
        let (steps, said) = alarms(160, |n| (3.0, load(n), [1.0, 0.0]));
        assert_eq!(steps, [150]);
        assert!(said.contains("layer 3") && said.contains("expert 1 "), "{said}");
    }

    #[test]
    fn a_collapsed_router_is_reported_and_an_even_one_is_not() {
        let (steps, said) = alarms(120, |_| (3.0, stats(&[10, 9, 1, 0]), [1.0, 0.0]));
        // Expert 3 is dead at the same time.
        assert_eq!(steps, [100]);
        assert!(said.contains("collapsed") && said.contains("expert 3 "), "{said}");
        assert!(alarms(120, |_| (3.0, stats(&[6, 5, 5, 4]), [1.0, 0.0])).0.is_empty());
    }

    #[test]
    fn memory_that_grows_steadily_is_reported_once() {
        let mib = |n: u64| Some(n << 20);
        // Checks with an alarm, from 1, and the message of the first.
        let looks = |n: u64, held: &dyn Fn(u64) -> Option<u64>| {
            let (mut alarms, mut found) = (Alarms::default(), Vec::new());
            for look in 1..=n {
                for _ in 1..MEMORY_STEPS {
                    assert!(alarms.memory(|| panic!("it looks every {MEMORY_STEPS} steps")).is_none());
                }
                found.extend(alarms.memory(|| held(look)).map(|said| (look, said)));
            }
            found
        };
        // 8 steps up from 1010 to 1090 MiB are 8 %.
        let found = looks(12, &|look| mib(1000 + 10 * look));
        assert_eq!(found.iter().map(|(look, _)| *look).collect::<Vec<_>>(), [9]);
        assert_eq!(found[0].1.kind, AlarmKind::Memory);
        assert!(found[0].1.message.contains("800 steps, from 0.99 to 1.06 GiB"), "{found:?}");
        // It is reported again if it continues.
        assert_eq!(looks(18, &|look| mib(1000 + 10 * look)).len(), 2);
        // A jump, a pause, too little growth, or no data.
        assert!(looks(40, &|look| mib(if look < 20 { 1000 } else { 3000 })).is_empty());
        assert!(looks(40, &|look| mib(1000 + 10 * (look % 7))).is_empty());
        assert!(looks(40, &|look| mib(1000 + look)).is_empty());
        assert!(looks(40, &|look| mib(10 + 3 * look)).is_empty());
        assert!(looks(40, &|_| None).is_empty());
    }

    #[test]
    fn waiting_for_data_is_reported() {
        let (steps, said) =
            alarms(100, |n| (3.0, stats(&[5, 5, 5, 5]), [1.0, if n <= 50 { 0.6 } else { 0.4 }]));
        assert_eq!(steps, [50]);
        assert!(said.contains("60 %") && said.contains("data.prefetch"), "{said}");
    }
}
