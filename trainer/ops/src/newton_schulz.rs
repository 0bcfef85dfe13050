//! Matrices with all singular values near 1 and the same singular vectors (Jordan et al. 2024, "Muon";
//! coefficients (3.4445, -4.7750, 2.0315) of the quintic iteration, five times).

use super::matmul::matmul;
use burn::tensor::Tensor;

/// Coefficients of one iteration: `X = a X + (b A + c A A) X` with `A = X X^T`.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// Iterations, after which singular values that were above a hundredth of the norm are between 0.68 and 1.2.
const ITERATIONS: usize = 5;

/// Each matrix of a stack with its singular values brought near 1. Each is divided by its own Frobenius norm:
/// one norm for the stack would leave small matrices small. A matrix of zeros stays zero.
///
/// # Shapes
/// - matrices: `[stack, rows, columns]`, and so is the result
pub fn newton_schulz(matrices: Tensor<3>) -> Tensor<3> {
    let [_, rows, columns] = matrices.dims();
    // Products over the shorter side are cheaper.
    let is_tall = rows > columns;
    let x = if is_tall { matrices.transpose() } else { matrices };
    let norms = frobenius_norms(x.clone());
    let mut x = x / (norms + 1e-7);
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..ITERATIONS {
        let squares = matmul(x.clone(), x.clone().transpose());
        let polynomial = squares.clone() * b + matmul(squares.clone(), squares) * c;
        x = x.clone() * a + matmul(polynomial, x);
    }
    if is_tall { x.transpose() } else { x }
}

/// The Frobenius norm of each matrix, `[stack, 1, 1]`; rows first, so that the order of sums is fixed.
pub fn frobenius_norms(matrices: Tensor<3>) -> Tensor<3> {
    (matrices.clone() * matrices).sum_dim(2).sum_dim(1).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    const SHAPE: [usize; 3] = [3, 12, 20];

    fn noise() -> Tensor<3> {
        let stream = crate::random::Stream::new(5, "matrices");
        let scales = [1.0, 1e4, 1e-4];
        let value = |i: usize| (stream.normal(i as u64) * scales[i / 240]) as f32;
        let values: Vec<f32> = (0..720).map(value).collect();
        Tensor::from_data(TensorData::new(values, SHAPE), &Device::flex())
    }

    /// Eigenvalues of a symmetric matrix by rotations (Jacobi 1846).
    fn eigenvalues(mut a: Vec<Vec<f64>>) -> Vec<f64> {
        let n = a.len();
        for _ in 0..30 {
            for p in 0..n {
                for q in p + 1..n {
                    let angle = 0.5 * (2.0 * a[p][q]).atan2(a[q][q] - a[p][p]);
                    let (sin, cos) = angle.sin_cos();
                    for row in &mut a {
                        (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
                    }
                    let (above, below) = a.split_at_mut(q);
                    for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
                        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
                    }
                }
            }
        }
        (0..n).map(|i| a[i][i]).collect()
    }

    #[test]
    fn singular_values_come_near_1_at_any_scale() {
        let found: Vec<f32> = newton_schulz(noise()).into_data().try_into_vec().expect("f32");
        for matrix in found.chunks(240) {
            let row = |i: usize| &matrix[i * 20..(i + 1) * 20];
            let product = |i: usize, j: usize| {
                row(i).iter().zip(row(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let squares = (0..12).map(|i| (0..12).map(|j| product(i, j)).collect()).collect();
            for square in eigenvalues(squares) {
                let value = square.sqrt();
                assert!((0.68..1.2).contains(&value), "{value}");
            }
        }
    }

    #[test]
    fn tall_matrices_are_the_wide_ones_turned_and_zeros_stay() {
        let wide = newton_schulz(noise());
        let tall = newton_schulz(noise().transpose()).transpose();
        assert_eq!(wide.into_data(), tall.into_data());
        let zeros = newton_schulz(Tensor::zeros([2, 3, 4], &Device::flex()));
        assert_eq!(zeros.clone().into_data(), zeros.zeros_like().into_data());
    }
}
