//! Blocks of threads, in parallel on the available cores.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::memory::Memory;
use crate::program::{Kernel, Special};
use crate::warp::{LANES, Stop, Warp};

/// The extents of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks of the grid.
    pub blocks: [u32; 3],
    /// Threads of a block.
    pub threads: [u32; 3],
    /// Bytes in addition to those that the module declares.
    pub shared: usize,
}

/// Why a launch stopped.
#[derive(Clone, Debug)]
pub struct Failure(pub String);

/// Runs a kernel to its end. Parameters are the bytes of the parameter space.
///
/// Returns the statements that its warps executed.
///
/// # Errors
/// The first fault, with its block.
pub fn launch(kernel: &Kernel, grid: Grid, parameters: &[u8], memory: &Memory) -> Result<u64, Failure> {
    let [x, y, z] = grid.blocks.map(|extent| extent as usize);
    let blocks = x * y * z;
    let next = AtomicUsize::new(0);
    let executed = AtomicU64::new(0);
    let failure = Mutex::new(None);
    let work = || {
        let mut block = Block::new(kernel, grid, parameters, memory);
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= blocks {
                break;
            }
            let position = [at % x, at / x % y, at / x / y];
            if let Err(text) = block.run(kernel, position) {
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(Failure(format!("{}, block {position:?}: {text}", kernel.name)));
                next.store(blocks, Ordering::Relaxed);
            }
        }
        executed.fetch_add(block.warps.iter().map(|warp| warp.executed).sum(), Ordering::Relaxed);
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(blocks);
    if workers == 1 {
        work();
    } else {
        std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    }
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(executed.into_inner()),
    }
}

/// The warps of one block, used for one block after the other.
struct Block<'a> {
    warps: Vec<Warp<'a>>,
    threads: usize,
    /// In words, for alignment.
    shared: Vec<u128>,
}

impl<'a> Block<'a> {
    fn new(kernel: &Kernel, grid: Grid, parameters: &'a [u8], memory: &'a Memory) -> Self {
        let [x, y, _] = grid.threads.map(|extent| extent as usize);
        let threads = grid.threads.iter().product::<u32>() as usize;
        let size = kernel.shared + grid.shared;
        let shared = vec![0u128; size.div_ceil(16)];
        let warps = (0..threads.div_ceil(LANES)).map(|i| {
            let mut warp = Warp::new(kernel.registers, kernel.local, memory, parameters);
            for (register, value) in &kernel.constants {
                warp.registers[*register] = [*value; LANES];
            }
            for (register, special) in &kernel.specials {
                warp.registers[*register] = std::array::from_fn(|lane| {
                    let thread = i * LANES + lane;
                    match special {
                        Special::Thread(axis) => [thread % x, thread / x % y, thread / x / y][*axis] as u64,
                        Special::Threads(axis) => u64::from(grid.threads[*axis]),
                        Special::Blocks(axis) => u64::from(grid.blocks[*axis]),
                        Special::Lane => lane as u64,
                        Special::Block(_) => 0,
                    }
                });
            }
            warp.shared_size = size;
            warp
        });
        Self { warps: warps.collect(), threads, shared }
    }

    fn run(&mut self, kernel: &Kernel, position: [usize; 3]) -> Result<(), String> {
        // Unwritten memory is NaN.
        self.shared.fill(u128::MAX);
        for (i, warp) in self.warps.iter_mut().enumerate() {
            warp.shared = self.shared.as_mut_ptr().cast();
            let count = (self.threads - i * LANES).min(LANES);
            warp.begin(if count == LANES { u32::MAX } else { (1 << count) - 1 });
            for (register, special) in &kernel.specials {
                if let Special::Block(axis) = special {
                    warp.registers[*register] = [position[*axis] as u64; LANES];
                }
            }
        }
        loop {
            let mut at_barrier = 0;
            for (i, warp) in self.warps.iter_mut().enumerate() {
                if warp.live == 0 {
                    continue;
                }
                let stop =
                    warp.run(&kernel.steps, &kernel.meetings).map_err(|text| format!("warp {i}: {text}"))?;
                at_barrier += usize::from(stop == Stop::Barrier);
            }
            if at_barrier == 0 {
                return Ok(());
            }
        }
    }
}
