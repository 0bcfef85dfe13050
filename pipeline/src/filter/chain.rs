//! The rules of a source, one after another: [`Chain::measure`] fills a row of values for a document,
//! [`Chain::judge`] compares such a row with the limits.
//!
//! A rule sees the text left by earlier rewriting rules. A row has for each rule its values, and
//! for a rule that cuts also the bytes taken out by each method and the bytes of text that it left.

use moe_shards::Hash;
use serde::{Deserialize, Serialize};

use super::entry::{self, FilterConfig, Settings};
use super::{Action, Limit, Measured, Reason, Rejection, Rewriting, Rule, Scratch, Text};
use crate::document::Metadata;

/// Reason for documents in which a rewriting rule leaves only white space.
pub const NOTHING_LEFT: &str = "nothing_left";

/// The part of a recipe's entry that decides what is measured, without thresholds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measuring {
    /// Name in the registry.
    pub name: String,
    /// Its settings without thresholds, with files' paths on this machine.
    pub settings: Settings,
    /// Digests of these files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Hash>,
    /// Whether the text is rewritten.
    pub cuts: bool,
}

/// The rules of a source.
pub struct Chain {
    steps: Vec<Step>,
}

struct Step {
    name: String,
    rule: Rule,
    action: Action,
    tag: Option<String>,
    limits: Vec<Limit>,
    /// Names of the columns of taken bytes; `None` for a rule that does not cut.
    methods: Option<Vec<Reason>>,
    /// Number of the rule's methods, even if it does not cut.
    n_methods: usize,
}

/// What becomes of a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Why it is dropped.
    pub dropped: Option<Rejection>,
    /// Tags it gets if it stays, in the order of the rules.
    pub tags: Vec<String>,
    /// Bytes as read that were taken out, by method, in the order of all rules.
    pub cut: Vec<(Reason, u64)>,
}

/// A rule with all its measurements of a document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Looked {
    /// Name of the rule.
    pub filter: String,
    /// The recipe's action on its findings.
    pub action: Action,
    /// Its values.
    pub rules: Vec<Measured>,
    /// Bytes that it took out, as read, by method, if any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<(Reason, u64)>,
}

/// Working memory of [`Chain::measure`], with the results of the last document.
#[derive(Default)]
pub struct Workspace {
    scratch: Scratch,
    rewriting: Rewriting,
    values: Vec<f64>,
    text: String,
    is_changed: bool,
    left_bytes: u32,
    language: Option<String>,
}

impl Workspace {
    /// The row of values.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The remaining text, if it changed.
    pub fn rewritten(&self) -> Option<&str> {
        self.is_changed.then_some(self.text.as_str())
    }

    /// The language found by a rule.
    pub fn language(&self) -> Option<&str> {
        self.language.as_deref()
    }

    /// Remaining bytes of the text, as read.
    pub fn left_bytes(&self) -> u32 {
        self.left_bytes
    }
}

impl Measuring {
    /// The part of an entry that decides what is measured.
    pub fn of(config: &FilterConfig) -> Measuring {
        let thresholds = entry::find(&config.name).map_or(&[][..], |entry| entry.thresholds);
        let mut settings = config.with_paths();
        settings.retain(|key, _| !thresholds.contains(&key.as_str()));
        let files = config.files.iter().map(|file| file.blake3).collect();
        Measuring { name: config.name.clone(), settings, files, cuts: config.action == Action::Cut }
    }
}

/// A rule with its values and its columns of taken bytes.
type Columns<'a> = (&'a Step, &'a [f64], &'a [f64]);

impl Chain {
    /// The rules of a recipe's entries.
    ///
    /// # Errors
    /// An unknown name or settings of the wrong type; a decoded recipe has neither.
    pub fn new<'c>(configs: impl IntoIterator<Item = &'c FilterConfig>) -> Result<Chain, String> {
        let steps = configs
            .into_iter()
            .map(|config| Step::new(&config.name, &config.with_paths(), config.action, config.tag.clone()));
        Ok(Chain { steps: steps.collect::<Result<_, String>>()? })
    }

    /// The same rules for measuring only: they measure what the rules of [`Chain::new`] judge.
    ///
    /// # Errors
    /// As [`Chain::new`].
    pub fn measuring(rules: &[Measuring]) -> Result<Chain, String> {
        let steps = rules.iter().map(|rule| {
            let action = if rule.cuts { Action::Cut } else { Action::Drop };
            Step::new(&rule.name, &rule.settings, action, None)
        });
        Ok(Chain { steps: steps.collect::<Result<_, String>>()? })
    }

    /// The limits of each rule, and the names of its methods.
    pub fn limits(&self) -> impl Iterator<Item = (&[Limit], &[Reason])> {
        self.steps.iter().map(|step| (&step.limits[..], step.methods.as_deref().unwrap_or_default()))
    }

    /// Values in a row.
    pub fn n_columns(&self) -> usize {
        self.steps.iter().map(Step::n_columns).sum()
    }

    /// Position in a row of the value with this reason, of the first rule that has one.
    pub fn column(&self, reason: &str) -> Option<usize> {
        let mut before = 0;
        for step in &self.steps {
            if let Some(at) = step.limits.iter().position(|limit| limit.reason == reason) {
                return Some(before + at);
            }
            before += step.n_columns();
        }
        None
    }

    /// Whether a rule may change documents.
    pub fn rewrites(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.rule, Rule::Rewrite(_)))
    }

    /// Measures a document of `raw_bytes` bytes as read into `work`.
    ///
    /// # Errors
    /// A rule breaks its contract, which is a bug: the numbers of values and limits differ, or
    /// bytes neither kept nor taken.
    pub fn measure(
        &self,
        text: &str,
        metadata: Metadata<'_>,
        raw_bytes: u32,
        work: &mut Workspace,
    ) -> Result<(), String> {
        let Workspace { scratch, rewriting, values, text: rewritten, is_changed, left_bytes, language } =
            work;
        values.clear();
        (*is_changed, *left_bytes, *language) = (false, raw_bytes, None);
        let mut steps = self.steps.iter();
        loop {
            let current = if *is_changed { rewritten.as_str() } else { text };
            let metadata = Metadata { language: language.as_deref().or(metadata.language), ..metadata };
            let seen = scratch.text(current, metadata);
            let (mut changes, mut found) = (false, None);
            for step in steps.by_ref() {
                step.measure(&seen, values, rewriting)?;
                if step.methods.is_some() {
                    step.account(current, values, rewriting, left_bytes)?;
                    changes = rewriting.text() != current;
                }
                found = rewriting.take_language();
                if changes || found.is_some() {
                    break;
                }
            }
            drop(seen);
            // Later rules see the result of this one.
            if changes {
                rewriting.swap(rewritten);
                *is_changed = true;
            }
            match found {
                Some(found) => *language = Some(found),
                None if !changes => return Ok(()),
                None => {}
            }
        }
    }

    /// Compares a row with the limits: the first missed limit decides, rule by rule.
    ///
    /// # Errors
    /// The row does not come from these rules.
    pub fn judge(&self, row: &[f64]) -> Result<Verdict, String> {
        let columns = self.columns(row)?;
        let mut verdict = Verdict::default();
        for (step, _, cut) in &columns {
            verdict.cut.extend(step.cut(cut));
        }
        for (step, values, cut) in columns {
            let missed = step.limits.iter().zip(values).find_map(|(limit, v)| limit.measured(*v).rejection());
            match (missed, step.action) {
                (Some(missed), Action::Tag) => {
                    let tag = step.tag.clone().unwrap_or_else(|| missed.reason.to_string());
                    if !verdict.tags.contains(&tag) {
                        verdict.tags.push(tag);
                    }
                }
                (missed, _) => verdict.dropped = missed.or_else(|| step.nothing_left(cut)),
            }
            if verdict.dropped.is_some() {
                break;
            }
        }
        Ok(verdict)
    }

    /// The row for people: all rules, even those after the one that drops the document.
    ///
    /// # Errors
    /// As [`Chain::judge`].
    pub fn explain(&self, row: &[f64]) -> Result<Vec<Looked>, String> {
        let looked = self.columns(row)?.into_iter().map(|(step, values, cut)| {
            let measured = step.limits.iter().zip(values).map(|(limit, value)| limit.measured(*value));
            Looked {
                filter: step.name.clone(),
                action: step.action,
                rules: measured.collect(),
                cut: step.cut(cut).collect(),
            }
        });
        Ok(looked.collect())
    }

    /// The values and the columns of taken bytes of each rule.
    fn columns<'a>(&'a self, row: &'a [f64]) -> Result<Vec<Columns<'a>>, String> {
        let mut rest = row;
        let mut columns = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let split = rest.split_at_checked(step.n_columns());
            let (own, behind) = split.ok_or_else(|| self.other_row(row))?;
            let (values, cut) = own.split_at(step.limits.len());
            columns.push((step, values, cut));
            rest = behind;
        }
        if rest.is_empty() { Ok(columns) } else { Err(self.other_row(row)) }
    }

    fn other_row(&self, row: &[f64]) -> String {
        format!("a row has {} values; these filters measure {}", row.len(), self.n_columns())
    }
}

impl Step {
    fn new(name: &str, settings: &Settings, action: Action, tag: Option<String>) -> Result<Step, String> {
        Ok(Step::of(name, (entry::find(name)?.build)(settings)?, action, tag))
    }

    fn of(name: &str, rule: Rule, action: Action, tag: Option<String>) -> Step {
        let (limits, methods) = match &rule {
            Rule::Filter(rule) => (rule.limits(), Vec::new()),
            Rule::Rewrite(rule) => (rule.limits(action), rule.methods()),
        };
        let n_methods = methods.len();
        let cuts = action == Action::Cut && matches!(rule, Rule::Rewrite(_));
        Step { name: name.to_owned(), rule, action, tag, limits, methods: cuts.then_some(methods), n_methods }
    }

    fn n_columns(&self) -> usize {
        self.limits.len() + self.methods.as_ref().map_or(0, |methods| methods.len() + 1)
    }

    fn measure(
        &self,
        text: &Text<'_>,
        values: &mut Vec<f64>,
        rewriting: &mut Rewriting,
    ) -> Result<(), String> {
        let before = values.len();
        match &self.rule {
            Rule::Filter(rule) => rule.measure(text, values),
            Rule::Rewrite(rule) => {
                rewriting.start(self.n_methods);
                rule.rewrite(text, rewriting);
                values.extend_from_slice(rewriting.values());
            }
        }
        let (name, n_values, n_limits) = (&self.name, values.len() - before, self.limits.len());
        match n_values == n_limits {
            true => Ok(()),
            false => Err(format!(
                "the rule `{name}` measured {n_values} values for {n_limits} limits; this is a bug"
            )),
        }
    }

    /// Appends the bytes as read that each method took out, and the bytes of text that are left.
    fn account(
        &self,
        text: &str,
        values: &mut Vec<f64>,
        rewriting: &Rewriting,
        left_bytes: &mut u32,
    ) -> Result<(), String> {
        let taken = rewriting.taken(text.len()).ok_or_else(|| {
            format!("the rule `{}` kept and took out other bytes than it was given; this is a bug", self.name)
        })?;
        // The share of the bytes as read is rounded down over all methods, so that their sum is exact.
        let (raw, n_bytes) = (u64::from(*left_bytes), text.len().max(1) as u64);
        let (mut sum, mut booked) = (0, 0);
        for taken in taken {
            sum += taken;
            let share = raw * sum / n_bytes;
            values.push((share - booked) as f64);
            booked = share;
        }
        *left_bytes -= booked as u32;
        values.push(rewriting.text().trim().len() as f64);
        Ok(())
    }

    /// The bytes that were taken out, by method, without zeros.
    fn cut<'a>(&'a self, columns: &'a [f64]) -> impl Iterator<Item = (Reason, u64)> + 'a {
        let methods = self.methods.iter().flatten();
        methods
            .zip(columns)
            .filter(|(_, bytes)| **bytes > 0.0)
            .map(|(name, bytes)| (name.clone(), *bytes as u64))
    }

    /// Why a document left without text by the rule is dropped.
    fn nothing_left(&self, columns: &[f64]) -> Option<Rejection> {
        let left = columns.last()?;
        let limit = Limit::least(NOTHING_LEFT, 1.0);
        self.methods.as_ref().and_then(|_| limit.measured(*left).rejection())
    }
}

#[cfg(test)]
mod tests;
