//! Text from a model, one token after the other.

use burn::module::Module;

use crate::model::{Input, Model};
use crate::ops::linear::cast_f32;
use crate::random::Stream;

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Tokens to make at most; an end of document stops earlier.
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only so many of the most likely tokens can be drawn.
    pub top_k: usize,
    /// Seed of the draws: the same seed gives the same text.
    pub seed: u64,
}

/// Continues `prompt` (not empty) and returns the new tokens. The model sees the last `context`
/// tokens, which is as many as it was trained on.
pub fn generate(model: &Model, prompt: &[u32], eod: u32, context: usize, sampling: &Sampling) -> Vec<u32> {
    let model = model.valid();
    let stream = Stream::new(sampling.seed, "sample");
    let mut tokens = prompt.to_vec();
    for draw in 0..sampling.max_tokens {
        let window = &tokens[tokens.len().saturating_sub(context)..];
        let next = choose(&next_logits(&model, window), sampling, stream.uniform(draw as u64));
        if next == eod {
            break;
        }
        tokens.push(next);
    }
    tokens.split_off(prompt.len())
}

/// Logits of the token after `window`.
fn next_logits(model: &Model, window: &[u32]) -> Vec<f32> {
    let n = window.len();
    let positions: Vec<u32> = (0..n as u32).collect();
    let input = Input::new(window, &positions, &vec![0; n], [1, n], &model.device());
    let hidden = model.forward(&input, &model.eval_context(&input)).hidden;
    let [_, width] = hidden.dims();
    let logits = cast_f32(hidden.slice([n - 1..n, 0..width])).matmul(model.head());
    // Cannot fail: logits are f32.
    logits.into_data().try_into_vec().expect("f32 logits")
}

/// The token at the quantile `uniform` of the tempered distribution over the `top_k` most likely
/// tokens; ties go to the lowest token.
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
        Sampling { max_tokens: 1, temperature, top_k, seed: 1 }
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
}
