//! A screen that is kept up to date, and restored whatever happens.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::Term;
use moe_shards::terminal::{self, Stream};

use super::draw::{Size, frame};
use super::follow::Follower;
use super::view::View;
use crate::error::{Error, Result};
use crate::run::Progress;

/// How often the screen is updated.
const TICK: Duration = Duration::from_millis(50);
/// How often files are read.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often an unchanged screen is redrawn, since pressed keys leave marks.
const AGAIN: Duration = Duration::from_secs(1);
/// Lines that a process printed while the screen was in use.
const MOST_SAID: usize = 200;

/// A run on the screen of a terminal.
#[derive(Debug)]
pub struct Screen {
    term: Term,
    color: bool,
    shown: Vec<String>,
    drawn: Option<Instant>,
}

impl Screen {
    /// Takes over the screen; `None` if the stream is not a terminal that supports it.
    pub fn enter(stream: Stream, color: bool) -> Option<Screen> {
        let term = match stream {
            Stream::Output => Term::stdout(),
            Stream::Error => Term::stderr(),
        };
        let is_dumb = std::env::var_os("TERM").is_none_or(|name| name == "dumb");
        if !term.is_term() || is_dumb {
            return None;
        }
        leave_before_panics();
        terminal::enter_screen(stream).ok()?;
        Some(Screen { term, color, shown: Vec::new(), drawn: None })
    }

    /// Shows a run.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn show(&mut self, view: &View, said: &[String]) -> Result<()> {
        let (height, width) = self.term.size();
        let size = Size { width: usize::from(width), height: usize::from(height), color: self.color };
        let lines = frame(view, said, size);
        if lines == self.shown && self.drawn.is_some_and(|drawn| drawn.elapsed() < AGAIN) {
            return Ok(());
        }
        // From the upper left corner, each line cleared after its end, then the rest of the screen.
        let text = format!("\u{1b}[H{}\u{1b}[K\u{1b}[J", lines.join("\u{1b}[K\r\n"));
        terminal::draw(text.as_bytes()).map_err(Error::io(Path::new("the terminal"), "draw on"))?;
        (self.shown, self.drawn) = (lines, Some(Instant::now()));
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        terminal::leave_screen();
    }
}

/// A panic is reported on the normal screen.
fn leave_before_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            terminal::leave_screen();
            tell(panic);
        }));
    });
}

/// The run of this process on the screen, drawn by a separate thread, since a step may take long.
#[derive(Debug)]
pub struct Ui {
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    live: Option<Progress>,
    said: Vec<String>,
    is_over: bool,
    /// Whether the screen was restored, so that lines go to standard error.
    has_left: bool,
}

impl Ui {
    /// Takes over the screen of standard error for the run in `dir` until [`Ui::finish`] or until `stop` is
    /// set; `None` if there is no terminal.
    pub fn start(dir: &Path, stop: Arc<AtomicBool>, color: bool) -> Option<Ui> {
        let screen = Screen::enter(Stream::Error, color)?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (dir, of_thread) = (dir.to_path_buf(), shared.clone());
        let thread = std::thread::spawn(move || keep(&dir, screen, &of_thread, &stop));
        Some(Ui { shared, thread: Some(thread) })
    }

    /// Adds a step.
    pub fn step(&self, progress: &Progress) {
        lock(&self.shared).live = Some(progress.clone());
    }

    /// Prints a line at the foot of the screen, and later on the normal screen.
    pub fn say(&self, line: &str) {
        let mut shared = lock(&self.shared);
        if shared.has_left {
            return tell(line);
        }
        if shared.said.len() == MOST_SAID {
            shared.said.remove(0);
        }
        shared.said.push(line.to_owned());
    }

    /// Restores the screen.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        lock(&self.shared).is_over = true;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported.
            thread.join().unwrap_or_default();
        }
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(dir: &Path, mut screen: Screen, shared: &Mutex<Shared>, stop: &AtomicBool) {
    let (mut follower, mut looked) = (None, None::<Instant>);
    // An error in reading the files is reported once; training reports more.
    let mut problem = None;
    loop {
        let (live, said, is_over) = {
            let shared = lock(shared);
            (shared.live.clone(), shared.said.clone(), shared.is_over)
        };
        if is_over || stop.load(Ordering::SeqCst) {
            break;
        }
        if looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            looked = Some(Instant::now());
            match look(dir, &mut follower, &mut screen, live.as_ref(), &said) {
                Ok(()) => problem = None,
                Err(error) if problem.is_none() => problem = Some(error.to_string()),
                Err(_) => {}
            }
        }
        std::thread::sleep(TICK);
    }
    let mut shared = lock(shared);
    drop(screen);
    shared.has_left = true;
    let said = std::mem::take(&mut shared.said);
    said.iter().chain(&problem).for_each(|line| tell(line));
}

/// If it cannot be written, nobody can be told.
fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap_or_default();
}

fn look(
    dir: &Path,
    follower: &mut Option<Follower>,
    screen: &mut Screen,
    live: Option<&Progress>,
    said: &[String],
) -> Result<()> {
    let follower = match follower {
        Some(follower) => follower,
        none => none.insert(Follower::open(dir)?),
    };
    follower.look()?;
    screen.show(&View::of(follower, live), said)
}
