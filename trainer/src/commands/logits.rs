//! Logits of a few validation samples, with their inputs, so that other programs can be compared.

use std::path::Path;

use burn::module::Module;

use crate::checkpoint::{Number, TensorHead, TensorWriter};
use crate::error::Result;
use crate::model::{Model, PADDING};
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::ops::read;
use crate::run::Validator;

/// Writes a safetensors file of f32: `tokens`, `positions` and `segments`, -1 on padding, `[samples,
/// seq_len]` each, and `logits`, `[samples, seq_len, vocab]`, 0 after the end of samples that are shorter
/// than the longest.
///
/// # Errors
/// When the device failed or the file cannot be written.
pub(super) fn write(path: &Path, validator: &Validator, model: &Model) -> Result<()> {
    let batches = validator.batches();
    let [_, vocab] = model.head().dims();
    let (n, seq_len) =
        (batches.iter().map(|batch| batch.len()).sum(), batches.iter().map(|batch| batch.seq_len).max());
    let seq_len = seq_len.unwrap_or(0);
    let head = |name: &str, shape: Vec<usize>| TensorHead { name: name.into(), shape, number: Number::F32 };
    let heads = ["tokens", "positions", "segments"].map(|name| head(name, vec![n, seq_len]));
    let heads = heads.into_iter().chain([head("logits", vec![n, seq_len, vocab])]).collect();
    let mut file = TensorWriter::create(path, heads)?;
    let all = |of: fn(&crate::data::Batch) -> &[u32]| -> Vec<f32> {
        let number = |&value: &u32| if value == PADDING { -1.0 } else { value as f32 };
        let mut numbers = Vec::with_capacity(n * seq_len);
        for batch in batches {
            for row in of(batch).chunks(batch.seq_len) {
                numbers.extend(row.iter().map(number));
                numbers.extend(std::iter::repeat_n(-1.0, seq_len - row.len()));
            }
        }
        numbers
    };
    file.write(&all(|batch| &batch.tokens))?;
    file.write(&all(|batch| &batch.positions))?;
    file.write(&all(|batch| &batch.segments))?;
    let model = model.valid();
    for batch in batches {
        for sample in 0..batch.len() {
            let input = batch.input(sample..sample + 1, &model.device());
            let hidden = model.forward(&input, &model.eval_context(&input)).hidden;
            let logits = matmul(cast_f32(hidden), model.head());
            let mut logits = read(logits.reshape([batch.seq_len * vocab]))?;
            logits.resize(seq_len * vocab, 0.0);
            file.write(&logits)?;
        }
    }
    file.finish()?;
    Ok(())
}
