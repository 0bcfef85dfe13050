//! How many trained tokens each pool gives to each phase. Weights divide the budget of a phase; no pool gives
//! more than its passes hold. Anything beyond a cap is an error that says what is possible, or goes to the other pools in
//! proportion to their weights (water-filling: UniMax, arXiv 2304.09151, with weights).

use serde::Serialize;

use super::mixture::Mixture;
use super::stream::Amount;
use crate::error::{Error, Result};

/// What the shares are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    /// Pool.
    pub pool: String,
    /// Trained tokens that it can still give.
    pub tokens: u64,
    /// Passes that it can give at most, in words: `4 epochs`.
    pub cap: String,
    /// The keys that set this cap.
    pub keys: &'static str,
}

/// A phase with each pool's contribution.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseWish {
    /// Name.
    pub name: String,
    /// Tokens of a sequence.
    pub seq_len: u32,
    /// By pool.
    pub amounts: Vec<Amount>,
}

/// A wish that a cap cut down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clip {
    /// Phase.
    pub phase: String,
    /// Pool.
    pub pool: String,
    /// Trained tokens that its weight or amount asks for.
    pub asked: u64,
    /// Trained tokens that it gives.
    pub given: u64,
    /// Its cap, in words.
    pub cap: String,
}

/// The phases of a mixture. `room` returns how much a pool can give; it is called only when a number of tokens is requested.
///
/// # Errors
/// All requests beyond the caps at once.
pub fn share_out(
    mixture: &Mixture,
    proxy: Option<[u64; 2]>,
    room: impl FnMut(usize) -> Result<Room>,
) -> Result<(Vec<PhaseWish>, Vec<Clip>)> {
    let scaled = |tokens: u64| match proxy {
        None => tokens,
        Some([num, den]) => (u128::from(tokens) * u128::from(num) / u128::from(den.max(1))) as u64,
    };
    let weights_of = |named: Option<&std::collections::BTreeMap<String, f64>>| -> Vec<f64> {
        let weight = |pool: &super::mixture::PoolConfig| match named {
            Some(weights) => weights.get(pool.name()).copied(),
            None => pool.weight,
        };
        mixture.pool.iter().map(|pool| weight(pool).unwrap_or(0.0)).collect()
    };
    let mut budgets = Vec::new();
    if let Some(tokens) = mixture.mix.tokens {
        budgets.push(Budget {
            phase: "main".to_owned(),
            key: "mix.tokens",
            seq_len: mixture.mix.seq_len,
            tokens: scaled(tokens.0),
            weights: weights_of(None),
        });
    }
    for phase in &mixture.phase {
        budgets.push(Budget {
            phase: phase.name.clone(),
            key: "phase.tokens",
            seq_len: phase.seq_len.unwrap_or(mixture.mix.seq_len),
            tokens: scaled(phase.tokens.0),
            weights: weights_of(phase.weights.as_ref()),
        });
    }
    match budgets.is_empty() {
        true => by_pool(mixture, scaled, room),
        false => by_weight(mixture, &budgets, room),
    }
}

struct Budget {
    phase: String,
    key: &'static str,
    seq_len: u32,
    tokens: u64,
    weights: Vec<f64>,
}

/// Each pool gives its own amount.
fn by_pool(
    mixture: &Mixture,
    scaled: impl Fn(u64) -> u64,
    mut room: impl FnMut(usize) -> Result<Room>,
) -> Result<(Vec<PhaseWish>, Vec<Clip>)> {
    let (mut amounts, mut clips, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (i, pool) in mixture.pool.iter().enumerate() {
        let max = mixture.max_epochs(pool);
        amounts.push(match (pool.tokens, pool.repeat) {
            (Some(tokens), _) => {
                let (asked, room) = (scaled(tokens.0), room(i)?);
                if asked > room.tokens {
                    let Room { pool, tokens: given, cap, keys } = room.clone();
                    let clip = Clip { phase: "main".to_owned(), pool, asked, given, cap };
                    problems.push(format!(
                        "pool `{}`: `tokens` asks for {asked} trained tokens, {} have {}; ask for at most that many, or raise its {keys}",
                        clip.pool, clip.cap, clip.given
                    ));
                    clips.push(clip);
                }
                Amount::Tokens(asked.min(room.tokens))
            }
            // The curve checks its own cap, on the mean of its buckets.
            (None, Some(repeat)) if pool.curve.is_none() && repeat > max => {
                let room = room(i)?;
                let asked = (room.tokens as f64 * repeat / max) as u64;
                problems.push(format!(
                    "pool `{}`: `repeat = {repeat}` is more than its {max} epochs; lower it, or set `max_epochs = {}` in the pool",
                    room.pool,
                    repeat.ceil()
                ));
                let Room { pool, tokens: given, cap, .. } = room;
                clips.push(Clip { phase: "main".to_owned(), pool, asked, given, cap });
                Amount::Passes(max)
            }
            (None, Some(repeat)) => Amount::Passes(repeat),
            (None, None) => Amount::Passes(max),
        });
    }
    if !problems.is_empty() && !mixture.redistributes() {
        return Err(refused(problems, "clip them"));
    }
    let phase = PhaseWish { name: "main".to_owned(), seq_len: mixture.mix.seq_len, amounts };
    Ok((vec![phase], clips))
}

/// Budgets are divided by weights, phase after phase, from what earlier phases left.
fn by_weight(
    mixture: &Mixture,
    budgets: &[Budget],
    mut room: impl FnMut(usize) -> Result<Room>,
) -> Result<(Vec<PhaseWish>, Vec<Clip>)> {
    let mut rooms = (0..mixture.pool.len()).map(&mut room).collect::<Result<Vec<Room>>>()?;
    let (mut phases, mut clips, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for budget in budgets {
        let left: Vec<u64> = rooms.iter().map(|room| room.tokens).collect();
        let wishes = largest_remainder(budget.tokens, &budget.weights);
        let given = fill(budget.tokens, &budget.weights, &left);
        let possible: u64 =
            left.iter().zip(&budget.weights).filter(|(_, w)| **w > 0.0).map(|(&n, _)| n).sum();
        // Without redistribution, full pools are named below.
        if mixture.redistributes() && budget.tokens > possible {
            return Err(Error::Usage(format!(
                "phase `{}` asks for {} trained tokens, its pools together have {possible} within their epochs{}: lower `{}`, or raise `max_epochs` (repeats are worth less: see the table)",
                budget.phase,
                budget.tokens,
                if phases.is_empty() { "" } else { " after the earlier phases" },
                budget.key
            )));
        }
        for (i, room) in rooms.iter().enumerate().filter(|&(i, room)| wishes[i] > room.tokens) {
            clips.push(Clip {
                phase: budget.phase.clone(),
                pool: room.pool.clone(),
                asked: wishes[i],
                given: given[i],
                cap: room.cap.clone(),
            });
            let weights: f64 = budget.weights.iter().sum();
            // The largest budget with these weights, and the largest weight in this budget.
            let ratio = |w: f64| w / weights;
            let most = (room.tokens as f64 / ratio(budget.weights[i])) as u64;
            problems.push(format!(
                "pool `{}`: its weight asks for {} trained tokens, {} have {} {}in phase `{}`; with these weights `{}` can be at most {most}, or lower its weight, or raise its {} (repeats are worth less: see the table)",
                room.pool,
                wishes[i],
                room.cap,
                room.tokens,
                if phases.is_empty() { "" } else { "left " },
                budget.phase,
                budget.key,
                room.keys,
            ));
        }
        rooms.iter_mut().zip(&given).for_each(|(room, given)| room.tokens -= given);
        let amounts = given.into_iter().map(Amount::Tokens).collect();
        phases.push(PhaseWish { name: budget.phase.clone(), seq_len: budget.seq_len, amounts });
    }
    if !problems.is_empty() && !mixture.redistributes() {
        return Err(refused(problems, "give what they cannot to the other pools"));
    }
    Ok((phases, clips))
}

/// The error for requests beyond a cap; `remedy` is the effect of clipping them.
pub(super) fn refused(problems: Vec<String>, remedy: &str) -> Error {
    Error::Usage(format!("{}\n  `mix.on_cap = \"redistribute\"` would {remedy}", problems.join("\n")))
}

/// Shares of `budget` in proportion to `weights`, each at most its `room`: the excess of a full pool goes to the others.
/// They sum to the budget, unless all pools are full.
pub fn fill(budget: u64, weights: &[f64], room: &[u64]) -> Vec<u64> {
    let mut given = vec![0; weights.len()];
    let mut open = weights.to_vec();
    let mut left = budget;
    loop {
        let shares = largest_remainder(left, &open);
        let full: Vec<usize> = (0..open.len()).filter(|&i| open[i] > 0.0 && shares[i] > room[i]).collect();
        if full.is_empty() {
            given.iter_mut().zip(&shares).for_each(|(given, share)| *given += share);
            return given;
        }
        for i in full {
            (given[i], open[i]) = (room[i], 0.0);
            // Shares of more than 2^53 tokens are rounded.
            left = left.saturating_sub(room[i]);
        }
    }
}

/// Integers that sum to `total` in proportion to `weights`; ties go to the lower index. All zero without weights.
pub fn largest_remainder(total: u64, weights: &[f64]) -> Vec<u64> {
    let mut sum: f64 = weights.iter().sum();
    let scaled: Vec<f64>;
    let mut weights = weights;
    if sum == f64::INFINITY {
        // Each is finite; anything below 2^-1000 of the largest counts as zero.
        let largest = weights.iter().copied().fold(0.0, f64::max);
        scaled = weights.iter().map(|weight| weight / largest).collect();
        (weights, sum) = (&scaled, scaled.iter().sum());
    }
    if sum <= 0.0 {
        return vec![0; weights.len()];
    }
    let exact: Vec<f64> = weights.iter().map(|weight| total as f64 * weight / sum).collect();
    let mut shares: Vec<u64> = exact.iter().map(|&share| share as u64).collect();
    let left = total.saturating_sub(shares.iter().sum());
    let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    for &i in order.iter().cycle().take(left as usize) {
        shares[i] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn remainders_go_to_the_largest_fractions() {
        assert_eq!(largest_remainder(10, &[1.0, 1.0, 1.0]), [4, 3, 3]);
        assert_eq!(largest_remainder(10, &[0.55, 0.25, 0.2]), [6, 2, 2]);
        assert_eq!(largest_remainder(7, &[2.0]), [7]);
        assert_eq!(largest_remainder(7, &[0.0, 1.0]), [0, 7]);
        // Their sum exceeds 64 bits, which took forever.
        assert_eq!(largest_remainder(1 << 40, &[1e308, 1e308, 1.0]), [1 << 39, 1 << 39, 0]);
    }

    #[test]
    fn what_a_full_pool_cannot_take_goes_to_the_others() {
        // UniMax: equal weights, 100 tokens; the pools of 10 and 25 are full, the two others share the rest.
        assert_eq!(fill(100, &[1.0; 4], &[10, 25, 500, 40]), [10, 25, 33, 32]);
        assert_eq!(fill(100, &[1.0; 4], &[10, 25, 500, 30]), [10, 25, 35, 30]);
        assert_eq!(fill(100, &[1.0, 3.0], &[80, 50]), [50, 50]);
        assert_eq!(fill(100, &[1.0, 3.0], &[20, 50]), [20, 50]); // all full
        assert_eq!(fill(100, &[1.0, 0.0], &[200, 50]), [100, 0]);
    }

    proptest! {
        #[test]
        fn shares_are_fair_and_exact(
            pools in proptest::collection::vec((1u32..100, 0u64..10_000), 1..12), budget in 0u64..60_000,
        ) {
            let weights: Vec<f64> = pools.iter().map(|p| f64::from(p.0)).collect();
            let room: Vec<u64> = pools.iter().map(|p| p.1).collect();
            let given = fill(budget, &weights, &room);
            prop_assert!(given.iter().zip(&room).all(|(g, r)| g <= r));
            prop_assert_eq!(given.iter().sum::<u64>(), budget.min(room.iter().sum()));
            // Those that are not full get the same for each unit of weight, and the full ones no more.
            let level = given.iter().zip(&weights).map(|(&g, w)| g as f64 / w).fold(0.0, f64::max);
            let least = weights.iter().copied().fold(f64::MAX, f64::min);
            for ((&given, &room), weight) in given.iter().zip(&room).zip(&weights) {
                prop_assert!(given == room || (given as f64 - level * weight).abs() < 1.0 + weight / least);
            }
        }
    }
}
