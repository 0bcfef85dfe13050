//! What a part of a model costs. Size, memory plan and MFU are sums of these; every part declares its own.

use std::iter::Sum;
use std::ops::Add;

/// Parameters, operations, and what the backward pass keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Trained parameters.
    pub parameters: u64,
    /// Of these, those that one token uses.
    pub active: u64,
    /// Floating-point operations of the products for one token, forward and backward.
    pub flops: u64,
    /// Values per token, in the type of computation, that the backward pass needs.
    pub values: u64,
    /// The same in f32.
    pub f32_values: u64,
    /// The same in f32 if attention keeps its scores, as on the CPU.
    pub scores: u64,
    /// The same on a GPU: none if a kernel computes the attention.
    pub gpu_scores: u64,
}

/// How many values per score the plain form of attention keeps: the exponent, its exponential, and the
/// softmax.
pub const PLAIN_SCORES: u64 = 3;

impl Cost {
    /// The cost of weights that every token is multiplied by: forward one multiplication and one addition
    /// for each, backward twice as many.
    pub fn of_weights(parameters: u64) -> Self {
        Self { parameters, active: parameters, flops: 6 * parameters, ..Self::default() }
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            parameters: self.parameters + other.parameters,
            active: self.active + other.active,
            flops: self.flops + other.flops,
            values: self.values + other.values,
            f32_values: self.f32_values + other.f32_values,
            scores: self.scores + other.scores,
            gpu_scores: self.gpu_scores + other.gpu_scores,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}
