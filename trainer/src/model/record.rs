//! Named values that layers leave on the device, and their form on the host.
//!
//! A layer says how the values of several micro-batches are combined into one per step; nothing between it
//! and the metrics knows the names.

use burn::tensor::Tensor;

/// How the values of micro-batches are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// They add up.
    Sum,
    /// The maximum.
    Max,
    /// The minimum.
    Min,
    /// They are all the same.
    Same,
    /// They are concatenated.
    Append,
}

/// A value on the device, `[n]`, f32, outside of any graph.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its name in the metrics.
    pub name: &'static str,
    /// How micro-batches are combined.
    pub merge: Merge,
    /// The value.
    pub value: Tensor<1>,
}

impl Named {
    /// A value that may still be part of a graph.
    pub fn new(name: &'static str, merge: Merge, value: Tensor<1>) -> Self {
        Self { name, merge, value: value.without_autodiff() }
    }
}

/// The values of one layer in one step, on the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(Vec<(&'static str, Vec<f64>)>);

impl Values {
    /// Adds a micro-batch. `numbers` are those of `named`, one after the other; returns the rest.
    pub fn merge<'a>(&mut self, named: &[Named], mut numbers: &'a [f32]) -> &'a [f32] {
        for Named { name, merge, value } in named {
            let (own, rest) = numbers.split_at(value.dims()[0]);
            numbers = rest;
            let own = own.iter().copied().map(f64::from);
            match self.0.iter_mut().find(|(found, _)| found == name) {
                Some((_, all)) if *merge == Merge::Append => all.extend(own),
                Some((_, all)) => all.iter_mut().zip(own).for_each(|(sum, new)| *sum = merge.of(*sum, new)),
                None => self.0.push((name, own.collect())),
            }
        }
        numbers
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[f64])> {
        self.0.iter().map(|(name, values)| (*name, values.as_slice()))
    }
}

impl Merge {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Sum => a + b,
            Self::Max => a.max(b),
            Self::Min => a.min(b),
            Self::Same | Self::Append => b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn values_of_micro_batches_become_one() {
        let named = |merge, n| Named::new("x", merge, Tensor::zeros([n], &Device::flex()));
        for (merge, expected) in
            [(Merge::Sum, [4.0, 6.0]), (Merge::Max, [3.0, 4.0]), (Merge::Min, [1.0, 2.0])]
        {
            let mut values = Values::default();
            assert_eq!(values.merge(&[named(merge, 2)], &[1.0, 2.0, 9.0]), [9.0]);
            values.merge(&[named(merge, 2)], &[3.0, 4.0]);
            assert_eq!(values.iter().collect::<Vec<_>>(), [("x", &expected[..])]);
        }
        let mut values = Values::default();
        values.merge(&[named(Merge::Append, 2)], &[1.0, 2.0]);
        values.merge(&[named(Merge::Append, 1)], &[3.0]);
        assert_eq!(values.iter().collect::<Vec<_>>(), [("x", &[1.0, 2.0, 3.0][..])]);
    }
}
