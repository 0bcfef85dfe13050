//! Progress of work: a bar on a terminal; elsewhere an occasional line, first after ten seconds, so that logs
//! stay short. Both show the stage, how much is done, the rate, the time left, and the memory of the process.

use std::fmt::Write;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use crate::number;
use console::Term;
use indicatif::{ProgressBar, ProgressState, ProgressStyle, WeakProgressBar};

/// Time before the first line.
const FIRST: Duration = Duration::from_secs(10);
/// Longest time from one line to the next.
const LONGEST: Duration = Duration::from_secs(120);
/// How often to check whether a line is due.
const LOOK: Duration = Duration::from_millis(500);
const REDRAW: Duration = Duration::from_millis(200);
/// Narrowest bar.
const LEAST_BAR: usize = 8;

/// The unit of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Items with this name.
    Things(&'static str),
    /// Nothing countable.
    Unknown,
}

/// Where progress is shown.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A bar.
    Terminal,
    /// Lines, by this function.
    Lines(fn(&str)),
    /// Nowhere.
    Nowhere,
}

/// Bytes of memory that this process holds, if the system reports them.
pub type Memory = fn() -> Option<u64>;

/// Progress of one piece of work. Copies show the same.
#[derive(Clone, Debug)]
pub struct Bar {
    bar: ProgressBar,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    begun: Once,
    documents: AtomicU64,
    message: Mutex<String>,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared { begun: Once::new(), documents: AtomicU64::new(0), message: Mutex::default() }
    }
}

impl Shared {
    /// Documents and the message, each after a space.
    fn words(&self) -> String {
        let message = self.message.lock().unwrap_or_else(PoisonError::into_inner);
        let mut words = match self.documents.load(Ordering::Relaxed) {
            0 => String::new(),
            n => format!(" {} docs", number::short(n as f64)),
        };
        if !message.is_empty() {
            words.push_str(&format!(" {message}"));
        }
        words
    }
}

impl Deref for Bar {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.bar
    }
}

impl Bar {
    /// Progress that is not shown.
    pub fn hidden() -> Bar {
        Bar { bar: ProgressBar::hidden(), shared: Arc::default() }
    }

    /// Progress of the work `name` through `total`; 0 if that is not known. `memory` returns the bytes that
    /// the process holds.
    pub fn new(place: Place, name: &str, total: u64, unit: Unit, memory: Memory) -> Bar {
        let shared = Arc::<Shared>::default();
        let bar = match place {
            Place::Nowhere => ProgressBar::hidden(),
            Place::Terminal => on_terminal(name, total, unit, &shared, memory),
            Place::Lines(say) => {
                let bar = ProgressBar::hidden();
                bar.set_length(total);
                let (weak, name, seen) = (bar.downgrade(), name.to_owned(), shared.clone());
                std::thread::spawn(move || tell(&weak, &name, unit, &seen, say, memory));
                bar
            }
        };
        Bar { bar, shared }
    }

    /// Notes `amount` as done. A bar is on the screen from the first amount on: work that has not begun shows
    /// nothing.
    pub fn inc(&self, amount: u64) {
        self.begin();
        self.bar.inc(amount);
    }

    /// Notes how much is done in total.
    pub fn set_position(&self, done: u64) {
        self.begin();
        self.bar.set_position(done);
    }

    fn begin(&self) {
        self.shared.begun.call_once(|| {
            if !self.bar.is_hidden() {
                self.bar.reset_elapsed();
                self.bar.enable_steady_tick(REDRAW);
            }
        });
    }

    /// Counts a document.
    pub fn saw_document(&self) {
        self.shared.documents.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows a message about the work.
    pub fn set_message(&self, message: String) {
        *self.shared.message.lock().unwrap_or_else(PoisonError::into_inner) = message;
    }
}

fn on_terminal(name: &str, total: u64, unit: Unit, shared: &Arc<Shared>, memory: Memory) -> ProgressBar {
    let bar = if unit == Unit::Unknown { ProgressBar::new_spinner() } else { ProgressBar::new(total) };
    if let Ok(style) = ProgressStyle::with_template("{line}") {
        let (name, shared, term) = (name.to_owned(), shared.clone(), Term::stderr());
        let style = style.with_key("line", move |state: &ProgressState, out: &mut dyn Write| {
            let amounts = [state.pos(), state.len().unwrap_or(0)];
            let words = line(&name, unit, amounts, &shared.words(), state.elapsed(), &of_memory(memory));
            // A line as wide as the terminal would wrap.
            let width = usize::from(term.size().1).saturating_sub(1);
            out.write_str(&with_bar(&words, amounts, width)).unwrap_or_default();
        });
        bar.set_style(style);
    }
    if unit == Unit::Unknown {
        bar.enable_steady_tick(REDRAW);
    }
    bar
}

/// Text, cut to the width of the terminal, and a bar if there is room for one.
fn with_bar(words: &str, [done, total]: [u64; 2], width: usize) -> String {
    let room = width.saturating_sub(words.chars().count() + 3);
    if total == 0 || room < LEAST_BAR {
        return words.chars().take(width).collect();
    }
    let done = (done.min(total) as f64 / total as f64 * room as f64) as usize;
    format!("{words} [{}{}]", "=".repeat(done), " ".repeat(room - done))
}

fn of_memory(memory: Memory) -> String {
    memory().map_or_else(String::new, |n| format!(" {}", number::bytes(n)))
}

fn tell(bar: &WeakProgressBar, name: &str, unit: Unit, shared: &Shared, say: fn(&str), memory: Memory) {
    let mut due = FIRST;
    loop {
        std::thread::sleep(LOOK);
        let Some(bar) = bar.upgrade().filter(|bar| !bar.is_finished()) else { return };
        let elapsed = bar.elapsed();
        if elapsed >= due {
            let (done, total) = (bar.position(), bar.length().unwrap_or(0));
            say(&line(name, unit, [done, total], &shared.words(), elapsed, &of_memory(memory)));
            // The longer it takes, the less often a line is needed.
            due = elapsed + (elapsed / 4).clamp(FIRST, LONGEST);
        }
    }
}

fn line(
    name: &str,
    unit: Unit,
    [done, total]: [u64; 2],
    documents: &str,
    elapsed: Duration,
    memory: &str,
) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let per_second = done as f64 / seconds;
    let (amount, rate): (fn(u64) -> String, &str) = match unit {
        Unit::Bytes => (number::bytes, ""),
        Unit::Things(name) => (number::count, name),
        Unit::Unknown => return format!("{name:<9} {}{memory}", time(elapsed)),
    };
    let space = if rate.is_empty() { "" } else { " " };
    let mut text = format!("{name:<9} {}", amount(done));
    if total > 0 {
        text.push_str(&format!(" of {} ({})", amount(total), number::percent(done as f64, total as f64)));
    }
    text.push_str(&format!("{space}{rate}{documents}, "));
    text.push_str(&match unit {
        Unit::Bytes => number::bytes(per_second as u64),
        _ => number::short(per_second),
    });
    text.push_str("/s");
    if total > done && done > 0 {
        let left = Duration::from_secs_f64(((total - done) as f64 / per_second).min(1e9));
        text.push_str(&format!(", {} left", time(left)));
    }
    format!("{text},{memory}")
}

fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_what_bars_show() {
        let ten = Duration::from_secs(10);
        let told = line("read", Unit::Bytes, [20_000_000, 80_000_000], " 1234 docs", ten, " 310 MB");
        assert_eq!(told, "read      20 MB of 80 MB (25.0 %) 1234 docs, 2 MB/s, 30 s left, 310 MB");
        let told = line("judge", Unit::Things("variants"), [0, 500], "", ten, " 1 MB");
        assert_eq!(told, "judge     0 of 500 (0 %) variants, 0/s, 1 MB");
        assert_eq!(
            line("train", Unit::Unknown, [0, 0], "", Duration::from_secs(75), " 1 MB"),
            "train     1 min 15 s 1 MB"
        );
        assert_eq!(time(Duration::from_secs(7500)), "2 h 5 min");
    }

    #[test]
    fn bars_fill_the_line_and_words_are_cut() {
        assert_eq!(with_bar("ab", [5, 10], 15), "ab [=====     ]");
        assert_eq!(with_bar("abcdef", [5, 10], 4), "abcd");
        assert_eq!(with_bar("ab", [0, 0], 15), "ab");
    }

    #[test]
    fn a_bar_counts_in_every_place() {
        for place in [Place::Nowhere, Place::Terminal, Place::Lines(|_| panic!("nothing is due"))] {
            let bar = Bar::new(place, "read", 10, Unit::Bytes, || None);
            bar.inc(4);
            bar.saw_document();
            assert_eq!((bar.position(), bar.clone().shared.documents.load(Ordering::Relaxed)), (4, 1));
            bar.finish_and_clear();
        }
    }
}
