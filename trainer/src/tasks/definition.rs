//! What a task is: a file of records, and how questions are made from them. A definition is a small TOML
//! file; those of some data sets are part of the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use moe_cli::nearest::near;
use serde::Deserialize;

use crate::error::{Error, Result};

/// Definitions that are part of the program, by name; the same files are in `configs/tasks/`.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("ai2_arc", include_str!("../../../configs/tasks/ai2_arc.toml")),
    ("arc_easy", include_str!("../../../configs/tasks/arc_easy.toml")),
    ("blimp", include_str!("../../../configs/tasks/blimp.toml")),
    ("gsm8k", include_str!("../../../configs/tasks/gsm8k.toml")),
    ("humaneval", include_str!("../../../configs/tasks/humaneval.toml")),
    ("lambada", include_str!("../../../configs/tasks/lambada.toml")),
    ("text", include_str!("../../../configs/tasks/text.toml")),
];

/// The kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Which of several texts is most likely.
    Choice,
    /// Whether the text that follows is the most likely, token by token.
    Cloze,
    /// How likely a text is.
    Perplexity,
}

impl Kind {
    /// Its name in a definition.
    pub fn word(self) -> &'static str {
        match self {
            Self::Choice => "choice",
            Self::Cloze => "cloze",
            Self::Perplexity => "perplexity",
        }
    }
}

/// One or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub enum OneOrMore {
    /// One: a file, or the field of a list.
    One(String),
    /// Several: files, or templates.
    More(Vec<String>),
}

/// Which choice is right.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a number from 0, or the name of a field")]
pub enum Answer {
    /// Always the one with this number, from 0.
    Index(usize),
    /// The field that says so.
    Field(String),
}

/// A value that a field must have.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a text, a whole number, true or false")]
pub enum Wanted {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A Boolean.
    Bool(bool),
}

impl From<&Wanted> for serde_json::Value {
    fn from(wanted: &Wanted) -> Self {
        match wanted {
            Wanted::Text(text) => text.as_str().into(),
            Wanted::Integer(number) => (*number).into(),
            Wanted::Bool(truth) => (*truth).into(),
        }
    }
}

/// Values that fields of a record must have, by path.
pub type Where = BTreeMap<String, Wanted>;

/// Solved examples before each question.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shots {
    /// How many.
    pub n: usize,
    /// Files to take them from; absent: those of the task.
    pub data: Option<OneOrMore>,
    /// Values that fields of an example must have.
    #[serde(default, rename = "where")]
    pub only: Where,
    /// Seed of a separate draw for each question; absent: the first ones.
    pub seed: Option<u64>,
}

/// Which fields are looked for in training data.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlapFields {
    /// The fields.
    pub fields: Vec<String>,
    /// Prefix of values that is not part of the text.
    #[serde(default)]
    pub prefix: String,
}

/// A task as defined in its file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Its name in reports; absent: that of its file.
    pub name: Option<String>,
    /// The kind of question.
    pub kind: Kind,
    /// JSONL files or patterns matching them, also `.gz`; in a definition's file, relative to it.
    pub data: Option<OneOrMore>,
    /// Values that fields of a record must have.
    #[serde(default, rename = "where")]
    pub only: Where,
    /// Template of the text before the choices or the target.
    #[serde(default)]
    pub prompt: String,
    /// Field of the list of choices, or templates of the choices.
    pub choices: Option<OneOrMore>,
    /// Names of the choices, one of which may be the answer: the field of a list, or the names.
    pub labels: Option<OneOrMore>,
    /// Which choice is right.
    pub answer: Option<Answer>,
    /// Template of the text after the prompt.
    pub target: Option<String>,
    /// Template of the text of which the last word, or everything, is to be predicted.
    pub text: Option<String>,
    /// Text between prompt and answer.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Text after each example.
    #[serde(default = "blank_line")]
    pub separator: String,
    /// Field by which questions are grouped.
    pub by: Option<String>,
    /// Solved examples before each question.
    pub shots: Option<Shots>,
    /// Which fields are looked for in training data; absent: those that prompt, text or choices show.
    pub overlap: Option<OverlapFields>,
}

fn space() -> String {
    " ".into()
}

fn blank_line() -> String {
    "\n\n".into()
}

/// A definition, and where it comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The definition, with paths that can be opened.
    pub definition: Definition,
    /// Its name in reports.
    pub name: String,
    /// For messages: the definition's file or name.
    pub origin: String,
}

impl Source {
    /// Finds a definition: `FILE.toml`, or `NAME=DATA` with a definition of the program or a file and the
    /// data it is for.
    ///
    /// # Errors
    /// When there is no such definition, or it is wrong.
    pub fn find(spec: &str) -> Result<Self> {
        // A path may contain an equals sign.
        let is_definition =
            |which: &str| which.ends_with(".toml") || BUILT_IN.iter().any(|(name, _)| *name == which);
        let mut splits = spec.match_indices('=').map(|(at, sign)| (&spec[..at], &spec[at + sign.len()..]));
        let (which, data) = match splits.find(|(which, _)| is_definition(which)) {
            Some((which, data)) => (which, Some(data)),
            None => (spec, None),
        };
        let built_in = BUILT_IN.iter().find(|(name, _)| *name == which);
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        let is_file = which.ends_with(".toml");
        let (text, origin) = match built_in {
            Some((name, text)) => ((*text).to_string(), format!("task {name}")),
            None if is_file => {
                let path = Path::new(which);
                (std::fs::read_to_string(path).map_err(Error::io(path, "read"))?, which.to_string())
            }
            None => {
                let word = which.split_once('=').map_or(which, |(word, _)| word);
                let near = near(word, &names).map(|near| format!("; did you mean {near}?"));
                return Err(Error::Usage(format!(
                    "{spec}: expected FILE.toml or NAME=FILE, with one of the names {}{}",
                    names.join(", "),
                    near.unwrap_or_default()
                )));
            }
        };
        let mut definition: Definition = toml::from_str(&text)
            .map_err(|error| Error::Config(vec![format!("{origin}: {}", error.to_string().trim_end())]))?;
        let folder = if is_file { Path::new(which).parent().unwrap_or(Path::new("")) } else { Path::new("") };
        let beside = |paths: OneOrMore| match paths {
            OneOrMore::One(path) => OneOrMore::One(join(folder, &path)),
            OneOrMore::More(paths) => OneOrMore::More(paths.iter().map(|path| join(folder, path)).collect()),
        };
        definition.data = match data {
            Some(data) => Some(OneOrMore::One(data.to_string())),
            None => definition.data.map(beside),
        };
        if let Some(shots) = &mut definition.shots {
            shots.data = shots.data.take().map(beside);
        }
        let stem = Path::new(which).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = definition.name.clone().unwrap_or(stem);
        Ok(Self { definition, name, origin })
    }
}

fn join(folder: &Path, path: &str) -> String {
    folder.join(path).to_string_lossy().into_owned()
}

/// The files that paths and patterns match, each pattern sorted.
///
/// # Errors
/// When a pattern is wrong or matches nothing.
pub fn files(paths: &OneOrMore) -> Result<Vec<PathBuf>> {
    let patterns = match paths {
        OneOrMore::One(path) => std::slice::from_ref(path),
        OneOrMore::More(paths) => paths,
    };
    let mut found = Vec::new();
    for pattern in patterns {
        if Path::new(pattern).is_file() {
            found.push(PathBuf::from(pattern));
            continue;
        }
        let wrong = |problem: String| Error::Data(format!("{pattern}: {problem}"));
        let before = found.len();
        for path in glob::glob(pattern).map_err(|error| wrong(format!("not a file pattern: {error}")))? {
            found.push(path.map_err(|error| wrong(error.to_string()))?);
        }
        if found.len() == before {
            return Err(wrong("no such file".into()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_definitions_are_valid() {
        for (name, _) in BUILT_IN {
            let source = Source::find(&format!("{name}=x.jsonl")).expect(name);
            assert_eq!((source.name.as_str(), source.definition.name.is_none()), (*name, true));
            assert_eq!(source.definition.data, Some(OneOrMore::One("x.jsonl".into())));
        }
    }

    #[test]
    fn unknown_names_and_keys_are_refused() {
        let error = Source::find("arc_esay=x.jsonl").expect_err("no such task").to_string();
        assert!(error.contains("did you mean arc_easy?"), "{error}");
        let source = Source::find("arc_easy=a=b.jsonl").expect("a file with a sign of equality");
        assert_eq!(source.definition.data, Some(OneOrMore::One("a=b.jsonl".into())));
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("t.toml");
        let odd = dir.path().join("x=y.toml");
        std::fs::write(&odd, "kind = \"cloze\"\n").expect("write");
        assert_eq!(Source::find(odd.to_str().expect("text")).expect("a definition").name, "x=y");
        std::fs::write(&path, "kind = \"cloze\"\npromt = \"x\"\n").expect("write");
        let error = Source::find(path.to_str().expect("text")).expect_err("unknown key").to_string();
        assert!(error.contains("line 2") && error.contains("unknown field `promt`"), "{error}");
    }
}
