//! From tokens to the rows of their experts and back (MegaBlocks, Gale et al. 2022, arXiv 2211.15841, section
//! 4: the permutation of tokens).
//!
//! Both directions of the permutation are stored ([`Routes`]), so that each kernel writes every
//! place of its result once and in order, and only reads are scattered, by whole rows: nothing is
//! added atomically. Units read and write vectors of 16 bytes where the columns allow.
//!
//! - [`gather_rows`]: reads and writes each row once. Its gradient reads each row once and writes
//!   each token once.
//! - [`combine_rows`]: the same traffic as that gradient. Its own gradient is one kernel with 32
//!   units for each choice: a row and its token's gradient are read once for both the row's
//!   gradient, written once, and the weight's, their scalar product.

#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod kernels;

use burn::tensor::{FloatDType, Int, Tensor};

use crate::routing::Routes;

/// Copies each token to its rows; unused rows, after the last, are zero.
///
/// # Shapes
/// - x: `[tokens, columns]`, f32 or bf16, and so is the result
/// - result: `[tokens * top_k, columns]`
///
/// # Panics
/// When the routes are of another number of tokens.
pub fn gather_rows(x: Tensor<2>, routes: &Routes) -> Tensor<2> {
    check_tokens(x.dims()[0], routes);
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&x.device()) {
        return gpu::gather_rows(x, routes);
    }
    gather_rows_plain(x, routes)
}

/// [`gather_rows`] by plain operations.
pub fn gather_rows_plain(x: Tensor<2>, routes: &Routes) -> Tensor<2> {
    let token_of_row = routes.choice_of_row.clone().clamp_min(0).div_scalar(routes.top_k as i64);
    zero_where_absent(x.select(0, token_of_row), &routes.choice_of_row)
}

/// The weighted sum of each token's rows, in f32 and in the order of its choices; zero for padding.
///
/// # Shapes
/// - rows: `[tokens * top_k, columns]`, f32 or bf16, and so is the result
/// - weights: `[tokens, top_k]`, f32; those of padding are not used
/// - result: `[tokens, columns]`
///
/// # Panics
/// When rows, weights and routes are of different numbers of tokens, and on a GPU when the weights
/// are not f32.
pub fn combine_rows(rows: Tensor<2>, weights: Tensor<2>, routes: &Routes) -> Tensor<2> {
    let [tokens, top_k] = weights.dims();
    check_tokens(tokens, routes);
    assert_eq!((top_k, tokens * top_k), (routes.top_k, rows.dims()[0]), "choices of weights and rows");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&rows.device()) {
        return gpu::combine_rows(rows, weights, routes);
    }
    combine_rows_plain(rows, weights, routes)
}

/// [`combine_rows`] by plain operations, in f32.
pub fn combine_rows_plain(rows: Tensor<2>, weights: Tensor<2>, routes: &Routes) -> Tensor<2> {
    let dtype = rows.dtype();
    let [_, columns] = rows.dims();
    let [tokens, top_k] = weights.dims();
    let of_choices = rows.cast(FloatDType::F32).select(0, routes.row_of_choice.clone().clamp_min(0));
    let of_choices = zero_where_absent(of_choices, &routes.row_of_choice);
    let weighted = of_choices.reshape([tokens, top_k, columns]) * weights.reshape([tokens, top_k, 1]);
    weighted.sum_dim(1).reshape([tokens, columns]).cast(dtype)
}

fn check_tokens(tokens: usize, routes: &Routes) {
    let [choices] = routes.row_of_choice.dims();
    assert_eq!(tokens * routes.top_k, choices, "choices of {tokens} tokens");
}

/// Zeros in the rows whose index is negative.
fn zero_where_absent(x: Tensor<2>, indices: &Tensor<1, Int>) -> Tensor<2> {
    let shape = x.dims();
    let is_absent = indices.clone().lower_elem(0).unsqueeze_dim::<2>(1).expand(shape);
    x.mask_fill(is_absent, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{from_integers, sort_by_expert};
    use burn::tensor::{Device, TensorData};

    /// Tokens 0 and 2 choose experts 2 and 0; token 1 is padding.
    fn routes() -> Routes {
        sort_by_expert(&from_integers(vec![2, 0, -1, -1, 2, 0], &Device::flex()).reshape([3, 2]), 3)
    }

    fn tensor(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
        let device = Device::flex().autodiff();
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &device).require_grad()
    }

    fn host(x: Tensor<2>) -> Vec<f32> {
        x.into_data().iter().collect()
    }

    #[test]
    fn rows_are_copies_and_their_gradients_add_up() {
        let x = tensor(&[1.0, 2.0, 3.0], [3, 1]);
        let rows = gather_rows(x.clone(), &routes());
        assert_eq!(host(rows.clone()), [1.0, 3.0, 1.0, 3.0, 0.0, 0.0]);
        let grads = (rows * tensor(&[1.0, 2.0, 10.0, 20.0, 5.0, 5.0], [6, 1])).sum().backward();
        assert_eq!(host(x.grad(&grads).expect("x")), [11.0, 0.0, 22.0]);
    }

    #[test]
    fn tokens_are_weighted_sums_of_their_rows() {
        let rows = tensor(&[1.0, 2.0, 3.0, 4.0, 9.0, 9.0], [6, 1]);
        let weights = tensor(&[0.5, 2.0, 7.0, 7.0, 1.0, 0.0], [3, 2]);
        let y = combine_rows(rows.clone(), weights.clone(), &routes());
        // Rows of token 0 are 2 and 0, those of token 2 are 3 and 1.
        assert_eq!(host(y.clone()), [0.5 * 3.0 + 2.0, 0.0, 4.0]);
        let grads = (y * tensor(&[1.0, 5.0, 10.0], [3, 1])).sum().backward();
        assert_eq!(host(rows.grad(&grads).expect("rows")), [2.0, 0.0, 0.5, 10.0, 0.0, 0.0]);
        assert_eq!(host(weights.grad(&grads).expect("weights")), [3.0, 1.0, 0.0, 0.0, 40.0, 20.0]);
    }
}
