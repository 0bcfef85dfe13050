//! Arithmetic of the CPU whose bits do not depend on the processor: sums are added in an order that is
//! written down here, never in one that follows the width of vectors, the size of a cache or the number of
//! threads. Loops are compiled for the vectors of the processor at hand and pick up no rounding from them: of
//! single operations, fused multiplications and additions included, IEEE 754 fixes every bit.

mod packed;
mod product;
mod scratch;

use std::sync::atomic::{AtomicU8, Ordering};

use pulp::Arch;

pub use moe_shards::memory::unwritten;
pub use packed::{ALIGNED, Packed, Panels};
pub use product::{View, product, rows, task_rows};
pub use scratch::Scratch;

/// Name of this arithmetic, which checkpoints record. Whatever changes the bits of a step on the CPU changes
/// it.
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

/// Compiled loops are those for these vectors from now on, in all threads. No result depends on it, which is
/// what this is for: to show it, on one machine.
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

/// Runs a loop that is compiled for the vectors of the processor; what it calls must be inlined to be so as
/// well.
#[inline(always)]
pub fn vectorized<T>(work: impl FnOnce() -> T) -> T {
    arch().dispatch(work)
}
