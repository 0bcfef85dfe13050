//! Vectors that become NumPy arrays without a copy.

use moe_shards::Sample;
use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

/// The numbers of a sample or of several, each `seq_len` long, one after the other.
pub struct Columns {
    pub tokens: Vec<i32>,
    pub targets: Vec<i32>,
    pub loss_mask: Vec<bool>,
    pub segments: Vec<i32>,
    pub positions: Vec<i32>,
}

/// Token ids, positions and numbers of pieces are below 2^31, and padding, `u32::MAX`, becomes -1. The vector
/// is not copied.
fn signed(numbers: Vec<u32>) -> Vec<i32> {
    numbers.into_iter().map(|number| number as i32).collect()
}

impl Columns {
    /// Those of one sample.
    pub fn of(sample: Sample) -> Columns {
        Columns {
            tokens: signed(sample.tokens),
            targets: signed(sample.targets),
            loss_mask: sample.loss_mask,
            segments: signed(sample.segments),
            positions: signed(sample.positions),
        }
    }

    /// Room for `n` numbers.
    pub fn with_capacity(n: usize) -> Columns {
        Columns {
            tokens: Vec::with_capacity(n),
            targets: Vec::with_capacity(n),
            loss_mask: Vec::with_capacity(n),
            segments: Vec::with_capacity(n),
            positions: Vec::with_capacity(n),
        }
    }

    /// Appends another sample.
    pub fn append(&mut self, sample: &Sample) {
        self.tokens.extend(sample.tokens.iter().map(|&number| number as i32));
        self.targets.extend(sample.targets.iter().map(|&number| number as i32));
        self.loss_mask.extend_from_slice(&sample.loss_mask);
        self.segments.extend(sample.segments.iter().map(|&number| number as i32));
        self.positions.extend(sample.positions.iter().map(|&number| number as i32));
    }

    /// Writes `value` where there is nothing to predict.
    pub fn ignore(&mut self, value: i32) {
        for (target, counts) in self.targets.iter_mut().zip(&self.loss_mask) {
            *target = if *counts { *target } else { value };
        }
    }
}

/// A vector as an array.
pub fn array<T: Element>(py: Python<'_>, numbers: Vec<T>) -> Py<PyArray1<T>> {
    numbers.into_pyarray(py).unbind()
}

/// A vector as an array of `rows` rows.
///
/// # Errors
/// The rows do not have equal lengths.
pub fn rows<T: Element>(
    py: Python<'_>,
    numbers: Vec<T>,
    rows: usize,
    seq_len: usize,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    numbers.into_pyarray(py).reshape([rows, seq_len])
}
