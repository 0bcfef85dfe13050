//! Times of calls, as tables of markdown. A call is timed many times in rounds; the median round is shown
//! with the fastest and the slowest.

use std::fmt::Display;
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_millis(100);

/// A table whose rows are printed as they are measured.
pub struct Table;

impl Table {
    /// Prints the head of a table.
    pub fn new(what: &str) -> Table {
        println!(
            "| {what} | median | fastest | slowest | tokens read |\n| --- | ---: | ---: | ---: | ---: |"
        );
        Table
    }

    /// Times `call`, which reads `bytes` of token files each time (0 = not counted).
    ///
    /// # Errors
    /// The first error of a call.
    pub fn row<T, E>(
        &mut self,
        name: &str,
        bytes: usize,
        mut call: impl FnMut() -> Result<T, E>,
    ) -> Result<(), E> {
        // The first round finds out how many calls fill a round, and warms the caches.
        let started = Instant::now();
        let mut calls = 0u32;
        while started.elapsed() < ROUND || calls == 0 {
            black_box(call()?);
            calls += 1;
        }
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let started = Instant::now();
            for _ in 0..calls {
                black_box(call()?);
            }
            times.push(started.elapsed().as_secs_f64() / f64::from(calls));
        }
        times.sort_by(f64::total_cmp);
        let median = times[ROUNDS / 2];
        let rate = if bytes == 0 { String::new() } else { gigabytes(bytes as f64 / median) };
        println!("| {name} | {} | {} | {} | {rate} |", time(median), time(times[0]), time(times[ROUNDS - 1]));
        Ok(())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        println!();
    }
}

/// Prints how fast two threads get through `0..n`, half each.
///
/// # Errors
/// The first error of a call.
pub fn two_threads<E: Send>(
    name: &str,
    bytes: usize,
    n: u64,
    call: impl Fn(u64) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let started = Instant::now();
    let halves = std::thread::scope(|scope| {
        let read = |mut range: std::ops::Range<u64>| {
            let call = &call;
            scope.spawn(move || range.try_for_each(call))
        };
        [read(0..n / 2), read(n / 2..n)].map(|thread| thread.join().expect("a reader does not panic"))
    });
    let seconds = started.elapsed().as_secs_f64();
    halves.into_iter().collect::<Result<(), E>>()?;
    println!(
        "| {name} | {} | | | {} |",
        time(seconds / n as f64),
        gigabytes(n as f64 * bytes as f64 / seconds)
    );
    Ok(())
}

fn time(seconds: f64) -> impl Display {
    match seconds {
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s if s >= 1e-6 => format!("{:.2} us", s * 1e6),
        s => format!("{:.1} ns", s * 1e9),
    }
}

fn gigabytes(bytes_per_second: f64) -> String {
    format!("{:.2} GB/s", bytes_per_second / 1e9)
}
