//! Tasks: files of questions, and how well a model answers them by likelihood. `docs/evaluation.md` defines
//! every number.
//!
//! ```text
//! definition (TOML) + records (JSONL) -> question -> encode -> score (forward passes) -> metrics
//!                                                 -> overlap (with training data)
//! ```

pub mod definition;
pub mod encode;
pub mod metrics;
pub mod overlap;
pub mod question;
pub mod records;
pub mod score;
pub mod template;

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::model::Model;
use definition::{Kind, Source};
use encode::{Encoder, Request};
use metrics::{Outcome, Size, Summary, by_group, summary};
use question::{Changes, Question, Questions};
use score::{Reading, Score, score};

/// Tasks as tokens, for repeated evaluation.
#[derive(Debug)]
pub struct Suite {
    /// The tasks.
    pub tasks: Vec<Task>,
    longest: usize,
}

/// A task as tokens.
#[derive(Debug)]
pub struct Task {
    /// Its questions.
    pub questions: Questions,
    /// One for each answer of each question.
    requests: Vec<Request>,
}

/// The results of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// Its name.
    pub name: String,
    /// The kind of question.
    pub kind: Kind,
    /// Examples before each question.
    pub n_shots: usize,
    /// The numbers of all questions.
    pub all: Summary,
    /// The numbers of each group.
    pub groups: BTreeMap<String, Summary>,
    /// The result of each question.
    pub outcomes: Vec<Outcome>,
}

/// The tokenizer of a model, and how much it reads.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// Contents of the tokenizer's file.
    pub tokenizer: &'a [u8],
    /// The end-of-document token.
    pub eod: u32,
    /// Maximum tokens that it reads.
    pub longest: usize,
    /// For messages: the flag or the key that names the tasks.
    pub asked_by: &'a str,
}

impl Suite {
    /// Reads tasks, each `FILE.toml` or `NAME=FILE`.
    ///
    /// # Errors
    /// When a definition is wrong, a file cannot be read, or a record does not fit; and when two tasks have
    /// the same name.
    pub fn open(specs: &[String], changes: Changes, reader: Reader) -> Result<Self> {
        let encoder = Encoder::new(reader.tokenizer, reader.eod)?;
        let mut tasks: Vec<Task> = Vec::with_capacity(specs.len());
        for spec in specs {
            let asked_by = reader.asked_by;
            let questions = Source::find(spec).and_then(|source| Questions::read(&source, changes));
            let questions = questions.map_err(|error| match error {
                Error::Usage(problem) => Error::Usage(format!("{asked_by}: {problem}")),
                Error::Data(problem) => Error::Data(format!("{asked_by}: {problem}")),
                other => other,
            })?;
            if tasks.iter().any(|task| task.questions.name == questions.name) {
                return Err(Error::Usage(format!(
                    "{asked_by}: {spec}: another task is called {:?}; give one file for all data (a pattern in quotes: NAME='*.jsonl'), \
                     or a definition of your own with another `name`",
                    questions.name
                )));
            }
            tasks.push(Task::new(questions, &encoder)?);
        }
        Ok(Self { tasks, longest: reader.longest })
    }

    /// Evaluates all tasks with a model, in forward passes of about `pass_tokens` tokens; with 1, every
    /// question separately.
    ///
    /// # Errors
    /// When the device failed, or a likelihood is NaN.
    pub fn run(&self, model: &Model, pass_tokens: usize) -> Result<Vec<TaskResult>> {
        self.tasks.iter().map(|task| task.run(model, self.longest, pass_tokens)).collect()
    }
}

impl Task {
    fn new(questions: Questions, encoder: &Encoder) -> Result<Self> {
        let of_question = |question: &Question| -> Result<Vec<Request>> {
            let request = |answer: &String| {
                let request = match questions.kind {
                    Kind::Perplexity => encoder.text(answer),
                    _ => encoder.request(&question.context, &format!("{}{answer}", questions.delimiter)),
                };
                request.map_err(|problem| records::at(&question.place.0, question.place.1, &problem))
            };
            question.answers.iter().map(request).collect()
        };
        let requests: Vec<Vec<Request>> = questions.all.par_iter().map(of_question).collect::<Result<_>>()?;
        Ok(Self { requests: requests.concat(), questions })
    }

    fn run(&self, model: &Model, longest: usize, pass_tokens: usize) -> Result<TaskResult> {
        let Questions { name, kind, n_shots, all, .. } = &self.questions;
        let scores =
            score(model, &self.requests, Reading { longest, pass_tokens, ranks: *kind == Kind::Cloze })?;
        let mut rest = scores.as_slice();
        let mut outcomes = Vec::with_capacity(all.len());
        for question in all {
            let (own, others) = rest.split_at(question.answers.len());
            rest = others;
            outcomes.push(outcome(question, own).map_err(|problem| {
                let (path, line) = &question.place;
                Error::Diverged(format!("{name}, question of {}, line {line}: {problem}", path.display()))
            })?);
        }
        Ok(TaskResult {
            name: name.clone(),
            kind: *kind,
            n_shots: *n_shots,
            all: summary(*kind, &outcomes),
            groups: by_group(*kind, &outcomes),
            outcomes,
        })
    }
}

/// The result of a question whose answers have these scores.
fn outcome(question: &Question, scores: &[Score]) -> Result<Outcome, String> {
    if let Some(score) = scores.iter().find(|score| !score.log_likelihood.is_finite()) {
        return Err(format!(
            "the likelihood of an answer is {}: the model's weights are no longer numbers, or are far too large",
            score.log_likelihood
        ));
    }
    Ok(Outcome {
        log_likelihoods: scores.iter().map(|score| score.log_likelihood).collect(),
        sizes: question.answers.iter().map(|answer| Size::of(answer)).collect(),
        right: question.right,
        is_greedy: scores[question.right].n_missed == 0,
        group: question.group.clone(),
    })
}

impl Summary {
    /// A JSON object: `questions`, and each number with its standard error.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("questions".into(), self.n.into());
        for metric in &self.metrics {
            map.insert(metric.name.into(), metric.value.into());
            map.insert(format!("{}_stderr", metric.name), metric.stderr.into());
        }
        map
    }
}

impl TaskResult {
    /// A JSON object.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("kind".into(), self.kind.word().into());
        map.insert("shots".into(), self.n_shots.into());
        map.extend(self.all.to_json());
        let groups: Map<String, Value> =
            self.groups.iter().map(|(name, summary)| (name.clone(), summary.to_json().into())).collect();
        if !groups.is_empty() {
            map.insert("groups".into(), groups.into());
        }
        map
    }

    /// The result of a question as a JSON object.
    pub fn outcome_json(&self, index: usize) -> Value {
        let outcome = &self.outcomes[index];
        let mut value = json!({
            "task": self.name,
            "question": index,
            "right": outcome.right,
            "log_likelihoods": outcome.log_likelihoods,
        });
        let more: Option<(&str, Value)> = match self.kind {
            Kind::Choice => Some(("chosen", outcome.chosen().into())),
            Kind::Cloze => Some(("greedy", outcome.is_greedy.into())),
            Kind::Perplexity => None,
        };
        for (name, of) in
            more.into_iter().chain(outcome.group.as_deref().map(|group| ("group", group.into())))
        {
            value[name] = of;
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_likelihood_that_is_not_a_number_is_refused() {
        let question = Question {
            context: "x".into(),
            answers: vec!["a".into(), "b".into()],
            right: 0,
            group: None,
            looked_for: Vec::new(),
            place: ("t.jsonl".into(), 1),
        };
        let score = |log_likelihood| Score { log_likelihood, n_tokens: 1, n_missed: 0 };
        let of = |b| outcome(&question, &[score(-1.0), score(b)]);
        assert_eq!(of(-2.0).expect("numbers").chosen(), 0);
        for wrong in [f64::NAN, f64::NEG_INFINITY] {
            assert!(of(wrong).is_err_and(|problem| problem.contains("the model's weights")));
        }
    }
}
