//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864, section 3.2).
//!
//! Pairs (x_i, x_{i+h/2}) of a head of width h are rotated by the angle `pos * theta^(-2i/h)`, so that the
//! product of a query and a key depends only on the distance between their positions. Positions restart at 0
//! in every piece of a packed sample.
//!
//! For sequences longer than in training, frequencies can be lowered: by a larger theta (NTK-aware, bloc97
//! 2023), or each depending on how often it turns in a training sequence (YaRN; Peng et al. 2023, arXiv
//! 2309.00071, section 3).

use burn::tensor::{Device, Tensor, TensorData};

use serde::{Deserialize, Serialize};

use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{MANY, float, int};

settings! {
    /// Rotary positions for sequences longer than those the model was trained on.
    pub struct RopeSettings in "attention.rope" {
        /// how frequencies are lowered: ntk raises the base so that the slowest turns `factor` times slower
        /// and the fastest as before; yarn slows those that turn less than once in `original` tokens by
        /// `factor`, leaves those that turn more than 32 times, and sharpens the softmax
        scaling: Scaling = Scaling::None, Kind::Choice(&["none", "ntk", "yarn"]);
        /// how many times longer sequences are than before; needs attention.rope.scaling
        factor: Option<f64> = None, float(1.0, 1e6);
        /// previous sequence length in tokens; needs attention.rope.scaling = "yarn"
        original: Option<usize> = None, int(1, MANY);
    }
}

/// How frequencies are lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// Not at all.
    None,
    /// By a larger base.
    Ntk,
    /// Each depending on how often it turns.
    Yarn,
}

/// Frequencies for longer sequences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stretch {
    /// By a larger base.
    Ntk {
        /// Factor by which the slowest is slowed.
        factor: f64,
    },
    /// Each depending on how often it turns.
    Yarn {
        /// Factor by which slow ones are slowed.
        factor: f64,
        /// Tokens of a training sequence.
        original: usize,
    },
}

/// Turns per training sequence above which YaRN leaves a frequency unchanged, and below which it slows it
/// fully.
const YARN_TURNS: [f64; 2] = [32.0, 1.0];

impl RopeSettings {
    /// The scaling they ask for; nothing if that is impossible, in which case [`RopeSettings::problems`] says
    /// why.
    pub fn stretch(&self) -> Option<Stretch> {
        match (self.scaling, self.factor, self.original) {
            (Scaling::Ntk, Some(factor), _) => Some(Stretch::Ntk { factor }),
            (Scaling::Yarn, Some(factor), Some(original)) => Some(Stretch::Yarn { factor, original }),
            _ => None,
        }
    }

    /// Problems, each with the reason.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut one_needs = |key: &str, is_given: bool, is_used: bool| {
            let scaling = format!("{:?}", self.scaling).to_lowercase();
            let key = format!("attention.rope.{key}");
            if is_used && !is_given {
                problems.push(format!("attention.rope.scaling = \"{scaling}\" needs {key}"));
            } else if is_given && !is_used {
                problems.push(format!("{key} has no effect with attention.rope.scaling = \"{scaling}\""));
            }
        };
        one_needs("factor", self.factor.is_some(), self.scaling != Scaling::None);
        one_needs("original", self.original.is_some(), self.scaling == Scaling::Yarn);
        problems
    }
}

impl Stretch {
    /// Factor for queries and keys, so that the softmax stays as sharp over more keys.
    pub fn sharpness(self) -> f64 {
        match self {
            Self::Ntk { .. } => 1.0,
            Self::Yarn { factor, .. } => 0.1 * factor.ln() + 1.0,
        }
    }
}

/// Radians by which each pair of channels turns from one position to the next.
fn frequencies(width: usize, theta: f64, stretch: Option<Stretch>) -> Vec<f64> {
    let d = width as f64;
    let of = |theta: f64| (0..width / 2).map(|i| theta.powf(-2.0 * i as f64 / d)).collect::<Vec<_>>();
    match stretch {
        None => of(theta),
        // The slowest, theta^(-(d - 2) / d), gets 1 / factor. With a single pair it is also the fastest.
        Some(Stretch::Ntk { factor }) if width > 2 => of(theta * factor.powf(d / (d - 2.0))),
        Some(Stretch::Ntk { .. }) => of(theta),
        Some(Stretch::Yarn { factor, original }) => {
            let pair = |turns: f64| {
                let radians = original as f64 / (turns * 2.0 * std::f64::consts::PI);
                d * radians.ln() / (2.0 * theta.ln().max(f64::EPSILON))
            };
            let [low, high] = YARN_TURNS.map(pair);
            let low = low.floor().max(0.0);
            let high = high.ceil().min(d - 1.0).max(low + 1e-3);
            let lowered = |(i, frequency): (usize, f64)| {
                let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / factor * ramp + frequency * (1.0 - ramp)
            };
            of(theta).into_iter().enumerate().map(lowered).collect()
        }
    }
}

/// Cosines and sines of all positions; constants, not parameters.
#[derive(Debug, Clone)]
struct Rope {
    head_dim: usize,
    theta: f64,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// The tables that the layers of a model need.
#[derive(Debug, Clone, Default)]
pub struct Ropes(Vec<Rope>);

/// Cosines and sines of the tokens of one batch.
#[derive(Debug, Clone)]
pub struct Rotary {
    head_dim: usize,
    theta: f64,
    /// `[tokens, head_dim / 2]`
    pub cos: Tensor<2>,
    /// `[tokens, head_dim / 2]`
    pub sin: Tensor<2>,
}

impl Ropes {
    /// Tables for `n_positions` positions, one per distinct pair of (even) head width and theta.
    pub fn new(
        n_positions: usize,
        of_layers: impl IntoIterator<Item = (usize, f64)>,
        stretch: Option<Stretch>,
    ) -> Self {
        let mut ropes: Vec<Rope> = Vec::new();
        for (head_dim, theta) in of_layers {
            if !ropes.iter().any(|rope| (rope.head_dim, rope.theta) == (head_dim, theta)) {
                ropes.push(Rope::new(n_positions, head_dim, theta, stretch));
            }
        }
        Self(ropes)
    }

    /// The rows of tokens at some positions, each below the number of positions of the tables.
    pub fn tables(&self, positions: &[u32], device: &Device) -> Vec<Rotary> {
        self.0.iter().map(|rope| rope.tables(positions, device)).collect()
    }
}

impl Rope {
    fn new(n_positions: usize, head_dim: usize, theta: f64, stretch: Option<Stretch>) -> Self {
        let half = head_dim / 2;
        let frequencies = frequencies(head_dim, theta, stretch);
        let angle = |index: usize| (index / half) as f64 * frequencies[index % half];
        let table = |f: fn(f64) -> f64| (0..n_positions * half).map(|i| f(angle(i)) as f32).collect();
        Self { head_dim, theta, cos: table(f64::cos), sin: table(f64::sin) }
    }

    fn tables(&self, positions: &[u32], device: &Device) -> Rotary {
        let half = self.head_dim / 2;
        let rows = |table: &[f32]| {
            let row = |&p: &u32| &table[p as usize * half..(p as usize + 1) * half];
            let values: Vec<f32> = positions.iter().flat_map(row).copied().collect();
            Tensor::from_data(TensorData::new(values, [positions.len(), half]), device)
        };
        let Self { head_dim, theta, .. } = *self;
        Rotary { head_dim, theta, cos: rows(&self.cos), sin: rows(&self.sin) }
    }
}

impl Rotary {
    /// Whether these are the tables for such heads.
    pub fn is_of(&self, head_dim: usize, theta: f64) -> bool {
        (self.head_dim, self.theta) == (head_dim, theta)
    }

    /// Cosines and sines times a factor.
    pub fn times(&self, factor: f64) -> [Tensor<2>; 2] {
        let times = |x: &Tensor<2>| if factor == 1.0 { x.clone() } else { x.clone() * factor };
        [times(&self.cos), times(&self.sin)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::rotary::rotate;

    #[test]
    fn position_one_turns_the_first_pair_by_one_radian() {
        let device = Device::flex();
        let ropes = Ropes::new(2, [(2, 10_000.0), (4, 10_000.0), (2, 10_000.0)], None);
        let tables = ropes.tables(&[0, 1], &device);
        assert_eq!(tables.len(), 2);
        let Rotary { cos, sin, .. } = tables[0].clone();
        let x = Tensor::from_data(TensorData::from([[1.0f32, 0.0], [1.0, 0.0]]), &device);
        let turned: Vec<f32> = rotate(x, cos, sin, 1).into_data().try_into_vec().expect("f32");
        for (value, expected) in turned.iter().zip([1.0, 0.0, 1f32.cos(), 1f32.sin()]) {
            assert!((value - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn yarn_has_the_published_frequencies() {
        // transformers 5.24, `ROPE_INIT_FUNCTIONS["yarn"]`: factor 4 over 2048 tokens, theta 10,000.
        let published = [
            1.0,
            0.56234133,
            0.31622776,
            0.17782794,
            0.1,
            0.050209042,
            0.02484647,
            0.012066896,
            0.0057142857,
            0.0026108704,
            0.001129385,
            0.00044456986,
            0.00025000001,
            0.00014058533,
            7.9056947e-05,
            4.4456985e-05,
        ];
        let stretch = Stretch::Yarn { factor: 4.0, original: 2048 };
        let found = frequencies(32, 10_000.0, Some(stretch));
        for (found, published) in found.iter().zip(published) {
            assert!((found / published - 1.0f64).abs() < 1e-6, "{found} instead of {published}");
        }
        assert!((stretch.sharpness() - 1.138_629_436).abs() < 1e-9);
        let none = Stretch::Yarn { factor: 1.0, original: 2048 };
        for (a, b) in frequencies(32, 10_000.0, Some(none)).into_iter().zip(frequencies(32, 10_000.0, None)) {
            assert!((a / b - 1.0).abs() < 1e-12);
        }
        // If all frequencies are equal, none is slower than the others.
        assert_eq!(frequencies(4, 1.0, Some(stretch)), [1.0, 1.0]);
        assert_eq!(none.sharpness(), 1.0);
    }

    #[test]
    fn ntk_slows_the_slowest_by_the_factor_and_the_fastest_not_at_all() {
        // Width 4, theta 100: frequencies 1 and 1/10. Theta 100 * 8^2 = 6400 gives 1 and 1/80.
        let found = frequencies(4, 100.0, Some(Stretch::Ntk { factor: 8.0 }));
        assert!((found[0] - 1.0).abs() < 1e-12 && (found[1] - 0.0125).abs() < 1e-12, "{found:?}");
        assert_eq!(frequencies(2, 100.0, Some(Stretch::Ntk { factor: 8.0 })), [1.0]);
    }

    #[test]
    fn settings_without_effect_are_refused() {
        let of = |scaling, factor, original| RopeSettings { scaling, factor, original }.problems();
        assert!(of(Scaling::None, None, None).is_empty() && of(Scaling::Ntk, Some(2.0), None).is_empty());
        assert_eq!(of(Scaling::Yarn, None, None).len(), 2);
        assert_eq!(
            of(Scaling::Ntk, Some(2.0), Some(64)),
            ["attention.rope.original has no effect with attention.rope.scaling = \"ntk\""]
        );
        assert_eq!(of(Scaling::None, Some(2.0), None).len(), 1);
    }
}
