//! Which token may look at which: earlier ones of its own document, and itself.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData, activation};

use crate::kernel::{Spans, attention_softmax, is_host};

/// Score added where a token must not look. Every row can see at least itself, so after the
/// softmax these entries are exactly zero.
const FORBIDDEN: f32 = -1e30;

/// Causal attention inside the documents of a batch.
#[derive(Debug, Clone)]
pub struct DocumentMask {
    batch: usize,
    seq: usize,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// For the kernel of the CPU.
    Host(Arc<Spans>),
    /// `[batch, 1, 1, seq, seq]`, added to the scores on another device.
    Plain(Box<Tensor<5>>),
}

impl DocumentMask {
    /// The mask of `batch` samples of `seq` tokens.
    ///
    /// # Shapes
    /// - segments: `batch * seq` numbers, one for each document piece of a sample; the tokens of a
    ///   piece lie side by side
    pub fn new(segments: &[u32], [batch, seq]: [usize; 2], n_heads: usize, device: &Device) -> Self {
        let form = match is_host(device) {
            true => Form::Host(Arc::new(Spans::new(segments, seq, n_heads))),
            false => Form::Plain(Box::new(additive(segments, [batch, seq], device))),
        };
        Self { batch, seq, form }
    }

    /// Samples and tokens of a sample.
    pub fn dims(&self) -> [usize; 2] {
        [self.batch, self.seq]
    }

    /// `softmax(scale * scores)` over what each query may see, 0 elsewhere.
    ///
    /// # Shapes
    /// - scores: `[batch, kv_heads, group * seq, seq]`, and so is the result; the queries of the
    ///   heads of a group lie one below the other
    pub fn softmax(&self, scores: Tensor<4>, scale: f64) -> Tensor<4> {
        let [batch, kv_heads, queries, seq] = scores.dims();
        match &self.form {
            Form::Host(spans) => {
                let rows = scores.reshape([batch * kv_heads * queries, seq]);
                attention_softmax(rows, spans, scale).reshape([batch, kv_heads, queries, seq])
            }
            Form::Plain(mask) => {
                let scores = scores.reshape([batch, kv_heads, queries / seq, seq, seq]);
                let weights = activation::softmax(scores * scale + Tensor::clone(mask), 4);
                weights.reshape([batch, kv_heads, queries, seq])
            }
        }
    }
}

/// 0 where token i may see token j (j <= i and same segment), a very negative number elsewhere.
fn additive(segments: &[u32], [batch, seq]: [usize; 2], device: &Device) -> Tensor<5> {
    let mut values = vec![FORBIDDEN; batch * seq * seq];
    for (token, row) in values.chunks_exact_mut(seq).enumerate() {
        let (start, query) = (token / seq * seq, token % seq);
        for key in 0..=query {
            if segments[start + key] == segments[token] {
                row[key] = 0.0;
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [batch, 1, 1, seq, seq]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_the_past_of_its_own_document_only() {
        let mask = additive(&[0, 0, 1, 1], [1, 4], &Device::flex());
        let mask: Vec<f32> = mask.into_data().try_into_vec().expect("f32");
        let visible: Vec<u8> = mask.iter().map(|&m| u8::from(m == 0.0)).collect();
        assert_eq!(visible, [1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn kernel_and_plain_operations_agree_forward_and_backward() {
        let device = Device::flex().autodiff();
        let (segments, shape) = ([0, 0, 1, 1, 1, 0, 1, 2, 2, u32::MAX], [2, 5]);
        let tensor = |seed: f32| -> Tensor<4> {
            let values: Vec<f32> = (0..200).map(|i| 3.0 * (seed + i as f32).sin()).collect();
            Tensor::from_data(TensorData::new(values, [2, 2, 10, 5]), &device)
        };
        let run = |form: Form| {
            let scores = tensor(0.5).require_grad();
            let y = DocumentMask { batch: 2, seq: 5, form }.softmax(scores.clone(), 0.7);
            let grads = (y.clone() * tensor(9.0)).sum().backward();
            let host = |t: Tensor<4>| -> Vec<f32> { t.into_data().try_into_vec().expect("f32") };
            [host(y), host(scores.grad(&grads).expect("tracked"))].concat()
        };
        let kernel = run(Form::Host(Arc::new(Spans::new(&segments, 5, 4))));
        let plain = run(Form::Plain(Box::new(additive(&segments, shape, &device))));
        assert!(kernel.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
