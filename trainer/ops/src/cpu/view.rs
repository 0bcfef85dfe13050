//! Matrices inside slices.

/// A matrix inside a slice: its value in row i and column j is at `i * row + j * column`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The slice.
    pub values: &'a [f32],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub column: usize,
}

impl<'a> View<'a> {
    /// Rows of `stride` values.
    pub fn rows(values: &'a [f32], stride: usize) -> Self {
        Self { values, row: stride, column: 1 }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// The same without the rows before this one.
    pub fn from_row(self, row: usize) -> Self {
        Self { values: &self.values[(row * self.row).min(self.values.len())..], ..self }
    }
}

/// Copies the first `N` values, without a call.
#[inline(always)]
pub(super) fn copy<const N: usize>(from: &[f32], to: &mut [f32]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
        *to = *from;
    }
}
