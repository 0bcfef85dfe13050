//! Rubrics: instructions for the judge, one strict TOML file each (`configs/rubrics/*.toml`).

use std::fs;
use std::path::Path;

use moe_shards::Hash;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json;
use crate::strict_toml::{Decoder, Fault, Section};

/// The default rubric.
const DEFAULT: &str = include_str!("../../../configs/rubrics/educational.toml");

/// `[rubric]`. Everything in it affects requests, so all of it is part of every request's key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rubric {
    /// What it is called.
    pub name: String,
    /// Instructions for the judge; the program appends the form of the answer.
    pub instruction: String,
    /// Characters of a text to show, 100 to 200,000.
    pub max_chars: usize,
    /// Most tokens of an answer, 16 to 8,192.
    pub max_tokens: u32,
    /// Sampling temperature, 0 to 2.
    pub temperature: f64,
    /// Most requests about one text, 1 to 10.
    pub attempts: u32,
}

impl Default for Rubric {
    fn default() -> Rubric {
        Rubric {
            name: String::new(),
            instruction: String::new(),
            max_chars: 4000,
            max_tokens: 200,
            temperature: 0.0,
            attempts: 3,
        }
    }
}

impl Section for Rubric {
    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if self.name.is_empty() {
            wrong.push(("name", "is missing; give the rubric a name".to_owned()));
        }
        if self.instruction.trim().is_empty() {
            wrong.push(("instruction", "is missing; say what scores from 0 to 5 mean".to_owned()));
        }
        if !(100..=200_000).contains(&self.max_chars) {
            wrong.push(("max_chars", format!("is {}; expected 100 to 200000", self.max_chars)));
        }
        if !(16..=8192).contains(&self.max_tokens) {
            wrong.push(("max_tokens", format!("is {}; expected 16 to 8192", self.max_tokens)));
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            wrong.push(("temperature", format!("is {}; expected 0 to 2", self.temperature)));
        }
        if !(1..=10).contains(&self.attempts) {
            wrong.push(("attempts", format!("is {}; expected 1 to 10", self.attempts)));
        }
        wrong
    }
}

impl Rubric {
    /// Decodes the text of a rubric's file; `file` is for messages only.
    ///
    /// # Errors
    /// [`Error::Recipe`] with everything that is wrong.
    pub fn decode(text: &str, file: &Path) -> Result<Rubric> {
        let mut decoder = Decoder::new(text, file);
        let mut rubric = Rubric::default();
        if let Some(tables) = decoder.parse(&["rubric"]) {
            if decoder.table(tables.get_ref(), "rubric").is_none() {
                decoder.problem(1, "rubric", "is missing; write a [rubric] section");
            }
            rubric = decoder.one(tables.get_ref(), "rubric");
        }
        decoder.finish(rubric)
    }

    /// Reads a rubric's file, or the educational one if none is given.
    ///
    /// # Errors
    /// As [`Rubric::decode`], or the file cannot be read.
    pub fn read(path: Option<&Path>) -> Result<Rubric> {
        match path {
            Some(path) => {
                let text = fs::read_to_string(path).map_err(Error::io(path, "read"))?;
                Rubric::decode(&text, path)
            }
            None => Rubric::decode(DEFAULT, Path::new("configs/rubrics/educational.toml")),
        }
    }

    /// Identity of the rubric.
    pub fn digest(&self) -> Hash {
        json::digest(self)
    }

    /// The beginning of a text to show to the judge, up to a space.
    pub fn excerpt<'a>(&self, text: &'a str) -> &'a str {
        match text.char_indices().nth(self.max_chars) {
            None => text,
            Some((end, _)) => {
                let head = &text[..end];
                let space = head.rfind(char::is_whitespace).filter(|&at| at > end / 2);
                head[..space.unwrap_or(end)].trim_end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_be_used() {
        let rubric = Rubric::read(None).unwrap();
        assert_eq!((rubric.name.as_str(), rubric.attempts), ("educational", 3));
    }

    #[test]
    fn all_problems_come_at_once() {
        let text = "[rubric]\nname = \"x\"\nmax_char = 5\nmax_tokens = 3\nattempts = 0\n[other]\n";
        let error = Rubric::decode(text, Path::new("r.toml")).unwrap_err().to_string();
        let expected = [
            "r.toml:1: `rubric.instruction`: is missing; say what scores from 0 to 5 mean",
            "r.toml:3: `rubric.max_char`: unknown key; did you mean `max_chars`?",
            "r.toml:4: `rubric.max_tokens`: is 3; expected 16 to 8192",
            "r.toml:5: `rubric.attempts`: is 0; expected 1 to 10",
        ];
        for line in expected {
            assert!(error.contains(line), "{error}");
        }
        assert!(error.contains("`other`: unknown section"), "{error}");
    }

    #[test]
    fn excerpts_end_at_a_space_and_never_inside_a_character() {
        let rubric = Rubric { max_chars: 10, ..Rubric::default() };
        assert_eq!(rubric.excerpt("short"), "short");
        assert_eq!(rubric.excerpt("äöü äöü äöü äöü"), "äöü äöü");
        assert_eq!(rubric.excerpt(&"ä".repeat(20)), "ä".repeat(10));
    }
}
