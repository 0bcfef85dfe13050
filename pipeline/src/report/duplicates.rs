//! Clusters of duplicates by size, and how alike near-duplicates were.

use std::collections::BTreeMap;
use std::path::Path;

use moe_report::{Bar, Bars, Figure, Histogram, number};

use super::Part;
use crate::error::Result;
use crate::story::STAYING;
use crate::story::audit::{self, str_of};

const N_BINS: usize = 30;
/// Sizes of clusters that have a bar of their own; larger ones share bars by powers of two.
const SINGLE: u64 = 3;

pub(super) fn part(out: &Path) -> Result<Part> {
    // Removed documents by cluster: of near-duplicates by its number, else by what stayed.
    let mut sizes: BTreeMap<(String, String, Option<u64>), u64> = BTreeMap::new();
    let mut alike = Vec::new();
    audit::for_each(out, "dups-", &[], |row| {
        if STAYING.contains(&str_of(&row, "method")) {
            return;
        }
        let cluster = row.get("cluster").and_then(serde_json::Value::as_u64);
        let kept = if cluster.is_some() { "" } else { str_of(&row, "kept") };
        *sizes.entry((str_of(&row, "kept_source").to_owned(), kept.to_owned(), cluster)).or_default() += 1;
        if str_of(&row, "method") != "exact" {
            alike.extend(row.get("jaccard").and_then(serde_json::Value::as_f64));
        }
    })?;
    let mut figures = Vec::new();
    if !sizes.is_empty() {
        figures.push(by_size(sizes.into_values()));
    }
    if !alike.is_empty() {
        let mut histogram = Histogram::of(&alike, &[], N_BINS);
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
