//! The plan: which pool the samples come from over time, which pass of it, and how full they are.

use std::path::Path;

use maud::html;
use moe_report::{Axis, Bar, Bars, Cell, Figure, Lines, Series, Shares, Table, number};
use moe_shards::{Plan, PlanLock};

use super::Part;
use crate::error::Result;
use crate::mix::effective_tokens::{PoolTokens, WorthFile};
use crate::watch::Watch;

/// Stretches of the plan in a figure.
const N_STRETCHES: u64 = 100;
/// Colors of pools.
const COLORS: [&str; 8] = ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"];

pub(super) fn part(out: &Path, watch: &Watch) -> Result<(PlanLock, Part)> {
    let plan = Plan::open(out)?;
    let lock = plan.lock().clone();
    let counts = counts(&plan)?;
    watch.advance(0)?;
    let mut figures = vec![shares(&plan, &counts), passes(&plan, &counts)];
    let worth = worth(out, &lock)?;
    figures.extend(values(&worth));
    figures.extend(sightings(&worth));
    figures.push(padding(&lock));
    let mut part = Part::new("plan", "The plan", "wide", figures);
    part.more = html! {
        (pools(&lock).html())
        @if !worth.is_empty() { (gaps(&worth).html()) }
    };
    Ok((lock, part))
}

/// What the plan is worth; nothing if an earlier version made it, or it has been replaced.
fn worth(out: &Path, lock: &PlanLock) -> Result<Vec<PoolTokens>> {
    let file = WorthFile::read(out)?.filter(|file| file.plan == lock.id);
    Ok(file.map(|file| file.pools).unwrap_or_default())
}

/// What each pass is worth.
fn values(worth: &[PoolTokens]) -> Option<Figure> {
    let mut series = Vec::new();
    for pool in worth {
        let values = pool.by_pass();
        let of = |side: usize| (1..).map(f64::from).zip(values.iter().map(|value| value[side])).collect();
        series.push(Series { name: pool.pool.clone(), points: of(0) });
        if pool.unique_tokens_with_variants > pool.unique_tokens {
            series.push(Series { name: format!("{}, variants as new text", pool.pool), points: of(1) });
        }
    }
    let lines = Lines {
        id: "worth".to_owned(),
        title: "What each pass is worth".to_owned(),
        note: "As a share of as many fresh tokens, by the data-constrained scaling law (arXiv 2305.16264). Whether a variant counts as a repeat or as new text is not known: both ends are drawn.".to_owned(),
        x: Axis::linear("pass"),
        y: Axis::linear("share of fresh tokens"),
        series,
        ..Lines::default()
    };
    lines.series.iter().any(|series| series.points.len() > 1).then(|| lines.figure())
}

/// How often texts are shown.
fn sightings(worth: &[PoolTokens]) -> Option<Figure> {
    let bar = |(i, pool): (usize, &PoolTokens)| {
        let (name, class) = (pool.pool.clone(), COLORS[i % COLORS.len()]);
        let all: u64 = pool.sightings.values().sum();
        let bar = move |(uses, n): (&u32, &u64)| Bar {
            name: format!("{name}: {uses} times"),
            start: 0.0,
            value: *n as f64,
            text: format!("{} ({})", number::count(*n), number::percent(*n as f64, all as f64)),
            class,
        };
        pool.sightings.iter().map(bar).collect::<Vec<_>>()
    };
    let bars = Bars {
        id: "sightings".to_owned(),
        title: "How often each text is shown".to_owned(),
        note: "Over the whole plan.".to_owned(),
        unit: "texts".to_owned(),
        bars: worth.iter().enumerate().flat_map(bar).collect(),
    };
    (!bars.bars.is_empty()).then(|| bars.figure())
}

/// Worth and distances of repeats.
fn gaps(worth: &[PoolTokens]) -> Table {
    let mut table = Table::new([
        "pool",
        "unique tokens",
        "with variants",
        "worth in fresh tokens, at least",
        "at most",
        "least gap of a family, samples",
        "in passes",
        "in tokens",
        "documents longer than a sequence",
    ]);
    for pool in worth {
        table.push([
            pool.pool.as_str().into(),
            pool.unique_tokens.into(),
            pool.unique_tokens_with_variants.into(),
            (pool.effective_tokens_if_repeats.round() as u64).into(),
            (pool.effective_tokens_if_new.round() as u64).into(),
            pool.min_gap_samples.map_or(Cell::Empty, Cell::Count),
            pool.min_gap_passes.into(),
            pool.min_gap_tokens.map_or(Cell::Empty, Cell::Count),
            pool.cut_documents.into(),
        ]);
    }
    table
}

/// Samples of each pool before the ends of about [`N_STRETCHES`] stretches.
type Counts = Vec<(u64, Vec<u64>)>;

fn counts(plan: &Plan) -> Result<Counts> {
    let n_pools = plan.lock().pools.len();
    let n = plan.len();
    let mut ends: Vec<u64> = (0..=N_STRETCHES.min(n))
        .map(|i| (u128::from(n) * u128::from(i) / u128::from(N_STRETCHES.min(n).max(1))) as u64)
        .collect();
    // Phases begin at edges, since shares jump there.
    ends.extend(plan.lock().phases.iter().map(|phase| phase.t_start));
    ends.sort_unstable();
    ends.dedup();
    let mut counts = Vec::with_capacity(ends.len());
    for t in ends {
        let (phase, of_phase) = if t == 0 { (0, vec![0; n_pools]) } else { plan.counts_before(t)? };
        let mut sum = of_phase;
        for earlier in &plan.lock().phases[..phase] {
            sum.iter_mut().zip(&earlier.quotas).for_each(|(sum, quota)| *sum += quota);
        }
        counts.push((t, sum));
    }
    Ok(counts)
}

fn shares(plan: &Plan, counts: &Counts) -> Figure {
    let amounts = counts.windows(2).map(|pair| {
        pair[1].1.iter().zip(&pair[0].1).map(|(after, before)| after.saturating_sub(*before) as f64).collect()
    });
    let shares = Shares {
        id: "pools".to_owned(),
        title: "Where samples come from".to_owned(),
        note: "Share of each pool along the plan.".to_owned(),
        x_label: "sample".to_owned(),
        names: plan.pool_names(),
        edges: counts.iter().map(|(t, _)| *t as f64).collect(),
        amounts: amounts.collect(),
    };
    shares.figure()
}

fn passes(plan: &Plan, counts: &Counts) -> Figure {
    let mut series = Vec::new();
    for (i, name) in plan.pool_names().into_iter().enumerate() {
        let pool = &plan.lock().pools[i];
        let mut points = Vec::new();
        for (t, count) in counts {
            points.push((*t as f64, passes_done(pool, count[i])));
        }
        series.push(Series { name, points });
    }
    let lines = Lines {
        id: "passes".to_owned(),
        title: "Passes over each pool".to_owned(),
        note: "How often the families of a pool have been shown by then.".to_owned(),
        x: Axis::linear("sample"),
        y: Axis::linear("passes"),
        series,
        ..Lines::default()
    };
    lines.figure()
}

/// Number of passes after some bins of a pool; a pool that continues another begins where that stopped.
fn passes_done(pool: &moe_shards::PoolLock, bins: u64) -> f64 {
    let mut left = bins;
    let mut done = f64::from(pool.first_pass());
    for pass in &pool.passes {
        let n = pass.n_bins();
        if left < n {
            return done + left as f64 / n as f64;
        }
        left -= n;
        done += 1.0;
    }
    done
}

fn padding(lock: &PlanLock) -> Figure {
    let bar = |pool: &moe_shards::PoolLock| {
        let bins: u64 = pool.passes.iter().map(|pass| pass.n_bins()).sum();
        let positions = bins * u64::from(pool.seq_len);
        let placed: u64 = pool.passes.iter().map(|pass| pass.placed_tokens).sum();
        let empty = positions.saturating_sub(placed) as f64;
        Bar {
            name: pool.name.clone(),
            start: 0.0,
            value: 100.0 * empty / (positions as f64).max(1.0),
            text: number::percent(empty, positions as f64),
            class: "drop",
        }
    };
    let bars = Bars {
        id: "padding".to_owned(),
        title: "Padding".to_owned(),
        note: "Positions of sequences that hold no token.".to_owned(),
        unit: "percent of positions".to_owned(),
        bars: lock.pools.iter().map(bar).collect(),
    };
    bars.figure()
}

fn pools(lock: &PlanLock) -> Table {
    let mut table = Table::new([
        "pool",
        "families",
        "with variants",
        "held out",
        "sequence",
        "passes",
        "tokens with a target",
        "originals shown first and last",
    ]);
    for pool in &lock.pools {
        let trained: u64 = pool.passes.iter().map(|pass| pass.trained_tokens).sum();
        let originals = match (pool.passes.first(), pool.passes.last()) {
            (Some(first), Some(last)) => {
                format!("{}, {}", number::count(first.originals), number::count(last.originals))
            }
            _ => String::new(),
        };
        table.push([
            pool.name.as_str().into(),
            pool.n_families.into(),
            pool.n_families_with_variants.into(),
            pool.validation.n_families.into(),
            u64::from(pool.seq_len).into(),
            (pool.passes.len() as u64).into(),
            trained.into(),
            originals.into(),
        ]);
    }
    table
}
