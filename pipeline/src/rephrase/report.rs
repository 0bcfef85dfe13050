//! A page for people: accepted and rejected answers side by side with their sources, and measured values next to their
//! limits. A self-contained file that can be sent around.

use std::collections::BTreeMap;

use maud::{Markup, html};
use moe_report::words::changes;
use moe_report::{Histogram, Limit, Page, Section, Table, number};
use moe_shards::terminal::escape;
use xxhash_rust::xxh3::xxh3_64;

use super::assemble::{Fate, Outcome};
use super::gates;
use super::judge::Judged;
use super::record::Ledger;

/// Columns of a histogram.
const BINS: usize = 30;
/// Most words of a text in a sample.
const MAX_WORDS: usize = 400;

/// Start of every page's title.
pub const TITLE: &str = "Rephrasing with";
const GENERATOR: &str = "moe-data rephrase report";

/// Collects what the page shows.
pub struct Report {
    n_samples: usize,
    /// By style: accepted and rejected samples.
    samples: BTreeMap<String, [Vec<Sample>; 2]>,
    /// By style and rule: values, the limit, and whether it is a lower one.
    values: BTreeMap<String, BTreeMap<String, Values>>,
}

/// A text next to the one it was made from.
pub(crate) struct Sample {
    /// Order of samples, by a hash of the document, so that it does not depend on the order of documents.
    pub(crate) rank: u64,
    /// The document.
    pub(crate) title: String,
    /// Why it was accepted or rejected.
    pub(crate) why: String,
    /// What it was made from.
    pub(crate) source: String,
    /// What was made of it.
    pub(crate) answer: String,
}

#[derive(Default)]
struct Values {
    values: Vec<f64>,
    limit: Limit,
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
            values.values.push(value);
            values.limit = Limit { value: verdict.limit, is_least: verdict.is_least };
            values.n_missed += u64::from(!verdict.passes());
        }
        let kept = &mut self.samples.entry(style).or_default()[usize::from(judged.refusal.is_some())];
        kept.push(sample(outcome, judged));
        kept.sort_by_key(|sample| sample.rank);
        kept.truncate(self.n_samples);
    }

    /// The page.
    pub fn html(&self, ledger: &Ledger, model: &str) -> String {
        let mut sections = vec![Section::new("counts", "Counts", counts(ledger))];
        for (i, (style, by_rule)) in self.values.iter().enumerate() {
            let order = gates::rules().map(|rule| rule.name).chain([gates::VARIANT_RULE]);
            let charts = order.filter_map(|rule| Some((rule, by_rule.get(rule)?)));
            let samples =
                self.samples.get(style).map(|samples| ["Accepted", "Rejected"].into_iter().zip(samples));
            let body = html! {
                h3 { "Measured values" }
                div class="grid3" { @for (rule, values) in charts { (chart(&format!("style-{i}-{rule}"), rule, values)) } }
                @for (name, samples) in samples.into_iter().flatten() {
                    h3 { (name) ", " (samples.len()) " samples" }
                    @for sample in samples { (side_by_side(sample, name)) }
                }
            };
            sections.push(Section::new(&format!("style-{i}"), style, body));
        }
        let page = Page {
            title: format!("{TITLE} {model}"),
            subtitle: format!(
                "{} of {} originals were chosen. Limits are marked in the charts; a document counts only when all of its chunks pass.",
                number::count(ledger.documents),
                number::count(ledger.originals)
            ),
            facts: Vec::new(),
            sections,
            generator: GENERATOR.to_owned(),
        };
        page.html()
    }
}

/// Outcomes by style, and the rules that rejected texts.
pub(crate) fn counts(ledger: &Ledger) -> Markup {
    let mut by_style = Table::new([
        "style",
        "asked",
        "accepted",
        "share",
        "rejected",
        "poisoned",
        "waiting",
        "tokens written",
        "of accepted",
    ]);
    let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    for (name, style) in &ledger.styles {
        let rejected = sum(&style.rejected);
        by_style.push([
            name.as_str().into(),
            style.asked.into(),
            style.accepted.into(),
            number::percent(style.accepted as f64, (style.accepted + rejected) as f64).into(),
            rejected.into(),
            sum(&style.poisoned).into(),
            style.waiting.into(),
            style.completion_tokens.into(),
            style.accepted_tokens.into(),
        ]);
    }
    let mut rules: Vec<&str> =
        ledger.styles.values().flat_map(|style| style.rejected.keys()).map(String::as_str).collect();
    rules.sort_unstable();
    rules.dedup();
    let columns = std::iter::once("rule".to_owned()).chain(ledger.styles.keys().cloned()).collect();
    let rows = rules.iter().map(|rule| {
        let counts =
            ledger.styles.values().map(|style| style.rejected.get(*rule).copied().unwrap_or(0).into());
        std::iter::once((*rule).into()).chain(counts).collect()
    });
    let refused = Table { columns, rows: rows.collect() };
    html! {
        (by_style.html())
        h3 { "Rejected, by the first rule that was missed" }
        (refused.html())
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
        rank: rank(&title, outcome.style.name()),
        title: format!("{title}{place}"),
        why,
        source: chunk.map(|chunk| chunk.source.clone()).unwrap_or_default(),
        answer: chunk.map(|chunk| chunk.answer.clone()).unwrap_or_default(),
    }
}

/// The order of samples, by a hash of document and style.
pub(crate) fn rank(title: &str, style: &str) -> u64 {
    xxh3_64(format!("{title}\0{style}").as_bytes())
}

/// Distribution of a rule's values, with its limit.
fn chart(id: &str, rule: &str, values: &Values) -> Markup {
    let mut histogram = Histogram::of(&values.values, std::slice::from_ref(&values.limit), BINS);
    histogram.id = id.replace('_', "-");
    histogram.title = rule.to_owned();
    histogram.note = format!(
        "{} of {} miss it.",
        number::count(values.n_missed),
        number::count(values.values.len() as u64)
    );
    histogram.x_label = "value".to_owned();
    histogram.unit = "texts".to_owned();
    histogram.figure().html()
}

fn words(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// Source and answer with the words unique to either marked.
pub(crate) fn side_by_side(sample: &Sample, kind: &str) -> Markup {
    let source: Vec<&str> = sample.source.split_inclusive(char::is_whitespace).take(MAX_WORDS).collect();
    let answer: Vec<&str> = sample.answer.split_inclusive(char::is_whitespace).take(MAX_WORDS).collect();
    let plain = |words: &[&str]| words.iter().map(|word| word.trim_end().to_lowercase()).collect::<Vec<_>>();
    let (old, new) = (plain(&source), plain(&answer));
    let parts: Vec<(bool, String, String)> = (changes(&words(&old), &words(&new)).into_iter())
        .map(|change| {
            let visible = |words: &[&str]| escape(&words.concat()).into_owned();
            (change.is_equal, visible(&source[change.old]), visible(&answer[change.new]))
        })
        .collect();
    html! {
        article class=(kind.to_lowercase()) {
            h4 { (escape(&sample.title)) " " small { (sample.why) } }
            div class="sides" {
                p { @for (is_equal, old, _) in &parts { @if *is_equal { (old) } @else if !old.is_empty() { del { (old) } } } }
                p { @for (is_equal, _, new) in &parts { @if *is_equal { (new) } @else if !new.is_empty() { ins { (new) } } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_the_page() {
        let sample = Sample {
            rank: 0,
            title: "a<b".into(),
            why: "\"x\"".into(),
            source: "one <script> two".into(),
            answer: "one & two".into(),
        };
        let page = side_by_side(&sample, "Accepted").into_string();
        assert!(!page.contains("<script>") && page.contains("a&lt;b"), "{page}");
        assert!(page.contains("<del>&lt;script&gt; </del>") && page.contains("<ins>&amp; </ins>"), "{page}");
    }

    #[test]
    fn charts_show_the_limit_between_the_values() {
        let limit = |value, is_least| Limit { value, is_least };
        let values = Values { values: vec![0.0, 1.0], limit: limit(0.5, true), n_missed: 1 };
        let page = chart("a", "names_kept", &values).into_string();
        assert!(page.contains("at least 0.5") && page.contains("1 of 2 miss it"), "{page}");
        // Equal values and limit: no division by zero.
        let values = Values { values: vec![1.0], limit: limit(1.0, false), n_missed: 0 };
        let page = chart("a", "x", &values).into_string();
        assert!(!page.contains("NaN"), "{page}");
    }
}
