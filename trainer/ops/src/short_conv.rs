//! A short causal convolution of each channel (Gu & Dao 2023, arXiv 2312.00752, section 3.4) inside
//! documents.

use burn::tensor::activation::silu;
use burn::tensor::{Tensor, TensorData};

use super::linear::{cast_f32, cast_like};

/// `silu(sum_j w[c, j] x[t - width + 1 + j, c])` for each token t and channel c: the last weight applies to
/// the token itself, and nothing before its document is seen.
///
/// # Shapes
/// - x: `[batch * seq, channels]`, and so is the result, in its type
/// - weight: `[channels * width]`, the weights of a channel side by side
/// - starts: `[batch * seq]`, the position in the sample at which the token's document piece begins
pub fn short_conv(x: Tensor<2>, weight: Tensor<1>, starts: &[usize], seq: usize) -> Tensor<2> {
    let [tokens, channels] = x.dims();
    let width = weight.dims()[0] / channels;
    let (weight, values) = (weight.reshape([channels, width]), cast_f32(x.clone()));
    let samples = values.reshape([tokens / seq, seq, channels]);
    let mut sum = Tensor::<2>::zeros([tokens, channels], &x.device());
    for back in 0..width.min(seq) {
        let shifted = match back {
            0 => samples.clone(),
            _ => {
                let zeros = Tensor::zeros([tokens / seq, back, channels], &x.device());
                Tensor::cat(vec![zeros, samples.clone().narrow(1, 0, seq - back)], 1)
            }
        };
        let is_seen = |(token, &start): (usize, &usize)| f32::from(u8::from(token % seq >= start + back));
        let seen: Vec<f32> = starts.iter().enumerate().map(is_seen).collect();
        let seen = Tensor::<2>::from_data(TensorData::new(seen, [tokens, 1]), &x.device());
        let weight = weight.clone().narrow(1, width - 1 - back, 1).transpose();
        sum = sum + shifted.reshape([tokens, channels]) * seen * weight;
    }
    cast_like(silu(sum), &x)
}
