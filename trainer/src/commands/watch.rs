//! `moe-train watch`: a run in the terminal, or as lines if there is no terminal, until it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moe_shards::terminal::Stream;

use super::{ALARMED, INTERRUPTED, stop_flag};
use crate::cli::WatchArgs;
use crate::error::Result;
use crate::printer::Printer;
use crate::run::ALARMS;
use crate::watch::{Follower, Screen, Status, View};

/// How often to look at the files.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Number of past alarms to show.
const FIRST_ALARMS: usize = 10;

pub(super) fn run(args: WatchArgs, printer: &mut Printer) -> Result<u8> {
    let stop = stop_flag()?;
    let mut follower = Follower::open(&args.run)?;
    let screen = match args.once || args.json {
        true => None,
        false => Screen::enter(Stream::Output, printer.has_color()),
    };
    let ended = match screen {
        Some(screen) => on_screen(&args, &mut follower, screen, &stop, printer)?,
        None => in_lines(&args, &mut follower, &stop, printer)?,
    };
    if let Some(alarm) = follower.alarm_of(&args.fail_on) {
        printer.error(format!("the alarm `{}` at step {}: {}", alarm.kind, alarm.step, alarm.message));
        return Ok(ALARMED);
    }
    Ok(match ended {
        End::Left => INTERRUPTED,
        End::Over if follower.status == Status::Diverged => ALARMED,
        End::Over => 0,
    })
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The user left.
    Left,
    /// There is nothing more to come.
    Over,
}

fn is_over(args: &WatchArgs, follower: &Follower) -> bool {
    args.once
        || matches!(follower.status, Status::Done | Status::Diverged)
        || follower.alarm_of(&args.fail_on).is_some()
}

fn on_screen(
    args: &WatchArgs,
    follower: &mut Follower,
    mut screen: Screen,
    stop: &AtomicBool,
    printer: &Printer,
) -> Result<End> {
    let end = loop {
        screen.show(&View::of(follower, None), &[])?;
        if is_over(args, follower) {
            break End::Over;
        }
        if stop.load(Ordering::SeqCst) {
            break End::Left;
        }
        std::thread::sleep(LOOK_EVERY);
        follower.look()?;
    };
    drop(screen);
    // What stays on the terminal.
    let view = View::of(follower, None);
    printer.data(format!("{}: {}", view.name, view.line()))?;
    Ok(end)
}

fn in_lines(args: &WatchArgs, follower: &mut Follower, stop: &AtomicBool, printer: &Printer) -> Result<End> {
    let every = Duration::from_secs_f64(args.every);
    // The last alarms, since a long run may have many.
    let n_earlier = follower.alarms.len().saturating_sub(FIRST_ALARMS);
    if n_earlier > 0 && !args.json {
        printer.data(format!("{n_earlier} earlier alarms are in {}", args.run.join(ALARMS).display()))?;
    }
    let (mut told, mut n_alarms, mut n_validations) = (None::<Instant>, n_earlier, 0);
    let mut status = None;
    loop {
        let view = View::of(follower, None);
        // A resumed run takes back what came after its checkpoint.
        n_alarms = n_alarms.min(view.alarms.len());
        for alarm in &view.alarms[n_alarms..] {
            if !args.json {
                printer.data(format!("alarm {} at step {}: {}", alarm.kind, alarm.step, alarm.message))?;
            }
        }
        let is_due = told.is_none_or(|told| told.elapsed() >= every);
        let is_new = status != Some((follower.status, view.step.to_bits()));
        let is_news = view.alarms.len() > n_alarms
            || view.validation.len() > n_validations
            || status.is_some_and(|(last, _)| last != follower.status);
        if is_new && (is_due || is_news) || is_over(args, follower) {
            printer.data(match args.json {
                true => view.json().to_string(),
                false => format!("{}: {}", view.name, view.line()),
            })?;
            told = Some(Instant::now());
            status = Some((follower.status, view.step.to_bits()));
        }
        (n_alarms, n_validations) = (view.alarms.len(), view.validation.len());
        if is_over(args, follower) {
            return Ok(End::Over);
        }
        if stop.load(Ordering::SeqCst) {
            return Ok(End::Left);
        }
        std::thread::sleep(LOOK_EVERY);
        follower.look()?;
    }
}
