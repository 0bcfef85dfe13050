//! The token embeddings.
//!
//! Forward, each row of the result is read and written once, in vectors of up to 16 bytes. The gradient of
//! the table is a sum over the positions of each token. They are sorted by token on the host, where the
//! tokens come from ([`TokenOrder`]); one cube for each row of the table adds its positions in order, with
//! several loads in flight, and writes the row, zero without positions. Nothing is added atomically;
//! gradients are read once, and the table's is written once.

use burn::tensor::{Device, FloatDType, Int, Tensor};

use crate::routing::from_integers;

/// The positions of each token in one batch.
#[derive(Debug, Clone)]
pub struct TokenOrder {
    /// Positions sorted by their token, those of one token in order, `[tokens]`.
    pub positions: Tensor<1, Int>,
    /// Where each token's positions start, and their number, `[vocabulary + 1]`.
    pub starts: Tensor<1, Int>,
}

impl TokenOrder {
    /// Sorts the positions of these tokens.
    ///
    /// # Panics
    /// When a token is outside the vocabulary.
    pub fn new(tokens: &[u32], vocab: usize, device: &Device) -> Self {
        let mut starts = vec![0i64; vocab + 1];
        for &token in tokens {
            assert!((token as usize) < vocab, "token {token} is outside a vocabulary of {vocab}");
            starts[token as usize + 1] += 1;
        }
        for token in 0..vocab {
            starts[token + 1] += starts[token];
        }
        let mut next = starts.clone();
        let mut positions = vec![0i64; tokens.len()];
        for (position, &token) in tokens.iter().enumerate() {
            positions[next[token as usize] as usize] = position as i64;
            next[token as usize] += 1;
        }
        Self { positions: from_integers(positions, device), starts: from_integers(starts, device) }
    }
}

/// The table's row of each token.
///
/// # Shapes
/// - table: `[vocabulary, width]`, f32
/// - tokens: `[tokens]`, the same as those of `order`
/// - result: `[tokens, width]`, of type `dtype`
///
/// # Panics
/// When the order is of another number of tokens or another vocabulary, and on a GPU when the table
/// is not f32.
pub fn embed(table: Tensor<2>, tokens: Tensor<1, Int>, order: &TokenOrder, dtype: FloatDType) -> Tensor<2> {
    assert_eq!(tokens.dims(), order.positions.dims(), "number of tokens");
    assert_eq!(table.dims()[0] + 1, order.starts.dims()[0], "size of the vocabulary, plus one");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&table.device()) {
        return gpu::embed(table, tokens, order, dtype);
    }
    embed_plain(table, tokens, dtype)
}

/// [`embed`] by plain operations.
pub fn embed_plain(table: Tensor<2>, tokens: Tensor<1, Int>, dtype: FloatDType) -> Tensor<2> {
    table.select(0, tokens).cast(dtype)
}

#[cfg(feature = "gpu")]
mod kernels {
    use cubecl::prelude::*;

    /// Positions whose loads are in flight at a time.
    const AT_ONCE: usize = 8;

    #[cube(launch)]
    pub(super) fn embed<F: Float, I: Int, N: Size>(
        table: &Tensor<Vector<f32, N>>,
        tokens: &Tensor<I>,
        rows: &mut Tensor<Vector<F, N>>,
        #[define(F, I)] _elements: [ElemType; 2],
    ) {
        let columns = table.shape(1) / table.vector_size();
        let position = ABSOLUTE_POS;
        if position >= rows.shape(0) * columns {
            terminate!();
        }
        let (row, column) = (position / columns, position % columns);
        let token = usize::cast_from(tokens[row]);
        rows[position] = Vector::<F, N>::cast_from(table[token * columns + column]);
    }

    /// The sum of the gradients at each token's positions, in order.
    #[cube(launch)]
    pub(super) fn embed_backward<F: Float, I: Int, N: Size>(
        grad: &Tensor<Vector<F, N>>,
        positions: &Tensor<I>,
        starts: &Tensor<I>,
        d_table: &mut Tensor<Vector<f32, N>>,
        #[comptime] units: usize,
        #[define(F, I)] _elements: [ElemType; 2],
    ) {
        let token = CUBE_POS;
        let columns = d_table.shape(1) / d_table.vector_size();
        if token >= d_table.shape(0) {
            terminate!();
        }
        let start = usize::cast_from(starts[token]);
        let end = usize::cast_from(starts[token + 1]);
        let mut column = UNIT_POS as usize;
        while column < columns {
            let mut sum = Vector::<f32, N>::new(0.0f32);
            let mut at = start;
            while at + AT_ONCE <= end {
                #[unroll]
                for i in 0..AT_ONCE {
                    let position = usize::cast_from(positions[at + i]);
                    sum += Vector::<f32, N>::cast_from(grad[position * columns + column]);
                }
                at += AT_ONCE;
            }
            while at < end {
                let position = usize::cast_from(positions[at]);
                sum += Vector::<f32, N>::cast_from(grad[position * columns + column]);
                at += 1;
            }
            d_table[token * columns + column] = sum;
            column += units;
        }
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    #[cfg(feature = "fusion")]
    use burn::backend::fusion::custom::TensorSpec;
    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
    use burn::tensor::{DType, FloatDType, Int, Shape, Tensor};
    use burn_cubecl::CubeBackend;
    use cubecl::CubeDim;

    use super::{TokenOrder, kernels};
    use crate::launch::{assert_f32, element, empty, grid, grid_of_units, into_contiguous, vector_size};
    use crate::reduce::UNITS;

    pub(super) fn embed(
        table: Tensor<2>,
        tokens: Tensor<1, Int>,
        order: &TokenOrder,
        dtype: FloatDType,
    ) -> Tensor<2> {
        assert_f32("the table", table.dtype());
        Tensor::from_dispatch(Dispatch::embed_tokens(
            table.into_dispatch(),
            tokens.into_dispatch(),
            order.positions.clone().into_dispatch(),
            order.starts.clone().into_dispatch(),
            dtype.into(),
        ))
    }

    /// The kernels, as an extension of burn's GPU backends.
    #[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
    pub trait EmbeddingOps: Backend {
        /// The table's row of each token.
        #[fusion(meta = |table, tokens, _positions, _starts, dtype| rows_spec(table, tokens, *dtype))]
        fn embed_tokens(
            table: FloatTensor<Self>,
            tokens: IntTensor<Self>,
            positions: IntTensor<Self>,
            starts: IntTensor<Self>,
            dtype: DType,
        ) -> FloatTensor<Self>;
        /// The gradient of the table.
        #[fusion(meta = |grad, _positions, starts| table_spec(grad, starts))]
        fn embed_tokens_backward(
            grad: FloatTensor<Self>,
            positions: IntTensor<Self>,
            starts: IntTensor<Self>,
        ) -> FloatTensor<Self>;
    }

    #[cfg(feature = "fusion")]
    fn rows_spec(table: &TensorSpec, tokens: &TensorSpec, dtype: DType) -> TensorSpec {
        TensorSpec::new(Shape::from([tokens.shape[0], table.shape[1]]), dtype)
    }

    #[cfg(feature = "fusion")]
    fn table_spec(grad: &TensorSpec, starts: &TensorSpec) -> TensorSpec {
        TensorSpec::new(Shape::from([starts.shape[0] - 1, grad.shape[1]]), DType::F32)
    }

    impl EmbeddingOps for CubeBackend {
        fn embed_tokens(
            table: FloatTensor<Self>,
            tokens: IntTensor<Self>,
            _: IntTensor<Self>,
            _: IntTensor<Self>,
            dtype: DType,
        ) -> FloatTensor<Self> {
            let (table, tokens) = (into_contiguous(table), into_contiguous(tokens));
            let (n, width) = (tokens.shape()[0], table.shape()[1]);
            let rows = empty(&table, [n, width], dtype);
            let vector = vector_size(&table, width);
            kernels::embed::launch(
                &rows.client,
                grid_of_units(n * width / vector, UNITS),
                CubeDim::new_1d(UNITS),
                vector,
                table.into_tensor_arg(),
                tokens.clone().into_tensor_arg(),
                rows.clone().into_tensor_arg(),
                [element(dtype), element(tokens.dtype)],
            );
            rows
        }

        fn embed_tokens_backward(
            grad: FloatTensor<Self>,
            positions: IntTensor<Self>,
            starts: IntTensor<Self>,
        ) -> FloatTensor<Self> {
            let (grad, positions) = (into_contiguous(grad), into_contiguous(positions));
            let starts = into_contiguous(starts);
            let (vocab, width) = (starts.shape()[0] - 1, grad.shape()[1]);
            let d_table = empty(&grad, [vocab, width], DType::F32);
            // Vectors of the wider type, f32.
            let vector = vector_size(&d_table, width);
            kernels::embed_backward::launch(
                &d_table.client,
                grid(vocab),
                CubeDim::new_1d(UNITS),
                vector,
                grad.clone().into_tensor_arg(),
                positions.clone().into_tensor_arg(),
                starts.into_tensor_arg(),
                d_table.clone().into_tensor_arg(),
                UNITS as usize,
                [element(grad.dtype), element(positions.dtype)],
            );
            d_table
        }
    }

    #[derive(Debug)]
    struct EmbedBackward;

    impl<B: EmbeddingOps> Backward<B, 1> for EmbedBackward {
        type State = (IntTensor<B>, IntTensor<B>);

        fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let [parent] = ops.parents;
            let grad = grads.consume::<B>(&ops.node);
            let (positions, starts) = ops.state;
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, B::embed_tokens_backward(grad, positions, starts));
            }
        }
    }

    impl<B: EmbeddingOps, C: CheckpointStrategy> EmbeddingOps for Autodiff<B, C> {
        fn embed_tokens(
            table: FloatTensor<Self>,
            tokens: IntTensor<Self>,
            positions: IntTensor<Self>,
            starts: IntTensor<Self>,
            dtype: DType,
        ) -> FloatTensor<Self> {
            let prep = EmbedBackward.prepare::<C>([table.node()]).compute_bound().stateful();
            let (p, s) = (positions.clone(), starts.clone());
            let rows = B::embed_tokens(table.into_primitive(), tokens, p, s, dtype);
            match prep {
                OpsKind::Tracked(prep) => prep.finish((positions, starts), rows),
                OpsKind::UnTracked(prep) => prep.finish(rows),
            }
        }

        /// # Panics
        /// Always: gradients of gradients are never needed.
        fn embed_tokens_backward(
            _: FloatTensor<Self>,
            _: IntTensor<Self>,
            _: IntTensor<Self>,
        ) -> FloatTensor<Self> {
            panic!("kernels have gradients of the first order only")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    #[test]
    fn positions_are_sorted_by_token() {
        let order = TokenOrder::new(&[3, 0, 3, 1], 5, &Device::flex());
        let values = |x: Tensor<1, Int>| x.into_data().iter::<i64>().collect::<Vec<_>>();
        assert_eq!(values(order.positions), [1, 3, 0, 2]);
        assert_eq!(values(order.starts), [0, 1, 2, 2, 4, 4]);
    }

    #[test]
    fn gradients_of_equal_tokens_add_up() {
        let device = Device::flex().autodiff();
        let table = Tensor::<2>::from_data([[1.0f32], [2.0], [3.0]], &device).require_grad();
        let tokens = Tensor::<1, Int>::from_data([2, 0, 2], &device);
        let order = TokenOrder::new(&[2, 0, 2], 3, &device);
        let rows = embed(table.clone(), tokens, &order, FloatDType::F32);
        assert_eq!(rows.clone().into_data().iter::<f32>().collect::<Vec<_>>(), [3.0, 1.0, 3.0]);
        let direction = Tensor::<2>::from_data(TensorData::new(vec![1.0f32, 10.0, 5.0], [3, 1]), &device);
        let grads = (rows * direction).sum().backward();
        let grad = table.grad(&grads).expect("table");
        assert_eq!(grad.into_data().iter::<f32>().collect::<Vec<_>>(), [10.0, 0.0, 6.0]);
    }
}
