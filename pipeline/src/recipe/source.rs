//! `[[source]]`: one named origin of documents.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::inputs::Choice;
use super::{ChatKind, ChatTemplate};
use crate::chat::{ChatParams, Form as ChatForm};
use crate::read::{Charset, FieldPaths, Form, Format, MetadataFields};
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// `[[source]]`: one named origin of documents.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct SourceConfig {
        /// `[a-z0-9_-]+`; names the shards and the rows of every report.
        pub name: String,
        /// Files, folders or globs, relative to the recipe's folder.
        pub paths: Vec<String>,
        /// Patterns as in a `.gitignore`: only files below the paths that match one are read.
        pub include: Vec<String>,
        /// Patterns as in a `.gitignore`: files that match one are skipped. A `.moeignore` file has such lines for its folder.
        pub exclude: Vec<String>,
        /// Whether `.gitignore` files in the folders also count. Off by default, since data is often git-ignored.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub gitignore: bool,
        /// Most records to read, in the order of the files' paths; for trying out a recipe.
        pub max_records: Option<u64>,
        /// Format of the files; by content when absent.
        pub format: Option<Format>,
        /// Encoding of text, JSONL, CSV and web pages, such as `windows-1252`; detected when absent.
        pub encoding: Option<Charset>,
        /// Field with the document's name, dotted for nested ones; derived from the text's hash when absent.
        pub id: Option<String>,
        /// Whether a record may lack that field, and is then named by its text's hash.
        pub id_optional: bool,
        /// Field with the text.
        pub text: String,
        /// Records are conversations: `messages`, `prompt`, `instruction`, or `fields` with `chat_user` and `chat_assistant`.
        pub chat: Option<ChatKind>,
        /// With `chat = "fields"`: a Jinja template that makes a system prompt from a record's fields; none when absent.
        pub chat_system: Option<String>,
        /// With `chat = "fields"`: a Jinja template that makes the question from a record's fields.
        pub chat_user: Option<String>,
        /// With `chat = "fields"`: a Jinja template that makes the answer from a record's fields.
        pub chat_assistant: Option<String>,
        /// Field whose value is shared by texts that say the same thing; when absent, each document is its own family.
        pub family: Option<String>,
        /// Field that says which text of the family this is.
        pub variant: Option<String>,
        /// Values of that field; the first one is the original (variant 0).
        pub variants: Vec<String>,
        /// Field with the quality: a bucket from 0 to 255, or any number with `quality_edges`.
        pub quality: Option<String>,
        /// Ascending numbers; the bucket is the number of edges at most the field's value.
        pub quality_edges: Vec<f64>,
        /// Field with the language code (`en`, `pt-BR`, `eng_Latn`).
        pub language: Option<String>,
        /// Field with a tag or a list of tags; a data set has at most eight.
        pub tags: Option<String>,
        /// Field with a date, as ISO 8601 text.
        pub date: Option<String>,
        /// Field with a score, a finite number; higher is better.
        pub score: Option<String>,
        /// Field with the URL of the document.
        pub url: Option<String>,
        /// Other fields to carry to exported texts, under the same names.
        pub keep_fields: Vec<String>,
    }
}

impl Default for SourceConfig {
    fn default() -> SourceConfig {
        SourceConfig {
            name: String::new(),
            paths: Vec::new(),
            format: None,
            encoding: None,
            id: None,
            id_optional: false,
            include: Vec::new(),
            exclude: Vec::new(),
            gitignore: false,
            max_records: None,
            text: "text".to_owned(),
            chat: None,
            chat_system: None,
            chat_user: None,
            chat_assistant: None,
            family: None,
            variant: None,
            variants: Vec::new(),
            quality: None,
            quality_edges: Vec::new(),
            language: None,
            tags: None,
            date: None,
            score: None,
            url: None,
            keep_fields: Vec::new(),
        }
    }
}

impl SourceConfig {
    /// What is known about the files before they are opened.
    pub fn form(&self) -> Form {
        Form { format: self.format, encoding: self.encoding }
    }

    /// Which of the files are read.
    pub fn choice(&self) -> Choice<'_> {
        Choice { include: &self.include, exclude: &self.exclude, gitignore: self.gitignore }
    }

    /// Layout of its records, if they are conversations.
    pub fn chat_form(&self) -> Option<ChatForm> {
        Some(match self.chat? {
            ChatKind::Messages => ChatForm::Messages,
            ChatKind::Prompt => ChatForm::Prompt,
            ChatKind::Instruction => ChatForm::Instruction,
            ChatKind::Fields => ChatForm::Fields {
                system: self.chat_system.clone(),
                user: self.chat_user.clone().unwrap_or_default(),
                assistant: self.chat_assistant.clone().unwrap_or_default(),
            },
        })
    }

    /// How its records become text by a template; `None` for a source of plain text.
    pub fn chat_params(&self, template: &ChatTemplate) -> Option<ChatParams> {
        Some(ChatParams {
            form: self.chat_form()?,
            template: template.source.clone(),
            variables: template.variables.clone(),
            specials: template.specials.clone(),
            date: template.date.clone(),
        })
    }

    /// The fields that readers look for.
    pub fn fields(&self) -> FieldPaths {
        FieldPaths {
            id: self.id.clone(),
            id_optional: self.id_optional,
            text: self.text.clone(),
            // A template that does not compile is reported before anything is read.
            conversation: self.chat_form().map(|form| form.fields().unwrap_or_default()),
            family: self.family.clone(),
            variant: self.variant.clone(),
            metadata: self.metadata(),
            keep: self.keep_fields.clone(),
        }
    }

    /// Everything that decides how its records become documents.
    pub(super) fn identity(&self) -> Value {
        let SourceConfig { name, id, text, family, variant, variants, .. } = self;
        let mut identity = json!([name, id, text, family, variant, variants, self.metadata()]);
        // Absent if not given, so that old identities stay.
        if let (Some(encoding), Some(items)) = (self.encoding, identity.as_array_mut()) {
            items.push(json!(encoding));
        }
        if let (true, Some(items)) = (self.id_optional, identity.as_array_mut()) {
            items.push(json!("id_optional"));
        }
        identity
    }

    fn metadata(&self) -> MetadataFields {
        MetadataFields {
            quality: self.quality.clone(),
            quality_edges: self.quality_edges.clone(),
            language: self.language.clone(),
            tags: self.tags.clone(),
            date: self.date.clone(),
            score: self.score.clone(),
            url: self.url.clone(),
        }
    }
}

/// Columns that exported texts always have.
const TEXT_COLUMNS: [&str; 11] =
    ["id", "text", "source", "family", "variant", "quality", "language", "tags", "score", "url", "date"];

/// Most variants of one source: the variant is a byte in the shard.
pub(super) const MAX_VARIANTS: usize = 256;

impl Section for SourceConfig {
    fn docs() -> Docs {
        SourceConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if self.name.is_empty() {
            wrong.push(("name", "is missing; give each source a name".to_owned()));
        } else if !self.name.bytes().all(allowed) {
            wrong.push(("name", format!("`{}` may hold only a-z, 0-9, `_` and `-`", self.name)));
        }
        if self.paths.is_empty() {
            wrong.push(("paths", "is missing; list files, folders or globs".to_owned()));
        }
        if self.id_optional && self.id.is_none() {
            wrong.push(("id_optional", "needs `id`, the field that may be missing".to_owned()));
        }
        if self.max_records == Some(0) {
            wrong.push(("max_records", "is 0; leave the source out instead".to_owned()));
        }
        if self.text.is_empty() {
            wrong.push(("text", "is empty; name the field that holds the text".to_owned()));
        }
        let of_fields = [
            ("chat_user", &self.chat_user, true),
            ("chat_assistant", &self.chat_assistant, true),
            ("chat_system", &self.chat_system, false),
        ];
        for (key, template, is_needed) in of_fields {
            match (self.chat == Some(ChatKind::Fields), template) {
                (true, None) if is_needed => {
                    let message = "is missing; write a Jinja template of the record's fields, such as \"{{ question }}\"";
                    wrong.push((key, message.to_owned()));
                }
                (false, Some(_)) => wrong.push((key, "needs `chat = \"fields\"`".to_owned())),
                _ => {}
            }
        }
        if self.chat.is_some() && self.text != SourceConfig::default().text {
            wrong.push((
                "text",
                "names a text, but `chat` makes one of messages; leave one of them out".to_owned(),
            ));
        }
        if self.variant.is_some() && self.family.is_none() {
            wrong.push(("variant", "needs `family`: a variant is one text of a family".to_owned()));
        }
        if self.variant.is_some() == self.variants.is_empty() {
            let message = "`variant` (the field) and `variants` (its values, the original first) must be given together";
            wrong.push(("variants", message.to_owned()));
        }
        if self.variants.len() > MAX_VARIANTS {
            wrong.push((
                "variants",
                format!("has {} values, at most {MAX_VARIANTS} are possible", self.variants.len()),
            ));
        }
        if let Some(twice) = self.variants.iter().enumerate().find(|(i, v)| self.variants[..*i].contains(v)) {
            wrong.push(("variants", format!("names `{}` twice", twice.1)));
        }
        if let Some(name) = self.keep_fields.iter().find(|name| TEXT_COLUMNS.contains(&name.as_str())) {
            let message = format!("`{name}` is a column of exported texts already; leave it out");
            wrong.push(("keep_fields", message));
        }
        let edges = &self.quality_edges;
        if !edges.is_empty() && self.quality.is_none() {
            wrong.push(("quality_edges", "needs `quality`, the field with the numbers".to_owned()));
        }
        if edges.len() > usize::from(u8::MAX) || edges.windows(2).any(|pair| pair[0] >= pair[1]) {
            let message = "expected at most 255 numbers, each above the one before";
            wrong.push(("quality_edges", message.to_owned()));
        }
        wrong
    }
}
