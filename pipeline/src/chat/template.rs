//! Chat templates: Jinja as `transformers` runs it, so a template from the Hub renders the same text here.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use regex::Regex;

use super::ChatParams;
use super::hide::{BEGIN, END};
use super::json::dumps;

/// Name of the only template of an environment.
const NAME: &str = "chat";
/// Filter that replaces the `generation` tag.
const GENERATION: &str = "moe_generation";
/// Variable that asks for marks around what that filter gets.
const MARKED: &str = "moe_marked";

/// Longest source of a template, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Instructions that one rendering may take: about a second. Long conversations take some ten thousand.
const MAX_STEPS: u64 = 10_000_000;

/// A compiled chat template with its variables.
#[derive(Debug)]
pub(super) struct Template {
    env: Environment<'static>,
    variables: Vec<(String, Value)>,
    /// Whether it marks what the assistant generates.
    pub marks_generation: bool,
}

impl Template {
    /// Compiles the template; a message if that fails.
    pub fn new(params: &ChatParams) -> Result<Template, String> {
        if params.template.len() > MAX_BYTES {
            return Err(format!(
                "the chat template has {} bytes, the limit is {MAX_BYTES}",
                params.template.len()
            ));
        }
        let mut env = environment();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| describe(&e))?);
        let date = params.date.clone();
        env.add_function("strftime_now", move |format: &str| strftime(date.as_deref(), format));
        env.add_filter(GENERATION, |state: &State, text: String| {
            match state.lookup(MARKED).is_some_and(|value| value.is_true()) {
                true => format!("{BEGIN}{text}{END}"),
                false => text,
            }
        });
        // All forms of line ends in a template are equal.
        let lines = params.template.replace("\r\n", "\n").replace('\r', "\n");
        let (source, marks_generation) = with_filter(&lines);
        env.add_template_owned(NAME, source).map_err(|e| describe(&e))?;
        let variables =
            params.variables.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        Ok(Template { env, variables: variables.collect(), marks_generation })
    }

    /// The text of a conversation.
    pub fn render(
        &self,
        messages: &Value,
        tools: &Value,
        prompt: bool,
        marked: bool,
    ) -> Result<String, String> {
        let mut variables = self.variables.clone();
        variables.extend([
            ("messages".to_owned(), messages.clone()),
            ("tools".to_owned(), tools.clone()),
            ("documents".to_owned(), Value::from(())),
            ("add_generation_prompt".to_owned(), Value::from(prompt)),
            (MARKED.to_owned(), Value::from(marked)),
        ]);
        let template = self.env.get_template(NAME).map_err(|e| describe(&e))?;
        template.render(Value::from_pairs(variables)).map_err(|e| describe(&e))
    }
}

/// A template that makes a text from the fields of a record; it may test for fields that a record lacks, but not print them.
#[derive(Debug)]
pub(super) struct FieldTemplate(Environment<'static>);

impl FieldTemplate {
    /// Compiles the template; a message if that fails.
    pub fn new(source: &str) -> Result<FieldTemplate, String> {
        let mut env = environment();
        env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        env.add_template_owned(NAME, source.to_owned()).map_err(|e| describe(&e))?;
        Ok(FieldTemplate(env))
    }

    /// Names of the fields that it uses, sorted.
    pub fn fields(&self) -> Vec<String> {
        let names = self.0.get_template(NAME).map(|template| template.undeclared_variables(false));
        let known = |name: &String| self.0.globals().any(|(global, _)| global == name.as_str());
        let mut names: Vec<String> =
            names.unwrap_or_default().into_iter().filter(|name| !known(name)).collect();
        names.sort_unstable();
        names
    }

    /// The text of a record.
    pub fn render(&self, record: &Value) -> Result<String, String> {
        let template = self.0.get_template(NAME).map_err(|e| describe(&e))?;
        template.render(record.clone()).map_err(|e| describe(&e))
    }
}

/// What `transformers` provides to every template.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_fuel(Some(MAX_STEPS));
    env.set_unknown_method_callback(unknown_method_callback);
    env.add_function("raise_exception", |message: &str| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
    });
    env.add_filter("tojson", |value: &Value, kwargs: Kwargs| dumps(value, &kwargs));
    // What Python can iterate over, which is not None.
    env.add_test("iterable", |value: &Value| {
        !matches!(value.kind(), ValueKind::None | ValueKind::Number | ValueKind::Bool)
    });
    env
}

/// The template with a filter in place of its `generation` tags, and whether it has any: both are blocks, so
/// white space around them is treated alike. Comments, expressions and raw text are skipped.
fn with_filter(source: &str) -> (String, bool) {
    let tags = Regex::new(concat!(
        r"(?s)\{#.*?#\}|\{\{.*?\}\}|\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}",
        r"|(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})|\{%.*?%\}",
    ));
    // The expression is constant.
    let Ok(tags) = tags else { return (source.to_owned(), false) };
    let mut has_any = false;
    let replaced =
        tags.replace_all(source, |found: &regex::Captures<'_>| match (found.get(1), found.get(3)) {
            (Some(before), Some(behind)) => {
                has_any |= found.get(2).is_none();
                let filter = if found.get(2).is_some() {
                    "endfilter".to_owned()
                } else {
                    format!("filter {GENERATION}")
                };
                format!("{}{filter}{}", before.as_str(), behind.as_str())
            }
            _ => found[0].to_owned(),
        });
    (replaced.into_owned(), has_any)
}

/// The date of the recipe in a C `strftime` format.
fn strftime(date: Option<&str>, format: &str) -> Result<String, Error> {
    let wrong = |message: String| Error::new(ErrorKind::InvalidOperation, message);
    let date = date.ok_or_else(|| {
        wrong(
            "the template writes today's date; fix one with `date` in [chat], such as \"2024-07-26\""
                .to_owned(),
        )
    })?;
    let day = chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").map_err(|e| wrong(e.to_string()))?;
    let mut text = String::new();
    let written = std::fmt::Write::write_fmt(
        &mut text,
        format_args!("{}", day.and_time(chrono::NaiveTime::MIN).format(format)),
    );
    written.map(|()| text).map_err(|_| wrong(format!("strftime_now does not know the format `{format}`")))
}

/// What went wrong, in one line: the innermost cause, with its line in the template.
fn describe(error: &Error) -> String {
    let mut innermost = error;
    while let Some(source) =
        std::error::Error::source(innermost).and_then(|source| source.downcast_ref::<Error>())
    {
        innermost = source;
    }
    let what = match innermost.detail() {
        _ if innermost.kind() == ErrorKind::OutOfFuel => {
            format!("the template takes more than {MAX_STEPS} steps")
        }
        Some(detail) if innermost.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", innermost.kind()),
        None => innermost.kind().to_string(),
    };
    let line = innermost
        .line()
        .or(error.line())
        .map_or_else(String::new, |line| format!(" (line {line} of the template)"));
    format!("{what}{line}")
}
