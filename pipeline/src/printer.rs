//! The only place that writes to the terminal: data to stdout, messages to stderr, progress bars on a
//! terminal only. Only the words `error:` and `warning:` are colored.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Instant;

use moe_cli::terminal::{self, Color, Label};
use moe_report::progress::{Bar, Place, Unit};
use moe_shards::memory::held_bytes;

use crate::error::{Error, Result};

/// How much to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors only.
    Quiet,
    /// A line for each stage.
    Normal,
    /// A line for each part too.
    Verbose,
}

/// Why standard output, one per process, failed.
static REFUSED: OnceLock<io::ErrorKind> = OnceLock::new();

/// Writes to the terminal.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    level: Level,
    has_color: bool,
}

impl Printer {
    /// A printer; bars appear when stderr is a terminal and the level is not quiet.
    pub fn new(level: Level, color: Color) -> Printer {
        Printer { level, has_color: color.is_on() }
    }

    /// Data for stdout, as text or JSON; characters that a terminal would obey or hide are escaped. A failed write ends the
    /// output, not the work: [`Printer::finish`] reports it.
    pub fn data(&self, text: &str) {
        if REFUSED.get().is_none()
            && let Err(e) = terminal::write_data(text)
        {
            REFUSED.get_or_init(|| e.kind());
        }
    }

    /// Ends a command that succeeded.
    ///
    /// # Errors
    /// [`Error::Output`]: not everything that it printed could be written.
    pub fn finish(&self) -> Result<()> {
        REFUSED.get().map_or(Ok(()), |kind| Err(Error::Output((*kind).into())))
    }

    /// Talk, to stderr.
    pub fn note(&self, text: &str) {
        self.talk(Level::Normal, None, text);
    }

    /// Talk that only `-v` shows.
    pub fn detail(&self, text: &str) {
        self.talk(Level::Verbose, None, text);
    }

    /// An error, at every level.
    pub fn error(&self, text: &str) {
        self.talk(Level::Quiet, Some(Label::Error), text);
    }

    /// The flag parser's message about rejected flags, at every level.
    pub fn refused_flags(&self, text: &str) {
        self.talk(Level::Quiet, None, text.trim_end());
    }

    /// Something the user should know while the work continues.
    pub fn warn(&self, text: &str) {
        self.talk(Level::Normal, Some(Label::Warning), text);
    }

    fn talk(&self, level: Level, label: Option<Label>, text: &str) {
        match label {
            _ if self.level < level => {}
            Some(label) => terminal::say_labeled(label, self.has_color, text),
            None => terminal::say(text),
        }
    }

    /// Progress through `total` bytes: a bar on a terminal, occasional lines elsewhere.
    pub fn bar(&self, name: &str, total: u64) -> Bar {
        Bar::new(self.place(), name, total, Unit::Bytes, held_bytes)
    }

    /// Progress through `total` samples.
    pub fn count_bar(&self, name: &str, total: u64) -> Bar {
        self.work_bar(name, total, "samples")
    }

    /// Progress through `total` things called `unit`, with a message after it.
    pub fn work_bar(&self, name: &str, total: u64, unit: &'static str) -> Bar {
        Bar::new(self.place(), name, total, Unit::Things(unit), held_bytes)
    }

    /// Work of unknown length.
    pub fn wait(&self, name: &str) -> Bar {
        Bar::new(self.place(), name, 0, Unit::Unknown, held_bytes)
    }

    /// A bar while data goes to standard output: hidden if that is a terminal too.
    pub fn bar_beside_data(&self, name: &str) -> Bar {
        match io::stdout().is_terminal() {
            true => Bar::hidden(),
            false => self.bar(name, 0),
        }
    }

    fn place(&self) -> Place {
        terminal::progress(self.level == Level::Quiet)
    }
}

/// Times a stage and prints its line.
pub struct StageLine {
    name: &'static str,
    start: Instant,
}

impl StageLine {
    /// Starts the clock.
    pub fn start(name: &'static str) -> StageLine {
        StageLine { name, start: Instant::now() }
    }

    /// Prints `name  what  seconds`.
    pub fn done(self, printer: &Printer, what: &str) {
        printer.note(&format!("{:<9} {what:<64} {:6.2} s", self.name, self.start.elapsed().as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_is_below_normal_and_without_bars() {
        assert!(Level::Quiet < Level::Normal && Level::Normal < Level::Verbose);
        assert!(Printer::new(Level::Quiet, Color::Auto).bar("read", 1).is_hidden());
    }
}
