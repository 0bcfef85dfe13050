//! The invariants of a plan, checked on samples chosen at random: what `moe-data verify` does besides
//! comparing digests. With as many samples as the plan has, the check is complete.
//!
//! - A sample is as long as its phase says; its pieces follow one another, lie inside their documents and
//!   hold their tokens; targets are the next tokens.
//! - A held-out family is never shown.
//! - A pass shows a family in one text, unless all are stitched, and no token of it twice.
//! - A family is in the same window in every pass: that is the promised distance between two sightings.
//! - No pool is ahead of or behind its quota by a whole sample at any of the samples.
//! - The stored counts are those of the interleaving rule.

use moe_shards::family::Holdout;
use moe_shards::interleave::{Counts, Interleaver};
use moe_shards::permute::{Permutation, mix64};
use moe_shards::variant::Layout;
use moe_shards::{Plan, Sample};
use rayon::prelude::*;
use serde::Serialize;

use super::{shard_of, stream_position, window_of};
use crate::error::Result;
use crate::watch::Watch;

/// Problems to report; the rest are counted.
const MAX_TOLD: usize = 20;

/// What was checked, and the problems.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Replay {
    /// Samples.
    pub samples: u64,
    /// Samples of the plan.
    pub of: u64,
    /// Pieces in them.
    pub pieces: u64,
    /// Stored rows of counts that were recomputed.
    pub count_rows: u64,
    /// The first problems.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub n_problems: u64,
}

/// A piece of a document in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    pool: u16,
    family: u64,
    pass: u32,
    shard: u32,
    doc: u32,
    offset: u32,
    len: u32,
    window: u32,
    t: u64,
}

/// Checks `n` samples, chosen by `seed`, or all when the plan has no more. `watch` advances by one a
/// sample.
///
/// # Errors
/// [`crate::Error::Interrupted`]; problems of the plan are in the result.
pub fn replay(plan: &Plan, n: u64, seed: u64, watch: &Watch) -> Result<Replay> {
    let n = n.min(plan.len());
    let order = Permutation::new(plan.len(), mix64(seed));
    let checked: Vec<(Vec<Seen>, Vec<String>)> = (0..n)
        .into_par_iter()
        .map(|i| {
            watch.advance(1)?;
            let t = order.forward(i);
            Ok(match plan.sample(t) {
                Ok(sample) => check_sample(plan, t, &sample),
                Err(e) => (Vec::new(), vec![format!("sample {t}: {e}")]),
            })
        })
        .collect::<Result<_>>()?;
    let mut seen = Vec::new();
    let mut problems = Vec::new();
    for (pieces, wrong) in checked {
        seen.extend(pieces);
        problems.extend(wrong);
    }
    seen.par_sort_unstable();
    problems.extend(check_passes(plan, &seen));
    let (count_rows, wrong) = check_counts(plan, n, seed);
    problems.extend(wrong);
    let n_problems = problems.len() as u64;
    problems.truncate(MAX_TOLD);
    Ok(Replay { samples: n, of: plan.len(), pieces: seen.len() as u64, count_rows, problems, n_problems })
}

fn check_sample(plan: &Plan, t: u64, sample: &Sample) -> (Vec<Seen>, Vec<String>) {
    let (mut seen, mut wrong) = (Vec::new(), Vec::new());
    let mut tell = |what: String| wrong.push(format!("sample {t}: {what}"));
    let lock = plan.lock();
    let holdout = Holdout { ppm: lock.holdout_ppm, seed: lock.seed };
    let seq_len = lock.pools[usize::from(sample.id.pool)].seq_len as usize;
    let lens = [sample.tokens.len(), sample.targets.len(), sample.loss_mask.len(), sample.segments.len()];
    if lens != [seq_len; 4] {
        tell(format!("its vectors have {lens:?} values, the sequence has {seq_len}"));
        return (seen, wrong);
    }
    let window = window_of(plan, sample.id).unwrap_or_default() as u32;
    let mut free = 0;
    for piece in &sample.pieces {
        let (start, len) = (piece.start as usize, piece.len as usize);
        if start < free || len == 0 || start + len > seq_len {
            tell(format!("a piece of {len} tokens at {start}, where {free} of {seq_len} are taken"));
            continue;
        }
        free = start + len;
        if holdout.contains(piece.family) {
            tell(format!("family {} is held out for validation", piece.family));
        }
        let shard = shard_of(plan, sample.id.pool, piece.shard);
        let document = shard.and_then(|shard| shard.tokens(piece.doc).ok().zip(shard.mask(piece.doc).ok()));
        let Some((document, mask)) = document else {
            tell(format!("shard {} has no document {}", piece.shard, piece.doc));
            continue;
        };
        let tokens = document.slice(piece.offset as usize, len + 1).to_vec();
        let has = |at: usize| sample.loss_mask[start + at].then_some(sample.targets[start + at]);
        // The next token, unless a mask says that it is not learned.
        let is_trained =
            |at: usize| mask.is_none_or(|mask| mask.is_trained(u64::from(piece.offset) + at as u64 + 1));
        let good = tokens.len() >= len
            && sample.tokens[start..start + len] == tokens[..len]
            && (0..len).all(|at| has(at) == tokens.get(at + 1).copied().filter(|_| is_trained(at)));
        if !good {
            tell(format!(
                "tokens {}.. of document {} of shard {} are not those of the document, or their targets not the next ones that are trained",
                piece.offset, piece.doc, piece.shard
            ));
        }
        seen.push(Seen {
            pool: sample.id.pool,
            family: piece.family.0,
            pass: sample.id.pass,
            shard: piece.shard,
            doc: piece.doc,
            offset: piece.offset,
            len: piece.len,
            window,
            t,
        });
    }
    wrong.extend(check_share(plan, t, sample));
    (seen, wrong)
}

/// The pool of sample `t` has been chosen `count` times up to and with `t`: the bound of Tijdeman's rule,
/// `|count - steps * quota / total| <= 1 - 1 / (2k - 2)`, in integers.
fn check_share(plan: &Plan, t: u64, sample: &Sample) -> Option<String> {
    let lock = plan.lock();
    let pool = usize::from(sample.id.pool);
    let number = lock.phases.iter().rposition(|phase| phase.t_start <= t)?;
    let quota_in = |phase: &moe_shards::PhaseLock| phase.quotas.get(pool).copied().unwrap_or(0);
    let used: u64 = lock.phases[..number].iter().map(quota_in).sum();
    let phase = &lock.phases[number];
    let count = i128::from(stream_position(&lock.pools[pool], sample.id) + 1) - i128::from(used);
    let k = phase.quotas.iter().filter(|&&quota| quota > 0).count() as i128;
    let (steps, quota, total) = (t - phase.t_start + 1, quota_in(phase), phase.quotas.iter().sum::<u64>());
    let off = (count * i128::from(total) - i128::from(steps) * i128::from(quota)).abs();
    let good = match k {
        0 | 1 => off == 0,
        k => off * (2 * k - 2) <= i128::from(total) * (2 * k - 3),
    };
    let name = &lock.pools[pool].name;
    (!good).then(|| {
        format!("sample {t}: pool `{name}` was chosen {count} times in {steps} steps of phase `{}`, its share is {quota} of {total}", phase.name)
    })
}

/// `seen` is sorted: by pool, family, pass, document, place.
fn check_passes(plan: &Plan, seen: &[Seen]) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in seen.windows(2) {
        let [a, b] = [pair[0], pair[1]];
        if (a.pool, a.family) != (b.pool, b.family) {
            continue;
        }
        let place = || {
            let pool = &plan.lock().pools[usize::from(a.pool)].name;
            format!("pool `{pool}`, family {:016x}, samples {} and {}", a.family, a.t, b.t)
        };
        if a.window != b.window {
            wrong.push(format!("{}: in window {} and in window {}", place(), a.window, b.window));
        }
        let same_text = (a.shard, a.doc) == (b.shard, b.doc);
        let one_text = plan.lock().pools[usize::from(a.pool)].layout == Layout::Separate;
        if a.pass == b.pass && !same_text && one_text {
            wrong.push(format!("{}: two texts of the family in pass {}", place(), a.pass));
        } else if a.pass == b.pass && same_text && a.offset + a.len > b.offset {
            wrong.push(format!("{}: token {} twice in pass {}", place(), b.offset, a.pass));
        }
    }
    wrong
}

/// Recomputes stored counts from the row before, for as many rows as cost about `n` steps.
fn check_counts(plan: &Plan, n: u64, seed: u64) -> (u64, Vec<String>) {
    let (mut rows, mut wrong) = (0, Vec::new());
    for phase in &plan.lock().phases {
        let path = plan.dir().join(&phase.counts.file);
        let mut check = || -> moe_shards::Result<()> {
            let rule = Interleaver::new(&phase.quotas)?;
            let counts = Counts::open(&path, &rule)?;
            let every = counts.every();
            let n_rows = rule.total().div_ceil(every);
            let order = Permutation::new(n_rows, mix64(seed));
            for row in (0..n_rows.min(n.div_ceil(every))).map(|i| order.forward(i)) {
                let mut replayed = counts.row(row)?;
                let end = ((row + 1) * every).min(rule.total());
                for step in row * every..end {
                    rule.next(step, &mut replayed)?;
                }
                let stored = if row + 1 < n_rows { counts.row(row + 1)? } else { phase.quotas.clone() };
                if stored != replayed {
                    let file = path.display();
                    wrong.push(format!("{file}: row {}: {stored:?}, the rule gives {replayed:?}", row + 1));
                }
                rows += 1;
            }
            Ok(())
        };
        if let Err(e) = check() {
            wrong.push(e.to_string());
        }
    }
    (rows, wrong)
}
