//! Where the values of another program's tensor are in ours, as one table for both directions.
//!
//! Ours are `[in, out]`, theirs `[out, in]`; ours have queries, keys and values in one matrix, and all
//! experts of a block in one stack.

use std::ops::Range;

/// One of their tensors, which is a part of one of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped {
    /// Its name.
    pub theirs: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The name of ours.
    pub ours: String,
    /// Which matrix of our stack.
    pub index: usize,
    /// Our columns that are its rows, in its order; none for a tensor that is the same in both.
    pub columns: Option<Vec<usize>>,
    /// What its values are multiplied by when exporting.
    pub scale: f32,
    /// Whether it stays f32 in a file of a narrower type.
    pub stays_f32: bool,
}

impl Mapped {
    /// A tensor that is the same in both.
    pub fn same(theirs: String, ours: String, shape: Vec<usize>) -> Self {
        Self { theirs, shape, ours, index: 0, columns: None, scale: 1.0, stays_f32: false }
    }

    /// The transpose of these columns of ours, which have `rows` values each.
    pub fn transposed(theirs: String, ours: String, rows: usize, columns: Vec<usize>) -> Self {
        let shape = vec![columns.len(), rows];
        Self { theirs, shape, ours, index: 0, columns: Some(columns), scale: 1.0, stays_f32: false }
    }

    /// The same for another matrix of the stack.
    pub fn of(self, index: usize) -> Self {
        Self { index, ..self }
    }

    /// Number of its values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its values, from those of ours.
    pub fn gather(&self, ours: &[f32], shape: &[usize]) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.len());
        self.places(shape, |place| values.extend(ours.get(place)));
        if self.scale != 1.0 {
            values.iter_mut().for_each(|value| *value *= self.scale);
        }
        values
    }

    /// Copies its values to their places in ours.
    pub fn scatter(&self, theirs: &[f32], ours: &mut [f32], shape: &[usize]) {
        let mut values = theirs.iter();
        self.places(shape, |place| {
            if let (Some(value), Some(place)) = (values.next(), ours.get_mut(place)) {
                *place = *value;
            }
        });
    }

    /// The indices of its values in ours, which has this shape, in its order.
    fn places(&self, shape: &[usize], mut each: impl FnMut(usize)) {
        let Some(columns) = &self.columns else {
            (0..self.len()).for_each(each);
            return;
        };
        let width = shape.last().copied().unwrap_or(1);
        let rows = shape.len().checked_sub(2).map_or(1, |at| shape[at]);
        let base = self.index * rows * width;
        for column in columns {
            (0..rows).for_each(|row| each(base + row * width + column));
        }
    }
}

/// Columns of heads whose last `turned` channels are pairs (i, i + turned / 2) in ours, and neighbors in
/// theirs.
pub fn interleaved(heads: Range<usize>, width: usize, turned: usize) -> Vec<usize> {
    let still = width - turned;
    let of_head = |head: usize| {
        let base = head * width;
        let pairs = (0..turned / 2).flat_map(move |i| [i, i + turned / 2]);
        (0..still).chain(pairs.map(move |i| still + i)).map(move |i| base + i)
    };
    heads.flat_map(of_head).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_stack_become_rows_and_go_back() {
        // Two matrices [2, 3]; theirs are columns 2 and 0 of the second.
        let ours: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mapped = Mapped::transposed("t".into(), "o".into(), 2, vec![2, 0]).of(1);
        assert_eq!(mapped.gather(&ours, &[2, 2, 3]), [8.0, 11.0, 6.0, 9.0]);
        let mut back = vec![0.0; 12];
        mapped.scatter(&[8.0, 11.0, 6.0, 9.0], &mut back, &[2, 2, 3]);
        assert_eq!(back[6..], [6.0, 0.0, 8.0, 9.0, 0.0, 11.0]);
        let scaled = Mapped { scale: 2.0, ..mapped };
        assert_eq!(scaled.gather(&ours, &[2, 2, 3]), [16.0, 22.0, 12.0, 18.0]);
    }

    #[test]
    fn pairs_of_halves_become_neighbors() {
        // Heads of one channel without position and four with.
        assert_eq!(interleaved(0..2, 5, 4), [0, 1, 3, 2, 4, 5, 6, 8, 7, 9]);
        assert_eq!(interleaved(1..2, 4, 4), [4, 6, 5, 7]);
        assert_eq!(interleaved(0..1, 2, 0), [0, 1]);
    }
}
