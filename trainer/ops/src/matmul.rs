//! Products of matrices, on the CPU with one order of addition on every processor.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};
use rayon::prelude::*;

use super::Form;
use super::cpu::{View, product, unwritten};
use crate::gradient_of_two;

/// The product of each pair of matrices.
///
/// # Shapes
/// - a: `[..., rows, inner]`, b: `[..., inner, columns]`, where one of two sizes before the last two may be 1
/// - result: `[..., rows, columns]`
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    if Form::of(&a) != Form::Cpu {
        return a.matmul(b);
    }
    let (left, right) = (a.dims(), b.dims());
    // Repeated without a copy.
    let like = |own: [usize; D], other: [usize; D]| -> [usize; D] {
        std::array::from_fn(|dim| if dim < D - 2 { own[dim].max(other[dim]) } else { own[dim] })
    };
    let (a, b) = (a.expand(like(left, right)), b.expand(like(right, left)));
    Tensor::from_dispatch(Dispatch::k_matmul(a.into_dispatch(), b.into_dispatch()))
}

/// The CPU form.
#[backend_extension(Flex, Autodiff)]
trait Products: Backend {
    /// The products.
    fn k_matmul(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Gradients of [`Products::k_matmul`].
    fn k_matmul_backward(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

gradient_of_two!(Products: k_matmul, k_matmul_backward, ());

impl Products for Flex {
    fn k_matmul(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        multiply(a, b)
    }

    fn k_matmul_backward(a: FlexTensor, b: FlexTensor, grad: FlexTensor) -> (FlexTensor, FlexTensor) {
        let [a, b, grad] = [a, b, grad].map(Matrices::of);
        (of_matrices(&grad, &b.transposed()), of_matrices(&a.transposed(), &grad))
    }
}

/// Matrices in a tensor, at equal or different distances.
struct Matrices {
    tensor: FlexTensor,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Matrices {
    fn of(tensor: FlexTensor) -> Self {
        // Matrices may be repeated, but not their rows or columns.
        let (outer, inner) = tensor.layout().strides().split_at(tensor.shape().num_dims() - 2);
        let is_plain = outer.iter().all(|&stride| stride >= 0) && inner.iter().all(|&stride| stride > 0);
        let tensor = if is_plain { tensor } else { tensor.to_contiguous() };
        let strides = tensor.layout().strides().iter().map(|&stride| stride.unsigned_abs()).collect();
        Self { shape: tensor.shape().to_vec(), strides, tensor }
    }

    fn transposed(mut self) -> Self {
        let n = self.shape.len();
        self.shape.swap(n - 2, n - 1);
        self.strides.swap(n - 2, n - 1);
        self
    }

    fn size(&self) -> [usize; 2] {
        let n = self.shape.len();
        [self.shape[n - 2], self.shape[n - 1]]
    }

    fn get(&self, mut index: usize) -> View<'_> {
        let outer = self.shape.len() - 2;
        let mut at = self.tensor.layout().start_offset();
        for (n, stride) in self.shape[..outer].iter().zip(&self.strides).rev() {
            at += index % n * stride;
            index /= n;
        }
        let values: &[f32] = self.tensor.storage();
        View { values: &values[at..], row: self.strides[outer], column: self.strides[outer + 1] }
    }
}

/// The products of two contiguous or strided tensors.
pub(super) fn multiply(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    of_matrices(&Matrices::of(a), &Matrices::of(b))
}

fn of_matrices(a: &Matrices, b: &Matrices) -> FlexTensor {
    let ([rows, inner], [_, columns]) = (a.size(), b.size());
    let mut shape = a.shape.clone();
    let last = shape.len() - 1;
    shape[last] = columns;
    let mut out = unwritten(shape.iter().product());
    if !out.is_empty() {
        let each = |(i, out): (usize, &mut [f32])| product(a.get(i), b.get(i), [inner, columns], out, false);
        let chunks = out.par_chunks_mut(rows * columns).enumerate();
        chunks.for_each(each);
    }
    let n = out.len();
    FlexTensor::from_data(burn::tensor::TensorData::new(out, [n])).reshape(Shape::from(shape))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, noise};
    use super::*;

    #[test]
    fn the_fast_form_equals_the_plain_one() {
        check([19, 7], matmul);
        let stack = |x: Tensor<2>| x.narrow(0, 0, 130).reshape([5, 2, 13, 19]).swap_dims(1, 2);
        check([19, 3], |x, w| {
            let w = w.reshape([1, 1, 19, 3]);
            matmul(stack(x), w).reshape([130, 3])
        });
        check([131, 4], |x, w| matmul(x.transpose(), w));
        // Tensors that are repeated without a copy.
        let row = noise(7, [1, 19]);
        check([1, 1], |x, _| matmul(x, row.clone().expand([4, 19]).transpose()));
    }
}
