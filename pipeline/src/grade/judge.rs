//! One text to be graded: the request, and the meaning of an answer.

use std::collections::BTreeMap;

use clap::ValueEnum;
use moe_llm::{Cache, Completion, Conversation, Failure, Key, Message, Request, Sampling, Step};
use moe_shards::Hash;
use serde_json::{Value, json};

use super::rubric::Rubric;
use crate::document::TextHash;
use crate::error::Result;
use crate::json;

/// Version of the requests; part of every key.
const VERSION: &str = "grade-1";
/// The greatest score.
pub const MAX_SCORE: u8 = 5;
/// Bytes of an unreadable answer to show to the judge.
const WRONG_BYTES: usize = 16 << 10;
/// Instructions on the form of an answer.
const FORM: &str = "Answer with one JSON object and nothing else: {\"reason\": \"one short sentence\", \"score\": N}, where N is a whole number from 0 to 5.";

/// How to request JSON from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ResponseFormat {
    /// In words only
    None,
    /// Any JSON object
    #[default]
    JsonObject,
    /// A JSON object with these members
    JsonSchema,
}

/// The judge and the rubric.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Name of the model on the server.
    pub model: String,
    /// Its revision, as the user gives it.
    pub revision: String,
    /// The rubric.
    pub rubric: Rubric,
    /// How to request JSON.
    pub format: ResponseFormat,
    digest: Hash,
}

/// What came of one text.
#[derive(Clone, Debug, PartialEq)]
pub enum Grade {
    /// A score with its reason.
    Scored {
        /// 0 to 5.
        score: u8,
        /// The judge's words.
        reason: String,
        /// Answers until a readable one.
        attempts: u32,
        /// Key of that answer.
        key: Key,
    },
    /// No answer could be read.
    Unreadable {
        /// Problem of the last answer.
        problem: String,
        /// Answers.
        attempts: u32,
    },
    /// The server could not answer.
    GivenUp {
        /// Why.
        problem: String,
    },
}

impl Judge {
    /// A judge.
    pub fn new(model: String, revision: String, rubric: Rubric, format: ResponseFormat) -> Judge {
        let digest = rubric.digest();
        Judge { model, revision, rubric, format, digest }
    }

    /// Puts a text before the judge.
    pub fn hear(&self, text: &str) -> Hearing<'_> {
        let excerpt = self.rubric.excerpt(text).to_owned();
        Hearing {
            judge: self,
            text: TextHash::of(text),
            excerpt,
            asked: 0,
            last: None,
            scored: None,
            failed: None,
        }
    }

    /// The grade of a text as the cache has it; `None` if a question is still open.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn grade(&self, text: &str, cache: &Cache) -> Result<Option<Grade>> {
        let mut hearing = self.hear(text);
        let mut previous = None;
        loop {
            let Step::Ask(request) = hearing.next(previous.as_ref()) else {
                return Ok(Some(hearing.grade()));
            };
            let key = request.key();
            previous = cache.get(&key)?;
            if previous.is_none() {
                let problem = cache.poisoned(&key).map(|poisoned| poisoned.reason.clone());
                return Ok(problem.map(|problem| Grade::GivenUp { problem }));
            }
        }
    }

    fn request(
        &self,
        text: TextHash,
        excerpt: &str,
        attempt: u32,
        wrong: Option<&(String, String)>,
    ) -> Request {
        let system = format!("{}\n{FORM}", self.rubric.instruction.trim());
        let mut messages = vec![Message::system(system), Message::user(format!("The text:\n\n{excerpt}"))];
        if let Some((answer, problem)) = wrong {
            messages.push(Message::assistant(answer.as_str()));
            messages.push(Message::user(format!("This cannot be read: {problem}. {FORM}")));
        }
        let text = format!("{:032x}", text.0);
        let seed = json::digest(&json!([text, self.digest, attempt]));
        let seed = u32::from_le_bytes([seed.0[0], seed.0[1], seed.0[2], seed.0[3]]);
        // Some servers only accept signed numbers.
        let seed = seed >> 1;
        let schema = json!({
            "type": "object",
            "properties": {
                "reason": { "type": "string" },
                "score": { "type": "integer", "minimum": 0, "maximum": MAX_SCORE },
            },
            "required": ["reason", "score"],
            "additionalProperties": false,
        });
        let format = match self.format {
            ResponseFormat::None => None,
            ResponseFormat::JsonObject => Some(json!({ "type": "json_object" })),
            ResponseFormat::JsonSchema => Some(json!({
                "type": "json_schema",
                "json_schema": { "name": "grade", "strict": true, "schema": schema },
            })),
        };
        Request {
            revision: self.revision.clone(),
            sampling: Sampling {
                temperature: Some(self.rubric.temperature),
                max_tokens: Some(self.rubric.max_tokens),
                seed: Some(seed),
                ..Sampling::default()
            },
            extra: format.into_iter().map(|format| ("response_format".to_owned(), format)).collect(),
            context: BTreeMap::from([
                ("text".to_owned(), text),
                ("rubric".to_owned(), self.digest.to_string()),
                ("version".to_owned(), VERSION.to_owned()),
                ("attempt".to_owned(), attempt.to_string()),
            ]),
            ..Request::new(self.model.clone(), messages)
        }
    }
}

/// Grades one text: asks until an answer can be read or the attempts are used up.
#[derive(Clone, Debug)]
pub struct Hearing<'a> {
    judge: &'a Judge,
    text: TextHash,
    excerpt: String,
    asked: u32,
    last: Option<Key>,
    scored: Option<std::result::Result<(u8, String), String>>,
    failed: Option<String>,
}

impl Hearing<'_> {
    /// The result, once nothing more is asked.
    pub fn grade(self) -> Grade {
        let attempts = self.asked;
        match (self.failed, self.scored, self.last) {
            (Some(problem), ..) => Grade::GivenUp { problem },
            (None, Some(Ok((score, reason))), Some(key)) => Grade::Scored { score, reason, attempts, key },
            (None, Some(Err(problem)), _) => Grade::Unreadable { problem, attempts },
            (None, ..) => Grade::Unreadable { problem: "it was not asked".to_owned(), attempts },
        }
    }
}

impl Conversation for Hearing<'_> {
    fn next(&mut self, previous: Option<&Completion>) -> Step {
        self.scored = previous.map(|completion| read(&completion.text));
        let wrong = match (&self.scored, previous) {
            (Some(Ok(_)), _) => return Step::Done,
            // An empty answer would be empty again.
            (Some(Err(_)), Some(completion)) if completion.text.trim().is_empty() => return Step::Done,
            (Some(Err(problem)), Some(completion)) => {
                let shown = completion.text.floor_char_boundary(WRONG_BYTES);
                Some((completion.text[..shown].to_owned(), problem.clone()))
            }
            _ => None,
        };
        if self.asked >= self.judge.rubric.attempts {
            return Step::Done;
        }
        let request = self.judge.request(self.text, &self.excerpt, self.asked, wrong.as_ref());
        self.asked += 1;
        self.last = Some(request.key());
        Step::Ask(request)
    }

    fn failed(&mut self, why: &Failure) {
        self.failed = Some(why.to_string());
    }
}

/// Score and reason of an answer. Words around the JSON object are tolerated, since small models add them.
///
/// # Errors
/// The problem, in words for the judge.
pub fn read(answer: &str) -> std::result::Result<(u8, String), String> {
    let start = answer.find('{').ok_or("there is no JSON object")?;
    let mut values = serde_json::Deserializer::from_str(&answer[start..]).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        _ => return Err("it is not valid JSON".to_owned()),
    };
    let score = value.get("score").ok_or("the member `score` is missing")?;
    let number = score
        .as_f64()
        .filter(|number| number.fract() == 0.0 && (0.0..=f64::from(MAX_SCORE)).contains(number));
    let number = number.ok_or_else(|| format!("the score is {score}, not a whole number from 0 to 5"))?;
    let reason = value.get("reason").and_then(Value::as_str).unwrap_or_default();
    Ok((number as u8, reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge() -> Judge {
        Judge::new("m".into(), String::new(), Rubric::read(None).unwrap(), ResponseFormat::JsonObject)
    }

    fn said(text: &str) -> Completion {
        Completion { text: text.to_owned(), finish_reason: "stop".to_owned(), ..Completion::default() }
    }

    #[test]
    fn answers_are_read_with_words_around_them_and_not_otherwise() {
        let check =
            |answer: &str, expected: std::result::Result<(u8, &str), &str>| match (read(answer), expected) {
                (Ok((score, reason)), Ok(expected)) => assert_eq!((score, reason.as_str()), expected),
                (Err(problem), Err(part)) => assert!(problem.contains(part), "{problem}"),
                (found, _) => panic!("{answer}: {found:?}"),
            };
        check(r#"{"reason": "good", "score": 4}"#, Ok((4, "good")));
        check("Here it is:\n```json\n{\"score\": 0}\n```\nBye {", Ok((0, "")));
        check(r#"{"score": 5.0, "reason": 7}"#, Ok((5, "")));
        check("4", Err("no JSON object"));
        check(r#"{"score": 4"#, Err("not valid JSON"));
        check(r#"{"points": 4}"#, Err("`score` is missing"));
        check(r#"{"score": 6}"#, Err("the score is 6"));
        check(r#"{"score": -1}"#, Err("the score is -1"));
        check(r#"{"score": 3.5}"#, Err("the score is 3.5"));
        check(r#"{"score": "3"}"#, Err("the score is \"3\""));
    }

    #[test]
    fn an_unreadable_answer_is_asked_for_again_with_what_is_wrong() {
        let judge = judge();
        let mut hearing = judge.hear("a text");
        let Step::Ask(first) = hearing.next(None) else { panic!() };
        let Step::Ask(second) = hearing.next(Some(&said("four"))) else { panic!() };
        assert_eq!((first.messages.len(), second.messages.len()), (2, 4));
        assert_eq!(second.messages[2], Message::assistant("four"));
        assert!(
            second.messages[3]
                .content
                .starts_with("This cannot be read: there is no JSON object. Answer with")
        );
        assert_ne!((first.key(), first.sampling.seed), (second.key(), second.sampling.seed));
        assert_eq!(hearing.next(Some(&said("{\"score\":4}"))), Step::Done);
        let expected = Grade::Scored { score: 4, reason: String::new(), attempts: 2, key: second.key() };
        assert_eq!(hearing.grade(), expected);
    }

    #[test]
    fn attempts_end_and_failures_are_told() {
        let judge = judge();
        let mut hearing = judge.hear("a text");
        let mut asked = 0;
        let mut previous = None;
        while let Step::Ask(_) = hearing.next(previous.as_ref()) {
            asked += 1;
            previous = Some(said("no"));
        }
        assert_eq!(asked, 3);
        let problem = "there is no JSON object".to_owned();
        assert_eq!(hearing.grade(), Grade::Unreadable { problem, attempts: 3 });

        let mut hearing = judge.hear("a text");
        hearing.next(None);
        hearing.failed(&Failure::Malformed("x".into()));
        assert!(matches!(hearing.grade(), Grade::GivenUp { problem } if problem.contains('x')));
    }

    /// Requests are part of every key; a change here repeats all of them and needs a new `VERSION`.
    #[test]
    fn requests_stay_what_they_are() {
        let judge = judge();
        let mut hearing = judge.hear("a text");
        let Step::Ask(request) = hearing.next(None) else { panic!() };
        assert_eq!(request.extra["response_format"], json!({ "type": "json_object" }));
        assert_eq!(request.messages[1].content, "The text:\n\na text");
        let named: Vec<&str> = request.context.keys().map(String::as_str).collect();
        assert_eq!(named, ["attempt", "rubric", "text", "version"]);
        // The whole text counts, not only the shown part.
        let (long, longer) = ("word ".repeat(2000), "word ".repeat(2001));
        let (Step::Ask(a), Step::Ask(b)) = (judge.hear(&long).next(None), judge.hear(&longer).next(None))
        else {
            panic!()
        };
        assert_eq!(a.messages, b.messages);
        assert_ne!(a.key(), b.key());
    }
}
