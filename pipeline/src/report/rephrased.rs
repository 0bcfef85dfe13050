//! Rephrasings: how many were accepted, which gate refused the others, how far from their originals they are, and some of each next to the
//! text that they were made from. All of it comes from the files that `moe-data rephrase` left; nothing is judged again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use maud::html;
use moe_report::{Bar, Bars, Figure, Histogram, Limit, number};

use super::{Part, texts};
use crate::error::{Error, Result};
use crate::rephrase::gates::VARIANT_RULE;
use crate::rephrase::record::{self, Ledger, REJECTED, Rejected};
use crate::rephrase::report::{Sample, counts, rank, side_by_side};
use crate::rephrase::settings::Settings;
use crate::rephrase::{distance, style::Style};
use crate::watch::Watch;

/// Samples of each style and kind.
const N_SAMPLES: usize = 3;
const N_BINS: usize = 30;
/// Lines between checks whether to stop.
const LINES: usize = 1000;

/// Where rephrasings of a build may be: where its recipe took them from, and where `moe-data rephrase` leaves them.
/// The first that exists counts.
fn folder(out: &Path, from: Option<PathBuf>) -> Option<PathBuf> {
    let folders = from.into_iter().chain([out.join("rephrase")]);
    folders.into_iter().find(|folder| folder.join(record::LEDGER).is_file())
}

pub(super) fn part(out: &Path, from: Option<PathBuf>, watch: &Watch) -> Result<Part> {
    let mut part = Part::new("rephrased", "Rephrasings", "grid2", Vec::new());
    let Some(folder) = folder(out, from) else { return Ok(part) };
    let ledger = Ledger::read(&folder)?;
    let mut samples: BTreeMap<String, [Vec<Sample>; 2]> = BTreeMap::new();
    let mut distances = vec![[0u64; 2]; N_BINS];
    accepted(&folder, &mut samples, &mut distances, watch)?;
    rejected(&folder, &mut samples, &mut distances, watch)?;
    let name =
        |sample: &Sample| sample.title.split_once('/').map(|(source, id)| (source.to_owned(), id.to_owned()));
    let wanted = samples.values().flat_map(|kinds| &kinds[0]).filter_map(name).collect();
    let originals = texts(out, &wanted)?;
    for sample in samples.values_mut().flat_map(|kinds| &mut kinds[0]) {
        let original = name(sample).and_then(|name| originals.get(&name).cloned());
        sample.source = original.unwrap_or_else(|| "(its text is not in the work folder)".to_owned());
    }
    part.figures = vec![fates(&ledger)];
    if distances.iter().any(|bin| bin[0] + bin[1] > 0) {
        part.figures.push(spread(distances, limit(&folder)));
    }
    part.more = html! {
        (counts(&ledger))
        @for (style, kinds) in &samples {
            @for (name, samples) in ["Accepted", "Rejected"].into_iter().zip(kinds) {
                @if !samples.is_empty() {
                    h3 { (style) ": " (name.to_lowercase()) }
                    @for sample in samples { (side_by_side(sample, name)) }
                }
            }
        }
    };
    Ok(part)
}

fn accepted(
    folder: &Path,
    samples: &mut BTreeMap<String, [Vec<Sample>; 2]>,
    distances: &mut [[u64; 2]],
    watch: &Watch,
) -> Result<()> {
    for path in record::accepted_files(folder)?.into_values() {
        for (i, record) in record::accepted(&path)?.enumerate() {
            let record = record?;
            if i % LINES == 0 {
                watch.advance(0)?;
            }
            if let Some(bin) = record.gates.get(VARIANT_RULE).and_then(|value| bin_of(*value)) {
                distances[bin][0] += 1;
            }
            let title = format!("{}/{}", record.source, record.parent);
            let sample = Sample {
                rank: rank(&title, &record.style),
                title,
                why: "all gates passed".to_owned(),
                source: String::new(),
                answer: record.text,
            };
            keep(samples, record.style, 0, sample);
        }
    }
    Ok(())
}

fn rejected(
    folder: &Path,
    samples: &mut BTreeMap<String, [Vec<Sample>; 2]>,
    distances: &mut [[u64; 2]],
    watch: &Watch,
) -> Result<()> {
    let path = folder.join(REJECTED);
    if !path.is_file() {
        return Ok(());
    }
    let file = File::open(&path).map_err(Error::io(&path, "open"))?;
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io(&path, "read"))?;
        let record: Rejected = serde_json::from_str(&line).map_err(|e| {
            let hint = "run `moe-data rephrase validate`, which writes the file again";
            Error::data(&path, format!("line {}: {e}; {hint}", i + 1))
        })?;
        if i % LINES == 0 {
            watch.advance(0)?;
        }
        let refusal = record.refusal;
        if let Some(bin) = bin_of(refusal.value).filter(|_| refusal.rule == VARIANT_RULE) {
            distances[bin][1] += 1;
        }
        let title = format!("{}/{}", record.source, record.parent);
        let sample = Sample {
            rank: rank(&title, &record.style),
            title,
            why: format!(
                "{}: {}, limit {}",
                refusal.rule,
                number::digits(refusal.value),
                number::digits(refusal.limit)
            ),
            source: record.chunk,
            answer: record.answer,
        };
        keep(samples, record.style, 1, sample);
    }
    Ok(())
}

/// Keeps the samples of least rank.
fn keep(samples: &mut BTreeMap<String, [Vec<Sample>; 2]>, style: String, kind: usize, sample: Sample) {
    let kept = &mut samples.entry(style).or_default()[kind];
    kept.push(sample);
    kept.sort_by_key(|sample| sample.rank);
    kept.truncate(N_SAMPLES);
}

fn bin_of(value: f64) -> Option<usize> {
    (0.0..=1.0).contains(&value).then(|| ((value * N_BINS as f64) as usize).min(N_BINS - 1))
}

/// What became of the texts of each style.
fn fates(ledger: &Ledger) -> Figure {
    let mut bars = Vec::new();
    for (name, style) in &ledger.styles {
        let bar = |name: String, n: u64, class| Bar {
            name,
            start: 0.0,
            value: n as f64,
            text: format!("{} ({})", number::count(n), number::percent(n as f64, style.asked as f64)),
            class,
        };
        bars.push(bar(format!("{name}: accepted"), style.accepted, "keep"));
        let mut others: Vec<(&String, &u64)> = style.rejected.iter().chain(&style.poisoned).collect();
        others.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        bars.extend(others.into_iter().map(|(rule, n)| bar(format!("{name}: {rule}"), *n, "drop")));
        if style.waiting > 0 {
            bars.push(bar(format!("{name}: waiting"), style.waiting, "f7"));
        }
    }
    let bars = Bars {
        id: "rephrasings".to_owned(),
        title: "Accepted, and refused by which gate".to_owned(),
        note: "Of the pairs of a document and a style that were asked for; a text counts for the first gate that it missed.".to_owned(),
        unit: "texts".to_owned(),
        bars,
    };
    bars.figure()
}

/// How near texts are to their originals.
fn spread(bins: Vec<[u64; 2]>, limits: Vec<Limit>) -> Figure {
    let histogram = Histogram {
        id: "rephrasing-distance".to_owned(),
        title: "How near rephrasings are to their family".to_owned(),
        note: "Greatest Jaccard index of three-word shingles with the original or an accepted text of it. 1 is a copy.".to_owned(),
        x_label: "Jaccard index".to_owned(),
        unit: "texts".to_owned(),
        range: (0.0, 1.0),
        bins,
        limits,
        is_log: false,
    };
    histogram.figure()
}

/// The limits of the styles, if they can still be read.
fn limit(folder: &Path) -> Vec<Limit> {
    // Imported texts were judged by built-in limits, and a folder of styles may be gone.
    let styles: Vec<Style> =
        Settings::read(folder).and_then(|settings| settings.styles(None)).unwrap_or_default();
    let of_style = |style: &Style| style.gates.limits.get(VARIANT_RULE).copied();
    let mut limits: Vec<f64> = styles.iter().filter_map(of_style).collect();
    if limits.is_empty() {
        limits.push(distance::DEFAULT_LIMIT);
    }
    limits.sort_by(f64::total_cmp);
    limits.dedup();
    limits.into_iter().map(|value| Limit { value, is_least: false }).collect()
}
