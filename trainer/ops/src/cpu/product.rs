//! Products of f32 matrices.
//!
//! Each value of a product is the sum of blocks of [`BLOCK`] terms, added one block after the other; a block
//! is the chain of fused multiplications and additions over its terms, in order, from zero. Rows, columns,
//! threads and vectors only determine where a value is computed, never how.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::packed::VECTORS;
use super::view::copy;
use super::{Packed, Panels, Scratch, View};

/// Terms of a sum that are added one after the other.
const BLOCK: usize = 256;
/// Rows of a tile with many registers.
const TALLEST: usize = 12;
/// Multiplications up to which one thread computes a product alone.
const SERIAL: usize = 1 << 18;

/// `out = a b`, or `out += a b` if it `adds`, by this thread; `out` has the requested rows of `a`.
pub fn rows<'a>(a: View, b: impl Into<Panels<'a>>, out: &mut [f32], adds: bool) {
    let b = b.into();
    b.arch.dispatch(Rows { a, b, out, adds });
}

/// Rows that a thread takes at a time: enough for fast products, few enough that all threads have some.
pub fn task_rows(rows: usize) -> usize {
    let tasks = 4 * rayon::current_num_threads();
    rows.div_ceil(tasks).next_multiple_of(TALLEST).clamp(2 * TALLEST, 16 * TALLEST)
}

/// `out = a b`, or `out += a b` if it `adds`, by all threads.
///
/// # Shapes
/// - a: `[rows, inner]`, b: `[inner, columns]`
/// - out: `[rows, columns]`
pub fn product(a: View, b: View, [inner, columns]: [usize; 2], out: &mut [f32], adds: bool) {
    if out.is_empty() {
        return;
    }
    let n = out.len() / columns;
    if n * inner * columns < SERIAL {
        return rows(a, &Packed::new(b, inner, columns), out, adds);
    }
    let packed = Packed::all(&[(b, inner, columns)]);
    let size = task_rows(n);
    let tasks = out.par_chunks_mut(size * columns).enumerate();
    tasks.for_each(|(i, out)| rows(a.from_row(i * size), &packed[0], out, adds));
}

struct Rows<'a> {
    a: View<'a>,
    b: Panels<'a>,
    out: &'a mut [f32],
    adds: bool,
}

/// Calls a function for tiles of a constant number of rows, one below the other.
macro_rules! tiles {
    ($rows:expr, $tall:expr, |$row:ident, $height:ident| $call:expr) => {{
        let mut $row = 0;
        while $row < $rows {
            let height = match $rows - $row {
                left if left >= $tall => $tall,
                left if left >= 4 => 4,
                left if left >= 2 => 2,
                _ => 1,
            };
            tiles!(@ height, $height, $call, 12 6 4 2);
            $row += height;
        }
    }};
    (@ $found:ident, $height:ident, $call:expr, $($n:literal)+) => {
        match $found {
            $($n => {
                const $height: usize = $n;
                $call
            })+
            _ => {
                const $height: usize = 1;
                $call
            }
        }
    };
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, out, adds } = self;
        let Panels { values, stride, inner, columns, panel, .. } = b;
        if out.is_empty() {
            return;
        }
        if inner == 0 {
            if !adds {
                out.fill(0.0);
            }
            return;
        }
        let n = out.len() / columns;
        let tall = if S::REGISTER_COUNT >= 32 { TALLEST } else { TALLEST / 2 };
        let is_copied = a.column != 1;
        let mut copy = Scratch::of(if is_copied { n * BLOCK.min(inner) } else { 0 });
        for start in (0..inner).step_by(BLOCK) {
            let depth = BLOCK.min(inner - start);
            if is_copied {
                gather(a, n, tall, start..start + depth, &mut copy);
            }
            for first in (0..columns).step_by(panel) {
                let at = first / panel * stride + start * panel;
                let b = &values[at..at + depth * panel];
                tiles!(n, tall, |row, HEIGHT| {
                    let sums = match is_copied {
                        true => {
                            columns_times::<S, HEIGHT>(simd, &copy[row * depth..(row + HEIGHT) * depth], b)
                        }
                        false => rows_times::<S, HEIGHT>(simd, a, row, start, b),
                    };
                    let out = &mut out[row * columns..(row + HEIGHT) * columns];
                    store::<S, HEIGHT>(simd, sums, out, columns, first, adds || start > 0);
                });
            }
        }
    }
}

/// Copies some columns of `n` rows: for each tile its part of the first column, of the second and so on.
#[inline(always)]
fn gather(a: View, n: usize, tall: usize, columns: Range<usize>, to: &mut [f32]) {
    let depth = columns.len();
    for (k, column) in columns.enumerate() {
        let values = &a.values[column * a.column..];
        if a.row == 1 {
            let values = &values[..n];
            tiles!(n, tall, |row, HEIGHT| {
                copy::<HEIGHT>(&values[row..], &mut to[row * depth + k * HEIGHT..])
            });
        } else {
            tiles!(n, tall, |row, HEIGHT| {
                for i in 0..HEIGHT {
                    to[row * depth + k * HEIGHT + i] = values[(row + i) * a.row];
                }
            });
        }
    }
}

/// A tile of a product with a matrix whose rows are used in place.
#[inline(always)]
fn rows_times<S: Simd, const M: usize>(
    simd: S,
    a: View,
    row: usize,
    start: usize,
    b: &[f32],
) -> [[S::f32s; VECTORS]; M] {
    let b = S::as_simd_f32s(b).0.as_chunks::<VECTORS>().0;
    let a: [&[f32]; M] = std::array::from_fn(|i| {
        let at = (row + i) * a.row + start;
        &a.values[at..at + b.len()]
    });
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; M];
    for (k, b) in b.iter().enumerate() {
        for i in 0..M {
            let a = simd.splat_f32s(a[i][k]);
            for j in 0..VECTORS {
                sums[i][j] = simd.mul_add_f32s(a, b[j], sums[i][j]);
            }
        }
    }
    sums
}

/// A tile of a product with a column-major matrix.
#[inline(always)]
fn columns_times<S: Simd, const M: usize>(simd: S, a: &[f32], b: &[f32]) -> [[S::f32s; VECTORS]; M] {
    let b = S::as_simd_f32s(b).0.as_chunks::<VECTORS>().0;
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; M];
    for (a, b) in a.as_chunks::<M>().0.iter().zip(b) {
        for i in 0..M {
            let a = simd.splat_f32s(a[i]);
            for j in 0..VECTORS {
                sums[i][j] = simd.mul_add_f32s(a, b[j], sums[i][j]);
            }
        }
    }
    sums
}

/// Copies a tile to rows of `columns` values, or adds it to them, from column `first` on.
#[inline(always)]
fn store<S: Simd, const M: usize>(
    simd: S,
    sums: [[S::f32s; VECTORS]; M],
    out: &mut [f32],
    columns: usize,
    first: usize,
    adds: bool,
) {
    let lanes = S::F32_LANES;
    let width = (columns - first).min(VECTORS * lanes);
    for (sums, out) in sums.into_iter().zip(out.chunks_exact_mut(columns)) {
        let out = &mut out[first..first + width];
        if width == VECTORS * lanes {
            for (out, sum) in S::as_mut_simd_f32s(out).0.iter_mut().zip(sums) {
                *out = if adds { simd.add_f32s(*out, sum) } else { sum };
            }
            continue;
        }
        for (out, sum) in out.chunks_mut(lanes).zip(sums) {
            let sum = if adds { simd.add_f32s(simd.partial_load_f32s(out), sum) } else { sum };
            simd.partial_store_f32s(out, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Vectors, use_vectors};
    use crate::random::Stream;

    fn noise(name: &str, n: usize) -> Vec<f32> {
        let stream = Stream::new(1, name);
        (0..n as u64).map(|i| stream.normal(i) as f32).collect()
    }

    /// The definition, value by value.
    fn defined(a: View, b: View, [rows, inner, columns]: [usize; 3]) -> Vec<f32> {
        let value = |i: usize, j: usize| {
            let term = |sum: f32, k: usize| {
                a.values[i * a.row + k * a.column].mul_add(b.values[k * b.row + j * b.column], sum)
            };
            let mut blocks = (0..inner).step_by(BLOCK).map(|k| (k..(k + BLOCK).min(inner)).fold(0.0, term));
            let first = blocks.next().unwrap_or(0.0);
            blocks.fold(first, |sum, block| sum + block)
        };
        (0..rows * columns).map(|at| value(at / columns, at % columns)).collect()
    }

    #[test]
    fn every_bit_is_that_of_the_definition_for_any_vectors_and_threads() {
        for [rows, inner, columns] in [[1, 1, 1], [2, 0, 3], [31, 300, 37], [50, 5, 70], [70, 600, 33]] {
            let (a, b) = (noise("a", rows * inner), noise("b", inner * columns));
            for (a, b) in [
                (View::rows(&a, inner), View::rows(&b, columns)),
                (View::rows(&a, rows).transposed(), View::rows(&b, inner).transposed()),
            ] {
                let expected = defined(a, b, [rows, inner, columns]);
                for vectors in [Vectors::None, Vectors::Avx2, Vectors::Widest] {
                    use_vectors(vectors);
                    for threads in [1, 3] {
                        let pool =
                            rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                        let mut out = vec![f32::NAN; rows * columns];
                        pool.install(|| product(a, b, [inner, columns], &mut out, false));
                        let bits =
                            |values: &[f32]| -> Vec<u32> { values.iter().map(|v| v.to_bits()).collect() };
                        assert_eq!(
                            bits(&out),
                            bits(&expected),
                            "{vectors:?}, {threads} threads, {rows} rows"
                        );
                    }
                }
            }
        }
        use_vectors(Vectors::Widest);
    }

    #[test]
    fn a_product_may_be_added() {
        let (a, b) = ([1.0, 2.0], [3.0, 4.0]);
        let mut out = [0.5];
        product(View::rows(&a, 2), View::rows(&b, 1), [2, 1], &mut out, true);
        assert_eq!(out, [11.5]);
    }
}
