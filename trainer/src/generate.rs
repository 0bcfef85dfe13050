//! Text from a model, one token after the other.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::model::attention::AttentionCache;
use crate::model::{Input, Model};
use crate::ops::linear::cast_f32;
use crate::ops::matmul::matmul;
use crate::random::Stream;

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Maximum number of tokens; an end of document stops earlier.
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Draw only from this many of the most likely tokens.
    pub top_k: usize,
    /// Of these, draw from the smallest set with at least this total probability; 1 is all.
    pub top_p: f64,
    /// Seed of the draws: the same seed gives the same text.
    pub seed: u64,
}

/// How a model reads a text that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Each token once; attentions cache what they need. When the model has read as many tokens as it was
    /// trained on, it starts again with the later half of them.
    Once,
    /// All tokens again for each new one, at most as many of the last as the model was trained on; for models
    /// in which a token's output depends on later tokens.
    Whole,
}

/// Continues `prompt` (not empty) and returns the new tokens. The model sees at most `context` tokens, as
/// many as it was trained on.
pub fn generate(
    model: &Model,
    prompt: &[u32],
    eod: u32,
    context: usize,
    reading: Reading,
    sampling: &Sampling,
) -> Vec<u32> {
    let mut reader = Reader::new(model.valid(), context, reading);
    let stream = Stream::new(sampling.seed, "sample");
    let mut tokens = prompt.to_vec();
    for draw in 0..sampling.max_tokens {
        let next = choose(&reader.next_logits(&tokens), sampling, stream.uniform(draw as u64));
        if next == eod {
            break;
        }
        tokens.push(next);
    }
    tokens.split_off(prompt.len())
}

/// A model and what it has read.
struct Reader {
    model: Model,
    context: usize,
    reading: Reading,
    caches: Vec<AttentionCache>,
    /// The first token that the model sees, and the first that it has not read.
    first: usize,
    next: usize,
}

impl Reader {
    fn new(model: Model, context: usize, reading: Reading) -> Self {
        let caches = model.caches();
        Self { model, context, reading, caches, first: 0, next: 0 }
    }

    /// Logits of the token after `tokens`, which continue from those of the last call.
    fn next_logits(&mut self, tokens: &[u32]) -> Vec<f32> {
        let n = tokens.len();
        let hidden = match self.reading {
            Reading::Whole => {
                let input = self.input(&tokens[n.saturating_sub(self.context)..], 0);
                self.model.forward(&input, &self.model.eval_context(&input)).hidden
            }
            Reading::Once => {
                if n - self.first > self.context {
                    let kept = if self.next == 0 { self.context } else { (self.context / 2).max(1) };
                    (self.first, self.next) = (n - kept, n - kept);
                    self.caches = self.model.caches();
                }
                let input = self.input(&tokens[self.next..], self.next - self.first);
                self.next = n;
                self.model.extend(&input, &mut self.caches)
            }
        };
        let [rows, _] = hidden.dims();
        let logits: Tensor<2> = matmul(cast_f32(hidden.narrow(0, rows - 1, 1)), self.model.head());
        // Cannot fail: logits are f32.
        logits.into_data().try_into_vec().expect("f32 logits")
    }

    /// Tokens of one document from a position on.
    fn input(&self, tokens: &[u32], position: usize) -> Input {
        let n = tokens.len();
        let positions: Vec<u32> = (position as u32..(position + n) as u32).collect();
        Input::new(tokens, &positions, &vec![0; n], [1, n], &self.model.device())
    }
}

/// The token at the quantile `uniform` of the tempered distribution over the most likely tokens that can be
/// drawn; ties go to the lowest token.
fn choose(logits: &[f32], sampling: &Sampling, uniform: f64) -> u32 {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    order.truncate(sampling.top_k.max(1));
    let best = f64::from(logits[order[0] as usize]);
    if sampling.temperature <= 0.0 {
        return order[0];
    }
    let weight = |token: u32| ((f64::from(logits[token as usize]) - best) / sampling.temperature).exp();
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    if sampling.top_p < 1.0 {
        let mut sum = 0.0;
        let is_enough = |&token: &u32| {
            sum += weight(token);
            sum >= sampling.top_p * total
        };
        let n = order.iter().position(is_enough).map_or(order.len(), |last| last + 1);
        order.truncate(n);
    }
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let mut rest = uniform * total;
    for &token in &order {
        rest -= weight(token);
        if rest < 0.0 {
            return token;
        }
    }
    order[order.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f64, top_k: usize) -> Sampling {
        Sampling { max_tokens: 1, temperature, top_k, top_p: 1.0, seed: 1 }
    }

    #[test]
    fn quantiles_choose_tokens() {
        let logits = [0.0, 3f32.ln(), -9.0];
        // Probabilities of the two best are 3/4 (token 1) and 1/4 (token 0).
        assert_eq!(choose(&logits, &sampling(1.0, 2), 0.74), 1);
        assert_eq!(choose(&logits, &sampling(1.0, 2), 0.76), 0);
        assert_eq!(choose(&logits, &sampling(0.0, 3), 0.99), 1);
        assert_eq!(choose(&[1.0, 1.0], &sampling(1.0, 1), 0.99), 0);
    }

    #[test]
    fn the_fewest_likely_tokens_are_drawn_from() {
        // Probabilities 1/2, 3/10, 1/5.
        let logits = [2f32.ln(), 5f32.ln(), 3f32.ln()];
        let of = |top_p, uniform| choose(&logits, &Sampling { top_p, ..sampling(1.0, 3) }, uniform);
        assert_eq!([of(0.45, 0.99), of(0.55, 0.62), of(0.55, 0.63), of(0.75, 0.99)], [1, 1, 2, 2]);
        assert_eq!([of(0.85, 0.99), of(1.0, 0.99)], [0, 0]);
    }
}
