//! Records as conversations: lists of messages in the two usual layouts, or questions and answers in separate fields.

use std::collections::BTreeSet;

use minijinja::Value;
use minijinja::value::ValueKind;
use serde::{Deserialize, Serialize};

use super::template::FieldTemplate;
use super::{Refusal, Why};

/// Layout of a source's records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A list `messages` of role and content, or `conversations` of `from` and `value`, with `tools` if there are any.
    Messages,
    /// `prompt` and `completion`: texts, or lists of messages.
    Prompt,
    /// `instruction`, `output`, and an `input` that may be empty or missing.
    Instruction,
    /// Templates that make the messages of any fields.
    Fields {
        /// The system prompt, if there is one.
        system: Option<String>,
        /// The question.
        user: String,
        /// The answer.
        assistant: String,
    },
}

/// Fields with the list of messages, in the order in which they are looked for.
const LISTS: [&str; 3] = ["messages", "conversations", "conversation"];
/// ShareGPT's roles and ours.
const SPEAKERS: [(&str, &str); 12] = [
    ("system", "system"),
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("assistant", "assistant"),
    ("model", "assistant"),
    ("bot", "assistant"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
    ("ipython", "tool"),
];
/// Roles of messages: templates write them into headers, so nothing else is allowed.
const ROLES: [&str; 9] =
    ["system", "developer", "user", "assistant", "tool", "function", "ipython", "observation", "environment"];
/// Names of a message's reasoning; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// Role of the messages to train on.
const ASSISTANT: &str = "assistant";

/// A form whose templates are compiled.
#[derive(Debug)]
pub(super) enum Reading {
    Messages,
    Prompt,
    Instruction,
    Fields(Box<FieldTemplates>),
}

/// The templates of [`Form::Fields`].
#[derive(Debug)]
pub(super) struct FieldTemplates {
    system: Option<FieldTemplate>,
    user: FieldTemplate,
    assistant: FieldTemplate,
}

impl Form {
    /// Fields to read from a record, sorted.
    ///
    /// # Errors
    /// A template cannot be compiled.
    pub fn fields(&self) -> Result<Vec<String>, String> {
        let names: &[&str] = match self {
            Form::Messages => &["conversation", "conversations", "messages", "system", "tools"],
            Form::Prompt => &["completion", "prompt", "system", "tools"],
            Form::Instruction => &["input", "instruction", "output", "system"],
            Form::Fields { system, user, assistant } => {
                let templates = [Some(user), Some(assistant), system.as_ref()].into_iter().flatten();
                let mut names = BTreeSet::new();
                for template in templates {
                    names.extend(FieldTemplate::new(template)?.fields());
                }
                return Ok(names.into_iter().collect());
            }
        };
        Ok(names.iter().map(|&name| name.to_owned()).collect())
    }

    /// Groups of fields; every record has at least one field of each.
    pub fn needed(&self) -> &'static [&'static [&'static str]] {
        match self {
            Form::Messages => &[&LISTS],
            Form::Prompt => &[&["prompt"], &["completion"]],
            Form::Instruction => &[&["instruction"], &["output"]],
            Form::Fields { .. } => &[],
        }
    }

    pub(super) fn reading(&self) -> Result<Reading, String> {
        Ok(match self {
            Form::Messages => Reading::Messages,
            Form::Prompt => Reading::Prompt,
            Form::Instruction => Reading::Instruction,
            Form::Fields { system, user, assistant } => Reading::Fields(Box::new(FieldTemplates {
                system: system.as_deref().map(FieldTemplate::new).transpose()?,
                user: FieldTemplate::new(user)?,
                assistant: FieldTemplate::new(assistant)?,
            })),
        })
    }
}

fn bad(detail: impl Into<String>) -> Refusal {
    Refusal { why: Why::BadMessages, detail: detail.into() }
}

/// The value under a key; `None` if it is missing or null.
fn get(record: &Value, key: &str) -> Option<Value> {
    record.get_attr(key).ok().filter(|value| !value.is_undefined() && !value.is_none())
}

fn message(role: &str, content: &str) -> Value {
    Value::from_pairs([("role", role), ("content", content)])
}

/// The record with its lists and objects where it holds them as JSON text, so that what is done to texts is done to those
/// in them.
pub(super) fn parsed(reading: &Reading, record: &Value) -> Value {
    if record.kind() != ValueKind::Map {
        return record.clone();
    }
    let entry = |key: Value| {
        let value = record.get_item(&key).unwrap_or_default();
        let name = key.as_str().unwrap_or_default();
        let json = |text: &str| serde_json::from_str::<Value>(text).ok();
        let found = value.as_str().and_then(|text| match reading {
            Reading::Messages if LISTS.contains(&name) => json(text),
            Reading::Fields(_) => messages_of(text),
            _ if name == "tools" => json(text),
            Reading::Prompt if ["prompt", "completion"].contains(&name) => messages_of(text),
            _ => None,
        });
        (key, found.unwrap_or(value))
    };
    let entries: Vec<(Value, Value)> = record.try_iter().into_iter().flatten().map(entry).collect();
    Value::from_pairs(entries)
}

/// The messages in a text that is a JSON list of them.
fn messages_of(text: &str) -> Option<Value> {
    let list: Value = text.trim_start().starts_with('[').then(|| serde_json::from_str(text).ok())??;
    let is_message = |item: Value| get(&item, "role").or_else(|| get(&item, "from")).is_some();
    let mut items = list.try_iter().ok()?.peekable();
    items.peek().is_some().then_some(())?;
    items.all(is_message).then_some(list)
}

/// Messages and tools of a record.
pub(super) fn conversation(reading: &Reading, record: &Value) -> Result<(Vec<Value>, Value), Refusal> {
    let text = |name: &str| match get(record, name) {
        None => Err(bad(format!("has no `{name}`"))),
        Some(value) => value.as_str().map(str::to_owned).ok_or_else(|| bad(format!("`{name}` is not text"))),
    };
    let mut messages = match reading {
        Reading::Messages => {
            let found = LISTS.iter().find_map(|name| Some((name, get(record, name)?)));
            let (name, value) = found.ok_or_else(|| bad(format!("has no `{}`", LISTS.join("`, `"))))?;
            list(name, &value)?
        }
        Reading::Prompt => {
            let mut messages = part(record, "prompt", "user")?;
            messages.extend(part(record, "completion", ASSISTANT)?);
            messages
        }
        Reading::Instruction => {
            let (instruction, output) = (text("instruction")?, text("output")?);
            let input = if get(record, "input").is_some() { text("input")? } else { String::new() };
            let question = match input.trim().is_empty() {
                true => instruction,
                false => format!("{instruction}\n\n{input}"),
            };
            vec![message("user", &question), message(ASSISTANT, &output)]
        }
        Reading::Fields(templates) => {
            let FieldTemplates { system, user, assistant } = &**templates;
            let made = |template: &FieldTemplate, key: &str| {
                template.render(record).map_err(|problem| bad(format!("`chat_{key}`: {problem}")))
            };
            let system = system.as_ref().map(|template| made(template, "system")).transpose()?;
            let system = system.filter(|text| !text.trim().is_empty());
            let mut messages: Vec<Value> = system.iter().map(|text| message("system", text)).collect();
            messages.push(message("user", &made(user, "user")?));
            messages.push(message(ASSISTANT, &made(assistant, "assistant")?));
            messages
        }
    };
    if !matches!(reading, Reading::Fields(_))
        && let Some(system) = get(record, "system")
    {
        let system = system.as_str().ok_or_else(|| bad("`system` is not text"))?;
        if !system.trim().is_empty() {
            messages.insert(0, message("system", system));
        }
    }
    let messages = messages.iter().enumerate().map(|(i, message)| checked(i, message));
    Ok((messages.collect::<Result<_, _>>()?, tools(record)?))
}

/// A field that is a text, or a list of messages.
fn part(record: &Value, name: &str, role: &str) -> Result<Vec<Value>, Refusal> {
    let value = get(record, name).ok_or_else(|| bad(format!("has no `{name}`")))?;
    match value.as_str() {
        Some(text) => Ok(vec![message(role, text)]),
        None => list(name, &value),
    }
}

/// A list of messages, or a text that holds one as JSON.
fn list(name: &str, value: &Value) -> Result<Vec<Value>, Refusal> {
    let parsed = match value.as_str() {
        Some(text) => serde_json::from_str(text).map_err(|e| bad(format!("`{name}` is not a list: {e}")))?,
        None => value.clone(),
    };
    if parsed.kind() != ValueKind::Seq {
        return Err(bad(format!("`{name}` is not a list of messages")));
    }
    let items = parsed.try_iter().map_err(|e| bad(e.to_string()))?;
    let messages: Vec<Value> = items.collect();
    match messages.is_empty() {
        true => Err(bad(format!("`{name}` is empty"))),
        false => Ok(messages),
    }
}

fn tools(record: &Value) -> Result<Value, Refusal> {
    let none = Value::from(());
    let Some(value) = get(record, "tools") else { return Ok(none) };
    let parsed: Value = match value.as_str() {
        Some(text) if text.trim().is_empty() => return Ok(none),
        Some(text) => serde_json::from_str(text).map_err(|e| bad(format!("`tools` is not a list: {e}")))?,
        None => value,
    };
    match (parsed.kind(), parsed.len()) {
        (ValueKind::None, _) | (ValueKind::Seq, Some(0)) => Ok(none),
        (ValueKind::Seq, _) => Ok(parsed),
        _ => Err(bad("`tools` is not a list")),
    }
}

/// A message with role and content, as templates expect it: keys without a value are left out, and reasoning is stored under
/// the names that templates read.
pub(super) fn checked(i: usize, found: &Value) -> Result<Value, Refusal> {
    let place = format!("message {}", i + 1);
    if found.kind() != ValueKind::Map {
        return Err(bad(format!("{place} is not an object")));
    }
    let keys: Vec<Value> = found.try_iter().map_err(|e| bad(e.to_string()))?.collect();
    let mut entries: Vec<(String, Value)> = Vec::new();
    for key in keys {
        let value = found.get_item(&key).unwrap_or_default();
        if !value.is_none() {
            entries.push((key.to_string(), value));
        }
    }
    let is_share_gpt = get(found, "role").is_none() && get(found, "from").is_some();
    if is_share_gpt {
        if get(found, "value").is_some() && get(found, "content").is_some() {
            return Err(bad(format!("{place} has both `value` and `content`; leave one out")));
        }
        for (key, value) in &mut entries {
            match key.as_str() {
                "from" => {
                    let from = value.as_str().unwrap_or_default();
                    let role = SPEAKERS.iter().find(|(name, _)| *name == from).map(|(_, role)| *role);
                    let known = || SPEAKERS.map(|(name, _)| name).join("`, `");
                    let role = role.ok_or_else(|| {
                        bad(format!("{place} is from `{from}`; expected one of `{}`", known()))
                    })?;
                    (*key, *value) = ("role".to_owned(), Value::from(role));
                }
                "value" => *key = "content".to_owned(),
                _ => {}
            }
        }
    }
    let entry = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let role = entry("role").ok_or_else(|| bad(format!("{place} has no `role`")))?;
    let role = role.as_str().ok_or_else(|| bad(format!("the `role` of {place} is not text")))?;
    if !ROLES.contains(&role) {
        return Err(bad(format!(
            "the `role` of {place} is {role:?}; expected one of `{}`",
            ROLES.join("`, `")
        )));
    }
    let calls_tools = entry("tool_calls").is_some_and(|calls| calls.is_true());
    match entry("content").map(|content| content.kind()) {
        Some(ValueKind::String | ValueKind::Seq) => {}
        None if calls_tools => {}
        None => return Err(bad(format!("{place} has no `content`"))),
        Some(_) => {
            return Err(bad(format!("the `content` of {place} is neither a text nor a list of parts")));
        }
    }
    let reasoning = REASONING.iter().find_map(|name| entry(name));
    let says = |value: &Value| texts_of(value).iter().any(|text| !text.trim().is_empty());
    let is_empty =
        !entry("content").is_some_and(|content| says(&content)) && !reasoning.as_ref().is_some_and(says);
    if role == ASSISTANT && is_empty && !calls_tools {
        return Err(Refusal { why: Why::EmptyAnswer, detail: format!("{place} is an answer without text") });
    }
    if let Some(reasoning) = reasoning {
        let is_thought = entry("thinking").is_some();
        entries.retain(|(key, _)| key != REASONING[0]);
        if !is_thought {
            entries.insert(0, ("thinking".to_owned(), reasoning.clone()));
        }
        entries.push((REASONING[0].to_owned(), reasoning));
    }
    Ok(Value::from_pairs(entries))
}

/// A text, or the texts of parts.
pub(super) fn texts_of(content: &Value) -> Vec<String> {
    if let Some(text) = content.as_str() {
        return vec![text.to_owned()];
    }
    let parts = content.try_iter().into_iter().flatten();
    parts.filter_map(|part| get(&part, "text").and_then(|text| text.as_str().map(str::to_owned))).collect()
}

/// The message with each of its texts replaced, as far as [`texts_of`] finds them.
pub(super) fn saying(message: &Value, text: &str) -> Value {
    let with = |value: &Value, name: &str, other: Value| {
        let keys = value.try_iter().into_iter().flatten();
        let entries = keys.map(|key| {
            let is_it = key.as_str() == Some(name);
            let item = if is_it { other.clone() } else { value.get_item(&key).unwrap_or_default() };
            (key, item)
        });
        Value::from_pairs(entries.collect::<Vec<_>>())
    };
    let content = get(message, "content").unwrap_or_default();
    let parts = content.try_iter().into_iter().flatten();
    let said = match content.kind() {
        ValueKind::Seq => parts
            .map(|part| match get(&part, "text") {
                Some(_) => with(&part, "text", Value::from(text)),
                None => part,
            })
            .collect(),
        _ => Value::from(text),
    };
    with(message, "content", said)
}

/// Names of the functions that a message calls.
pub(super) fn called(message: &Value) -> Vec<String> {
    let calls = get(message, "tool_calls");
    let calls = calls.iter().filter_map(|calls| calls.try_iter().ok()).flatten();
    let name = |call: Value| {
        let function = get(&call, "function").unwrap_or(call);
        get(&function, "name").and_then(|name| name.as_str().map(str::to_owned))
    };
    calls.filter_map(name).collect()
}

/// Role of a message.
pub(super) fn role_of(message: &Value) -> Option<String> {
    get(message, "role").and_then(|role| role.as_str().map(str::to_owned))
}

/// Positions of the messages that are trained.
pub(super) fn answers(messages: &[Value]) -> impl Iterator<Item = usize> {
    (0..messages.len()).filter(|&i| role_of(&messages[i]).as_deref() == Some(ASSISTANT))
}

/// The same value with every text of it changed, keys of objects included; a text stays where the function returns nothing.
pub(super) fn with_texts(value: &Value, change: &mut dyn FnMut(&str) -> Option<String>) -> Value {
    match value.kind() {
        ValueKind::String => value.as_str().and_then(change).map_or_else(|| value.clone(), Value::from),
        ValueKind::Seq => {
            value.try_iter().into_iter().flatten().map(|item| with_texts(&item, change)).collect()
        }
        ValueKind::Map => {
            let entries = value.try_iter().into_iter().flatten().map(|key| {
                let item = value.get_item(&key).unwrap_or_default();
                (with_texts(&key, change), with_texts(&item, change))
            });
            Value::from_pairs(entries.collect::<Vec<_>>())
        }
        _ => value.clone(),
    }
}
