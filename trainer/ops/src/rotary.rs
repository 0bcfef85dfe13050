//! Rotary positions (Su et al. 2021, arXiv 2104.09864, section 3.2): pairs of channels are rotated by angles.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use super::Form;
use super::flex::{fill_rows, row, shape2, values};

/// Rotates the pairs (x_i, x_(i + half)) of the first `n_heads` heads by the angles of their token.
///
/// # Shapes
/// - x: `[tokens, columns]`, of which the first `n_heads * 2 * half` columns are rotated
/// - cos, sin: `[tokens, half]`
/// - result: as x
pub fn rotate(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, n_heads: usize) -> Tensor<2> {
    match Form::of(&x) {
        Form::Plain => moe_kernels::rotary::rotate_plain(x, cos, sin, n_heads),
        Form::Gpu => moe_kernels::rotary::rotate(x, cos, sin, n_heads),
        Form::Cpu => {
            let (cos, sin) = (cos.into_dispatch(), sin.into_dispatch());
            Tensor::from_dispatch(Dispatch::k_rotate(x.into_dispatch(), cos, sin, n_heads, false))
        }
    }
}

/// [`rotate`] for the first channels of each head.
///
/// # Shapes
/// - x: `[tokens, columns]`, of which the first `n_heads * width` are the rotated heads; of each, the first `2 * half`
///   channels are
/// - cos, sin: `[tokens, half]`
/// - result: as x
pub fn rotate_part(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, n_heads: usize, width: usize) -> Tensor<2> {
    let ([tokens, columns], part) = (x.dims(), 2 * cos.dims()[1]);
    if part == width {
        return rotate(x, cos, sin, n_heads);
    }
    let heads = x.clone().narrow(1, 0, n_heads * width).reshape([tokens, n_heads, width]);
    let turned =
        rotate(heads.clone().narrow(2, 0, part).reshape([tokens, n_heads * part]), cos, sin, n_heads);
    let turned = turned.reshape([tokens, n_heads, part]);
    let heads = Tensor::cat(vec![turned, heads.narrow(2, part, width - part)], 2);
    let heads = heads.reshape([tokens, n_heads * width]);
    match columns - n_heads * width {
        0 => heads,
        rest => Tensor::cat(vec![heads, x.narrow(1, n_heads * width, rest)], 1),
    }
}

/// The CPU form.
#[backend_extension(Flex, Autodiff)]
trait RotateRows: Backend {
    /// Rotates pairs of channels of the first heads by the angles of their token, or back.
    fn k_rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        n_heads: usize,
        is_back: bool,
    ) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct Rotate;

impl<B: RotateRows> Backward<B, 1> for Rotate {
    type State = (FloatTensor<B>, FloatTensor<B>, usize, bool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (cos, sin, n_heads, is_back) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::k_rotate(grad, cos, sin, n_heads, !is_back));
        }
    }
}

impl<B: RotateRows, C: CheckpointStrategy> RotateRows for Autodiff<B, C> {
    fn k_rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        n_heads: usize,
        is_back: bool,
    ) -> FloatTensor<Self> {
        let prep = Rotate.prepare::<C>([x.node()]).compute_bound().stateful();
        // Angles are constants: they have no gradient.
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let y = B::k_rotate(x.into_primitive(), cos.clone(), sin.clone(), n_heads, is_back);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((cos, sin, n_heads, is_back), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

impl RotateRows for Flex {
    fn k_rotate(
        x: FlexTensor,
        cos: FlexTensor,
        sin: FlexTensor,
        n_heads: usize,
        is_back: bool,
    ) -> FlexTensor {
        let ((rows, columns), (_, half)) = (shape2(&x), shape2(&cos));
        let (x, cos, sin) = (x.to_contiguous(), cos.to_contiguous(), sin.to_contiguous());
        let (x, cos, sin) = (values(&x), values(&cos), values(&sin));
        let (n_turned, sign) = (n_heads * 2 * half, if is_back { -1.0 } else { 1.0 });
        fill_rows(
            [rows, columns],
            #[inline(always)]
            |i, out| {
                let (cos, sin) = (row(cos, i, half), row(sin, i, half));
                let (turned, rest) = row(x, i, columns).split_at(n_turned);
                let (out, out_rest) = out.split_at_mut(n_turned);
                out_rest.copy_from_slice(rest);
                for (out, x) in out.chunks_exact_mut(2 * half).zip(turned.chunks_exact(2 * half)) {
                    let (out_a, out_b) = out.split_at_mut(half);
                    let (a, b) = x.split_at(half);
                    for j in 0..half {
                        let sin = sign * sin[j];
                        out_a[j] = a[j] * cos[j] - b[j] * sin;
                        out_b[j] = a[j] * sin + b[j] * cos[j];
                    }
                }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::super::testing::{check, noise};
    use super::*;

    #[test]
    fn the_fast_form_equals_the_plain_one() {
        // Two of three heads of width 6 are rotated.
        let (cos, sin) = (noise(5, [131, 3]).detach(), noise(6, [131, 3]).detach());
        check([1, 1], |x, _| rotate(x.narrow(1, 0, 18), cos.clone(), sin.clone(), 2));
        check([1, 1], |x, _| rotate(x.narrow(1, 0, 12), cos.clone(), sin.clone(), 2));
        // Six of eight channels.
        check([1, 1], |x, _| rotate_part(x, cos.clone(), sin.clone(), 2, 8));
    }

    #[test]
    fn a_part_of_each_head_turns() {
        let values =
            |v: &[f32]| Tensor::<2>::from_data(TensorData::new(v.to_vec(), [1, v.len()]), &Device::flex());
        // Two heads of three channels, two of which are rotated by a right angle, and a channel that belongs
        // to no head.
        let x = values(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let turned = rotate_part(x, values(&[0.0]), values(&[1.0]), 2, 3);
        let turned: Vec<f32> = turned.into_data().try_into_vec().expect("f32");
        assert_eq!(turned, [-2.0, 1.0, 3.0, -5.0, 4.0, 6.0, 7.0]);
    }
}
