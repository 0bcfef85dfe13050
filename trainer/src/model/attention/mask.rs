//! Which token may look at which: earlier ones of its own document, and itself.

use burn::tensor::{Bool, Int, Tensor};

/// Score added where a token must not look. Every row can see at least itself, so after the
/// softmax these entries are exactly zero.
const FORBIDDEN: f32 = -1e30;

/// The additive mask of causal attention inside segments: 0 where token i may see token j
/// (j <= i and same segment), a very negative number elsewhere.
///
/// # Shapes
/// - segments: `[batch, seq]`, a number for each document of a sample
/// - result: `[batch, 1, 1, seq, seq]`
pub fn document_mask(segments: Tensor<2, Int>) -> Tensor<5> {
    let [batch, seq] = segments.dims();
    let device = segments.device();
    let rows = segments.clone().reshape([batch, seq, 1]).expand([batch, seq, seq]);
    let columns = segments.reshape([batch, 1, seq]).expand([batch, seq, seq]);
    // True above the diagonal: what a lower-triangular matrix leaves out.
    let future =
        Tensor::<2, Bool>::tril_mask([seq, seq], 0, &device).unsqueeze::<3>().expand([batch, seq, seq]);
    let forbidden = rows.not_equal(columns).bool_or(future);
    Tensor::<3>::zeros([batch, seq, seq], &device)
        .mask_fill(forbidden, FORBIDDEN)
        .reshape([batch, 1, 1, seq, seq])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn sees_the_past_of_its_own_document_only() {
        let device = Device::flex();
        let segments = Tensor::from_data(TensorData::from([[0i64, 0, 1, 1]]), &device);
        let mask: Vec<f32> = document_mask(segments).into_data().try_into_vec().expect("f32");
        let visible: Vec<u8> = mask.iter().map(|&m| u8::from(m == 0.0)).collect();
        assert_eq!(visible, [1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1]);
    }
}
