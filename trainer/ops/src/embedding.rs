//! The token embeddings.

use burn::tensor::{Int, Tensor};
use moe_kernels::embedding::{TokenOrder, embed_plain};

use super::{Compute, Form};

/// The table's row of each token.
///
/// # Shapes
/// - table: `[vocabulary, width]`, f32
/// - tokens: `[tokens]`, of which `ids` are the values
/// - result: `[tokens, width]`, of the type of computation
pub fn embed(table: Tensor<2>, tokens: Tensor<1, Int>, ids: &[u32], compute: Compute) -> Tensor<2> {
    match (Form::on(&table.device()), compute) {
        (Form::Cpu, Compute::F32) => table.select(0, tokens),
        (Form::Plain | Form::Cpu, _) => embed_plain(table, tokens, compute.dtype()),
        (Form::Gpu, _) => {
            let [vocab, _] = table.dims();
            let order = TokenOrder::new(ids, vocab, &table.device());
            moe_kernels::embedding::embed(table, tokens, &order, compute.dtype())
        }
    }
}
