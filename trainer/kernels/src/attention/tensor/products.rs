//! Products of fragments: by tensor cores, and in plain arithmetic.

use cubecl::prelude::*;

use super::{PART, PLANE, SHARERS};

/// Products of 16 x 16 x 16, by the units of a plane together.
#[cube]
pub(in crate::attention) trait Products: Send + Sync + 'static {
    /// 16 x 16 sums in f32, spread over the units of a plane.
    type Sums: CubeType;

    fn zero() -> Self::Sums;

    /// Adds to sums i = 0..n the products of the rows of `a` (16 x 16) with the rows of part i of `b`; parts
    /// are 16 rows apart.
    fn add_row_products<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] pitch: usize,
    );

    /// Adds to sums i = 0..n the rows of part i of `b`, weighted by the rows of `a` (16 x 16); parts are 16
    /// columns apart.
    fn add_weighted_rows<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] a_pitch: usize,
        #[comptime] pitch: usize,
    );

    /// Writes sums to shared memory.
    fn store(sums: &Self::Sums, to: &mut [f32], #[comptime] pitch: usize);

    /// Multiplies row r by `factors[r]`; `scratch` is 16 rows of memory of the plane.
    fn scale_rows(sums: &mut Self::Sums, factors: &[f32], scratch: &mut [f32], #[comptime] pitch: usize);

    /// Makes the plane's earlier writes to shared memory visible to all of its units.
    fn sync();
}

/// Products by tensor cores. Never run on a GPU yet.
pub(in crate::attention) struct TensorCores;

#[cube]
impl Products for TensorCores {
    type Sums = cmma::Matrix<f32>;

    fn zero() -> Self::Sums {
        cmma::Matrix::<f32>::from_value(
            cmma::MatrixIdent::Accumulator,
            PART,
            PART,
            PART,
            cmma::MatrixLayout::Undefined,
            0.0f32,
        )
    }

    fn add_row_products<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] pitch: usize,
    ) {
        let left = cmma::Matrix::<F>::from_slice(
            cmma::MatrixIdent::A,
            PART,
            PART,
            PART,
            cmma::MatrixLayout::RowMajor,
            a,
            comptime!(pitch as u32),
        );
        #[unroll]
        for i in 0..n {
            // The rows of `b` are the columns of the right factor.
            let right = cmma::Matrix::<F>::from_slice(
                cmma::MatrixIdent::B,
                PART,
                PART,
                PART,
                cmma::MatrixLayout::ColMajor,
                &b[comptime!(i * PART * pitch)..b.len()],
                comptime!(pitch as u32),
            );
            let sum = &sums[i];
            cmma::execute(&left, &right, sum, sum);
        }
    }

    fn add_weighted_rows<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] a_pitch: usize,
        #[comptime] pitch: usize,
    ) {
        let left = cmma::Matrix::<F>::from_slice(
            cmma::MatrixIdent::A,
            PART,
            PART,
            PART,
            cmma::MatrixLayout::RowMajor,
            a,
            comptime!(a_pitch as u32),
        );
        #[unroll]
        for i in 0..n {
            let right = cmma::Matrix::<F>::from_slice(
                cmma::MatrixIdent::B,
                PART,
                PART,
                PART,
                cmma::MatrixLayout::RowMajor,
                &b[comptime!(i * PART)..b.len()],
                comptime!(pitch as u32),
            );
            let sum = &sums[i];
            cmma::execute(&left, &right, sum, sum);
        }
    }

    fn store(sums: &Self::Sums, to: &mut [f32], #[comptime] pitch: usize) {
        cmma::store(to, sums, comptime!(pitch as u32), cmma::MatrixLayout::RowMajor);
    }

    fn scale_rows(sums: &mut Self::Sums, factors: &[f32], scratch: &mut [f32], #[comptime] pitch: usize) {
        let lane = UNIT_POS as usize % PLANE;
        sync_plane();
        cmma::store(scratch, &*sums, comptime!(pitch as u32), cmma::MatrixLayout::RowMajor);
        sync_plane();
        #[unroll]
        for i in 0..comptime!(PART * PART / PLANE) {
            let row = lane / PART + comptime!(i * SHARERS);
            scratch[row * pitch + lane % PART] *= factors[row];
        }
        sync_plane();
        cmma::load_with_layout(sums, &*scratch, comptime!(pitch as u32), cmma::MatrixLayout::RowMajor);
    }

    fn sync() {
        sync_plane();
    }
}

/// Products by plain arithmetic, for tests. Unit `lane` of a plane holds the elements
/// (lane / 16 + 2 i, lane % 16).
pub(in crate::attention) struct Emulated;

/// Elements of one unit in [`Emulated`].
const HELD: usize = PART * PART / PLANE;

#[cube]
impl Products for Emulated {
    type Sums = Array<f32>;

    fn zero() -> Self::Sums {
        let mut sums = Array::<f32>::new(HELD);
        for i in 0..HELD {
            sums[i] = 0.0f32;
        }
        sums
    }

    fn add_row_products<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] pitch: usize,
    ) {
        let lane = UNIT_POS as usize % PLANE;
        #[unroll]
        for part in 0..n {
            let sum = sums.index_mut(part);
            // One long loop, which the compilers of software GPUs leave as it is.
            for step in 0..comptime!(HELD * PART) {
                let (i, k) = (step / PART, step % PART);
                let row = lane / PART + i * SHARERS;
                let other = lane % PART + comptime!(part * PART);
                sum[i] += f32::cast_from(a[row * pitch + k]) * f32::cast_from(b[other * pitch + k]);
            }
        }
    }

    fn add_weighted_rows<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] a_pitch: usize,
        #[comptime] pitch: usize,
    ) {
        let lane = UNIT_POS as usize % PLANE;
        #[unroll]
        for part in 0..n {
            let sum = sums.index_mut(part);
            for step in 0..comptime!(HELD * PART) {
                let (i, k) = (step / PART, step % PART);
                let row = lane / PART + i * SHARERS;
                let column = lane % PART + comptime!(part * PART);
                sum[i] += f32::cast_from(a[row * a_pitch + k]) * f32::cast_from(b[k * pitch + column]);
            }
        }
    }

    fn store(sums: &Self::Sums, to: &mut [f32], #[comptime] pitch: usize) {
        let mut at = UNIT_POS as usize % PLANE;
        while at < comptime!(PART * PART) {
            to[at / PART * pitch + at % PART] = sums[at / PLANE];
            at += PLANE;
        }
    }

    fn scale_rows(sums: &mut Self::Sums, factors: &[f32], _scratch: &mut [f32], #[comptime] _pitch: usize) {
        let mut at = UNIT_POS as usize % PLANE;
        while at < comptime!(PART * PART) {
            sums[at / PLANE] *= factors[at / PART];
            at += PLANE;
        }
    }

    /// The whole cube: planes of sizes other than 32 may be executed separately.
    fn sync() {
        sync_cube();
    }
}
