use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use moe_data::tables::rows::BandRow;
use moe_data::tables::sort::Sorter;
use moe_data::watch::Watch;

const CHILD: &str = "MOE_DATA_TEST_SORT";

/// Anonymous memory of this process in bytes. Pages of the program do not count: how many are resident, the page cache decides.
fn anonymous_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The highest anonymous memory while `work` runs, looked at every millisecond.
fn peak_memory(work: impl FnOnce()) -> u64 {
    thread::scope(|scope| {
        // Closed when the work is done, and when it panics.
        let (working, end) = mpsc::channel::<()>();
        let peak = scope.spawn(move || {
            let mut peak = 0;
            // Also once after the end of work that takes less than a millisecond.
            loop {
                let is_working = end.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout);
                peak = peak.max(anonymous_memory());
                if !is_working {
                    return peak;
                }
            }
        });
        work();
        drop(working);
        peak.join().unwrap()
    })
}

/// In the child process: sorts rows within a limit and prints the peak of memory.
fn child(arguments: &str) {
    let (memory, n_rows) = arguments.split_once(' ').unwrap();
    let (memory, n_rows) = (memory.parse().unwrap(), n_rows.parse().unwrap());
    println!("peak {}", peak_memory(|| sort(memory, n_rows)));
}

fn sort(memory: u64, n_rows: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut sorter = Sorter::<BandRow>::new(&dir.path().join("sort"), memory, &Watch::idle()).unwrap();
    for document in 0..n_rows {
        let key = document.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sorter.push(BandRow { key, document }).unwrap();
    }
    let mut n_out = 0;
    let mut last = None;
    for row in sorter.finish().unwrap() {
        let row = Some(row.unwrap());
        assert!(last <= row);
        last = row;
        n_out += 1;
    }
    assert_eq!(n_out, n_rows);
}

fn peak_of_child(memory: u64, n_rows: u64) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sort::peak_memory_follows_the_limit", "--nocapture"])
        .env(CHILD, format!("{memory} {n_rows}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let peak = text.lines().find_map(|line| line.split("peak ").nth(1));
    peak.unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
}

#[test]
fn peak_memory_follows_the_limit() {
    if let Ok(arguments) = std::env::var(CHILD) {
        return child(&arguments);
    }
    let nothing = peak_of_child(1 << 20, 0);
    // 96 MB of rows. Beyond the limit there are the stacks of two threads and the allocator's own.
    let n_rows = 6_000_000;
    for memory in [4u64 << 20, 16 << 20, 48 << 20] {
        let peak = peak_of_child(memory, n_rows);
        assert!(peak < nothing + memory + (3 << 20), "limit {memory}: {peak} bytes, {nothing} without rows");
        // The limit is used, too.
        assert!(peak > nothing + memory / 2, "limit {memory}: {peak} bytes, {nothing} without rows");
    }
}
