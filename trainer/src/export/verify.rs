//! Checks an export: reads it back with our own reader and compares logits with the checkpoint's.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;

use super::read::Folder;
use crate::checkpoint::{Loaded, load_model};
use crate::config::Values;
use crate::error::Result;
use crate::model::{Input, Model};
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::ops::read;
use crate::random::mix;

/// Maximum tokens of each compared sample.
const TOKENS: usize = 64;

/// How far apart two models are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The largest difference between two logits.
    pub max: f32,
    /// Positions at which both have the same most likely token.
    pub same: usize,
    /// All positions.
    pub n: usize,
}

/// Compares a folder with the checkpoint that it was exported from, on a sample of one document and one of
/// three.
///
/// # Errors
/// When either cannot be read, or the folder is not a model that we support.
pub fn verify(loaded: &Loaded, dir: &Path) -> Result<Difference> {
    let device = Device::flex();
    let mut folder = Folder::open(dir)?;
    let config = folder.config(Values::default(), Vec::new())?;
    let geometry = config.model(folder.vocab_size, folder.max_positions);
    let vocab = loaded.state.vocab_size;
    // One model at a time, to save memory.
    let of = |model: Model| logits(&model, geometry.seq_len, vocab);
    let theirs = of(folder.model(&config.values, &geometry, &device)?)?;
    Ok(difference(&of(load_model(loaded, &device)?)?, &theirs, vocab))
}

/// Compares two models of the same vocabulary on such samples, of at most `seq_len` tokens.
///
/// # Errors
/// When the device failed.
pub fn apart(a: &Model, b: &Model, seq_len: usize, vocab: usize) -> Result<Difference> {
    Ok(difference(&logits(a, seq_len, vocab)?, &logits(b, seq_len, vocab)?, vocab))
}

fn difference(a: &[f32], b: &[f32], vocab: usize) -> Difference {
    // NaN counts as infinitely far away.
    let far = |(a, b): (&f32, &f32)| if a == b { 0.0 } else { (a - b).abs() };
    let max = a.iter().zip(b).map(far).fold(0.0, |most, x| if x <= most { most } else { x });
    let rows = a.chunks(vocab).zip(b.chunks(vocab));
    let same = rows.filter(|(a, b)| best(a) == best(b)).count();
    Difference { max, same, n: a.len() / vocab.max(1) }
}

/// Logits of two samples of at most `seq_len` tokens, `[tokens * vocab]`.
fn logits(model: &Model, seq_len: usize, vocab: usize) -> Result<Vec<f32>> {
    let (model, n) = (model.valid(), seq_len.min(TOKENS));
    let tokens: Vec<u32> = (0..2 * n as u64).map(|i| (mix(i) % vocab as u64) as u32).collect();
    // The first sample is one document, the second has three.
    let third = n.div_ceil(3) as u32;
    let (one, three) = ((0..n as u32), (0..n as u32));
    let positions: Vec<u32> = one.clone().chain(three.clone().map(|i| i % third)).collect();
    let segments: Vec<u32> = one.map(|_| 0).chain(three.map(|i| i / third)).collect();
    let input = Input::new(&tokens, &positions, &segments, [2, n], &model.device());
    let hidden = model.forward(&input, &model.eval_context(&input)).hidden;
    let logits = matmul(cast_f32(hidden), model.head());
    Ok(read(logits.reshape([2 * n * vocab]))?)
}

/// The most likely token.
fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
}
