//! Figures of routing: the load of experts, by layer and over time.

use std::collections::BTreeMap;

use moe_report::{Axis, Figure, Heat, Lines, Series};

use super::curves::{lines_over_steps, of_run};
use super::log::{Columns, RunLog, Sweep, SweepPoint};

/// Total cells of all heat maps of a page, to keep it below a few megabytes.
const MAX_CELLS: usize = 60_000;
/// Columns of a heat map: no more than can be distinguished, no fewer than show a trend.
const COLUMNS: (usize, usize) = (12, 120);

/// Curves of one value of every layer.
struct Measure {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    note: &'static str,
    healthy: Option<(f64, f64)>,
    is_log: bool,
}

const MEASURES: [Measure; 9] = [
    Measure {
        key: "maxvio",
        title: "Load violation",
        unit: "MaxVio",
        note: "(largest load - mean load) / mean load of a step, averaged over the interval (arXiv 2408.15664). 0 is perfect balance; experts / k - 1 is collapse. Shaded: below 1.",
        healthy: Some((0.0, 1.0)),
        is_log: false,
    },
    Measure {
        key: "e_eff",
        title: "Effective experts",
        unit: "experts",
        note: "The exponential of the entropy of the load.",
        healthy: None,
        is_log: false,
    },
    Measure {
        key: "h_norm",
        title: "Entropy of the load",
        unit: "fraction of its maximum",
        note: "1 is perfect balance. Shaded: above 0.9.",
        healthy: Some((0.9, 1.0)),
        is_log: false,
    },
    Measure {
        key: "dead",
        title: "Experts without a token",
        unit: "experts",
        note: "",
        healthy: None,
        is_log: false,
    },
    Measure {
        key: "dropped",
        title: "Dropped choices",
        unit: "choices",
        note: "Choices whose expert was full.",
        healthy: None,
        is_log: false,
    },
    Measure {
        key: "bias_range",
        title: "Range of the selection bias",
        unit: "bias",
        note: "",
        healthy: None,
        is_log: false,
    },
    Measure {
        key: "logit_max",
        title: "Largest router logit",
        unit: "logit",
        note: "",
        healthy: None,
        is_log: false,
    },
    Measure {
        key: "source_information",
        title: "Information about the source",
        unit: "nats",
        note: "Mutual information of source and expert: 0 if all sources use the experts alike.",
        healthy: None,
        is_log: false,
    },
    Measure {
        key: "z",
        title: "Router z-loss",
        unit: "z-loss",
        note: "Without its coefficient.",
        healthy: None,
        is_log: false,
    },
];

/// Load of each expert over time, a map for each layer of each run.
pub(super) fn loads(runs: &[RunLog]) -> Vec<Figure> {
    let layers = |run: &RunLog| run.train.parts("router/", "/load");
    let lists = |run: &RunLog, layer: &str| {
        run.train.lists(&format!("router/{layer}/load")).unwrap_or_default().to_vec()
    };
    let n_experts = |loads: &[Vec<f64>]| loads.iter().map(Vec::len).max().unwrap_or(0);
    let n_rows: usize = runs
        .iter()
        .flat_map(|run| layers(run).into_iter().map(move |layer| n_experts(&lists(run, &layer))))
        .sum();
    let max_columns = (MAX_CELLS / n_rows.max(1)).clamp(COLUMNS.0, COLUMNS.1);
    let mut figures = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        for layer in layers(run) {
            let loads = lists(run, &layer);
            let n = n_experts(&loads);
            if n == 0 {
                continue;
            }
            let of_expert = |expert: usize| {
                loads.iter().map(|load| load.get(expert).copied().unwrap_or(f64::NAN)).collect()
            };
            let heat = Heat {
                id: if runs.len() == 1 { format!("load-{layer}") } else { format!("load-{i}-{layer}") },
                title: of_run(runs, run, &format!("layer {layer}: load of each expert")),
                note: String::new(),
                x_label: "steps".to_owned(),
                value_label: "fraction of choices".to_owned(),
                rows: (0..n).map(|expert| expert.to_string()).collect(),
                columns: run.train.steps.iter().map(|step| step.to_string()).collect(),
                values: (0..n).map(of_expert).collect(),
                // The middle shade is an even load.
                range: (0.0, 2.0 / n as f64),
                max_columns,
            };
            figures.push(heat.figure());
        }
    }
    figures
}

/// Load of each expert by source, and by pass, at the end of each run, a map for each layer: from validation
/// if it was measured there, or else from the last training interval that had several.
pub(super) fn groups(runs: &[RunLog]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (group, id) in [("source", "sources"), ("pass", "passes")] {
        for (i, run) in runs.iter().enumerate() {
            for layer in run.train.parts("router/", "/load") {
                let of = |columns: &Columns, prefix: &str| -> Vec<(String, Vec<f64>)> {
                    let prefix = format!("{prefix}router/{layer}/{group}/");
                    let last = |name: String| {
                        let lists = columns.lists(&format!("{prefix}{name}/load"))?;
                        Some((name, lists.iter().rev().find(|list| !list.is_empty())?.clone()))
                    };
                    columns.middles(&prefix, "/load").into_iter().filter_map(last).collect()
                };
                let (mut rows, mut when) = (of(&run.validation, "validation/"), "in the last validation");
                if rows.len() < 2 {
                    (rows, when) = (of(&run.train, ""), "in the last interval that had it");
                }
                let n = rows.iter().map(|(_, loads)| loads.len()).max().unwrap_or(0);
                if rows.len() < 2 || n == 0 {
                    continue;
                }
                let heat = Heat {
                    id: if runs.len() == 1 { format!("{id}-{layer}") } else { format!("{id}-{i}-{layer}") },
                    title: of_run(runs, run, &format!("layer {layer}: load of each expert by {group}")),
                    note: format!(
                        "Fractions of the choices {when}. Rows that look alike use the experts alike."
                    ),
                    x_label: "expert".to_owned(),
                    value_label: "fraction of choices".to_owned(),
                    columns: (0..n).map(|expert| expert.to_string()).collect(),
                    range: (0.0, 2.0 / n as f64),
                    max_columns: n,
                    values: rows.iter().map(|(_, loads)| loads.clone()).collect(),
                    rows: rows.into_iter().map(|(name, _)| name).collect(),
                };
                figures.push(heat.figure());
            }
        }
    }
    figures
}

/// Loss and dropped choices by the capacity of experts, as measured by `moe-train eval --capacity --record`:
/// a curve for the last sweep of each step.
pub(super) fn capacities(runs: &[RunLog]) -> Vec<Figure> {
    let (mut losses, mut dropped, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for run in runs {
        let mut by_step: BTreeMap<u64, &Sweep> = BTreeMap::new();
        for sweep in &run.sweeps {
            by_step.insert(sweep.step, sweep);
        }
        for (step, sweep) in by_step {
            let name = of_run(runs, run, &format!("step {step}"));
            let points = |of: fn(&SweepPoint) -> f64| {
                let mut points: Vec<(f64, f64)> =
                    sweep.points.iter().filter_map(|point| Some((point.capacity?, of(point)))).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                points
            };
            let unlimited = sweep.points.iter().find(|point| point.capacity.is_none());
            marks.extend(unlimited.map(|point| (format!("{name}, unlimited"), point.loss)));
            losses.push(Series { name: name.clone(), points: points(|point| point.loss) });
            dropped.push(Series { name, points: points(|point| point.dropped) });
        }
    }
    if losses.is_empty() {
        return Vec::new();
    }
    let lines = |id: &str, title: &str, note: &str, unit: &str, series, marks| {
        let lines = Lines {
            id: id.to_owned(),
            title: title.to_owned(),
            note: note.to_owned(),
            x: Axis::linear("capacity of an expert, relative to its even load"),
            y: Axis::linear(unit),
            series,
            marks,
            ..Lines::default()
        };
        lines.figure()
    };
    let note = "On the validation set, at capacities other than the one trained with.";
    vec![
        lines("capacity-loss", "Loss by capacity", note, "nats per token", losses, marks),
        lines(
            "capacity-dropped",
            "Dropped choices by capacity",
            "",
            "fraction of choices",
            dropped,
            Vec::new(),
        ),
    ]
}

/// One figure for each measure, a curve for each layer.
pub(super) fn measures(runs: &[RunLog]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for measure in &MEASURES {
        let series = curves(runs, "router/", measure.key, false);
        // A curve that is always zero is left out.
        let is_zero = series.iter().flat_map(|series| &series.points).all(|point| point.1 == 0.0);
        if series.is_empty() || is_zero && measure.key != "dead" {
            continue;
        }
        let id = format!("router-{}", measure.key.replace('_', "-"));
        let mut lines = lines_over_steps(&id, measure.title, measure.note, measure.unit, series);
        lines.healthy = measure.healthy;
        lines.y.is_log = measure.is_log;
        figures.push(lines.figure());
    }
    let series = curves(runs, "validation/router/", "maxvio", true);
    if !series.is_empty() {
        let note = "MaxVio over the whole validation set, as relevant for expert parallelism.";
        let lines =
            lines_over_steps("router-maxvio-global", "Load violation in validation", note, "MaxVio", series);
        figures.push(lines.figure());
    }
    figures
}

fn curves(runs: &[RunLog], prefix: &str, key: &str, is_validation: bool) -> Vec<Series> {
    let mut series = Vec::new();
    for run in runs {
        let columns = if is_validation { &run.validation } else { &run.train };
        for layer in columns.parts(prefix, &format!("/{key}")) {
            let points = columns.points(&format!("{prefix}{layer}/{key}"));
            if !points.is_empty() {
                series.push(Series { name: of_run(runs, run, &format!("layer {layer}")), points });
            }
        }
    }
    series
}
