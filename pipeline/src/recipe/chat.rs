//! `[chat]`: how conversations are written, for sources that say `chat`.

use std::collections::BTreeMap;

use moe_shards::Hash;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::chat::Form;
use crate::strict_toml::{Docs, Fault, Section, documented};

/// Layout of the records of a source of conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatKind {
    /// `messages`, or `conversations` of ShareGPT.
    Messages,
    /// `prompt` and `completion`.
    Prompt,
    /// `instruction`, `input` and `output`.
    Instruction,
    /// Any fields, which `chat_user` and `chat_assistant` turn into messages.
    Fields,
}

documented! {
    /// `[chat]`.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct ChatConfig {
        /// A file with a Jinja template, relative to the recipe's folder, or `chatml`; the tokenizer's when absent.
        pub template: Option<String>,
        /// Value of `bos_token` in the template; that of `tokenizer_config.json` when absent.
        pub bos_token: Option<String>,
        /// Value of `eos_token` in the template; that of `tokenizer_config.json` when absent.
        pub eos_token: Option<String>,
        /// The date for `strftime_now`, as YYYY-MM-DD, since a build must not depend on the day it runs.
        pub date: Option<String>,
    }
}

impl Section for ChatConfig {
    fn docs() -> Docs {
        ChatConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let is_date = |date: &str| chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").is_ok();
        match self.date.as_deref().filter(|date| !is_date(date)) {
            Some(date) => vec![("date", format!("is `{date}`; expected a day such as \"2024-07-26\""))],
            None => Vec::new(),
        }
    }
}

/// The template of a build, once found, with its variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChatTemplate {
    /// Its source.
    pub source: String,
    /// Its variables.
    pub variables: BTreeMap<String, String>,
    /// Strings of the special tokens.
    pub specials: Vec<String>,
    /// What it takes for today.
    pub date: Option<String>,
}

impl ChatTemplate {
    /// Everything that decides the text of a conversation. Special tokens belong to the tokenizer, which counts on its own.
    pub fn identity(&self, form: &Form) -> Value {
        json!(["chat", form, Hash::of(self.source.as_bytes()), self.variables, self.date])
    }
}
