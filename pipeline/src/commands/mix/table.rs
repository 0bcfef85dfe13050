//! The table of `moe-data mix`: what the plan is worth, one column per pool.

use std::collections::BTreeMap;

use moe_shards::PlanLock;

use crate::mix::effective_tokens::PoolTokens;

/// Columns that are printed side by side.
const COLUMNS: usize = 4;

/// The table, in blocks of a few pools.
pub(super) fn table(worth: &[PoolTokens]) -> String {
    let blocks: Vec<String> = worth.chunks(COLUMNS).map(block).collect();
    blocks.join("\n")
}

fn block(worth: &[PoolTokens]) -> String {
    let pools: Vec<Vec<(&str, String)>> = worth.iter().map(column).collect();
    let Some(first) = pools.first() else { return String::new() };
    let label_width = first.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let width =
        |pool: &[(&str, String)]| pool.iter().map(|(_, cell)| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = pools.iter().map(|pool| width(pool)).collect();
    let mut text = String::new();
    for (row, (label, _)) in first.iter().enumerate() {
        text.push_str(&format!("{label:<label_width$}"));
        for (pool, width) in pools.iter().zip(&widths) {
            text.push_str(&format!("   {:>width$}", pool[row].1));
        }
        text.push('\n');
    }
    text
}

/// The phases, where there are several: samples, length, and the share of each pool.
pub(super) fn phases(lock: &PlanLock) -> String {
    let mut text = String::new();
    for phase in lock.phases.iter().filter(|_| lock.phases.len() > 1) {
        let shares = phase.quotas.iter().zip(&lock.pools).filter(|(quota, _)| **quota > 0);
        let shares: Vec<String> = shares
            .map(|(&quota, pool)| {
                format!("{} {:.1} %", pool.name, quota as f64 * 100.0 / phase.n_samples.max(1) as f64)
            })
            .collect();
        text.push_str(&format!(
            "phase {}: samples {} to {} of {} tokens: {}\n",
            phase.name,
            phase.t_start,
            phase.t_end(),
            phase.seq_len,
            shares.join(", ")
        ));
    }
    text
}

/// Lengths of the plan's sequences: `2048` or `2048 and 8192`.
pub(super) fn seq_lens(lock: &PlanLock) -> String {
    let lens: std::collections::BTreeSet<u32> = lock.phases.iter().map(|phase| phase.seq_len).collect();
    lens.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ")
}

fn histogram(sightings: &BTreeMap<u32, u64>) -> String {
    let cells: Vec<String> =
        sightings.iter().map(|(uses, n)| format!("{uses}x {}", group_digits(*n))).collect();
    cells.join(", ")
}

/// The rows of one pool, labels first.
fn column(w: &PoolTokens) -> Vec<(&'static str, String)> {
    let count = group_digits;
    let bracket = |low: String, high: String| if low == high { low } else { format!("{low} to {high}") };
    let gap = match (w.min_gap_samples, w.min_gap_passes) {
        (Some(samples), Some(passes)) => format!("{} samples, {passes:.3} of a pass", count(samples)),
        _ => "one pass only".to_owned(),
    };
    let fresh = |tokens: f64| count(tokens.round() as u64);
    vec![
        ("", w.pool.clone()),
        ("families, held out", format!("{}, {}", count(w.families), count(w.held_out_families))),
        ("families with variants", count(w.families_with_variants)),
        ("unique tokens", count(w.unique_tokens)),
        ("unique with variants", count(w.unique_tokens_with_variants)),
        ("passes", format!("{:.2}", w.passes)),
        ("samples", count(w.samples)),
        ("trained tokens", count(w.planned_tokens)),
        (
            "worth in fresh tokens",
            bracket(fresh(w.effective_tokens_if_repeats), fresh(w.effective_tokens_if_new)),
        ),
        (
            "value of the last pass",
            bracket(format!("{:.3}", w.last_pass_value), format!("{:.3}", w.last_pass_value_if_new)),
        ),
        ("originals in each pass", originals(&w.original_share_per_pass)),
        ("texts by sightings", histogram(&w.sightings)),
        ("families by sightings", histogram(&w.family_sightings)),
        ("least gap of a family", gap),
        ("at least, in tokens of the plan", w.min_gap_tokens.map_or_else(|| "-".to_owned(), count)),
        ("padding", format!("{:.2} %", w.padding * 100.0)),
        ("documents longer than a sequence", count(w.cut_documents)),
    ]
}

/// Passes listed one by one.
const SHOWN_PASSES: usize = 8;

/// The share of originals in each pass; for many passes, the first ones and the range of the rest.
fn originals(shares: &[f64]) -> String {
    let percent = |share: &f64| format!("{:.1}", share * 100.0);
    let first: Vec<String> = shares.iter().take(SHOWN_PASSES).map(percent).collect();
    let rest = shares.get(SHOWN_PASSES..).unwrap_or_default();
    let least = rest.iter().copied().reduce(f64::min);
    let most = rest.iter().copied().reduce(f64::max);
    match least.zip(most) {
        None => format!("{} %", first.join(" ")),
        Some((least, most)) => {
            format!(
                "{} %, then {} to {} % in {} more",
                first.join(" "),
                percent(&least),
                percent(&most),
                rest.len()
            )
        }
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn group_digits(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_passes_are_told_in_few_numbers() {
        assert_eq!(originals(&[0.5, 0.25]), "50.0 25.0 %");
        let mut shares = vec![0.5; 80];
        shares[20] = 0.4;
        assert_eq!(
            originals(&shares),
            "50.0 50.0 50.0 50.0 50.0 50.0 50.0 50.0 %, then 40.0 to 50.0 % in 72 more"
        );
        assert_eq!(originals(&[]), " %");
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(group_digits), ["0", "999", "1,000", "1,234,567"]);
    }
}
