//! The right matrix of a product, in panels that a tile reads from front to back.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::view::copy;
use super::{Scratch, View, arch, vectorized};

/// Vectors of a row of a panel.
pub(super) const VECTORS: usize = 2;
/// Panels begin at multiples of this many columns, whatever the vectors.
pub const ALIGNED: usize = 64;
/// Rows that are transposed at a time.
const DEPTH: usize = 64;
/// Values up to which one thread packs alone.
const SERIAL: usize = 1 << 14;

/// Columns of a matrix, some at a time: `panel` columns of row 0, of row 1 and so on, then the next ones.
#[derive(Debug)]
pub struct Packed {
    pub(super) values: Scratch,
    /// The instruction set that its panels are for.
    pub(super) arch: Arch,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) panel: usize,
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

struct Job<'a> {
    of: View<'a>,
    inner: usize,
    columns: Range<usize>,
    panel: usize,
    out: &'a mut [f32],
}

impl Packed {
    fn empty(arch: Arch, inner: usize, columns: usize) -> Self {
        let panel = VECTORS * arch.dispatch(Lanes);
        Self { values: Scratch::of(inner * columns.next_multiple_of(panel)), arch, inner, columns, panel }
    }

    fn jobs<'a>(&'a mut self, of: View<'a>) -> impl Iterator<Item = Job<'a>> {
        let Self { values, inner, columns, panel, .. } = self;
        let (inner, columns, panel) = (*inner, *columns, *panel);
        let panels = values.chunks_mut((inner * panel).max(1)).enumerate();
        panels.map(move |(i, out)| {
            let columns = i * panel..((i + 1) * panel).min(columns);
            Job { of, inner, columns, panel, out }
        })
    }

    /// A matrix of `inner` rows, packed by this thread.
    pub fn new(of: View, inner: usize, columns: usize) -> Self {
        let mut packed = Self::empty(arch(), inner, columns);
        packed.jobs(of).for_each(Job::run);
        packed
    }

    /// Several matrices, `(matrix, rows, columns)`, packed by all threads.
    pub fn all(of: &[(View, usize, usize)]) -> Vec<Self> {
        let arch = arch();
        let mut packed: Vec<Self> =
            of.iter().map(|&(_, inner, columns)| Self::empty(arch, inner, columns)).collect();
        let size: usize = packed.iter().map(|packed| packed.values.len()).sum();
        let jobs = packed.iter_mut().zip(of).flat_map(|(packed, (of, ..))| packed.jobs(*of));
        if size < SERIAL {
            jobs.for_each(Job::run);
        } else {
            jobs.collect::<Vec<_>>().into_par_iter().for_each(Job::run);
        }
        packed
    }
}

/// Some rows and columns of a packed matrix.
#[derive(Debug, Clone, Copy)]
pub struct Panels<'a> {
    pub(super) values: &'a [f32],
    /// Distance between panels.
    pub(super) stride: usize,
    pub(super) arch: Arch,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) panel: usize,
}

impl<'a> From<&'a Packed> for Panels<'a> {
    fn from(packed: &'a Packed) -> Self {
        let Packed { ref values, arch, inner, columns, panel } = *packed;
        Self { values, stride: inner * panel, arch, inner, columns, panel }
    }
}

impl Panels<'_> {
    /// Only these rows.
    pub fn rows(self, rows: Range<usize>) -> Self {
        let at = (rows.start * self.panel).min(self.values.len());
        Self { values: &self.values[at..], inner: rows.len(), ..self }
    }

    /// Only these columns, of which the first is a multiple of [`ALIGNED`].
    pub fn columns(self, columns: Range<usize>) -> Self {
        debug_assert!(columns.start.is_multiple_of(ALIGNED), "a panel begins there");
        let at = (columns.start / self.panel * self.stride).min(self.values.len());
        Self { values: &self.values[at..], columns: columns.len(), ..self }
    }
}

impl Job<'_> {
    fn run(self) {
        vectorized(
            #[inline(always)]
            || self.pack(),
        );
    }

    /// Columns after the last are left as they are: results computed from them are discarded.
    #[inline(always)]
    fn pack(self) {
        let Self { of, inner, columns, panel, out } = self;
        let width = columns.len();
        if of.column == 1 {
            for (k, out) in out.chunks_exact_mut(panel).take(inner).enumerate() {
                let from = &of.values[k * of.row + columns.start..][..width];
                // The widths of whole panels.
                match width {
                    32 => copy::<32>(from, out),
                    16 => copy::<16>(from, out),
                    _ => out[..width].copy_from_slice(from),
                }
            }
            return;
        }
        // Some rows at a time, so that the output stays in the nearest cache.
        for first in (0..inner).step_by(DEPTH) {
            let depth = DEPTH.min(inner - first);
            let out = &mut out[first * panel..(first + depth) * panel];
            for (j, column) in columns.clone().enumerate() {
                let values = of.values[column * of.column + first * of.row..].iter().step_by(of.row.max(1));
                for (out, value) in out[j..].iter_mut().step_by(panel).zip(values).take(depth) {
                    *out = *value;
                }
            }
        }
    }
}
