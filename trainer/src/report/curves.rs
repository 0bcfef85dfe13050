//! Figures of loss, optimization and speed.

use moe_report::{Axis, Figure, Lines, Series};

use super::log::{Columns, RunLog};

/// The horizontal axis of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Steps,
    Tokens,
    Flops,
    Seconds,
}

/// The loss over tokens, and over steps, work and time.
pub(super) fn losses(runs: &[RunLog]) -> Vec<Figure> {
    let over = [
        (Over::Tokens, "loss", "Loss", "targets learned from"),
        (Over::Steps, "loss-steps", "Loss by step", "steps"),
        (Over::Flops, "loss-flops", "Loss by work", "FLOP of the matrix products"),
        (Over::Seconds, "loss-time", "Loss by time", "seconds of training"),
    ];
    let mut figures = Vec::new();
    for (over, id, title, label) in over {
        let mut series = Vec::new();
        for run in runs {
            for (columns, key, kind) in
                [(&run.train, "train/ce", "training"), (&run.validation, "validation/ce", "validation")]
            {
                let name = if runs.len() == 1 { kind.to_owned() } else { format!("{} {kind}", run.name) };
                let points = along(run, columns, key, over);
                if !points.is_empty() {
                    series.push(Series { name, points });
                }
            }
        }
        if series.is_empty() {
            continue;
        }
        let unigram = runs[0].validation.last("validation/unigram_ce");
        let marks =
            if over == Over::Tokens { unigram.map(|ce| ("unigram model".to_owned(), ce)) } else { None };
        let lines = Lines {
            id: id.to_owned(),
            title: title.to_owned(),
            note: "Cross-entropy of the targets, without balancing losses.".to_owned(),
            x: Axis::linear(label),
            y: Axis::linear("nats per token"),
            series,
            marks: marks.into_iter().collect(),
            ..Lines::default()
        };
        figures.push(lines.figure());
    }
    figures
}

/// A key over steps, tokens, work or time; nothing if the data for that is missing.
fn along(run: &RunLog, columns: &Columns, key: &str, over: Over) -> Vec<(f64, f64)> {
    let points = columns.points(key);
    match over {
        Over::Steps => points,
        Over::Tokens => points.into_iter().map(|(step, y)| (run.tokens_at(step), y)).collect(),
        Over::Flops => {
            let work = |step: f64| Some(run.read_at(step)? * run.flops_per_token?);
            points.into_iter().filter_map(|(step, y)| Some((work(step)?, y))).collect()
        }
        Over::Seconds => {
            let Some(seconds) = run.seconds() else { return Vec::new() };
            let at = |step: f64| match run.train.steps.partition_point(|s| *s <= step) {
                0 => 0.0,
                n => seconds[n - 1],
            };
            points.into_iter().map(|(step, y)| (at(step), y)).collect()
        }
    }
}

/// How far the losses of other runs are from those of the first one, at the steps that they share.
pub(super) fn differences(runs: &[RunLog]) -> Option<Figure> {
    let first = runs[0].validation.points("validation/ce");
    let series: Vec<Series> = runs[1..]
        .iter()
        .map(|run| {
            let points = run.validation.points("validation/ce");
            let shared = points.iter().filter_map(|(step, y)| {
                let base = first.iter().find(|base| base.0 == *step)?;
                Some((*step, y - base.1))
            });
            Series { name: format!("{} minus {}", run.name, runs[0].name), points: shared.collect() }
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    let lines = Lines {
        id: "differences".to_owned(),
        title: "Difference in validation loss".to_owned(),
        note: format!("Below zero is better than {}.", runs[0].name),
        x: Axis::linear("steps"),
        y: Axis::linear("nats per token"),
        series,
        marks: vec![("equal".to_owned(), 0.0)],
        ..Lines::default()
    };
    (!lines.series.is_empty()).then(|| lines.figure())
}

/// Losses by source, by pass and by variant, of training and validation.
pub(super) fn parts(runs: &[RunLog]) -> Vec<Figure> {
    let kinds = [
        ("source", "by source", "", true),
        ("pass", "by pass over its source", "pass ", false),
        ("variant", "by variant", "variant ", false),
    ];
    let mut figures = Vec::new();
    for (kind, title, word, has_validation) in kinds {
        for (prefix, what) in [("train", "Training"), ("validation", "Validation")] {
            if prefix == "validation" && !has_validation {
                continue;
            }
            let curves = by_part(runs, prefix, kind, word);
            // A single part is the same as the whole.
            if curves.len() <= runs.len() {
                continue;
            }
            let note = match kind {
                "pass" => {
                    "Passes count from 0. A later pass far below an earlier one at the same time has been memorized."
                }
                "variant" => "Variant 0 is the original.",
                _ => "",
            };
            figures.push(over_steps(
                &format!("{prefix}-{kind}"),
                &format!("{what} loss {title}"),
                note,
                "nats per token",
                curves,
            ));
        }
    }
    figures
}

fn by_part(runs: &[RunLog], prefix: &str, kind: &str, word: &str) -> Vec<Series> {
    let mut curves = Vec::new();
    for run in runs {
        let columns = if prefix == "train" { &run.train } else { &run.validation };
        for part in columns.middles(&format!("{prefix}/{kind}/"), "/ce") {
            let points = columns.points(&format!("{prefix}/{kind}/{part}/ce"));
            let name = format!("{word}{part}");
            curves.push(Series { name: of_run(runs, run, &name), points });
        }
    }
    curves
}

/// Learning rate, gradient norm, clipping, size of updates; speed and waiting.
pub(super) fn scalars(runs: &[RunLog], wanted: &[Scalar]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for scalar in wanted {
        let curves =
            runs.iter().map(|run| Series { name: run.name.clone(), points: run.train.points(scalar.key) });
        let curves: Vec<Series> = curves.filter(|series| !series.points.is_empty()).collect();
        if curves.is_empty() {
            continue;
        }
        let id = scalar.key.replace(['/', '_'], "-");
        let mut lines = lines_over_steps(&id, scalar.title, scalar.note, scalar.unit, curves);
        lines.y.is_log = scalar.is_log;
        figures.push(lines.figure());
    }
    figures
}

/// A number of each line of training.
pub(super) struct Scalar {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    note: &'static str,
    is_log: bool,
}

const fn scalar(
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    note: &'static str,
    is_log: bool,
) -> Scalar {
    Scalar { key, title, unit, note, is_log }
}

/// About optimization.
pub(super) const OPTIMIZATION: [Scalar; 5] = [
    scalar("optim/lr", "Learning rate", "learning rate", "", false),
    scalar(
        "optim/grad_norm",
        "Gradient norm",
        "norm",
        "Of the last step of each interval, before clipping.",
        true,
    ),
    scalar("optim/clip_frac", "Clipped steps", "share", "", false),
    scalar("optim/update_rms", "Update size", "root mean square", "", true),
    scalar("train/total", "Objective", "nats per token", "Loss with all balancing losses.", false),
];

/// About speed.
pub(super) const SPEED: [Scalar; 4] = [
    scalar("perf/tokens_per_s", "Throughput", "tokens per second", "Including padding.", false),
    scalar("perf/tflops", "Work", "TFLOP/s", "Of the matrix products of the model.", false),
    scalar("perf/mfu", "Model FLOP utilization", "fraction of peak", "", false),
    scalar("perf/data_wait", "Waiting for data", "fraction of time", "", false),
];

/// A figure of curves over steps.
pub(super) fn over_steps(id: &str, title: &str, note: &str, unit: &str, series: Vec<Series>) -> Figure {
    lines_over_steps(id, title, note, unit, series).figure()
}

/// Curves over steps.
pub(super) fn lines_over_steps(id: &str, title: &str, note: &str, unit: &str, series: Vec<Series>) -> Lines {
    Lines {
        id: id.to_owned(),
        title: title.to_owned(),
        note: note.to_owned(),
        x: Axis::linear("steps"),
        y: Axis::linear(unit),
        series,
        ..Lines::default()
    }
}

/// A name in a legend, with the run if there are several.
pub(super) fn of_run(runs: &[RunLog], run: &RunLog, name: &str) -> String {
    if runs.len() == 1 { name.to_owned() } else { format!("{} {name}", run.name) }
}
