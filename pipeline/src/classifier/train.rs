//! Trains a model: logistic regression over hashed words and pairs by stochastic gradient descent, one document at a
//! time on one thread, in an order that depends on the seed alone, so that the same documents in the same order give the same
//! bytes everywhere.
//!
//! A document is the vector of its bucket counts over the square root of their sum. fastText averages learned embeddings of
//! the buckets and applies a softmax to them (Joulin et al., arXiv 1607.01759), which for two classes is a
//! linear function of the same counts: with `dim` above 0 it is learned that way, and each bucket's embedding is
//! multiplied into its one weight at the end.

use super::calibrate::logistic;
use super::features::Features;
use super::model::{Model, Training};

/// Settings of the training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainSettings {
    /// How texts become buckets.
    pub features: Features,
    /// Passes over the documents.
    pub epochs: u32,
    /// Learning rate at the start.
    pub learning_rate: f64,
    /// Width of embeddings, 0 for none.
    pub dim: u32,
    /// Seed of the order.
    pub seed: u64,
}

/// Documents to learn from, as buckets.
#[derive(Clone, Debug, Default)]
pub struct Examples {
    buckets: Vec<u32>,
    /// Where each document ends, and whether it is positive.
    documents: Vec<(usize, bool)>,
}

impl Examples {
    /// Adds a document.
    pub fn push(&mut self, buckets: &[u32], is_positive: bool) {
        self.buckets.extend_from_slice(buckets);
        self.documents.push((self.buckets.len(), is_positive));
    }

    /// Positive and negative documents.
    pub fn counts(&self) -> [u64; 2] {
        let positive = self.documents.iter().filter(|(_, is_positive)| *is_positive).count() as u64;
        [positive, self.documents.len() as u64 - positive]
    }

    fn get(&self, i: usize) -> (&[u32], bool) {
        let start = if i == 0 { 0 } else { self.documents[i - 1].0 };
        let (end, is_positive) = self.documents[i];
        (&self.buckets[start..end], is_positive)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// From -1 to 1.
    fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Trains; the caller fills in the held-out figures of `training`.
pub fn train(examples: &Examples, settings: &TrainSettings, mut see_epoch: impl FnMut(u32, f64)) -> Model {
    let mut random = Random(settings.seed);
    let n_buckets = 1usize << settings.features.bucket_bits;
    let mut learner = match settings.dim {
        0 => Learner::Weights { weights: vec![0.0; n_buckets], bias: 0.0 },
        dim => Learner::Embeddings(Embeddings::new(n_buckets, dim as usize, &mut random)),
    };
    let mut order: Vec<usize> = (0..examples.documents.len()).collect();
    let n_steps = order.len() as f64 * f64::from(settings.epochs);
    let mut step = 0.0;
    for epoch in 0..settings.epochs {
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i + 1));
        }
        let mut loss = 0.0;
        for &i in &order {
            let (buckets, is_positive) = examples.get(i);
            let rate = settings.learning_rate * (1.0 - step / n_steps);
            let p = learner.learn(buckets, is_positive, rate);
            loss -= if is_positive { p } else { 1.0 - p }.max(1e-12).ln();
            step += 1.0;
        }
        see_epoch(epoch, loss / order.len().max(1) as f64);
    }
    let (weights, bias) = learner.finish();
    let training = Training {
        documents: examples.counts(),
        epochs: settings.epochs,
        learning_rate: settings.learning_rate,
        dim: settings.dim,
        seed: settings.seed,
        ..Training::default()
    };
    Model { features: settings.features, bias, training, weights }
}

enum Learner {
    Weights { weights: Vec<f32>, bias: f64 },
    Embeddings(Embeddings),
}

impl Learner {
    /// One step; returns the probability before it.
    fn learn(&mut self, buckets: &[u32], is_positive: bool, rate: f64) -> f64 {
        let target = f64::from(u8::from(is_positive));
        match self {
            Learner::Weights { weights, bias } => {
                let root = (buckets.len().max(1) as f64).sqrt();
                let sum: f64 = buckets.iter().map(|bucket| f64::from(weights[*bucket as usize])).sum();
                let p = logistic(*bias + sum / root);
                let step = rate * (target - p);
                let change = (step / root) as f32;
                buckets.iter().for_each(|bucket| weights[*bucket as usize] += change);
                *bias += step * BIAS_RATE;
                p
            }
            Learner::Embeddings(embeddings) => embeddings.learn(buckets, target as f32, rate as f32),
        }
    }

    fn finish(self) -> (Vec<f32>, f32) {
        match self {
            Learner::Weights { weights, bias } => (weights, bias as f32),
            Learner::Embeddings(embeddings) => (embeddings.product(), 0.0),
        }
    }
}

/// The bias moves this much slower than the weights, since it is in every document.
const BIAS_RATE: f64 = 0.1;

/// fastText's two layers: an embedding for each bucket, and the difference of the two output rows of a softmax.
struct Embeddings {
    dim: usize,
    rows: Vec<f32>,
    output: Vec<f32>,
    hidden: Vec<f32>,
}

impl Embeddings {
    fn new(n_buckets: usize, dim: usize, random: &mut Random) -> Embeddings {
        let rows = (0..n_buckets * dim).map(|_| random.signed() / dim as f32).collect();
        Embeddings { dim, rows, output: vec![0.0; dim], hidden: vec![0.0; dim] }
    }

    fn learn(&mut self, buckets: &[u32], target: f32, rate: f32) -> f64 {
        let Embeddings { dim, rows, output, hidden } = self;
        let dim = *dim;
        let root = (buckets.len().max(1) as f32).sqrt();
        hidden.fill(0.0);
        for bucket in buckets {
            let row = &rows[*bucket as usize * dim..][..dim];
            hidden.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        let dot: f32 = hidden.iter().zip(&*output).map(|(x, y)| x * y).sum();
        let p = logistic(f64::from(dot / root));
        let step = rate * (target - p as f32) / root;
        for bucket in buckets {
            let row = &mut rows[*bucket as usize * dim..][..dim];
            row.iter_mut().zip(&*output).for_each(|(x, y)| *x += step * y);
        }
        // Both rows of the softmax move, in opposite directions.
        output.iter_mut().zip(hidden).for_each(|(y, sum)| *y += 2.0 * step * *sum);
        p
    }

    fn product(&self) -> Vec<f32> {
        let dot = |row: &[f32]| row.iter().zip(&self.output).map(|(x, y)| x * y).sum();
        self.rows.chunks_exact(self.dim).map(dot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: Features = Features { word_ngrams: 2, bucket_bits: 12 };

    fn text(i: usize, is_positive: bool) -> String {
        let own = if is_positive { "clear sound proof" } else { "buy cheap now" };
        format!("the {own} of a w{} and w{} again", "x".repeat(i % 7), "y".repeat(i % 11))
    }

    fn examples() -> Examples {
        let mut examples = Examples::default();
        for i in 0..200 {
            examples.push(&FEATURES.of(&text(i, i % 2 == 0)), i % 2 == 0);
        }
        examples
    }

    fn settings(dim: u32, seed: u64) -> TrainSettings {
        TrainSettings { features: FEATURES, epochs: 5, learning_rate: 0.5, dim, seed }
    }

    #[test]
    fn both_learners_tell_the_classes_apart() {
        for dim in [0, 16] {
            let mut losses = Vec::new();
            let model = train(&examples(), &settings(dim, 1), |_, loss| losses.push(loss));
            assert!(losses[4] < losses[0], "{losses:?}");
            for i in 300..320 {
                assert!(model.score(&text(i, true)) > 0.6, "dim {dim}");
                assert!(model.score(&text(i, false)) < 0.4, "dim {dim}");
            }
            assert_eq!(model.training.documents, [100, 100]);
        }
    }

    #[test]
    fn one_step_is_the_gradient_of_the_logistic_loss() {
        let mut one = Examples::default();
        one.push(&[1, 2, 2, 3], true);
        let settings = TrainSettings { epochs: 1, ..settings(0, 0) };
        let model = train(&one, &settings, |_, _| {});
        // p = 0.5, rate 0.5, root 2: each occurrence moves its weight by 0.5 * 0.5 / 2.
        assert_eq!(model.weights[..5], [0.0, 0.125, 0.25, 0.125, 0.0]);
        assert_eq!(model.bias, 0.025);
    }

    #[test]
    fn the_same_documents_give_the_same_model_and_a_seed_another() {
        for dim in [0, 4] {
            let model = |seed| train(&examples(), &settings(dim, seed), |_, _| {});
            assert_eq!(model(1), model(1));
            assert_ne!(model(1).weights, model(2).weights);
        }
    }
}
