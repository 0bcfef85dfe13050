//! The numbers to show about a run.

use moe_report::number;
use serde_json::{Value, json};

use super::follow::{Follower, Status};
use crate::report::duration;
use crate::report::log::AlarmLine;
use crate::run::Progress;

/// Number of lines from whose time the remaining time is estimated.
const RECENT: usize = 8;

/// A run as shown.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Its name.
    pub name: String,
    /// Its state in a few words.
    pub status: String,
    /// Whether that requires attention.
    pub is_wrong: bool,
    /// Steps done.
    pub step: f64,
    /// Steps of the whole run, if known.
    pub n_steps: Option<f64>,
    /// Seconds until its end, if known.
    pub seconds_left: Option<f64>,
    /// Step and loss of training, in nats.
    pub loss: Vec<(f64, f64)>,
    /// Step and loss of validation, in nats.
    pub validation: Vec<(f64, f64)>,
    /// Tokens per second of each line.
    pub speeds: Vec<f64>,
    /// Its latest values, by name.
    pub numbers: Vec<(&'static str, String)>,
    /// The routers.
    pub layers: Vec<Layer>,
    /// Alarms, oldest first.
    pub alarms: Vec<AlarmLine>,
    /// Lines that are not our records.
    pub n_bad: u64,
}

/// A router in the last line.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// Its number.
    pub name: String,
    /// Fraction of the choices of each expert.
    pub load: Vec<f64>,
    /// (largest load - mean load) / mean load, averaged over the steps of the interval.
    pub max_violation: Option<f64>,
    /// Experts without a token, averaged over the steps of the interval.
    pub dead: Option<f64>,
}

impl View {
    /// A run as its files show it; `live` is the step that has not been written yet.
    pub fn of(follower: &Follower, live: Option<&Progress>) -> View {
        let log = &follower.log;
        let step = live.map_or(log.last_step(), |live| live.step as f64);
        let n_steps = live.map(|live| live.n_steps as f64).or(follower.n_steps);
        let (status, is_wrong) = match (follower.status, live.is_some()) {
            (Status::Running, _) | (_, true) => ("running", false),
            (Status::Stopped, _) => ("not running", true),
            (Status::Done, _) => ("done", false),
            (Status::Diverged, _) => ("diverged", true),
        };
        let of_training = |key: &str| log.train.last(key);
        let loss = live.map(|live| live.cross_entropy).or(of_training("train/ce"));
        let rate = live.map(|live| live.rate).or(of_training("optim/lr"));
        let speed = live.map(|live| live.tokens_per_second).or(of_training("perf/tokens_per_s"));
        let exact = |x: f64| format!("{x:.4}");
        let numbers = [
            ("loss", loss.map(exact)),
            ("validation", log.validation.last("validation/ce").map(exact)),
            ("bits per byte", log.validation.last("validation/bpb").map(|x| format!("{x:.3}"))),
            ("tokens/s", speed.map(number::short)),
            ("targets seen", of_training("data/tokens_seen").map(number::short)),
            ("lr", rate.map(|x| format!("{x:.2e}"))),
            ("gradient", of_training("optim/grad_norm").map(number::digits)),
            ("waiting", of_training("perf/data_wait").map(|x| number::percent(x, 1.0))),
        ];
        View {
            name: log.name.clone(),
            status: status.to_owned(),
            is_wrong,
            step,
            n_steps,
            seconds_left: seconds_left(follower, step, n_steps),
            loss: log.train.points("train/ce"),
            validation: log.validation.points("validation/ce"),
            speeds: log.train.points("perf/tokens_per_s").into_iter().map(|point| point.1).collect(),
            numbers: numbers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            layers: layers(follower),
            alarms: follower.alarms.clone(),
            n_bad: follower.n_bad,
        }
    }

    /// Steps done and to be done: `320/534`.
    pub fn steps(&self) -> String {
        match self.n_steps {
            Some(n_steps) => format!("{}/{n_steps}", self.step),
            None => self.step.to_string(),
        }
    }

    /// The time left in words; empty at the end.
    pub fn left(&self) -> String {
        match self.seconds_left {
            Some(seconds) if seconds > 0.0 => format!("{} left", duration(seconds)),
            _ => String::new(),
        }
    }

    /// The largest load violation of a layer.
    pub fn worst(&self) -> Option<f64> {
        self.layers.iter().filter_map(|layer| layer.max_violation).reduce(f64::max)
    }

    /// The run in one line.
    pub fn line(&self) -> String {
        let mut words = vec![format!("step {}", self.steps())];
        words.extend(self.numbers.iter().map(|(name, value)| format!("{name} {value}")));
        words.extend(self.worst().map(|worst| format!("MaxVio {worst:.2}")));
        words.extend(Some(self.left()).filter(|left| !left.is_empty()));
        words.push(self.status.clone());
        words.join("  ")
    }

    /// The run as JSON, without its history.
    pub fn json(&self) -> Value {
        let point =
            |points: &[(f64, f64)]| points.last().map(|(step, loss)| json!({ "step": step, "loss": loss }));
        json!({
            "run": self.name,
            "status": self.status,
            "step": self.step,
            "steps": self.n_steps,
            "seconds_left": self.seconds_left,
            "train": point(&self.loss),
            "validation": point(&self.validation),
            "tokens_per_second": self.speeds.last(),
            "layers": self.layers.iter().map(|layer| json!({
                "layer": layer.name, "load": layer.load, "maxvio": layer.max_violation, "dead": layer.dead,
            })).collect::<Vec<_>>(),
            "alarms": self.alarms.iter().map(|alarm| json!({
                "step": alarm.step, "alarm": alarm.kind, "message": alarm.message,
            })).collect::<Vec<_>>(),
        })
    }
}

/// By the time of the last lines.
fn seconds_left(follower: &Follower, step: f64, n_steps: Option<f64>) -> Option<f64> {
    let (seconds, steps) = (follower.log.seconds()?, &follower.log.train.steps);
    let last = steps.len().checked_sub(1)?;
    let first = last.checked_sub(RECENT);
    // Before the first line there was nothing.
    let of = |i: Option<usize>| i.map_or((0.0, 0.0), |i| (steps[i], seconds[i]));
    let ((before, then), (after, now)) = (of(first), of(Some(last)));
    let rest = (n_steps? - step).max(0.0);
    (after > before).then(|| (now - then) / (after - before) * rest)
}

fn layers(follower: &Follower) -> Vec<Layer> {
    let train = &follower.log.train;
    let of = |name: String| {
        let lists = train.lists(&format!("router/{name}/load"))?;
        Some(Layer {
            load: lists.iter().rev().find(|load| !load.is_empty())?.clone(),
            max_violation: train.last(&format!("router/{name}/maxvio")),
            dead: train.last(&format!("router/{name}/dead")),
            name,
        })
    };
    train.parts("router/", "/load").into_iter().filter_map(of).collect()
}
