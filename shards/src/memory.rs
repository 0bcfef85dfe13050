//! Failed allocations. The standard library would abort, which looks like a crash; instead, the programs say
//! what happened and exit with code 5.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;

/// The system's allocator, with a custom way to exit when it refuses.
///
/// ```
/// use moe_shards::memory::Allocator;
///
/// #[global_allocator]
/// static ALLOCATOR: Allocator = Allocator::new(|n_bytes| {
///     eprintln!("error: no {n_bytes} bytes of memory");
///     std::process::exit(5)
/// });
/// ```
#[derive(Debug)]
pub struct Allocator {
    /// Called with the requested bytes. It must not allocate.
    refused: fn(usize) -> !,
}

impl Allocator {
    /// An allocator that calls `refused` with the requested bytes if there is not enough memory. `refused`
    /// must not allocate.
    pub const fn new(refused: fn(usize) -> !) -> Allocator {
        Allocator { refused }
    }

    fn given(&self, place: *mut u8, n_bytes: usize) -> *mut u8 {
        if place.is_null() { (self.refused)(n_bytes) } else { place }
    }
}

// SAFETY: every call is passed unchanged to `System`, and its result is returned unless it is null.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System`.
        self.given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        self.given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, n_bytes: usize) -> *mut u8 {
        // SAFETY: as in `alloc`; `place` came from `System` too.
        self.given(unsafe { System.realloc(place, layout, n_bytes) }, n_bytes)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`; `place` came from `System` too.
        unsafe { System.dealloc(place, layout) }
    }
}

/// From now on, large freed blocks stay with the process. Training needs the same ones again in every step,
/// and pages that come back from the system are cleared first. Call it before starting threads. Without GNU's
/// C library, nothing happens.
pub fn keep_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGEST: i32 = 1 << 30;
        // SAFETY: both calls set a parameter of the allocator, which accepts any number.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGEST);
        }
    }
}

/// `n` arbitrary values, for a caller that writes each of them before reading any: large results need not
/// be zeroed first. With debug assertions all of them are NaN, so that tests notice a value that was read
/// but never written.
pub fn unwritten(n: usize) -> Vec<f32> {
    #[cfg(all(not(debug_assertions), any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let mut values = Vec::<f32>::with_capacity(n);
        // SAFETY: there is room for n values. As far as the compiler knows, the assembly has written them,
        // so they are whatever bytes are there, and any bytes are an f32.
        unsafe {
            std::arch::asm!("/* {0} */", in(reg) values.as_mut_ptr(), options(nostack, preserves_flags));
            values.set_len(n);
        }
        values
    }
    #[cfg(any(debug_assertions, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    vec![f32::NAN; n]
}

/// Maximum bytes of memory that this process can get, given the machine, its control group and its own
/// address limit (`ulimit -v`). `None` if the system does not say.
pub fn machine_bytes() -> Option<u64> {
    let limits = [
        behind(&read("/proc/meminfo"), "MemTotal:").map(|kib| kib.saturating_mul(1024)),
        number(&read("/sys/fs/cgroup/memory.max")),
        number(&read("/sys/fs/cgroup/memory/memory.limit_in_bytes")),
        behind(&read("/proc/self/limits"), "Max address space"),
    ];
    limits.into_iter().flatten().min()
}

/// Bytes of memory that this process holds for itself now; pages of mapped files are not counted. `None` if
/// the system does not say.
pub fn held_bytes() -> Option<u64> {
    behind(&read("/proc/self/status"), "RssAnon:").map(|kib| kib.saturating_mul(1024))
}

/// The text of a system file; empty if there is none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The number at the start of a text.
fn number(text: &str) -> Option<u64> {
    text.split_whitespace().next().and_then(|word| word.parse().ok())
}

/// The number after a label at the start of a line.
fn behind(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label)).and_then(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_and_process_have_more_than_a_few_pages_and_less_than_an_exabyte() {
        for n_bytes in [machine_bytes(), held_bytes()].into_iter().flatten() {
            assert!((1 << 16..1 << 60).contains(&n_bytes), "{n_bytes}");
        }
    }

    #[test]
    fn values_that_nobody_has_written_are_not_numbers() {
        assert!(unwritten(3).into_iter().all(f32::is_nan));
    }

    #[test]
    fn memory_comes_from_the_system() {
        let allocator = Allocator::new(|n_bytes| panic!("{n_bytes}"));
        let layout = Layout::new::<[u64; 4]>();
        // SAFETY: the layout is not empty, and the memory is freed once, with its current layout.
        let first = unsafe {
            let place = allocator.alloc_zeroed(layout);
            let place = allocator.realloc(place, layout, 64);
            let first = *place;
            allocator.dealloc(place, Layout::from_size_align_unchecked(64, layout.align()));
            first
        };
        assert_eq!(first, 0);
    }
}
