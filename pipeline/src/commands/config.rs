//! `moe-data config`: all keys of recipes and mixtures, or the meaning of one.

use clap::Args;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::reference::{self, File, Key, Section};

/// Characters of a line of documentation.
const WIDTH: usize = 118;

/// Flags of `config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// A key such as `mix.epochs` or `epochs`, or a section such as `dedup.minhash`
    #[arg(long, value_name = "KEY")]
    pub explain: Option<String>,
    /// Print JSON on stdout, one key per line
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// There is no such key.
pub fn run(args: &ConfigArgs, printer: &Printer) -> Result<()> {
    if let Some(name) = &args.explain {
        let found = reference::find(name).map_err(Error::Usage)?;
        let text = match args.json {
            true => lines(found.iter().map(|(section, key)| as_json(section, key).to_string())),
            false => found.iter().map(|(section, key)| explained(section, key)).collect(),
        };
        printer.data(&text);
        return Ok(());
    }
    let sections = reference::sections();
    let text = match args.json {
        true => lines(
            sections
                .iter()
                .flat_map(|section| section.keys.iter().map(|key| as_json(section, key).to_string())),
        ),
        false => all(&sections),
    };
    printer.data(&text);
    Ok(())
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line + "\n").collect()
}

fn command(file: File) -> &'static str {
    match file {
        File::Recipe => "a recipe: moe-data build --recipe FILE",
        File::Mixture => "a mixture: moe-data mix --mixture FILE",
    }
}

fn as_json(section: &Section, key: &Key) -> Value {
    let file = if section.file == File::Recipe { "recipe" } else { "mixture" };
    json!({ "file": file, "section": section.name, "key": key.name, "default": key.default, "doc": key.doc })
}

fn explained(section: &Section, key: &Key) -> String {
    let default = match written(&key.default) {
        Some(value) => value,
        None => "none".to_owned(),
    };
    format!(
        "{}.{}: {}\n  default  {default}\n  in       {} of {}\n",
        section.name,
        key.name,
        key.doc,
        section.head.replace('\n', ", "),
        command(section.file)
    )
}

/// Both files with every key, as TOML; keys without a default are comments.
fn all(sections: &[Section]) -> String {
    let mut text = String::new();
    let mut file = None;
    for section in sections {
        if file != Some(section.file) {
            file = Some(section.file);
            text.push_str(&format!("# ---- {}\n\n", command(section.file)));
        }
        text.push_str(&comment(&section.about));
        text.push_str(&section.head);
        text.push('\n');
        let has_section = |key: &Key| {
            let name = format!("{}.{}", section.name, key.name);
            sections.iter().any(|other| other.name == name)
        };
        // Sections of their own follow.
        for key in section.keys.iter().filter(|key| !has_section(key)) {
            text.push_str(&comment(&key.doc));
            text.push_str(&match written(&key.default) {
                Some(value) => format!("{} = {value}\n", key.name),
                None => format!("# {} =\n", key.name),
            });
        }
        text.push('\n');
    }
    text
}

fn comment(doc: &str) -> String {
    let mut text = String::new();
    let mut line = String::from("#");
    for word in doc.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > 1 {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text + &line + "\n"
}

/// A value as TOML; `None` for null, and for tables, which are sections of their own.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(written).collect();
            items.map(|items| format!("[{}]", items.join(", ")))
        }
        Value::Number(number) if number.is_f64() => number.as_f64().map(|number| format!("{number:?}")),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_together_are_toml() {
        let text = all(&reference::sections());
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["mix"]["epochs"].as_integer(), Some(4));
        assert!(text.lines().all(|line| line.chars().count() <= 160), "{text}");
    }
}
