//! Clusters of duplicates by size, and how alike near-duplicates were.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use moe_report::{Bar, Bars, Figure, Histogram, number};
use xxhash_rust::xxh3::xxh3_64;

use super::Part;
use crate::error::Result;
use crate::story::STAYING;
use crate::story::audit::{self, str_of};

const N_BINS: usize = 30;
/// Sizes of clusters that have a bar of their own; larger ones share bars by powers of two.
const SINGLE: u64 = 3;

pub(super) fn part(out: &Path) -> Result<Part> {
    // Removed documents by a hash of their cluster: its number for near-duplicates, else what stayed.
    let mut sizes: HashMap<u64, u32> = HashMap::new();
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
        *sizes.entry(xxh3_64(name.as_bytes())).or_default() += 1;
        let jaccard = row.get("jaccard").and_then(serde_json::Value::as_f64);
        if let Some(jaccard) = jaccard.filter(|_| str_of(&row, "method") != "exact") {
            let bin = (jaccard * N_BINS as f64) as usize;
            alike.bins[bin.min(N_BINS - 1)][0] += 1;
            n_alike += 1;
        }
    })?;
    let mut figures = Vec::new();
    if !sizes.is_empty() {
        figures.push(by_size(sizes.into_values().map(u64::from)));
    }
    if n_alike > 0 {
        let mut histogram = alike;
        histogram.id = "jaccard".to_owned();
        histogram.title = "How alike removed near-duplicates are".to_owned();
        histogram.note = "Jaccard index with what stayed, of the pairs that were compared.".to_owned();
        histogram.x_label = "Jaccard index".to_owned();
        histogram.unit = "documents".to_owned();
        figures.push(histogram.figure());
    }
    Ok(Part::new("duplicates", "Duplicates", "grid2", figures))
}

fn by_size(removed: impl Iterator<Item = u64>) -> Figure {
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
        note: "Documents of a cluster, the one that stayed included.".to_owned(),
        unit: "clusters".to_owned(),
        bars: bins.into_iter().map(bar).collect(),
    };
    bars.figure()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_counted_by_size() {
        let figure = by_size([1, 1, 2, 3, 5, 7, 15].into_iter());
        let rows: Vec<String> = figure.table.rows.iter().map(|row| format!("{row:?}")).collect();
        assert_eq!(rows.len(), 5, "{rows:?}");
        assert!(rows[0].contains("2 documents") && rows[0].contains("Count(2)"), "{rows:?}");
        // Four to seven with the one that stayed: 3 and 5 removed; eight to 15: 7; 16 and more: 15.
        assert!(rows[2].contains("4 to 7") && rows[2].contains("Count(2)"), "{rows:?}");
        assert!(rows[4].contains("16 to 31"), "{rows:?}");
    }
}
