//! One parameter of a model: its name, shape and values.

use std::ops::Range;

use burn::tensor::Tensor;

/// The last part of the name of a router's selection bias, which no gradient trains.
pub const BALANCE_BIAS: &str = "balance_bias";

/// A parameter as a flat tensor with its shape.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Path through the model.
    pub name: String,
    /// Shape of the tensor in the model.
    pub shape: Vec<usize>,
    /// The values, flat, outside of any gradient graph.
    pub value: Tensor<1>,
    /// Columns of the matrices that it has side by side; none if it is one matrix.
    pub widths: Vec<usize>,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether weight decay applies: to matrices, but not to norms, biases and embeddings.
    pub fn is_decayed(&self) -> bool {
        let is_table = self.name == "embedding" || self.name == "head";
        is_trained(&self.name) && self.shape.len() >= 2 && !is_table
    }

    /// Flat values of this parameter as a stack of matrices; a vector or a matrix is a stack of one.
    ///
    /// # Shapes
    /// - flat: as many values as the parameter
    /// - result: `[stack, rows, columns]`
    pub fn matrices(&self, flat: Tensor<1>) -> Tensor<3> {
        let columns = self.shape.last().copied().unwrap_or(1);
        let rows = self.shape.len().checked_sub(2).map_or(1, |at| self.shape[at]);
        let stack = self.len() / (rows * columns).max(1);
        flat.reshape([stack, rows, columns])
    }

    /// The columns of each matrix that is to be treated separately.
    pub fn side_by_side(&self) -> Vec<Range<usize>> {
        if self.widths.is_empty() {
            return std::iter::once(0..self.shape.last().copied().unwrap_or(1)).collect();
        }
        let mut end = 0;
        let columns = self.widths.iter().map(|width| {
            end += width;
            end - width..end
        });
        columns.collect()
    }

    /// The values on the host.
    pub fn to_host(&self) -> Vec<f32> {
        host(self.value.clone())
    }
}

/// The values of a flat f32 tensor on the host.
pub fn host(value: Tensor<1>) -> Vec<f32> {
    // Cannot fail: every float tensor of this crate is f32.
    value.into_data().try_into_vec().expect("parameters are f32")
}

/// Whether gradients train the parameter of this name.
pub fn is_trained(name: &str) -> bool {
    name.rsplit('.').next() != Some(BALANCE_BIAS)
}
