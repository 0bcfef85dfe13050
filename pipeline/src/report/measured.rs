//! What rules measured, and their limits.

use std::collections::BTreeMap;
use std::path::Path;

use moe_report::{Figure, Histogram, Limit, number};

use super::Part;
use crate::error::{Error, Result};
use crate::filter::Chain;
use crate::tables::measures::Measures;
use crate::tables::parts::{self, Parts};
use crate::watch::Watch;

/// Most documents whose values are read; more are thinned evenly.
const MAX_ROWS: u64 = 200_000;
const N_BINS: usize = 40;
/// Values spread over more than this factor are drawn on a logarithmic axis.
const LOG_SPREAD: f64 = 1000.0;

pub(super) fn part(out: &Path, watch: &Watch) -> Result<Part> {
    let work = out.join("work");
    let mut figures = Vec::new();
    if work.join(parts::FILE).exists() {
        let values = collect(&work, &Parts::read(&work)?, watch)?;
        figures = values
            .by_rule
            .iter()
            .enumerate()
            .map(|(i, (rule, found))| figure(i, rule, found, values.every))
            .collect();
    }
    Ok(Part::new("measured", "Measured values", "grid3", figures))
}

/// Key of a limit: its reason, and the bits of its threshold.
type Rule = (String, Option<u64>, bool);

struct Values {
    by_rule: BTreeMap<Rule, Vec<f64>>,
    every: u64,
}

fn collect(work: &Path, parts: &Parts, watch: &Watch) -> Result<Values> {
    let mut tables = Vec::new();
    let mut n_rows = 0;
    for part in &parts.parts {
        let Some(path) = &part.measures else { continue };
        let path = work.join(path);
        let n = u64::from(Measures::open(&path)?.n_rows());
        n_rows += n;
        tables.push((path, &part.filters, n));
    }
    let every = n_rows.div_ceil(MAX_ROWS).max(1);
    let mut by_rule: BTreeMap<Rule, Vec<f64>> = BTreeMap::new();
    let mut before = 0;
    for (path, filters, n) in tables {
        watch.advance(0)?;
        let chain = Chain::new(filters).map_err(Error::Usage)?;
        let mut measures = Measures::open(&path)?;
        let first = (every - before % every) % every;
        for row in (first..n).step_by(every as usize) {
            // A table has at most 2^32 rows.
            let looked =
                chain.explain(measures.row(row as u32)?).map_err(|message| Error::data(&path, message))?;
            for measured in looked.iter().flat_map(|looked| &looked.rules).filter(|m| m.measured.is_finite())
            {
                let rule =
                    (measured.reason.to_string(), measured.threshold.map(f64::to_bits), measured.is_least);
                by_rule.entry(rule).or_default().push(measured.measured);
            }
        }
        before += n;
    }
    Ok(Values { by_rule, every })
}

fn figure(i: usize, (reason, threshold, is_least): &Rule, values: &[f64], every: u64) -> Figure {
    let threshold = threshold.map(f64::from_bits).filter(|x| x.is_finite());
    let limits: Vec<Limit> =
        threshold.map(|value| Limit { value, is_least: *is_least }).into_iter().collect();
    let (low, high) =
        values.iter().fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(*x), high.max(*x)));
    let is_log = low > 0.0 && high / low > LOG_SPREAD && limits.iter().all(|limit| limit.value > 0.0);
    let n_failed = values
        .iter()
        .filter(|x| limits.iter().any(|l| if l.is_least { **x < l.value } else { **x > l.value }))
        .count();
    let mut histogram = match is_log {
        false => Histogram::of(values, &limits, N_BINS),
        true => {
            let logs: Vec<f64> = values.iter().map(|x| x.log10()).collect();
            let log_limits: Vec<Limit> =
                limits.iter().map(|l| Limit { value: l.value.log10(), is_least: l.is_least }).collect();
            Histogram { limits: limits.clone(), is_log: true, ..Histogram::of(&logs, &log_limits, N_BINS) }
        }
    };
    let sampled =
        if every > 1 { format!(" (1 document in {})", number::count(every)) } else { String::new() };
    histogram.id = format!("measured-{i}");
    histogram.title.clone_from(reason);
    histogram.note = match threshold {
        Some(_) => format!(
            "{} of {} miss the limit{sampled}; rules that came before may have dropped them.",
            number::count(n_failed as u64),
            number::count(values.len() as u64)
        ),
        None => format!("{} values, no limit{sampled}.", number::count(values.len() as u64)),
    };
    histogram.x_label = if is_log { "value (logarithmic)".to_owned() } else { "value".to_owned() };
    histogram.unit = "documents".to_owned();
    histogram.figure()
}
