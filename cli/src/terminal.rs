//! Standard output and standard error: data goes to one, messages to the other, and control characters reach neither.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use moe_report::progress::Place;
use moe_shards::terminal::escape;

/// When to color the labels of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether standard error gets colors.
    pub fn is_on(self) -> bool {
        match self {
            Color::Auto => {
                io::stderr().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
            Color::Always => true,
            Color::Never => false,
        }
    }
}

/// A label at the start of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// `error:`, red.
    Error,
    /// `warning:`, yellow.
    Warning,
}

/// Writes a message as a line on standard error.
pub fn say(text: &str) {
    line(&escape(text));
}

/// Writes a message with a label.
pub fn say_labeled(label: Label, has_color: bool, text: &str) {
    let (word, color) = match label {
        Label::Error => ("error:", 31),
        Label::Warning => ("warning:", 33),
    };
    match has_color {
        true => line(&format!("\u{1b}[{color}m{word}\u{1b}[0m {}", escape(text))),
        false => line(&format!("{word} {}", escape(text))),
    }
}

fn line(text: &str) {
    // Nobody is left to tell when standard error is closed.
    writeln!(io::stderr(), "{text}").unwrap_or_default();
}

/// Writes data to standard output, as text or JSON.
///
/// # Errors
/// It cannot be written, such as to a full disk or a closed pipe.
pub fn write_data(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(escape(text).as_bytes())?;
    stdout.flush()
}

/// Where progress is shown: as a bar on a terminal, else as occasional lines.
pub fn progress(is_quiet: bool) -> Place {
    match (is_quiet, io::stderr().is_terminal()) {
        (true, _) => Place::Nowhere,
        (_, true) => Place::Terminal,
        (_, false) => Place::Lines(say),
    }
}
