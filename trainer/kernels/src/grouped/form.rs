//! The sizes of tiles, of the plain kernels and of those for tensor cores.

use super::plain;
use super::products::{PART, PLANE};

/// The sizes of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Form {
    /// Rows of a tile of the result.
    pub rows: usize,
    /// Columns of a tile of the result.
    pub columns: usize,
    /// Columns of a tile of SwiGLU, which has two products.
    pub swiglu_columns: usize,
    /// Terms of the sums in shared memory at a time.
    pub depth: usize,
    /// How many elements longer than a tile its rows in shared memory are.
    pub gap: usize,
    /// Rows of planes in a cube.
    pub planes_down: usize,
    /// Planes in each of those rows.
    pub planes_across: usize,
}

impl Form {
    /// Sizes of the plain kernels.
    pub(super) const PLAIN: Self = Self {
        rows: plain::TILE,
        columns: plain::TILE,
        swiglu_columns: plain::TILE,
        depth: plain::DEPTH,
        gap: plain::PITCH - plain::TILE,
        planes_down: 1,
        planes_across: plain::UNITS as usize / PLANE,
    };
    /// For tensor cores and 16 bits.
    pub(super) const TENSOR_CORES: Self = Self {
        rows: 128,
        columns: 128,
        swiglu_columns: 64,
        depth: 32,
        gap: 8,
        planes_down: 2,
        planes_across: 4,
    };
    /// For tests in f32: what fits into the shared memory of a software GPU.
    pub(super) const EMULATED: Self = Self {
        rows: 32,
        columns: 64,
        swiglu_columns: 32,
        depth: 32,
        gap: 4,
        planes_down: 2,
        planes_across: 2,
    };

    pub(super) fn units(self) -> u32 {
        (self.planes_down * self.planes_across * PLANE) as u32
    }

    /// Maximum bytes of shared memory of any kernel.
    pub(super) fn shared_bytes(self, element: usize) -> usize {
        let left = self.tile_size(self.rows, true).max(self.tile_size(self.rows, false));
        let right = self.tile_size(self.columns, true).max(self.tile_size(self.columns, false));
        let swiglu = 2 * self.tile_size(self.swiglu_columns, false);
        2 * element * (left + right.max(swiglu)) + self.results() * size_of::<f32>()
    }

    /// Elements of a tile of one factor: lines (rows or columns of the result) by terms.
    pub(super) fn tile_size(self, lines: usize, are_terms_adjacent: bool) -> usize {
        self.pitch(lines, are_terms_adjacent) * if are_terms_adjacent { lines } else { self.depth }
    }

    /// From one row of a tile in shared memory to the next.
    pub(super) fn pitch(self, lines: usize, are_terms_adjacent: bool) -> usize {
        self.gap + if are_terms_adjacent { self.depth } else { lines }
    }

    /// Vectors of a tile of this many lines that each unit loads.
    pub(super) fn vectors(self, lines: usize, size: usize) -> usize {
        lines * self.depth / size / self.units() as usize
    }

    /// Rows of fragments of a plane.
    pub(super) fn down(self) -> usize {
        self.rows / self.planes_down / PART
    }

    /// Fragments in a row of a plane, for a tile of this many columns.
    pub(super) fn across(self, columns: usize) -> usize {
        columns / self.planes_across / PART
    }

    /// Elements of one fragment for each plane.
    pub(super) fn results(self) -> usize {
        PART * PART * self.planes_down * self.planes_across
    }
}
