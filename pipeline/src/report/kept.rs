//! What the shards hold: lengths, languages, quality.

use std::collections::BTreeMap;
use std::path::Path;

use moe_report::{Bar, Bars, Figure, Histogram, number};
use moe_shards::{Manifest, Shard};

use super::Part;
use crate::error::Result;
use crate::watch::Watch;

const N_BINS: usize = 40;
/// Languages with a bar of their own.
const MAX_LANGUAGES: usize = 20;
/// Most documents whose lengths are read; more are thinned evenly.
const MAX_LENGTHS: u64 = 1_000_000;

#[derive(Default)]
struct Sums {
    lengths: Vec<f64>,
    quality: BTreeMap<Option<u8>, [u64; 2]>,
    language: BTreeMap<Option<String>, [u64; 2]>,
}

pub(super) fn part(out: &Path, manifest: &Manifest, watch: &Watch) -> Result<Part> {
    let n_docs: u64 = manifest.shards.iter().map(|shard| shard.n_docs).sum();
    let every = n_docs.div_ceil(MAX_LENGTHS).max(1);
    let mut sums = Sums::default();
    let mut number = 0u64;
    for info in &manifest.shards {
        watch.advance(1)?;
        let shard = Shard::open(&Manifest::mdx_path(out, &info.name))?;
        let mut languages: BTreeMap<u16, [u64; 2]> = BTreeMap::new();
        for doc in 0..shard.n_docs() {
            let (meta, (_, tokens)) = (shard.meta(doc)?, shard.span(doc)?);
            if number.is_multiple_of(every) {
                sums.lengths.push((tokens.max(1) as f64).log10());
            }
            number += 1;
            let quality = sums.quality.entry(meta.quality).or_default();
            (quality[0], quality[1]) = (quality[0] + 1, quality[1] + tokens);
            let sum = languages.entry(meta.language).or_default();
            (sum[0], sum[1]) = (sum[0] + 1, sum[1] + tokens);
        }
        for (code, [docs, tokens]) in languages {
            let sum = sums.language.entry(shard.names().language(code).map(str::to_owned)).or_default();
            (sum[0], sum[1]) = (sum[0] + docs, sum[1] + tokens);
        }
    }
    let mut figures = vec![lengths(&sums.lengths, every)];
    if sums.language.keys().any(Option::is_some) {
        let mut named: Vec<(String, [u64; 2])> = sums
            .language
            .into_iter()
            .map(|(name, sum)| (name.unwrap_or_else(|| "unknown".to_owned()), sum))
            .collect();
        named.sort_by_key(|(_, sum)| std::cmp::Reverse(sum[1]));
        let rest = named.split_off(named.len().min(MAX_LANGUAGES));
        if !rest.is_empty() {
            let sum = rest.iter().fold([0; 2], |sum, (_, more)| [sum[0] + more[0], sum[1] + more[1]]);
            named.push((format!("{} others", rest.len()), sum));
        }
        figures.push(bars("languages", "Languages", named));
    }
    if sums.quality.keys().any(Option::is_some) {
        let named = sums
            .quality
            .into_iter()
            .map(|(bucket, sum)| (bucket.map_or("unknown".to_owned(), |b| format!("bucket {b}")), sum));
        figures.push(bars("quality", "Quality buckets", named.collect()));
    }
    Ok(Part::new("kept", "What was kept", "grid2", figures))
}

fn lengths(logs: &[f64], every: u64) -> Figure {
    let mut histogram = Histogram { is_log: true, ..Histogram::of(logs, &[], N_BINS) };
    histogram.id = "lengths".to_owned();
    histogram.title = "Lengths of documents".to_owned();
    histogram.note =
        if every > 1 { format!("1 document in {}.", number::count(every)) } else { String::new() };
    histogram.x_label = "tokens (logarithmic)".to_owned();
    histogram.unit = "documents".to_owned();
    histogram.figure()
}

fn bars(id: &str, title: &str, named: Vec<(String, [u64; 2])>) -> Figure {
    let bar = |(name, [docs, tokens]): (String, [u64; 2])| Bar {
        name,
        start: 0.0,
        value: tokens as f64,
        text: format!("{} in {} documents", number::short(tokens as f64), number::count(docs)),
        class: "f0",
    };
    let bars = Bars {
        id: id.to_owned(),
        title: title.to_owned(),
        note: String::new(),
        unit: "tokens".to_owned(),
        bars: named.into_iter().map(bar).collect(),
    };
    bars.figure()
}
