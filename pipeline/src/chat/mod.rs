//! Conversations as training text. A record becomes messages ([`Form`]), a chat template renders them as `transformers`
//! would, and [`Marks`] say which stretches of the text are the assistant's, and which are text although they have the
//! form of a special token, because a message contains them. Only the template makes special tokens.

mod hide;
mod json;
mod marks;
mod record;
mod spans;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use minijinja::Value;
use serde::{Deserialize, Serialize};

use self::hide::{BEGIN, END, Hidden, Restored};
pub use self::marks::Marks;
pub use self::record::Form;
use self::record::{Reading, answers, called, conversation, parsed, role_of, saying, texts_of, with_texts};
use self::template::Template;

/// The template of ChatML, under this name in a recipe.
pub const CHATML: &str = "chatml";
const CHATML_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}\
    {% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}\
    {% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The source of a template known by name.
pub fn built_in(name: &str) -> Option<&'static str> {
    (name == CHATML).then_some(CHATML_TEMPLATE)
}

/// How records become text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatParams {
    /// Their layout.
    pub form: Form,
    /// Source of the chat template.
    pub template: String,
    /// Variables of the template, such as `bos_token`.
    pub variables: BTreeMap<String, String>,
    /// Strings of the special tokens.
    pub specials: Vec<String>,
    /// What the template takes as today's date.
    pub date: Option<String>,
}

/// Why a record is not a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its messages are malformed.
    BadMessages,
    /// An answer has no text.
    EmptyAnswer,
    /// There is no answer.
    NoAnswer,
    /// The template refuses it, or does not say where its answers are.
    Template,
}

/// A record that is not a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: Why,
    /// The details.
    pub detail: String,
}

/// Renders the records of a source.
#[derive(Debug)]
pub struct Chat {
    reading: Reading,
    template: Template,
    hidden: Hidden,
}

impl Chat {
    /// Compiles the templates.
    ///
    /// # Errors
    /// One of them does not compile; the message says why.
    pub fn new(params: &ChatParams) -> Result<Chat, String> {
        Ok(Chat {
            reading: params.form.reading()?,
            template: Template::new(params)?,
            hidden: Hidden::new(&params.specials)?,
        })
    }

    /// The text of a record, which is the JSON object of its fields, and what is marked in it. `normalize` brings every text
    /// of the record into its form.
    ///
    /// # Errors
    /// The record is not a conversation, or the template refuses it.
    pub fn document(
        &self,
        record: &str,
        normalize: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(String, Marks), Refusal> {
        let bad = |detail: String| Refusal { why: Why::BadMessages, detail };
        let record: Value = serde_json::from_str(record).map_err(|e| bad(e.to_string()))?;
        let record = with_texts(&parsed(&self.reading, &record), &mut |text| normalize(text));
        let (messages, tools) = conversation(&self.reading, &record)?;
        if answers(&messages).next().is_none() {
            let detail = "no message has the role `assistant`".to_owned();
            return Err(Refusal { why: Why::NoAnswer, detail });
        }
        let refused = |detail: String| Refusal { why: Why::Template, detail };
        let restored = self.rendered(&messages, &tools).map_err(refused)?;
        self.check_complete((&messages, &tools), &restored.text).map_err(refused)?;
        self.check_answers(&messages, &restored).map_err(refused)?;
        let Restored { text, plain, generated } = restored;
        let trained: Vec<(usize, usize)> = generated.into_iter().filter(|(start, end)| start < end).collect();
        let n_bytes = text.len();
        Ok((text, Marks { n_bytes, trained, plain }))
    }

    /// Refuses a template that drops an answer entirely, such as one that only calls tools: the model would learn
    /// to stop at once.
    fn check_answers(&self, messages: &[Value], restored: &Restored) -> Result<(), String> {
        let Restored { text, plain, generated } = restored;
        // Adjacent blocks read as one answer.
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for &(start, end) in generated {
            match stretches.last_mut().filter(|last| self.template.marks_generation && last.1 == start) {
                Some(last) => last.1 = end,
                None => stretches.push((start, end)),
            }
        }
        let says = |&(start, end): &(usize, usize)| {
            let is_said = plain.iter().any(|&(from, to)| from < end && start < to);
            is_said || !self.hidden.without_specials(&text[start..end]).trim().is_empty()
        };
        if generated.iter().all(|(start, end)| start >= end) {
            return Err("the template marks nothing as generated".to_owned());
        }
        // A template with blocks may have zero or more in an answer.
        let all: Vec<usize> = answers(messages).collect();
        let places = (stretches.len() == all.len()).then_some(&stretches);
        for (k, &i) in all.iter().enumerate() {
            let place = places.map(|places| places[k]);
            let written = place.filter(|_| !self.template.marks_generation);
            let written = written.map_or(&text[..], |(start, end)| &text[start..end]);
            let missing =
                |name: &String| !written.contains(&**name) && !written.contains(&json::escaped(name));
            if let Some(name) = called(&messages[i]).into_iter().find(missing) {
                return Err(format!("the template leaves out the call of `{name}` in message {}", i + 1));
            }
            // An empty block teaches nothing, perhaps on purpose.
            let is_left = |place: &(usize, usize)| self.template.marks_generation && place.0 == place.1;
            if place.is_some_and(|place| !is_left(&place) && !says(&place)) {
                return Err(format!("the template writes nothing of message {}, an answer", i + 1));
            }
        }
        match stretches.iter().any(says) {
            true => Ok(()),
            false => Err("the template writes nothing of the answers".to_owned()),
        }
    }

    fn rendered(&self, messages: &[Value], tools: &Value) -> Result<Restored, String> {
        let mut n_hidden = 0;
        let mut hide = |text: &str| self.hidden.hide(text).inspect(|_| n_hidden += 1);
        let said: Vec<Value> = messages.iter().map(|message| with_texts(message, &mut hide)).collect();
        let shown_tools = with_texts(tools, &mut hide);
        let all: Value = said.iter().cloned().collect();
        let mut full = self.template.render(&all, &shown_tools, false, self.template.marks_generation)?;
        if !self.template.marks_generation {
            let spans = spans::spans(&self.template, &self.hidden, (&said, &shown_tools), &full)?;
            for (start, end) in spans.into_iter().rev() {
                full.insert(end, END);
                full.insert(start, BEGIN);
            }
        }
        let restored = self.hidden.restore(&full)?;
        if n_hidden > 0 {
            let all: Value = messages.iter().cloned().collect();
            if self.template.render(&all, tools, false, false)? != restored.text {
                return Err("the template looks for strings of special tokens in messages, and one has some"
                    .to_owned());
            }
        }
        Ok(restored)
    }

    /// Refuses a template that leaves out messages, such as those of unknown roles.
    fn check_complete(&self, (messages, tools): (&[Value], &Value), text: &str) -> Result<(), String> {
        let left_out = |i: usize| {
            let role = role_of(&messages[i]).unwrap_or_default();
            format!("the template leaves out message {} (role `{role}`)", i + 1)
        };
        let mut changed = messages.to_vec();
        let mut said = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            // Templates may shorten answers, for example by dropping earlier reasoning; their places are checked elsewhere.
            if role_of(message).as_deref() == Some("assistant") {
                continue;
            }
            let content = message.get_attr("content").unwrap_or_default();
            let texts: Vec<String> = texts_of(&content).iter().map(|said| said.trim().to_owned()).collect();
            if texts.iter().any(|said| !text.contains(said) && !text.contains(&json::escaped(said))) {
                return Err(left_out(i));
            }
            if texts.iter().any(|said| !said.is_empty()) {
                let marker = format!("moe{i}marker");
                changed[i] = saying(message, &marker);
                said.push((i, marker));
            }
        }
        // A text may also occur elsewhere, such as a tool's result in the answer; replacement texts would not.
        let all = self.template.render(&changed.iter().cloned().collect(), tools, false, false).ok();
        for (i, marker) in said {
            if all.as_ref().is_some_and(|all| all.contains(&marker)) {
                continue;
            }
            // Some templates look at the contents; then one text is changed at a time.
            let one = messages.iter().enumerate().map(|(k, message)| match k == i {
                true => changed[k].clone(),
                false => message.clone(),
            });
            let one = self.template.render(&one.collect(), tools, false, false);
            if one.is_ok_and(|one| one == text) {
                return Err(left_out(i));
            }
        }
        Ok(())
    }
}

/// The special tokens that a template seems to write, by their form, but that are not among `specials`.
pub fn unknown_specials(template: &str, specials: &[String]) -> Vec<String> {
    let Ok(form) = regex::Regex::new(r"<\|[a-zA-Z0-9_]+\|>") else { return Vec::new() };
    let mut found: Vec<String> = form
        .find_iter(template)
        .map(|found| found.as_str().to_owned())
        .filter(|name| !specials.contains(name))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
