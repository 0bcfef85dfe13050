//! What the machine can do: copying, and one large dense product.

use burn::tensor::Tensor;

use super::{Setup, noise, time};

/// Rows of the product, and values of the copy. A fast device needs more work to show what it can do, so
/// larger sizes are tried as long as the previous one's time says that they will not take too long.
const ROWS: [usize; 4] = [512, 1024, 4096, 8192];
const VALUES: [usize; 3] = [1 << 20, 1 << 22, 1 << 28];
/// Seconds of one call at most.
const LONGEST_PRODUCT: f64 = 0.05;
const LONGEST_COPY: f64 = 0.01;

/// Measured limits.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Roofline {
    /// Bytes read and written by adding a number to every value of a large tensor, in GB/s.
    pub copy_gb_per_s: f64,
    /// Values of that tensor, f32.
    pub copy_values: usize,
    /// A square product in the type of computation, in TFLOP/s.
    pub matmul_tflops: f64,
    /// Rows of that product.
    pub matmul_rows: usize,
}

impl Roofline {
    pub(super) fn measure(setup: &Setup) -> crate::Result<Self> {
        let (copy_values, seconds) = largest(&VALUES, LONGEST_COPY, |n| n as f64, |n| copy(setup, n))?;
        let copy_gb_per_s = (8 * copy_values) as f64 / seconds / 1e9;
        let cube = |rows: usize| (rows as f64).powi(3);
        let (matmul_rows, seconds) = largest(&ROWS, LONGEST_PRODUCT, cube, |rows| product(setup, rows))?;
        let matmul_tflops = 2.0 * cube(matmul_rows) / seconds / 1e12;
        Ok(Self { copy_gb_per_s, copy_values, matmul_tflops, matmul_rows })
    }
}

/// The largest size that is measured, and its seconds.
fn largest(
    sizes: &[usize],
    longest: f64,
    work: impl Fn(usize) -> f64,
    measure: impl Fn(usize) -> crate::Result<f64>,
) -> crate::Result<(usize, f64)> {
    let (mut size, mut seconds) = (sizes[0], measure(sizes[0])?);
    for &next in &sizes[1..] {
        if work(next) / work(size) * seconds > longest {
            break;
        }
        (size, seconds) = (next, measure(next)?);
    }
    Ok((size, seconds))
}

fn copy(setup: &Setup, n: usize) -> crate::Result<f64> {
    let values = Tensor::<1>::zeros([n], &setup.device);
    time(&setup.device, setup.n_repeats, || values.clone() + 1.0)
}

fn product(setup: &Setup, rows: usize) -> crate::Result<f64> {
    let dtype = setup.geometry.compute.dtype();
    let [a, b] = ["a", "b"].map(|name| noise(name, [rows, rows], &setup.device).cast(dtype));
    time(&setup.device, setup.n_repeats, || a.clone().matmul(b.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_until_the_next_would_take_too_long() {
        let pick = |seconds_of_one: f64| {
            // Launching costs a little, regardless of size.
            let measure = |n: usize| Ok(1e-4 + n as f64 * seconds_of_one);
            largest(&[1, 10, 100], 0.05, |n| n as f64, measure).expect("no device").0
        };
        assert_eq!((pick(1e-5), pick(1e-3), pick(1.0)), (100, 10, 1));
    }
}
