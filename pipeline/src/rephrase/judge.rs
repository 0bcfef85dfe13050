//! From answers to a verdict on a document: a pure function of the source, the answers and the limits.

use serde::{Deserialize, Serialize};

use super::chunk;
use super::distance::Views;
use super::gates::{self, Pair, VARIANT_RULE, Verdict};
use super::job::{Answer, Job};
use super::prompt;
use super::style::Style;

/// Why a rephrased document is rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The rule that it missed first.
    pub rule: String,
    /// What was measured.
    pub value: f64,
    /// The limit.
    pub limit: f64,
    /// Its chunk, from 0.
    pub chunk: usize,
}

/// A rephrased document with its measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// All answers joined, without sentinels.
    pub text: String,
    /// For each chunk, its source, answer and measurements.
    pub chunks: Vec<JudgedChunk>,
    /// Measurements of the whole.
    pub whole: Vec<Verdict>,
    /// Why it is rejected, if it is.
    pub refusal: Option<Refusal>,
}

/// A chunk with its measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedChunk {
    /// The text that was to be rephrased.
    pub source: String,
    /// The answer without its sentinel.
    pub answer: String,
    /// In the order of the registry.
    pub verdicts: Vec<Verdict>,
}

/// Bytes of an answer to measure: at least this many ...
const MEASURED_BYTES: usize = 64 << 10;
/// ... and this many times its source. Longer answers are not finished.
const MEASURED_TIMES: usize = 8;

/// Judges the answers of a job. It is accepted only if every chunk passes every gate.
pub fn judge(job: &Job<'_>, answers: &[Answer]) -> Judged {
    let style = job.style;
    let mut chunks = Vec::with_capacity(answers.len());
    let mut bare = Vec::with_capacity(answers.len());
    let mut refusal = None;
    for (number, (piece, answer)) in job.chunks.iter().zip(answers).enumerate() {
        let source = &job.parent.text[piece.body.clone()];
        let (text, has_sentinel) = prompt::strip(&answer.completion.text, &style.style.sentinel);
        // Far beyond any length limit, more text costs time without changing a verdict.
        let measured = &text[..text.floor_char_boundary(MEASURED_BYTES.max(MEASURED_TIMES * source.len()))];
        let is_whole = measured.len() == text.len();
        let finish_reason = if is_whole { &answer.completion.finish_reason } else { moe_llm::TOO_LONG };
        let pair = Pair::new(source, measured)
            .with_finish(finish_reason, has_sentinel)
            .with_order(style.style.in_order)
            .with_aliases(&style.aliases);
        let verdicts = gates::judge(&pair, &style.gates);
        refusal = refusal.or_else(|| first_refusal(&verdicts, number));
        bare.push(text.to_owned());
        chunks.push(JudgedChunk { source: source.to_owned(), answer: text.to_owned(), verdicts });
    }
    let text = chunk::join(&job.parent.text, &job.chunks, &bare);
    Judged { text, chunks, whole: Vec::new(), refusal }
}

/// Compares a variant that passed so far with the texts of its family; a variant that passes becomes one of them.
pub fn compare(judged: &mut Judged, style: &Style, views: &mut Views) {
    if judged.refusal.is_some() || style.gates.off.contains(VARIANT_RULE) {
        return;
    }
    let limit = style.gates.limits.get(VARIANT_RULE).copied().unwrap_or(super::distance::DEFAULT_LIMIT);
    let value = (views.nearest(&judged.text) * 1e6).round() / 1e6;
    judged.whole =
        vec![Verdict { rule: VARIANT_RULE.to_owned(), value: Some(value), limit, is_least: false }];
    judged.refusal = first_refusal(&judged.whole, 0);
    if judged.refusal.is_none() {
        views.add(&judged.text);
    }
}

fn first_refusal(verdicts: &[Verdict], chunk: usize) -> Option<Refusal> {
    let verdict = verdicts.iter().find(|verdict| !verdict.passes())?;
    let (rule, limit) = (verdict.rule.clone(), verdict.limit);
    Some(Refusal { rule, value: verdict.value.unwrap_or_default(), limit, chunk })
}

impl Judged {
    /// The worst value of each rule over all chunks.
    pub fn worst(&self) -> std::collections::BTreeMap<String, f64> {
        let mut worst = std::collections::BTreeMap::new();
        for verdict in self.chunks.iter().flat_map(|chunk| &chunk.verdicts).chain(&self.whole) {
            let Some(value) = verdict.value else { continue };
            let known = worst.entry(verdict.rule.clone()).or_insert(value);
            *known = if verdict.is_least { known.min(value) } else { known.max(value) };
        }
        worst
    }
}
