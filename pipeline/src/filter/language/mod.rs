//! The language of a text, by one of two detectors: whatlang, which is built in, or a model file of fastText such as
//! `lid.176.ftz`. A document without a language in its record gets the detected one.

mod iso;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::lists::{self, Cache};
use super::{Action, Built, Limit, Reason, Rewrite, Rewriting, Rule, Settings, Text, decode};
use crate::classifier::{FastTextModel, Newlines};
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// Settings of `language`.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Language {
        /// Languages to keep, as codes of ISO 639; any when empty.
        pub languages: Vec<String>,
        /// Lowest confidence that a text is in one of them, from 0 to 1. Its meaning depends on the detector, so each has its own
        /// default: 0.65 for whatlang, 0.4 for a fastText model; see `docs/filters.md`.
        pub min_confidence: Option<f64>,
        /// A fastText model file, used instead of whatlang.
        pub model: Option<String>,
        /// What fastText sees in place of a line end.
        pub newlines: Newlines,
        /// Characters of a text that whatlang examines.
        pub max_chars: u64,
    }
}

/// Keys of `language` that are thresholds.
pub const THRESHOLDS: &[&str] = &["min_confidence"];

/// Keys of `language` that name files.
pub const FILES: &[&str] = &["model"];

impl Default for Language {
    fn default() -> Language {
        Language {
            languages: Vec::new(),
            min_confidence: None,
            model: None,
            newlines: Newlines::Space,
            max_chars: 4000,
        }
    }
}

impl Section for Language {
    fn docs() -> Docs {
        Language::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if let Some(least) = self.min_confidence.filter(|least| !(0.0..=1.0).contains(least)) {
            wrong.push(("min_confidence", format!("is {least}; expected 0 to 1")));
        }
        let is_code =
            |code: &String| (2..=3).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase());
        for language in &self.languages {
            let code = iso::code(language);
            if !is_code(&code) {
                let message = format!("holds `{language}`; expected codes of ISO 639 such as `en` or `eng`");
                wrong.push(("languages", message));
            } else if self.model.is_none()
                && !whatlang::Lang::all().iter().any(|lang| iso::code(lang.code()) == code)
            {
                let message =
                    format!("holds `{language}`, which whatlang does not know; give a `model` of fastText");
                wrong.push(("languages", message));
            }
        }
        if self.max_chars == 0 {
            wrong.push(("max_chars", "is 0; expected 1 or more".to_owned()));
        }
        wrong
    }
}

enum Detector {
    Whatlang { max_chars: usize },
    FastText { model: Arc<FastTextModel>, newlines: Newlines },
}

/// The rule with its detector.
struct Detection {
    detector: Detector,
    languages: Vec<String>,
    min_confidence: f64,
}

/// Builds the rule.
///
/// # Errors
/// A model that cannot be read.
pub fn build(settings: &Settings) -> Built {
    static MODELS: Cache<FastTextModel> = Cache::new();
    let config: Language = decode(settings)?;
    let detector = match &config.model {
        None => Detector::Whatlang { max_chars: config.max_chars as usize },
        Some(path) => {
            let load = || FastTextModel::read(Path::new(path)).map_err(|e| e.to_string());
            Detector::FastText { model: MODELS.get(lists::key_of([path]), load)?, newlines: config.newlines }
        }
    };
    let languages = config.languages.iter().map(|language| iso::code(language)).collect();
    let min_confidence = config.min_confidence.unwrap_or(detector.min_confidence());
    Ok(Rule::Rewrite(Box::new(Detection { detector, languages, min_confidence })))
}

/// A language with the confidence that a text is in it.
struct Guess {
    language: String,
    confidence: f64,
}

impl Detector {
    /// Of 200-character pieces, both keep 98.8 % of the English ones and 1 % of others, see `docs/benchmarks/language.md`.
    fn min_confidence(&self) -> f64 {
        match self {
            Detector::Whatlang { .. } => 0.65,
            Detector::FastText { .. } => 0.4,
        }
    }

    /// The most likely language, and the confidence that the text is in one of `wanted` (in the most likely one if that is
    /// empty). `None` if no language was found, for example in a text without letters.
    fn detect(&self, text: &str, wanted: &[String]) -> Option<(Guess, f64)> {
        match self {
            Detector::Whatlang { max_chars } => {
                let end = text.char_indices().nth(*max_chars).map_or(text.len(), |(at, _)| at);
                let info = whatlang::detect(&text[..end])?;
                let guess = Guess { language: iso::code(info.lang().code()), confidence: info.confidence() };
                let is_wanted = wanted.is_empty() || wanted.contains(&guess.language);
                let confidence = if is_wanted { guess.confidence } else { 0.0 };
                Some((guess, confidence))
            }
            Detector::FastText { model, newlines } => {
                let mut guesses: Vec<(&String, f32)> =
                    model.labels().iter().zip(model.predict(text, *newlines)).collect();
                // Equal probabilities stay in the order of the labels.
                guesses.sort_by(|a, b| b.1.total_cmp(&a.1));
                let guesses = guesses.into_iter().filter(|(_, p)| *p > 0.0).map(|(label, p)| {
                    let label = label.trim_start_matches("__label__");
                    Guess { language: iso::code(label), confidence: f64::from(p) }
                });
                let mut best: Option<Guess> = None;
                let mut confidence: f64 = 0.0;
                for guess in guesses {
                    if wanted.contains(&guess.language) || (wanted.is_empty() && best.is_none()) {
                        confidence = confidence.max(guess.confidence);
                    }
                    best = best.or(Some(guess));
                }
                best.map(|best| (best, confidence))
            }
        }
    }
}

impl Rewrite for Detection {
    fn methods(&self) -> Vec<Reason> {
        Vec::new()
    }

    fn limits(&self, _action: Action) -> Vec<Limit> {
        vec![Limit::least("language", self.min_confidence)]
    }

    fn rewrite(&self, seen: &Text<'_>, out: &mut Rewriting) {
        let text = seen.as_str();
        out.keep(text);
        match self.detector.detect(text, &self.languages) {
            Some((guess, confidence)) => {
                out.value(confidence);
                if seen.metadata().language.is_none() {
                    out.language(&guess.language);
                }
            }
            None => out.value(0.0),
        }
    }
}
