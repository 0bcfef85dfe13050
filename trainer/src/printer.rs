//! The only writer to the terminal: data goes to stdout, messages to stderr.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moe_cli::terminal::{self, Color, Label};
use moe_report::number;
use moe_report::progress::{Bar, Unit};
use moe_shards::memory::held_bytes;
use moe_shards::terminal::escape;

use crate::error::{Error, Result};
use crate::run::{Alarm, Observer, Progress, Validation};
use crate::tasks::TaskResult;
use crate::tasks::metrics::{Metric, Summary};
use crate::watch::Ui;

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// A line for each interval, or a progress bar on a terminal.
    Normal,
    /// A line for each step.
    Verbose,
}

/// Writes to the terminal.
#[derive(Debug)]
pub struct Printer {
    verbosity: Verbosity,
    color: bool,
    bar: Option<ProgressBar>,
    ui: Option<Ui>,
    started: Option<(Instant, u64)>,
}

impl Printer {
    /// A printer with this verbosity. Color needs a terminal and no `NO_COLOR`.
    pub fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, color: Color::Auto.is_on(), bar: None, ui: None, started: None }
    }

    /// Whether a terminal may have colors.
    pub fn has_color(&self) -> bool {
        self.color
    }

    /// Prints a message for people, on stderr.
    pub fn say(&self, line: impl AsRef<str>) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        match (&self.ui, &self.bar) {
            (Some(ui), _) => ui.say(&escape(line.as_ref())),
            (None, Some(bar)) => bar.println(escape(line.as_ref())),
            (None, None) => terminal::say(line.as_ref()),
        }
    }

    /// Warns about what is allowed but probably not intended.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.say(format!("warning: {}", message.as_ref()));
    }

    /// Reports an error, regardless of verbosity.
    pub fn error(&self, message: impl AsRef<str>) {
        terminal::say_labeled(Label::Error, self.color, message.as_ref());
    }

    /// Writes data to stdout, as text or JSON; characters that a terminal would interpret or hide are
    /// escaped. It is fine if the reader has gone away, as in `| head`.
    ///
    /// # Errors
    /// When it cannot be written, as on a full disk: output for another program must not be silently
    /// truncated.
    pub fn data(&self, text: impl AsRef<str>) -> Result<()> {
        match terminal::write_data(&format!("{}\n", text.as_ref())) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::io(Path::new("standard output"), "write")(error))
            }
            _ => Ok(()),
        }
    }

    /// The view of the run in a folder, which takes over the screen until `stop` is set or the steps are
    /// done; none, with a warning, if there is no terminal.
    pub fn ui(&self, dir: &Path, stop: &Arc<AtomicBool>) -> Option<Ui> {
        let ui = Ui::start(dir, stop.clone(), self.color);
        if ui.is_none() {
            self.warn("--ui needs a terminal on standard error other than `dumb`; printing lines instead");
        }
        ui
    }

    /// Progress of work other than steps, through `total` items called `unit`: a bar on a terminal, a line
    /// now and then elsewhere.
    pub fn work(&self, name: &str, total: u64, unit: Unit) -> Bar {
        let place = terminal::progress(self.verbosity == Verbosity::Quiet);
        Bar::new(place, name, total, unit, held_bytes)
    }

    /// Begins a run of steps, at `step` of `n_steps`.
    pub fn start_steps(&mut self, step: u64, n_steps: u64, ui: Option<Ui>) {
        self.started = Some((Instant::now(), step));
        self.ui = ui;
        if self.ui.is_none() && self.verbosity == Verbosity::Normal && std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(n_steps), ProgressDrawTarget::stderr());
            let template = "{bar:16} {pos}/{len} {eta} left  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_position(step);
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    /// Ends the run of steps.
    pub fn finish_steps(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(ui) = self.ui.take() {
            ui.finish();
        }
    }

    fn remaining(&self, progress: &Progress) -> String {
        let Some((start, first)) = self.started else { return "?".into() };
        let done = progress.step.saturating_sub(first).max(1) as f64;
        let seconds = start.elapsed().as_secs_f64() / done * (progress.n_steps - progress.step) as f64;
        short_duration(Duration::from_secs_f64(seconds))
    }
}

impl Observer for Printer {
    fn step(&mut self, progress: &Progress) {
        let Progress { step, n_steps, cross_entropy, rate, tokens_per_second, worst_max_violation, logged } =
            *progress;
        // Without a target there is no loss.
        let loss = if cross_entropy == 0.0 { "-".to_owned() } else { format!("{cross_entropy:.4}") };
        let numbers = format!(
            "loss {loss}  lr {rate:.2e}  {tokens_per_second:.0} tok/s  MaxVio {worst_max_violation:.2}"
        );
        if let Some(ui) = &self.ui {
            ui.step(progress);
        } else if let Some(bar) = &self.bar {
            let memory = held_bytes().map_or_else(String::new, |n| format!("  {}", number::bytes(n)));
            bar.set_position(step);
            bar.set_message(format!("{numbers}{memory}"));
        } else if logged || self.verbosity == Verbosity::Verbose {
            self.say(format!("step {step}/{n_steps}  {numbers}  ETA {}", self.remaining(progress)));
        }
    }

    fn validation(&mut self, step: u64, validation: &Validation) {
        self.say(format!("step {step}  {}", describe_validation(validation)));
    }

    fn tasks(&mut self, step: u64, results: &[TaskResult]) {
        for result in results {
            self.say(format!("step {step}  {}: {}", result.name, describe_summary(&result.all)));
        }
    }

    fn alarm(&mut self, step: u64, alarm: &Alarm) {
        self.warn(format!("step {step}: {}", alarm.message));
    }

    fn saved(&mut self, path: &Path) {
        if self.verbosity == Verbosity::Verbose {
            self.say(format!("saved {}", path.display()));
        }
    }
}

/// A validation in one line.
pub fn describe_validation(validation: &Validation) -> String {
    let all = &validation.losses.all;
    let bits = all.bits_per_byte().map_or_else(|| "?".to_string(), |bits| format!("{bits:.3}"));
    let average = validation.average.and_then(|mean| mean.nats());
    let average = average.map_or_else(String::new, |nats| format!("; average of weights {nats:.4}"));
    format!(
        "validation loss {:.4} (unigram model {:.4})  {bits} bits per byte{average}",
        all.nats().unwrap_or(f64::NAN),
        validation.unigram
    )
}

/// The numbers of a task in one line.
pub fn describe_summary(summary: &Summary) -> String {
    let numbers = summary.metrics.iter().map(|metric| {
        let stderr =
            metric.stderr.map_or_else(String::new, |stderr| format!(" ± {}", Metric::digits(stderr)));
        format!("{} {}{stderr}", metric.name, Metric::digits(metric.value))
    });
    numbers.collect::<Vec<_>>().join("  ")
}

/// A duration in human-readable form: 42s, 3m05s, 2h10m.
pub fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let text = |seconds| short_duration(Duration::from_secs(seconds));
        assert_eq!([text(42), text(185), text(7800)], ["42s", "3m05s", "2h10m"]);
    }
}
