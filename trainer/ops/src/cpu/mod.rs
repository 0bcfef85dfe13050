//! CPU arithmetic whose bits do not depend on the processor: sums are added in an order that is specified
//! here, and does not depend on vector width, cache size or the number of threads. Loops are compiled for the
//! vectors of the current processor without changing any rounding: IEEE 754 fixes every bit of single
//! operations, including fused multiply-adds.

mod packed;
mod product;
mod scratch;
mod view;

use std::sync::atomic::{AtomicU8, Ordering};

use pulp::Arch;

pub use moe_shards::memory::unwritten;
pub use packed::{ALIGNED, Packed, Panels};
pub use product::{product, rows, task_rows};
pub use scratch::Scratch;
pub use view::View;

/// Name of this arithmetic, which checkpoints record. Any change to the bits of a step on the CPU changes it.
pub const ARITHMETIC: &str = "cpu-1";

/// Vectors for which loops are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vectors {
    /// The widest that the processor has.
    Widest,
    /// Those of AVX2 and FMA at most; elsewhere the widest.
    Avx2,
    /// None: one number at a time.
    None,
}

static VECTORS: AtomicU8 = AtomicU8::new(Vectors::Widest as u8);

/// From now on, all threads use the loops for these vectors. No result depends on it; this exists to show
/// that, on one machine.
pub fn use_vectors(vectors: Vectors) {
    VECTORS.store(vectors as u8, Ordering::Relaxed);
}

/// The instructions that loops are compiled for.
pub fn arch() -> Arch {
    let vectors = VECTORS.load(Ordering::Relaxed);
    if vectors == Vectors::None as u8 {
        return Arch::Scalar;
    }
    #[cfg(target_arch = "x86_64")]
    if vectors == Vectors::Avx2 as u8 {
        return pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3);
    }
    Arch::new()
}

/// Runs a loop that is compiled for the vectors of the processor; functions that it calls must be inlined to
/// be compiled for them, too.
#[inline(always)]
pub fn vectorized<T>(work: impl FnOnce() -> T) -> T {
    arch().dispatch(work)
}
