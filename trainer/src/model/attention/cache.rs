//! What generation keeps of the tokens so far, so that the next ones are computed alone.

use burn::tensor::Tensor;

/// Rows of the tokens so far, along one dimension of a tensor.
#[derive(Debug)]
pub struct Kept<const D: usize>(Option<Tensor<D>>);

impl<const D: usize> Default for Kept<D> {
    fn default() -> Self {
        Self(None)
    }
}

impl<const D: usize> Kept<D> {
    /// Adds the rows of the next tokens after the others, and returns all.
    pub fn push(&mut self, rows: Tensor<D>, dim: usize) -> Tensor<D> {
        let all = match self.0.take() {
            None => rows,
            Some(kept) => Tensor::cat(vec![kept, rows], dim),
        };
        self.0 = Some(all.clone());
        all
    }

    /// Forgets all but the last `n` rows.
    pub fn only_last(&mut self, n: usize, dim: usize) {
        self.0 = self.0.take().and_then(|kept| {
            let rows = kept.dims()[dim];
            match n {
                0 => None,
                _ if rows <= n => Some(kept),
                _ => Some(kept.narrow(dim, rows - n, n)),
            }
        });
    }
}

/// Keys and values of the tokens so far, `[batch, heads, tokens, width]`.
#[derive(Debug, Default)]
pub struct KeyValueCache {
    key: Kept<4>,
    value: Kept<4>,
}

impl KeyValueCache {
    /// Adds keys and values of the next tokens, and returns all that are kept.
    pub fn push(&mut self, key: Tensor<4>, value: Tensor<4>) -> [Tensor<4>; 2] {
        [self.key.push(key, 2), self.value.push(value, 2)]
    }

    /// Forgets all but the last `n` tokens.
    pub fn only_last(&mut self, n: usize) {
        self.key.only_last(n, 2);
        self.value.only_last(n, 2);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn rows_are_appended_and_the_oldest_are_forgotten() {
        let rows = |values: &[f32]| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), [values.len(), 1]), &Device::flex())
        };
        let mut kept = Kept::default();
        kept.push(rows(&[1.0, 2.0]), 0);
        kept.only_last(3, 0);
        let all = kept.push(rows(&[3.0, 4.0]), 0);
        assert_eq!(all.dims(), [4, 1]);
        kept.only_last(2, 0);
        let last: Vec<f32> = kept.push(rows(&[5.0]), 0).into_data().try_into_vec().expect("f32");
        assert_eq!(last, [3.0, 4.0, 5.0]);
        kept.only_last(0, 0);
        assert_eq!(kept.push(rows(&[6.0]), 0).dims(), [1, 1]);
    }
}
