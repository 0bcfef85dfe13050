//! The kernels alone: names of CubeCL's prelude clash with burn's.

use cubecl::prelude::*;

use crate::reduce::cube_sum;

/// `partial[cube]`: the squares of every `cubes`-th block of vectors.
#[cube(launch)]
pub(super) fn add_squares<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    partial: &mut Tensor<f32>,
    #[comptime] units: u32,
    #[define(F)] _element: ElemType,
) {
    let cubes = partial.shape(0);
    let cube = CUBE_POS;
    if cube >= cubes {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(units as usize));
    let n = x.shape(0) / x.vector_size();
    let step = cubes * comptime!(units as usize);
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut at = cube * comptime!(units as usize) + UNIT_POS as usize;
    while at < n {
        let value = Vector::<f32, N>::cast_from(x[at]);
        squares += value * value;
        at += step;
    }
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..N::value() {
        sum += squares.extract(i);
    }
    let sum = cube_sum(sum, &mut scratch, units);
    if UNIT_POS == 0 {
        partial[cube] = sum;
    }
}

/// The sum of all partial sums. One cube.
#[cube(launch)]
pub(super) fn add_partial(partial: &Tensor<f32>, sum: &mut Tensor<f32>, #[comptime] units: u32) {
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(units as usize));
    let n = partial.shape(0);
    let mut of_unit = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < n {
        of_unit += partial[at];
        at += comptime!(units as usize);
    }
    let total = cube_sum(of_unit, &mut scratch, units);
    if UNIT_POS == 0 {
        sum[0] = total;
    }
}

/// The new arrays may be the old ones.
#[cube(launch)]
pub(super) fn adamw<G: Float, N: Size>(
    value: &Tensor<Vector<f32, N>>,
    first: &Tensor<Vector<f32, N>>,
    second: &Tensor<Vector<f32, N>>,
    factor: &Tensor<f32>,
    new_value: &mut Tensor<Vector<f32, N>>,
    new_first: &mut Tensor<Vector<f32, N>>,
    new_second: &mut Tensor<Vector<f32, N>>,
    gradient: ComptimeOption<&Tensor<Vector<G, N>>>,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    eps: f32,
    decay: f32,
    step: f32,
    #[define(G)] _element: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= value.shape(0) / value.vector_size() {
        terminate!();
    }
    let mut v = value[at];
    let mut m1 = first[at];
    let mut m2 = second[at];
    let factor = factor[0];
    // The exponent's bits: compilers may assume that numbers are finite, and drop a comparison.
    if factor.to_bits() & 0x7f80_0000u32 != 0x7f80_0000u32 {
        m1 *= Vector::<f32, N>::new(beta1);
        m2 *= Vector::<f32, N>::new(beta2);
        #[comptime]
        if let ComptimeOption::Some(gradient) = gradient {
            let g = Vector::<f32, N>::cast_from(gradient[at]) * Vector::<f32, N>::new(factor);
            m1 += g * Vector::<f32, N>::new(rest1);
            m2 += g * g * Vector::<f32, N>::new(rest2);
        }
        let ratio = m1 / (m2.sqrt() + Vector::<f32, N>::new(eps));
        v = v * Vector::<f32, N>::new(decay) - ratio * Vector::<f32, N>::new(step);
    }
    new_value[at] = v;
    new_first[at] = m1;
    new_second[at] = m2;
}
