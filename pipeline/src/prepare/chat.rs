//! The chat template: where it comes from, its variables, and what a recipe with conversations may not ask for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Goal, Prepared};
use crate::chat::{self, Chat};
use crate::error::Problem;
use crate::filter::Action;
use crate::recipe::{ChatTemplate, SourceConfig};
use crate::tokenizer::{EOD, Encoder, SpecialInText};

/// Files next to a tokenizer that hold its template.
const TEMPLATE_FILE: &str = "chat_template.jinja";
const CONFIG_FILE: &str = "tokenizer_config.json";

impl Prepared {
    /// Finds the template, if a source has conversations, and compiles it once.
    pub(super) fn find_chat(&mut self, base: &Path, goal: Goal) -> Vec<Problem> {
        let sources: Vec<SourceConfig> =
            self.recipe.source.iter().filter(|source| source.chat.is_some()).cloned().collect();
        let mut problems: Vec<Problem> = Vec::new();
        if sources.is_empty() {
            if self.recipe.chat.is_some() {
                let message =
                    "is there, but no [[source]] says `chat`: add it to those that hold conversations";
                problems.push(self.problem("chat", message.to_owned()));
            }
            return problems;
        }
        for (key, message) in sources.iter().flat_map(|source| self.conflicts(source)) {
            problems.push(self.problem(&key, message));
        }
        let template = match self.chat_template(base) {
            Ok(template) => template,
            Err((key, message)) => {
                problems.push(self.problem(key, message));
                return problems;
            }
        };
        for source in &sources {
            let made = source.chat_params(&template).map(|params| Chat::new(&params));
            if let Some(Err(message)) = made {
                problems.push(self.problem(&format!("source.{}.chat", source.name), message));
            }
        }
        if let (Goal::Shards, Some(file)) = (goal, &self.tokenizer) {
            let options = self.recipe.tokenizer.encoder_options();
            let checked = Encoder::shared(&file.path, &options).and_then(|encoder| encoder.check_marked());
            if let Err(e) = checked {
                problems.push(self.problem("tokenizer.file", e.to_string()));
            }
        }
        let unknown = chat::unknown_specials(&template.source, &template.specials);
        if goal == Goal::Shards && !unknown.is_empty() {
            self.warnings.push(format!(
                "the chat template writes `{}`, which is not a special token of the tokenizer: it will become several tokens of text",
                unknown.join("`, `")
            ));
        }
        self.recipe.chat_template = Some(template);
        problems
    }

    /// Whatever would change the text of conversations behind the template's back.
    fn conflicts(&self, source: &SourceConfig) -> Vec<(String, String)> {
        let name = &source.name;
        let mut wrong = Vec::new();
        let mut refuse = |key: String, what: &str| {
            wrong.push((
                key,
                format!(
                    "{what} the text of conversations, of which `{name}` has some; their marks would be wrong"
                ),
            ));
        };
        for filter in
            self.recipe.filter.iter().filter(|filter| filter.action == Action::Cut && filter.applies_to(name))
        {
            refuse(format!("filter.{}.sources", filter.name), "changes");
        }
        if self.recipe.dedup.paragraph.is_some() {
            refuse("dedup.paragraph".to_owned(), "cuts from");
        }
        if self.recipe.dedup.substring.is_some() {
            refuse("dedup.substring".to_owned(), "cuts from");
        }
        let cuts = |config: &crate::recipe::DecontaminateConfig| {
            config.action == crate::decontaminate::config::Action::Cut && config.applies_to(name)
        };
        if self.recipe.decontaminate.as_ref().is_some_and(cuts) {
            refuse("decontaminate.action".to_owned(), "cuts from");
        }
        let place = self.recipe.source.iter().position(|other| other.name == *name);
        if place.is_some_and(|place| self.is_rephrased(place)) {
            refuse("rephrase.from".to_owned(), "brings variants of");
        }
        if self.recipe.tokenizer.special_in_text == SpecialInText::Match {
            let message = format!(
                "is \"match\", with which what people say could become special tokens; `{name}` holds conversations: leave it \"text\""
            );
            wrong.push(("tokenizer.special_in_text".to_owned(), message));
        }
        wrong
    }

    fn chat_template(&self, base: &Path) -> Result<ChatTemplate, (&'static str, String)> {
        let config = self.recipe.chat.clone().unwrap_or_default();
        let tokenizer = self.tokenizer.as_ref().map(|file| file.path.as_path());
        let of_tokenizer =
            tokenizer.map(TokenizerFolder::read).transpose().map_err(|e| ("tokenizer.file", e))?;
        let of_tokenizer = of_tokenizer.unwrap_or_default();
        let source = match &config.template {
            Some(name) => match chat::built_in(name) {
                Some(source) => source.to_owned(),
                None => {
                    let path = base.join(name);
                    let wrong = |e: std::io::Error| ("chat.template", format!("cannot read {}: {e}", path.display()));
                    fs::read_to_string(&path).map_err(wrong)?
                }
            },
            None => of_tokenizer.template.clone().ok_or_else(|| {
                let place = match tokenizer {
                    Some(_) => format!("no `{TEMPLATE_FILE}` and no `chat_template` in a `{CONFIG_FILE}` is next to the tokenizer"),
                    None => "a trained tokenizer has none".to_owned(),
                };
                let advice = format!("name a file with one, or \"{}\"", chat::CHATML);
                ("chat.template", format!("is missing, and {place}; {advice}"))
            })?,
        };
        let mut variables = of_tokenizer.variables;
        let trains = self.recipe.tokenizer.train.as_ref();
        let mut specials = of_tokenizer.specials;
        if let Some(train) = trains {
            specials.extend([EOD.to_owned()].into_iter().chain(train.special_tokens.iter().cloned()));
            variables.insert("eos_token".to_owned(), EOD.to_owned());
        }
        let recipe = &self.recipe.tokenizer;
        for (name, given, otherwise) in
            [("bos_token", config.bos_token, &recipe.bos), ("eos_token", config.eos_token, &recipe.eod)]
        {
            let is_known = given.is_none() && variables.contains_key(name);
            if let Some(value) = given.or_else(|| otherwise.clone()).filter(|_| !is_known) {
                variables.insert(name.to_owned(), value);
            }
        }
        Ok(ChatTemplate { source, variables, specials, date: config.date })
    }
}

/// What a tokenizer and the files next to it say about conversations.
#[derive(Default)]
struct TokenizerFolder {
    template: Option<String>,
    variables: BTreeMap<String, String>,
    specials: Vec<String>,
}

impl TokenizerFolder {
    fn read(tokenizer: &Path) -> Result<TokenizerFolder, String> {
        let json = |path: &Path| -> Result<Option<Value>, String> {
            match fs::read(path) {
                Ok(bytes) => {
                    let parsed = serde_json::from_slice(&bytes);
                    parsed.map(Some).map_err(|e| format!("{} is not JSON: {e}", path.display()))
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(format!("cannot read {}: {e}", path.display())),
            }
        };
        let file = json(tokenizer)?.unwrap_or_default();
        let added = file["added_tokens"].as_array().into_iter().flatten();
        let specials =
            added.filter(|token| token["special"] == true).filter_map(|token| token["content"].as_str());
        let config = json(&tokenizer.with_file_name(CONFIG_FILE))?.unwrap_or_default();
        let path = tokenizer.with_file_name(TEMPLATE_FILE);
        let template = match fs::read_to_string(&path) {
            Ok(template) => Some(template),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => of_config(&config["chat_template"]),
            Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
        };
        let variables = config.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
        // A token is a text, or an object that has one.
        let variables = variables.filter_map(|(name, value)| {
            let text = value.as_str().or_else(|| value["content"].as_str())?;
            Some((name.clone(), text.to_owned()))
        });
        Ok(TokenizerFolder {
            template,
            variables: variables.collect(),
            specials: specials.map(str::to_owned).collect(),
        })
    }
}

/// A template, or of several with names the default one.
fn of_config(value: &Value) -> Option<String> {
    let named = value.as_array().into_iter().flatten().find(|template| template["name"] == "default");
    let template = value.as_str().or_else(|| named?["template"].as_str());
    template.map(str::to_owned)
}
