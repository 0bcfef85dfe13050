//! Clusters of duplicates by size, and how similar near-duplicates were.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use moe_report::settings::Settings;
use moe_report::{Axis, Bar, Bars, Figure, Histogram, Lines, Series, number};
use xxhash_rust::xxh3::xxh3_64;

use super::Part;
use crate::dedup::minhash::estimate::figures::{Bin, Estimate};
use crate::dedup::minhash::signature::candidate_probability;
use crate::error::Result;
use crate::ledger::Ledger;
use crate::provenance::STAYING;
use crate::provenance::audit::{self, str_of};
use crate::watch::Watch;

const N_BINS: usize = 30;
/// Clusters kept in memory.
const MAX_CLUSTERS: usize = 1 << 20;
/// Width of the bins of an estimate.
const BIN_WIDTH: f64 = 0.05;
/// Cluster sizes with a bar of their own; larger ones share bars by powers of two.
const SINGLE: u64 = 3;

pub(super) fn part(out: &Path, ledger: &Ledger, recipe: &Settings, watch: &Watch) -> Result<Part> {
    // Removed documents by a hash of their cluster: its number for near-duplicates, else what stayed.
    let mut clusters = Clusters::default();
    let mut alike = Histogram { range: (0.0, 1.0), bins: vec![[0; 2]; N_BINS], ..Histogram::default() };
    let mut n_alike = 0;
    audit::for_each(out, "dups-", &[], |row| {
        if STAYING.contains(&str_of(&row, "method")) {
            return;
        }
        let cluster = row.get("cluster").and_then(serde_json::Value::as_u64);
        let name = match cluster {
            Some(cluster) => cluster.to_string(),
            None => format!("{}\0{}", str_of(&row, "kept_source"), str_of(&row, "kept")),
        };
        clusters.see(xxh3_64(name.as_bytes()));
        let jaccard = row.get("jaccard").and_then(serde_json::Value::as_f64);
        if let Some(jaccard) = jaccard.filter(|_| str_of(&row, "method") != "exact") {
            let bin = (jaccard * N_BINS as f64) as usize;
            alike.bins[bin.min(N_BINS - 1)][0] += 1;
            n_alike += 1;
        }
    })?;
    watch.advance(0)?;
    let mut figures: Vec<Figure> = s_curve(ledger.minhash_estimate.as_ref(), recipe).into_iter().collect();
    if !clusters.sizes.is_empty() {
        let every = clusters.mask + 1;
        figures.push(by_size(clusters.sizes.into_values().map(u64::from), every));
    }
    if n_alike > 0 {
        let mut histogram = alike;
        histogram.id = "jaccard".to_owned();
        histogram.title = "Similarity of removed near-duplicates".to_owned();
        histogram.note = "Jaccard index with the surviving document, over the compared pairs.".to_owned();
        histogram.x_label = "Jaccard index".to_owned();
        histogram.unit = "documents".to_owned();
        figures.push(histogram.figure());
    }
    Ok(Part::new("duplicates", "Duplicates", "grid2", figures))
}

/// Removed documents of each cluster, by its hash: of all clusters, or if there are too many, of those whose hash ends in zeros.
#[derive(Default)]
struct Clusters {
    sizes: HashMap<u64, u32>,
    /// Bits that must be zero.
    mask: u64,
}

impl Clusters {
    fn see(&mut self, cluster: u64) {
        if cluster & self.mask != 0 {
            return;
        }
        *self.sizes.entry(cluster).or_default() += 1;
        if self.sizes.len() > MAX_CLUSTERS {
            self.mask = self.mask << 1 | 1;
            let mask = self.mask;
            self.sizes.retain(|cluster, _| cluster & mask == 0);
        }
    }
}

/// How likely a pair of documents is to be compared, by similarity: in theory, and measured on a sample.
fn s_curve(estimate: Option<&Estimate>, recipe: &Settings) -> Option<Figure> {
    let of_recipe = |key: &str| recipe.get(&format!("dedup.minhash.{key}"))?.parse().ok();
    let (bands, rows) = match estimate {
        Some(estimate) => (estimate.bands, estimate.rows),
        None => (of_recipe("bands")?, of_recipe("rows")?),
    };
    let curve = (0..=100).map(|i| f64::from(i) / 100.0).map(|j| (j, candidate_probability(j, bands, rows)));
    let mut series = vec![Series { name: format!("{bands} bands of {rows} rows"), points: curve.collect() }];
    let mut note = "A pair is compared where its documents share a band.".to_owned();
    let mut places = Vec::new();
    match estimate {
        None => note.push_str(" `estimate` in [dedup.minhash] measures it on a sample."),
        Some(estimate) => {
            let middle = |bin: &Bin| (bin.from + (bin.from + BIN_WIDTH).min(1.0)) / 2.0;
            let measured = estimate.bins.iter().filter(|bin| bin.pairs > 0);
            let points =
                measured.map(|bin| (middle(bin), bin.candidates as f64 / bin.pairs as f64)).collect();
            series.push(Series { name: "measured".to_owned(), points });
            places.push(("alike from".to_owned(), estimate.threshold));
            note.push_str(&format!(
                " Measured on the pairs of {} documents with all {}: {}",
                number::count(estimate.sampled),
                number::count(estimate.documents),
                match (estimate.recall, estimate.recall_interval) {
                    (Some(recall), Some((low, high))) => format!(
                        "{} of {} alike pairs were compared (95 % interval {} to {}, promised {}).",
                        number::percent(recall, 1.0),
                        number::count(estimate.pairs),
                        number::percent(low, 1.0),
                        number::percent(high, 1.0),
                        number::percent(estimate.expected_recall.unwrap_or(f64::NAN), 1.0)
                    ),
                    _ => "no pair is alike.".to_owned(),
                }
            ));
        }
    }
    let dotted = (1..series.len()).collect();
    let lines = Lines {
        id: "s-curve".to_owned(),
        title: "Which near-duplicates are found".to_owned(),
        note,
        x: Axis::linear("Jaccard index of the shingles"),
        y: Axis::linear("share of pairs that are compared"),
        series,
        places,
        dotted,
        ..Lines::default()
    };
    Some(lines.figure())
}

fn by_size(removed: impl Iterator<Item = u64>, every: u64) -> Figure {
    // By the least size of a bar.
    let mut bins: BTreeMap<u64, u64> = BTreeMap::new();
    for n in removed {
        // With the one that stayed.
        let size = n + 1;
        *bins.entry(if size <= SINGLE { size } else { 1 << size.ilog2() }).or_default() += 1;
    }
    let name = |least: u64| match least {
        n if n <= SINGLE => format!("{n} documents"),
        n => format!("{} to {} documents", number::count(n), number::count(2 * n - 1)),
    };
    let bar = |(least, n): (u64, u64)| Bar {
        name: name(least),
        start: 0.0,
        value: n as f64,
        text: format!("{} clusters", number::count(n)),
        class: "f0",
    };
    let bars = Bars {
        id: "clusters".to_owned(),
        title: "Clusters of duplicates".to_owned(),
        note: format!(
            "Documents of a cluster, the one that stayed included.{}",
            if every > 1 { format!(" 1 cluster in {}.", number::count(every)) } else { String::new() }
        ),
        unit: "clusters".to_owned(),
        bars: bins.into_iter().map(bar).collect(),
    };
    bars.figure()
}

#[cfg(test)]
mod tests {
    use moe_report::Cell;

    use super::*;

    #[test]
    fn the_curve_is_that_of_bands_and_rows_and_dots_are_what_was_measured() {
        let recipe = Settings::from(
            [("dedup.minhash.bands", "14"), ("dedup.minhash.rows", "8")]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let figure = s_curve(None, &recipe).unwrap();
        // 1 - (1 - 0.8^8)^14.
        assert_eq!(figure.table.rows[80][0], Cell::Value(0.8));
        assert!(
            matches!(figure.table.rows[80][1], Cell::Value(p) if (p - 0.923_547_56).abs() < 1e-8),
            "{:?}",
            figure.table.rows[80]
        );
        assert!(figure.note.contains("estimate"));
        assert!(s_curve(None, &Settings::new()).is_none());
        let bin = Bin { from: 0.8, pairs: 4, candidates: 3, expected: 3.7, both_kept: 1 };
        let estimate = Estimate {
            sampled: 10,
            documents: 100,
            bands: 14,
            rows: 8,
            threshold: 0.7,
            pairs: 4,
            recall: Some(0.75),
            recall_interval: Some((0.3, 0.95)),
            expected_recall: Some(0.925),
            candidate_precision: Some(1.0),
            removed: 3,
            removed_like_kept: 3,
            bins: vec![bin],
        };
        let figure = s_curve(Some(&estimate), &Settings::new()).unwrap();
        assert!(figure.note.contains("75.0 % of 4 alike pairs"), "{}", figure.note);
        assert!(figure.table.rows.iter().any(|row| row[2] == Cell::Value(0.75)), "{:?}", figure.table.rows);
    }

    #[test]
    fn of_too_many_clusters_some_are_counted_whole() {
        let mut clusters = Clusters::default();
        let n = MAX_CLUSTERS as u64 + 5;
        for _ in 0..2 {
            (0..n).for_each(|i| clusters.see(i));
        }
        assert_eq!((clusters.mask, clusters.sizes.len() as u64), (1, n.div_ceil(2)));
        assert!(clusters.sizes.values().all(|size| *size == 2));
    }

    #[test]
    fn clusters_are_counted_by_size() {
        let figure = by_size([1, 1, 2, 3, 5, 7, 15].into_iter(), 1);
        let rows: Vec<String> = figure.table.rows.iter().map(|row| format!("{row:?}")).collect();
        assert_eq!(rows.len(), 5, "{rows:?}");
        assert!(rows[0].contains("2 documents") && rows[0].contains("Count(2)"), "{rows:?}");
        // Four to seven with the one that stayed: 3 and 5 removed; eight to 15: 7; 16 and more: 15.
        assert!(rows[2].contains("4 to 7") && rows[2].contains("Count(2)"), "{rows:?}");
        assert!(rows[4].contains("16 to 31"), "{rows:?}");
    }
}
