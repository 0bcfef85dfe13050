//! Questions from records: the context, the possible answers, and the right one.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde_json::Value;

use super::definition::{self, Answer, Definition, Kind, OneOrMore, Shots, Source};
use super::records::{self, Record, at};
use super::template::{self, Path, Template};
use crate::error::{Error, Result};
use crate::random::Stream;

/// A question of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The text before the answers, including examples.
    pub context: String,
    /// The texts whose likelihood is asked for, without the text between context and answer.
    pub answers: Vec<String>,
    /// Number of the right answer, from 0.
    pub right: usize,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// The texts to look for in training data.
    pub looked_for: Vec<String>,
    /// File and line of its record.
    pub place: (PathBuf, usize),
}

/// A task, ready to be encoded.
#[derive(Debug, Clone)]
pub struct Questions {
    /// Its name in reports.
    pub name: String,
    /// The kind of question.
    pub kind: Kind,
    /// Text between context and answer.
    pub delimiter: String,
    /// Examples before each question.
    pub n_shots: usize,
    /// The questions, in the order of the records.
    pub all: Vec<Question>,
}

/// Changes to a definition from the command line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Examples before each question.
    pub shots: Option<usize>,
    /// Use only this many questions, the first ones.
    pub limit: Option<usize>,
}

impl Questions {
    /// Reads the questions of a task.
    ///
    /// # Errors
    /// [`Error::Config`] with what is wrong in the definition, [`Error::Data`] where a record does not fit
    /// it.
    pub fn read(source: &Source, changes: Changes) -> Result<Self> {
        let Source { definition, name, origin } = source;
        let wrong = |problem: String| Error::Config(vec![format!("{origin}: {problem}")]);
        let form = Form::of(definition).map_err(wrong)?;
        let data = definition
            .data
            .as_ref()
            .ok_or_else(|| wrong("`data` is missing: the files of the task".into()))?;
        let mut shots = definition.shots.clone();
        if let Some(n) = changes.shots {
            let absent = Shots { n, data: None, only: definition.only.clone(), seed: None };
            shots = Some(Shots { n, ..shots.unwrap_or(absent) }).filter(|shots| shots.n > 0);
        }
        if definition.kind == Kind::Perplexity && shots.is_some() {
            return Err(wrong("`shots`: perplexity tasks have no examples".into()));
        }
        let named = |key: &str, list: &OneOrMore| match list {
            OneOrMore::More(paths) if paths.is_empty() => {
                Err(wrong(format!("`{key}` is an empty list: name a file, or a pattern of files")))
            }
            list => definition::files(list),
        };
        let files = named("data", data)?;
        let records = records::read(&files, &definition.only, changes.limit.unwrap_or(usize::MAX))?;
        let mut all = Vec::with_capacity(records.len());
        for record in &records {
            let path = &files[record.file];
            let question = form.question(&record.value, path.clone(), record.line);
            all.push(question.map_err(|problem| at(path, record.line, &problem))?);
        }
        if let Some(shots) = &shots {
            let asked = places(&files, &records)?;
            let files = match &shots.data {
                Some(data) => named("shots.data", data)?,
                None => files,
            };
            // If examples are taken in order, the first ones are enough: a question's own record is among
            // them as often as its file is named.
            let enough = shots.seed.map_or(shots.n.saturating_add(files.len()), |_| usize::MAX);
            let pool = records::read(&files, &shots.only, enough)?;
            let mut examples = Vec::with_capacity(pool.len());
            for record in &pool {
                let question = form.question(&record.value, files[record.file].clone(), record.line);
                let question = question.map_err(|problem| at(&files[record.file], record.line, &problem))?;
                let answer = &question.answers[question.right];
                examples
                    .push(format!("{}{}{answer}{}", question.context, form.delimiter, definition.separator));
            }
            let pool = places(&files, &pool)?;
            prepend(&mut all, &asked, &examples, &pool, shots, name).map_err(wrong)?;
        }
        let n_shots = shots.map_or(0, |shots| shots.n);
        Ok(Self { name: name.clone(), kind: definition.kind, delimiter: form.delimiter, n_shots, all })
    }
}

/// File and line of each record, with links in the file's name resolved.
fn places(files: &[PathBuf], records: &[Record]) -> Result<Vec<(PathBuf, usize)>> {
    let real = files.iter().map(|path| path.canonicalize().map_err(Error::io(path, "find")));
    let real = real.collect::<Result<Vec<_>>>()?;
    Ok(records.iter().map(|record| (real[record.file].clone(), record.line)).collect())
}

/// Puts examples before the questions; none is the question's own record.
///
/// `asked` and `pool` are the places of the questions and of the examples.
fn prepend(
    questions: &mut [Question],
    asked: &[(PathBuf, usize)],
    examples: &[String],
    pool: &[(PathBuf, usize)],
    shots: &Shots,
    name: &str,
) -> Result<(), String> {
    let mut times: HashMap<&(PathBuf, usize), usize> = HashMap::new();
    for place in pool {
        *times.entry(place).or_default() += 1;
    }
    for (index, (question, own)) in questions.iter_mut().zip(asked).enumerate() {
        if pool.len() < shots.n.saturating_add(times.get(own).copied().unwrap_or_default()) {
            return Err(format!(
                "`shots`: {} examples are requested, but there are only {}",
                shots.n,
                pool.len()
            ));
        }
        let order: Box<dyn Iterator<Item = usize>> = match shots.seed {
            None => Box::new(0..pool.len()),
            Some(seed) => {
                let stream = Stream::new(seed, &format!("shots/{name}/{index}"));
                Box::new((0..).map(move |draw| (stream.bits(draw) % pool.len() as u64) as usize))
            }
        };
        let (mut chosen, mut is_chosen) = (Vec::with_capacity(shots.n), HashSet::new());
        for example in order {
            if chosen.len() == shots.n {
                break;
            }
            if pool[example] != *own && is_chosen.insert(example) {
                chosen.push(example);
            }
        }
        let before: String = chosen.into_iter().map(|example: usize| examples[example].as_str()).collect();
        question.context.insert_str(0, &before);
    }
    Ok(())
}

/// How questions are made from records.
struct Form {
    kind: Kind,
    prompt: Template,
    choices: List,
    labels: Option<List>,
    answer: RightOne,
    /// For cloze and perplexity: the text to predict.
    target: Template,
    /// Whether only its last word is predicted.
    is_last_word: bool,
    delimiter: String,
    by: Option<Path>,
    looked_for: Vec<Path>,
    prefix: String,
}

/// A list of texts: a field, or one template each.
enum List {
    Field(Path),
    Templates(Vec<Template>),
}

enum RightOne {
    Index(usize),
    Field(Path),
}

impl List {
    fn of(list: &OneOrMore) -> Result<Self, String> {
        Ok(match list {
            OneOrMore::One(field) => Self::Field(Path::parse(field)?),
            OneOrMore::More(texts) => {
                Self::Templates(texts.iter().map(|text| Template::parse(text)).collect::<Result<_, _>>()?)
            }
        })
    }

    fn texts(&self, record: &Value) -> Result<Vec<String>, String> {
        match self {
            Self::Templates(templates) => templates.iter().map(|template| template.render(record)).collect(),
            Self::Field(path) => {
                let list = path
                    .find(record)?
                    .as_array()
                    .ok_or_else(|| format!("field `{path}`: expected a list"))?;
                let text = |value| {
                    template::text_of(value).map_err(|found| {
                        format!("field `{path}`: expected a list of texts, found {found} in it")
                    })
                };
                list.iter().map(text).collect()
            }
        }
    }
}

impl Form {
    fn of(definition: &Definition) -> Result<Self, String> {
        let Definition {
            kind, prompt, choices, labels, answer, target, text, delimiter, by, overlap, ..
        } = definition;
        let of_kind = |key: &str, is_given: bool, is_needed: bool| match (is_given, is_needed) {
            (false, true) => Err(format!("`{key}` is missing: a task of kind {:?} needs it", kind.word())),
            (true, false) => Err(format!("`{key}` does not belong to a task of kind {:?}", kind.word())),
            _ => Ok(()),
        };
        let is_choice = *kind == Kind::Choice;
        of_kind("choices", choices.is_some(), is_choice)?;
        of_kind("answer", answer.is_some(), is_choice)?;
        of_kind("labels", labels.is_some(), is_choice && labels.is_some())?;
        of_kind(
            "text",
            text.is_some(),
            *kind == Kind::Perplexity || (*kind == Kind::Cloze && target.is_none()),
        )?;
        of_kind("target", target.is_some(), *kind == Kind::Cloze && text.is_none())?;
        of_kind(
            "prompt",
            !prompt.is_empty(),
            !prompt.is_empty() && *kind != Kind::Perplexity && text.is_none(),
        )?;
        let prompt = Template::parse(prompt)?;
        let target = Template::parse(target.as_deref().or(text.as_deref()).unwrap_or_default())?;
        let choices = match choices {
            Some(choices) => List::of(choices)?,
            None => List::Templates(Vec::new()),
        };
        let looked_for = match overlap {
            Some(overlap) => {
                overlap.fields.iter().map(|field| Path::parse(field)).collect::<Result<Vec<_>, _>>()?
            }
            None => {
                let of_choices = match &choices {
                    List::Templates(templates) => {
                        templates.iter().flat_map(Template::fields).cloned().collect()
                    }
                    List::Field(_) => Vec::new(),
                };
                let mut fields: Vec<Path> = prompt.fields().cloned().collect();
                if text.is_some() {
                    fields = target.fields().cloned().collect();
                }
                if fields.is_empty() { of_choices } else { fields }
            }
        };
        let is_last_word = *kind == Kind::Cloze && text.is_some();
        let delimiter = match kind {
            Kind::Perplexity => String::new(),
            _ if is_last_word => " ".into(),
            _ => delimiter.clone(),
        };
        Ok(Self {
            kind: *kind,
            prompt,
            choices,
            labels: labels.as_ref().map(List::of).transpose()?,
            answer: match answer {
                Some(Answer::Field(field)) => RightOne::Field(Path::parse(field)?),
                Some(Answer::Index(index)) => RightOne::Index(*index),
                None => RightOne::Index(0),
            },
            target,
            is_last_word,
            delimiter,
            by: by.as_deref().map(Path::parse).transpose()?,
            looked_for,
            prefix: overlap.as_ref().map(|overlap| overlap.prefix.clone()).unwrap_or_default(),
        })
    }

    fn question(&self, record: &Value, file: PathBuf, line: usize) -> Result<Question, String> {
        let mut context = self.prompt.render(record)?;
        let (answers, right) = match self.kind {
            Kind::Choice => {
                let choices = self.choices.texts(record)?;
                let right = self.right(record, &choices)?;
                (choices, right)
            }
            Kind::Cloze | Kind::Perplexity => {
                let mut target = self.target.render(record)?;
                if self.is_last_word {
                    let text = target.trim_end();
                    let (before, last) = text
                        .rsplit_once(' ')
                        .ok_or_else(|| format!("the text has one word, {text:?}, and none before it"))?;
                    (context, target) = (before.to_string(), last.to_string());
                }
                (vec![target], 0)
            }
        };
        if self.kind == Kind::Perplexity && answers[0].is_empty() {
            return Err("the text is empty".into());
        }
        if let Some(empty) = answers.iter().position(String::is_empty) {
            return Err(format!("answer {empty} (from 0) is empty"));
        }
        let mut looked_for = Vec::new();
        for path in &self.looked_for {
            let text = path.text(record)?;
            looked_for.push(text.strip_prefix(&self.prefix).unwrap_or(&text).to_string());
        }
        let group = self.by.as_ref().map(|path| path.text(record)).transpose()?;
        Ok(Question { context, answers, right, group, looked_for, place: (file, line) })
    }

    /// The number of the right choice: the answer is a number from 0, a label, a choice, or a letter from A
    /// on.
    fn right(&self, record: &Value, choices: &[String]) -> Result<usize, String> {
        if choices.len() < 2 {
            return Err(format!("{} choices; at least two are needed to choose from", choices.len()));
        }
        let path = match &self.answer {
            RightOne::Index(index) if *index < choices.len() => return Ok(*index),
            RightOne::Index(index) => {
                return Err(format!("answer {index} (from 0) of {} choices", choices.len()));
            }
            RightOne::Field(path) => path,
        };
        let value = path.find(record)?;
        let labels = self.labels.as_ref().map(|labels| labels.texts(record)).transpose()?;
        if let Some(labels) = labels {
            let answer = path.text(record)?;
            return match labels.iter().position(|label| *label == answer) {
                Some(index) if index < choices.len() => Ok(index),
                Some(index) => Err(format!(
                    "field `{path}`: {answer:?} is label {index} (from 0) of {labels:?}, and there are only {} choices",
                    choices.len()
                )),
                None => Err(format!("field `{path}`: {answer:?} is not one of the labels {labels:?}")),
            };
        }
        let found = match value {
            Value::Number(number) => number.as_u64().map(|index| index as usize),
            Value::String(text) => {
                let letter = match text.as_bytes() {
                    [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
                    _ => None,
                };
                choices.iter().position(|choice| choice == text).or(letter)
            }
            _ => None,
        };
        found.filter(|index| *index < choices.len()).ok_or_else(|| {
            format!(
                "field `{path}`: {value} is neither a number from 0 to {}, nor a choice, nor its letter; `labels` gives \
                 choices other names",
                choices.len() - 1
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(definition: &str, records: &str, changes: Changes) -> Result<Questions> {
        let dir = tempfile::tempdir().expect("dir");
        let (task, data) = (dir.path().join("t.toml"), dir.path().join("d.jsonl"));
        std::fs::write(&task, format!("data = \"d.jsonl\"\n{definition}")).expect("write");
        std::fs::write(&data, records).expect("write");
        Questions::read(&Source::find(task.to_str().expect("text"))?, changes)
    }

    const CHOICES: &str = "kind = \"choice\"\nprompt = \"Q: {{q}}\\nA:\"\nchoices = \"c\"\nanswer = \"a\"\n";

    #[test]
    fn answers_are_numbers_labels_choices_or_letters() {
        let right = |more: &str, answer: &str| {
            let record = format!(
                "{{\"q\": \"x\", \"c\": [\"u\", \"v\", \"2\"], \"l\": [\"1\", \"2\", \"3\"], \"a\": {answer}}}"
            );
            let questions = read(&format!("{CHOICES}{more}"), &record, Changes::default());
            questions.map(|questions| questions.all[0].right).map_err(|error| error.to_string())
        };
        assert_eq!(
            [right("", "1"), right("", "\"v\""), right("", "\"B\""), right("", "\"2\"")].map(Result::ok),
            [Some(1), Some(1), Some(1), Some(2)]
        );
        assert_eq!(right("labels = \"l\"", "\"2\"").ok(), Some(1));
        assert_eq!(right("labels = [\"x\", \"y\", \"z\"]", "\"z\"").ok(), Some(2));
        for wrong in ["3", "-1", "\"D\"", "\"w\"", "null"] {
            let error = right("", wrong).expect_err(wrong);
            assert!(error.contains("d.jsonl, line 1") && error.contains("from 0 to 2"), "{error}");
        }
        assert!(right("labels = \"l\"", "\"4\"").is_err_and(|error| error.contains("not one of the labels")));
        let error = right("labels = [\"w\", \"x\", \"y\", \"z\"]", "\"z\"").expect_err("a label too many");
        assert!(error.contains("there are only 3 choices"), "{error}");
    }

    #[test]
    fn examples_are_other_records_and_drawn_by_seed() {
        let records: String =
            (0..6).map(|i| format!("{{\"q\": \"{i}\", \"c\": [\"u{i}\", \"v{i}\"], \"a\": 1}}\n")).collect();
        let contexts = |shots: &str, changes: Changes| -> Vec<String> {
            let questions = read(&format!("{CHOICES}{shots}"), &records, changes).expect("questions");
            questions.all.into_iter().map(|question| question.context).collect()
        };
        let none = contexts("", Changes::default());
        assert_eq!((none.len(), none[2].as_str()), (6, "Q: 2\nA:"));
        let first = contexts("[shots]\nn = 2\n", Changes::default());
        assert_eq!(first[0], "Q: 1\nA: v1\n\nQ: 2\nA: v2\n\nQ: 0\nA:");
        assert_eq!(first[5], "Q: 0\nA: v0\n\nQ: 1\nA: v1\n\nQ: 5\nA:");
        assert_eq!(contexts("", Changes { shots: Some(2), limit: Some(1) }), first[..1]);
        let (seed, other) = (contexts("[shots]\nn = 3\nseed = 1\n", Changes::default()), 5);
        assert_eq!(contexts("[shots]\nn = 3\nseed = 1\n", Changes::default()), seed);
        assert_ne!(contexts("[shots]\nn = 3\nseed = 2\n", Changes::default()), seed);
        for (index, context) in seed.iter().enumerate() {
            assert_eq!(context.matches("Q: ").count(), 4);
            assert_eq!(context.matches(&format!("Q: {index}\n")).count(), 1, "{context}");
        }
        assert_eq!(contexts("", Changes { shots: Some(other), limit: None }).len(), 6);
        let error =
            read(&format!("{CHOICES}[shots]\nn = 6\n"), &records, Changes::default()).expect_err("too many");
        assert!(error.to_string().contains("6 examples are requested"), "{error}");
        let most = Changes { shots: Some(usize::MAX), limit: None };
        assert!(
            read(CHOICES, &records, most).is_err_and(|error| error.to_string().contains("there are only 6"))
        );
        // The task's file is recognized by any of its names.
        for name in ["d.jsonl", "./d.jsonl"] {
            let named = format!("[shots]\nn = 2\ndata = \"{name}\"\n");
            assert_eq!(contexts(&named, Changes::default()), first);
        }
        let twice = "[shots]\nn = 2\ndata = [\"d.jsonl\", \"./d.jsonl\"]\n";
        assert_eq!(contexts(twice, Changes::default()), first);
    }

    #[test]
    fn the_last_word_is_a_cloze_and_other_keys_are_refused() {
        let record = "{\"t\": \"one two  three\", \"s\": \"x\"}";
        let cloze = read("kind = \"cloze\"\ntext = \"{{t}}\"\nby = \"s\"\n", record, Changes::default())
            .expect("cloze");
        let question = &cloze.all[0];
        assert_eq!((question.context.as_str(), question.answers[0].as_str()), ("one two ", "three"));
        assert_eq!((question.group.as_deref(), cloze.delimiter.as_str()), (Some("x"), " "));
        assert_eq!(question.looked_for, ["one two  three"]);
        let refused = |definition: &str, expected: &str| {
            let error = read(definition, record, Changes::default()).expect_err(definition).to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused("kind = \"cloze\"\n", "`text` is missing");
        refused(
            "kind = \"perplexity\"\ntext = \"{{t}}\"\nanswer = -1\n",
            "a number from 0, or the name of a field",
        );
        refused("kind = \"perplexity\"\ntext = \"\"\n", "the text is empty");
        let choice = "kind = \"choice\"\nprompt = \"\"\nchoices = [\"a\", \"b\"]\nanswer = 0\n";
        refused(&format!("{choice}[shots]\nn = 1\ndata = []\n"), "`shots.data` is an empty list");
        refused("kind = \"cloze\"\ntext = \"{{t}}\"\nanswer = 0\n", "`answer` does not belong");
        refused("kind = \"perplexity\"\ntext = \"{{t}}\"\n[shots]\nn = 1\n", "have no examples");
        refused("kind = \"choice\"\nchoices = [\"{{t}}\"]\nanswer = 0\n", "at least two are needed");
        refused("kind = \"choice\"\nchoices = [\"{{t}}\", \"{{u}}\"]\nanswer = 0\n", "no field `u`");
    }
}
