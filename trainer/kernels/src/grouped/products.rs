//! Products of 16 by 16 by 16 elements, by the units of a plane together.
//!
//! [`TensorCores`] has run as PTX on the CPU (tests/cuda), not on a GPU yet; [`Emulated`] has the same
//! meaning in plain arithmetic, and lets tests run everything else that the kernels for tensor cores do.

use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::prelude::*;

/// Rows, columns and terms of a fragment.
pub(super) const PART: usize = 16;
/// Units of a plane.
pub(super) const PLANE: usize = 32;
/// Elements of a fragment for each unit: half a row.
pub(super) const EACH: usize = PART * PART / PLANE;

/// Products of fragments.
#[cube]
pub(super) trait Products: Send + Sync + 'static {
    /// 16 by 16 sums in f32, spread over the units of a plane.
    type Sums: CubeType;

    fn zero() -> Self::Sums;

    /// Adds to `sums[i * across + j]` the products of 16 terms of the 16 lines i of `left` and
    /// of the 16 lines j of `right`. Both begin at the first line and term in question.
    fn add_products<F: Float, N: Size>(
        left: &[Vector<F, N>],
        right: &[Vector<F, N>],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] left_form: Factor,
        #[comptime] right_form: Factor,
    );

    /// Writes sums to shared memory, row by row.
    fn store(sums: &Self::Sums, to: &mut [f32]);

    /// Makes the plane's earlier writes to shared memory visible to all of its units.
    fn sync();
}

/// One factor in shared memory, as a plane sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Factor {
    /// Fragments of the plane.
    pub parts: usize,
    /// From one row to the next.
    pub pitch: usize,
    pub are_terms_adjacent: bool,
}

impl Factor {
    /// Where a line and a term are.
    pub(super) fn at(self, line: usize, term: usize) -> usize {
        if self.are_terms_adjacent { line * self.pitch + term } else { term * self.pitch + line }
    }

    /// From one line, and from one term, to the next.
    fn steps(self) -> (usize, usize) {
        (self.at(1, 0), self.at(0, 1))
    }
}

/// Products by tensor cores.
pub(super) struct TensorCores;

#[cube]
impl Products for TensorCores {
    type Sums = Matrix<f32>;

    fn zero() -> Self::Sums {
        let ident = comptime!(MatrixIdent::Accumulator);
        Matrix::<f32>::from_value(ident, PART, PART, PART, MatrixLayout::Undefined, 0.0f32)
    }

    fn add_products<F: Float, N: Size>(
        left: &[Vector<F, N>],
        right: &[Vector<F, N>],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] left_form: Factor,
        #[comptime] right_form: Factor,
    ) {
        let mut columns = Sequence::<Matrix<F>>::new();
        #[unroll]
        for j in 0..comptime!(right_form.parts) {
            columns.push(fragment(right, comptime!(MatrixIdent::B), right_form, j));
        }
        #[unroll]
        for i in 0..comptime!(left_form.parts) {
            let row = fragment::<F, N>(left, comptime!(MatrixIdent::A), left_form, i);
            #[unroll]
            for j in 0..comptime!(right_form.parts) {
                let sum = &sums[comptime!(i * right_form.parts + j)];
                cmma::execute(&row, &columns[j], sum, sum);
            }
        }
    }

    fn store(sums: &Self::Sums, to: &mut [f32]) {
        cmma::store(to, sums, comptime!(PART as u32), MatrixLayout::RowMajor);
    }

    fn sync() {
        sync_plane();
    }
}

/// Fragment `part` of a factor.
#[cube]
fn fragment<F: Float, N: Size>(
    from: &[Vector<F, N>],
    #[comptime] ident: MatrixIdent,
    #[comptime] form: Factor,
    #[comptime] part: usize,
) -> Matrix<F> {
    // Lines are the rows of A and the columns of B.
    let layout = comptime!(match form.are_terms_adjacent == (ident == MatrixIdent::A) {
        true => MatrixLayout::RowMajor,
        false => MatrixLayout::ColMajor,
    });
    let size = N::value();
    let first = comptime!(form.at(part * PART, 0) / size);
    let mut fragment = Matrix::<F>::from_value(ident, PART, PART, PART, layout, F::new(0.0));
    cmma::load(&mut fragment, &from[first..from.len()], comptime!(form.pitch as u32));
    fragment
}

/// Products by plain arithmetic, for tests. Unit `lane` of a plane holds the elements `lane + 32 i`
/// of each fragment.
pub(super) struct Emulated;

#[cube]
impl Products for Emulated {
    type Sums = Array<f32>;

    fn zero() -> Self::Sums {
        let mut sums = Array::<f32>::new(EACH);
        for i in 0..EACH {
            sums[i] = 0.0f32;
        }
        sums
    }

    fn add_products<F: Float, N: Size>(
        left: &[Vector<F, N>],
        right: &[Vector<F, N>],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] left_form: Factor,
        #[comptime] right_form: Factor,
    ) {
        let lane = UNIT_POS as usize % PLANE;
        #[unroll]
        for i in 0..comptime!(left_form.parts) {
            #[unroll]
            for j in 0..comptime!(right_form.parts) {
                let sum = sums.index_mut(comptime!(i * right_form.parts + j));
                // One long loop, which the compilers of software GPUs leave as it is.
                for step in 0..comptime!(EACH * PART) {
                    let (held, term) = (step / PART, step % PART);
                    let row = (lane + held * PLANE) / PART + comptime!(i * PART);
                    let column = lane % PART + comptime!(j * PART);
                    sum[held] +=
                        element(left, left_form, row, term) * element(right, right_form, column, term);
                }
            }
        }
    }

    fn store(sums: &Self::Sums, to: &mut [f32]) {
        let mut at = UNIT_POS as usize % PLANE;
        while at < comptime!(PART * PART) {
            to[at] = sums[at / PLANE];
            at += PLANE;
        }
    }

    /// The whole cube: planes of sizes other than 32 may be executed separately.
    fn sync() {
        sync_cube();
    }
}

/// One element of a factor.
#[cube]
fn element<F: Float, N: Size>(
    from: &[Vector<F, N>],
    #[comptime] form: Factor,
    line: usize,
    term: usize,
) -> f32 {
    let (of_line, of_term) = comptime!(form.steps());
    let at = line * of_line + term * of_term;
    let size = N::value();
    f32::cast_from(from[at / size].extract_dynamic(at % size))
}
