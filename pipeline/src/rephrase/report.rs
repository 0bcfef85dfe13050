//! A page for people: what passed and what did not, side by side with its source, and how the measured values lie to their
//! limits. One file that needs nothing else, so that it can be sent around.

use std::collections::BTreeMap;
use std::fmt::Write;

use similar::{Algorithm, DiffTag, capture_diff_slices};
use xxhash_rust::xxh3::xxh3_64;

use super::assemble::{Fate, Outcome};
use super::gates;
use super::judge::Judged;
use super::record::Ledger;

/// Columns of a histogram.
const BINS: usize = 30;
/// Words of a text beyond which a sample is cut.
const MAX_WORDS: usize = 400;

/// How the title of every page starts.
pub const TITLE: &str = "Rephrasing with";
const STYLE: &str = include_str!("report.css");

/// Collects what the page shows.
pub struct Report {
    n_samples: usize,
    /// By style: accepted and rejected samples.
    samples: BTreeMap<String, [Vec<Sample>; 2]>,
    /// By style and rule: values, the limit, whether it is the least.
    values: BTreeMap<String, BTreeMap<String, Values>>,
}

struct Sample {
    /// Ties and order: a hash of the document, so that samples do not depend on the order of documents.
    rank: u64,
    title: String,
    why: String,
    source: String,
    answer: String,
}

#[derive(Default)]
struct Values {
    values: Vec<f32>,
    limit: f64,
    is_least: bool,
    n_missed: u64,
}

impl Report {
    /// An empty report that keeps this many samples of each style and kind.
    pub fn new(n_samples: usize) -> Report {
        Report { n_samples, samples: BTreeMap::new(), values: BTreeMap::new() }
    }

    /// Takes a pair in.
    pub fn see(&mut self, outcome: &Outcome<'_>) {
        let Fate::Judged(judged) = &outcome.fate else { return };
        let style = outcome.style.name().to_owned();
        let by_rule = self.values.entry(style.clone()).or_default();
        for verdict in judged.chunks.iter().flat_map(|chunk| &chunk.verdicts).chain(&judged.whole) {
            let Some(value) = verdict.value else { continue };
            let values = by_rule.entry(verdict.rule.clone()).or_default();
            values.values.push(value as f32);
            (values.limit, values.is_least) = (verdict.limit, verdict.is_least);
            values.n_missed += u64::from(!verdict.passes());
        }
        let kept = &mut self.samples.entry(style).or_default()[usize::from(judged.refusal.is_some())];
        kept.push(sample(outcome, judged));
        kept.sort_by_key(|sample| sample.rank);
        kept.truncate(self.n_samples);
    }

    /// The page.
    pub fn html(&self, ledger: &Ledger, model: &str) -> String {
        let mut page = String::new();
        let title = format!("{TITLE} {model}");
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n<style>\n{STYLE}</style></head>\n<body>\n<h1>{0}</h1>\n",
            escape(&title)
        );
        self.counts(ledger, &mut page);
        for (style, by_rule) in &self.values {
            let _ = write!(
                page,
                "<h2 id=\"{0}\">{0}</h2>\n<h3>Measured values</h3>\n<div class=\"charts\">\n",
                escape(style)
            );
            let order: Vec<&str> =
                gates::rules().map(|rule| rule.name).chain([gates::VARIANT_RULE]).collect();
            for rule in order {
                if let Some(values) = by_rule.get(rule) {
                    chart(rule, values, &mut page);
                }
            }
            page.push_str("</div>\n");
            let Some(samples) = self.samples.get(style) else { continue };
            for (name, samples) in ["Accepted", "Rejected"].iter().zip(samples) {
                let _ = writeln!(page, "<h3>{name}, {} samples</h3>", samples.len());
                samples.iter().for_each(|sample| side_by_side(sample, name, &mut page));
            }
        }
        page.push_str("</body></html>\n");
        page
    }

    fn counts(&self, ledger: &Ledger, page: &mut String) {
        let _ = writeln!(
            page,
            "<p>{} of {} originals were chosen. Limits are marked in the charts; a document counts only when all of its chunks pass.</p>",
            ledger.documents, ledger.originals
        );
        page.push_str("<table><tr><th>style</th><th>asked</th><th>accepted</th><th>share</th><th>rejected</th><th>poisoned</th><th>waiting</th><th>tokens written</th><th>of accepted</th></tr>\n");
        for (name, style) in &ledger.styles {
            let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
            let rejected = sum(&style.rejected);
            let share = 100.0 * style.accepted as f64 / (style.accepted + rejected).max(1) as f64;
            let _ = writeln!(
                page,
                "<tr><td><a href=\"#{0}\">{0}</a></td><td>{1}</td><td>{2}</td><td>{share:.0} %</td><td>{rejected}</td><td>{3}</td><td>{4}</td><td>{5}</td><td>{6}</td></tr>",
                escape(name),
                style.asked,
                style.accepted,
                sum(&style.poisoned),
                style.waiting,
                style.completion_tokens,
                style.accepted_tokens
            );
        }
        page.push_str(
            "</table>\n<h2>Rejected, by the first rule that was missed</h2>\n<table><tr><th>rule</th>",
        );
        for name in ledger.styles.keys() {
            let _ = write!(page, "<th>{}</th>", escape(name));
        }
        page.push_str("</tr>\n");
        let mut rules: Vec<&str> =
            ledger.styles.values().flat_map(|style| style.rejected.keys()).map(String::as_str).collect();
        rules.sort_unstable();
        rules.dedup();
        for rule in rules {
            let _ = write!(page, "<tr><td>{}</td>", escape(rule));
            for style in ledger.styles.values() {
                let _ = write!(page, "<td>{}</td>", style.rejected.get(rule).copied().unwrap_or(0));
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</table>\n");
    }
}

fn sample(outcome: &Outcome<'_>, judged: &Judged) -> Sample {
    let parent = &outcome.parent;
    let title = format!("{}/{}", parent.source, parent.id);
    let (why, chunk) = match &judged.refusal {
        Some(refusal) => {
            let why = format!("{}: {:.4}, limit {:.4}", refusal.rule, refusal.value, refusal.limit);
            (why, judged.chunks.get(refusal.chunk))
        }
        None => ("all gates passed".to_owned(), judged.chunks.first()),
    };
    let place = match (&judged.refusal, judged.chunks.len()) {
        (_, 0 | 1) => String::new(),
        (Some(refusal), n) => format!(", chunk {} of {n}", refusal.chunk + 1),
        (None, n) => format!(", chunk 1 of {n}"),
    };
    Sample {
        rank: xxh3_64(format!("{}\0{}", title, outcome.style.name()).as_bytes()),
        title: format!("{title}{place}"),
        why,
        source: chunk.map(|chunk| chunk.source.clone()).unwrap_or_default(),
        answer: chunk.map(|chunk| chunk.answer.clone()).unwrap_or_default(),
    }
}

/// A histogram as SVG: values from the least to the greatest, the limit as a line, what misses it in another colour.
fn chart(rule: &str, values: &Values, page: &mut String) {
    let finite = values.values.iter().copied();
    let low = finite.clone().fold(f64::INFINITY, |low, x| low.min(f64::from(x))).min(values.limit);
    let high = finite.fold(f64::NEG_INFINITY, |high, x| high.max(f64::from(x))).max(values.limit);
    let width = if high > low { high - low } else { 1.0 };
    let bin_of = |x: f64| (((x - low) / width * BINS as f64) as usize).min(BINS - 1);
    let mut bins = [[0u32; 2]; BINS];
    for &value in &values.values {
        let value = f64::from(value);
        let misses = if values.is_least { value < values.limit } else { value > values.limit };
        bins[bin_of(value)][usize::from(misses)] += 1;
    }
    let most = bins.iter().map(|bin| bin[0] + bin[1]).max().unwrap_or(0).max(1);
    let side = if values.is_least { "at least" } else { "at most" };
    let _ = write!(
        page,
        "<figure><figcaption><b>{}</b> {side} {} &middot; {} of {} miss it</figcaption><svg viewBox=\"0 0 300 80\" role=\"img\">",
        escape(rule),
        values.limit,
        values.n_missed,
        values.values.len()
    );
    for (i, [passes, misses]) in bins.iter().enumerate() {
        let height = |n: u32| f64::from(n) / f64::from(most) * 60.0;
        let (a, b) = (height(*passes), height(*misses));
        let x = i * 10;
        let _ = write!(
            page,
            "<rect class=\"pass\" x=\"{x}\" y=\"{:.1}\" width=\"9\" height=\"{a:.1}\"/><rect class=\"miss\" x=\"{x}\" y=\"{:.1}\" width=\"9\" height=\"{b:.1}\"/>",
            62.0 - a,
            62.0 - a - b
        );
    }
    let at = (values.limit - low) / width * 300.0;
    let _ = writeln!(
        page,
        "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"64\"/><text x=\"0\" y=\"76\">{low:.3}</text><text x=\"300\" y=\"76\" text-anchor=\"end\">{high:.3}</text></svg></figure>"
    );
}

/// Source and answer with the words that only one of them has marked.
fn side_by_side(sample: &Sample, kind: &str, page: &mut String) {
    let source: Vec<&str> = sample.source.split_inclusive(char::is_whitespace).take(MAX_WORDS).collect();
    let answer: Vec<&str> = sample.answer.split_inclusive(char::is_whitespace).take(MAX_WORDS).collect();
    let plain = |words: &[&str]| words.iter().map(|word| word.trim_end().to_lowercase()).collect::<Vec<_>>();
    let (mut left, mut right) = (String::new(), String::new());
    for change in capture_diff_slices(Algorithm::Myers, &plain(&source), &plain(&answer)) {
        let (tag, old, new) = change.as_tag_tuple();
        let (old, new) = (escape(&source[old].concat()), escape(&answer[new].concat()));
        match tag {
            DiffTag::Equal => {
                left.push_str(&old);
                right.push_str(&new);
            }
            _ => {
                let _ = write!(left, "<del>{old}</del>");
                let _ = write!(right, "<ins>{new}</ins>");
            }
        }
    }
    let _ = writeln!(
        page,
        "<article class=\"{}\"><h4>{} <small>{}</small></h4><div><p>{left}</p><p>{right}</p></div></article>",
        kind.to_lowercase(),
        escape(&sample.title),
        escape(&sample.why)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_the_page() {
        let mut page = String::new();
        let sample = Sample {
            rank: 0,
            title: "a<b".into(),
            why: "\"x\"".into(),
            source: "one <script> two".into(),
            answer: "one & two".into(),
        };
        side_by_side(&sample, "Accepted", &mut page);
        assert!(!page.contains("<script>") && page.contains("a&lt;b"), "{page}");
        assert!(page.contains("<del>&lt;script&gt; </del>") && page.contains("<ins>&amp; </ins>"), "{page}");
    }

    #[test]
    fn charts_show_the_limit_between_the_values() {
        let mut page = String::new();
        let values = Values { values: vec![0.0, 1.0], limit: 0.5, is_least: true, n_missed: 1 };
        chart("names_kept", &values, &mut page);
        assert!(page.contains("x1=\"150.0\"") && page.contains("1 of 2 miss it"), "{page}");
        // Equal values and limit: no division by zero.
        chart("x", &Values { values: vec![1.0], limit: 1.0, is_least: true, n_missed: 0 }, &mut page);
        assert!(!page.contains("NaN"), "{page}");
    }
}
