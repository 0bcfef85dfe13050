//! What a run has recorded, by key: the columns that figures are drawn from.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use moe_report::settings::Settings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// Metrics and other facts of a run.
#[derive(Debug, Default)]
pub struct RunLog {
    /// Its name in legends.
    pub name: String,
    /// Lines about training.
    pub train: Columns,
    /// Lines about validation.
    pub validation: Columns,
    /// Lines about tasks.
    pub tasks: Columns,
    /// Its configuration, every key with its value.
    pub config: Settings,
    /// Other facts about it, by name.
    pub facts: Vec<(String, String)>,
    /// Operations for one token, forward and backward, if the model is known.
    pub flops_per_token: Option<f64>,
    /// Tokens of a sample, padding included, if known.
    pub seq_len: Option<f64>,
    /// The first sample that it read itself; not 0 for a fork.
    pub first_sample: f64,
    /// Evaluations at other capacities, the last one last.
    pub sweeps: Vec<Sweep>,
    /// Alarms, in order.
    pub alarms: Vec<AlarmLine>,
}

/// An alarm as recorded: a line of `alarms.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmLine {
    /// Steps done.
    pub step: u64,
    /// Its kind, by name.
    pub kind: String,
    /// Its message.
    pub message: String,
}

impl AlarmLine {
    /// Reads a line; `None` if it is not one of our alarms.
    pub fn parse(line: &[u8]) -> Option<AlarmLine> {
        let record: Value = serde_json::from_slice(line).ok()?;
        let text = |key: &str| Some(record.get(key)?.as_str()?.to_owned());
        Some(AlarmLine {
            step: record.get("step")?.as_u64()?,
            kind: text("alarm")?,
            message: text("message")?,
        })
    }

    /// Reads the alarms of a run; none if there is no file.
    ///
    /// # Errors
    /// [`Error::Data`] naming the line that is not an alarm; the file cannot be read.
    pub fn read(path: &Path) -> Result<Vec<AlarmLine>> {
        let of = |line: &str| AlarmLine::parse(line.as_bytes()).ok_or_else(|| "is not an alarm".to_owned());
        whole_lines(path, of)
    }
}

/// The lines of a file of records; none if there is no file. An unfinished last line is still being written.
fn whole_lines<T>(path: &Path, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(Error::io(path, "read"))?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let wrong = |i: usize, problem: String| {
        Error::Data(format!("{}, line {}: {problem}; remove the line", path.display(), i + 1))
    };
    lines.map(|(i, line)| parse(line).map_err(|problem| wrong(i, problem))).collect()
}

/// The file of sweeps over capacities in a run's folder.
pub const SWEEPS: &str = "capacity.jsonl";

/// An evaluation at several capacities of experts: a line of [`SWEEPS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Version of this line.
    pub schema: u32,
    /// Steps that the parameters were trained for.
    pub step: u64,
    /// By capacity, in the requested order.
    pub points: Vec<SweepPoint>,
}

/// Measurements at one capacity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepPoint {
    /// In units of the even load of an expert; absent without a limit.
    pub capacity: Option<f64>,
    /// Cross-entropy in nats.
    pub loss: f64,
    /// Fraction of the choices whose expert was full.
    pub dropped: f64,
}

impl Sweep {
    /// Reads the sweeps of a run; none if there is no file.
    ///
    /// # Errors
    /// [`Error::Data`] naming a line that is not a sweep; the file cannot be read.
    pub fn read(path: &Path) -> Result<Vec<Sweep>> {
        let of = |line: &str| {
            serde_json::from_str(line).map_err(|error| format!("is not a capacity sweep: {error}"))
        };
        whole_lines(path, of)
    }
}

/// Values by key and line.
#[derive(Debug, Default)]
pub struct Columns {
    /// The step of each line.
    pub steps: Vec<f64>,
    /// Numbers by key, one for each line; NaN where a line lacks the key.
    numbers: BTreeMap<String, Vec<f64>>,
    /// Lists of numbers by key, one for each line; empty where a line lacks the key.
    lists: BTreeMap<String, Vec<Vec<f64>>>,
}

impl Columns {
    fn push(&mut self, step: f64, record: &serde_json::Map<String, Value>) {
        let n = self.steps.len();
        self.steps.push(step);
        for (key, value) in record {
            match value {
                Value::Number(number) => {
                    let column = self.numbers.entry(key.clone()).or_default();
                    column.resize(n, f64::NAN);
                    column.push(number.as_f64().unwrap_or(f64::NAN));
                }
                Value::Array(values) => {
                    let column = self.lists.entry(key.clone()).or_default();
                    column.resize(n, Vec::new());
                    column.push(values.iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect());
                }
                // Digests of the data.
                _ => {}
            }
        }
    }

    fn finish(&mut self) {
        let n = self.steps.len();
        self.numbers.values_mut().for_each(|column| column.resize(n, f64::NAN));
        self.lists.values_mut().for_each(|column| column.resize(n, Vec::new()));
    }

    /// The numbers of a key.
    pub fn numbers(&self, key: &str) -> Option<&[f64]> {
        self.numbers.get(key).map(Vec::as_slice)
    }

    /// The numbers of a line by key.
    pub fn line(&self, i: usize) -> impl Iterator<Item = (&str, f64)> {
        let numbers = self.numbers.iter().map(move |(key, column)| (key.as_str(), column[i]));
        numbers.filter(|(key, value)| !value.is_nan() && !matches!(*key, "step" | "schema"))
    }

    /// The lists of a key.
    pub fn lists(&self, key: &str) -> Option<&[Vec<f64>]> {
        self.lists.get(key).map(Vec::as_slice)
    }

    /// The last number of a key.
    pub fn last(&self, key: &str) -> Option<f64> {
        self.numbers(key)?.iter().rev().copied().find(|x| x.is_finite())
    }

    /// The parts of keys between `prefix` and `suffix`, in numeric order if they are numbers.
    pub fn middles(&self, prefix: &str, suffix: &str) -> Vec<String> {
        let keys = self.numbers.keys().chain(self.lists.keys());
        let mut found: Vec<String> = keys
            .filter_map(|key| key.strip_prefix(prefix)?.strip_suffix(suffix))
            .map(str::to_owned)
            .collect();
        found.sort_by(|a, b| (a.parse::<u64>().ok(), a).cmp(&(b.parse::<u64>().ok(), b)));
        found.dedup();
        found
    }

    /// As [`Columns::middles`], without those that contain a slash.
    pub fn parts(&self, prefix: &str, suffix: &str) -> Vec<String> {
        let mut found = self.middles(prefix, suffix);
        found.retain(|middle| !middle.contains('/'));
        found
    }

    /// Points of a key over the steps; lines without it are left out.
    pub fn points(&self, key: &str) -> Vec<(f64, f64)> {
        let numbers = self.numbers(key).unwrap_or_default();
        self.steps.iter().copied().zip(numbers.iter().copied()).filter(|point| !point.1.is_nan()).collect()
    }
}

impl RunLog {
    /// A run before its files are read.
    pub fn new(name: &str) -> RunLog {
        RunLog { name: name.to_owned(), ..RunLog::default() }
    }

    /// Adds a line of `metrics.jsonl`; returns whether it is one of our records. Call [`RunLog::finish`]
    /// after the last one.
    pub fn push(&mut self, line: &[u8]) -> bool {
        let record: Value = serde_json::from_slice(line).unwrap_or_default();
        let (Some(record), Some(step)) = (record.as_object(), record.get("step").and_then(Value::as_f64))
        else {
            return false;
        };
        let columns = match record.keys().any(|key| key.starts_with("task/")) {
            true => &mut self.tasks,
            false if record.contains_key("validation/ce") => &mut self.validation,
            false => &mut self.train,
        };
        columns.push(step, record);
        true
    }

    /// Makes all columns as long as there are lines; more lines may follow.
    pub fn finish(&mut self) {
        self.train.finish();
        self.validation.finish();
        self.tasks.finish();
    }

    /// Reads `metrics.jsonl`. An unfinished last line is still being written.
    ///
    /// # Errors
    /// [`Error::Data`] naming a line that is not one of our records; an empty file; the file cannot be read.
    pub fn read(name: &str, path: &Path) -> Result<RunLog> {
        let file = std::fs::File::open(path).map_err(Error::io(path, "read"))?;
        let mut run = RunLog::new(name);
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        for n in 1u64.. {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(Error::io(path, "read"))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            if !run.push(&line) {
                let problem = "expected an object with `step`; the file was edited or damaged: restore it from a copy, or remove the line";
                return Err(Error::Data(format!("{}, line {n}: {problem}", path.display())));
            }
        }
        run.finish();
        if run.train.steps.is_empty() && run.validation.steps.is_empty() {
            return Err(Error::Data(format!(
                "{}: has no lines yet; a run writes one every `run.log_every` steps",
                path.display()
            )));
        }
        Ok(run)
    }

    /// Steps done at the last line.
    pub fn last_step(&self) -> f64 {
        self.train.steps.iter().chain(&self.validation.steps).copied().fold(0.0, f64::max)
    }

    /// Training targets up to a step.
    pub fn tokens_at(&self, step: f64) -> f64 {
        self.at(step, self.train.numbers("data/tokens_seen").unwrap_or_default())
    }

    /// Tokens that this run has read after a step, padding included; `None` if the length of a sample is not
    /// known.
    pub fn read_at(&self, step: f64) -> Option<f64> {
        if let Some(read) = self.read_by_line() {
            return Some(self.at(step, read));
        }
        let samples = self.at(step, self.train.numbers("data/t")?) - self.first_sample;
        Some(self.seq_len? * samples.max(0.0))
    }

    /// Tokens that this run has read after each line about training, padding included, if the lines have
    /// them: those of older programs do not.
    fn read_by_line(&self) -> Option<&[f64]> {
        self.train.numbers("data/tokens_read").filter(|read| read.first().is_some_and(|x| x.is_finite()))
    }

    /// A column at the last line about training up to a step; before the first line it grows evenly from
    /// zero.
    fn at(&self, step: f64, column: &[f64]) -> f64 {
        let n = self.train.steps.partition_point(|s| *s <= step);
        let last = column[..n.min(column.len())].iter().rev().copied().find(|x| x.is_finite());
        match (last, self.train.steps.first(), column.first()) {
            (Some(last), ..) => last,
            (None, Some(steps), Some(value)) if *steps > 0.0 => value * step / steps,
            _ => 0.0,
        }
    }

    /// Seconds of training after each line about it, computed from its speed.
    pub fn seconds(&self) -> Option<Vec<f64>> {
        let read = match self.read_by_line() {
            Some(read) => read.to_vec(),
            None => {
                let (seq_len, samples) = (self.seq_len?, self.train.numbers("data/t")?);
                samples.iter().map(|samples| (samples - self.first_sample) * seq_len).collect()
            }
        };
        let speeds = self.train.numbers("perf/tokens_per_s")?;
        let (mut sum, mut before) = (0.0, 0.0);
        let seconds = read.iter().zip(speeds).map(|(read, speed)| {
            if *speed > 0.0 && *read > before {
                sum += (read - before) / speed;
                before = *read;
            }
            sum
        });
        Some(seconds.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RunLog> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, text).unwrap();
        RunLog::read("a", &path)
    }

    #[test]
    fn lines_become_columns_with_gaps() {
        let text = "{\"step\":10,\"train/ce\":5.0,\"data/tokens_seen\":100,\"data/hash\":\"ab\"}\n\
                    {\"step\":20,\"train/ce\":4.0,\"data/tokens_seen\":200,\"router/1/load\":[0.25,0.75],\"train/pass/10/ce\":1}\n\
                    {\"step\":20,\"validation/ce\":4.5}\n{\"step\":20,\"task/x/acc\":0.5}\n{\"step\":30,\"tra";
        let run = read(text).unwrap();
        assert_eq!(run.train.points("train/ce"), [(10.0, 5.0), (20.0, 4.0)]);
        assert_eq!(run.train.points("train/pass/10/ce"), [(20.0, 1.0)]);
        assert_eq!(run.train.lists("router/1/load").unwrap(), [vec![], vec![0.25, 0.75]]);
        assert_eq!(run.validation.points("validation/ce"), [(20.0, 4.5)]);
        assert_eq!(run.tasks.points("task/x/acc"), [(20.0, 0.5)]);
        assert_eq!((run.tokens_at(5.0), run.tokens_at(15.0), run.tokens_at(99.0)), (50.0, 100.0, 200.0));
        assert_eq!(run.train.middles("train/pass/", "/ce"), ["10"]);
    }

    #[test]
    fn tokens_are_those_of_the_lines_where_these_count_them() {
        // Ten samples of 30 tokens, then ten of 60, at 100 tokens a second.
        let text = "{\"step\":10,\"data/t\":10,\"data/tokens_read\":300,\"perf/tokens_per_s\":100.0}\n\
                    {\"step\":20,\"data/t\":20,\"data/tokens_read\":900,\"perf/tokens_per_s\":100.0}\n";
        let mut run = read(text).unwrap();
        run.seq_len = Some(60.0);
        assert_eq!(run.seconds().unwrap(), [3.0, 9.0]);
        assert_eq!((run.read_at(10.0), run.read_at(20.0)), (Some(300.0), Some(900.0)));
        let mut run = read(&text.replace("data/tokens_read", "older")).unwrap();
        run.seq_len = Some(60.0);
        assert_eq!(run.seconds().unwrap(), [6.0, 12.0]);
    }

    #[test]
    fn a_line_that_is_not_a_record_is_named() {
        let error = read("{\"step\":1}\n<html>\n{\"step\":2}\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(read("").unwrap_err().to_string().contains("no lines yet"));
        assert!(read("{\"step\":1}").unwrap_err().to_string().contains("no lines yet"));
    }
}
