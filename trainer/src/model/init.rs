//! Initial values: normal numbers that depend on the seed, the parameter's name and the index, or zeros
//! for values that are read from a checkpoint.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::transfer::Transfer;
use crate::random::Stream;

/// Makes parameters on one device from one seed.
#[derive(Debug)]
pub struct Init<'a> {
    /// Absent: zeros.
    seed: Option<u64>,
    /// Whether there are only shapes.
    is_outline: bool,
    std: f64,
    device: &'a Device,
    transfer: Transfer,
}

impl<'a> Init<'a> {
    /// Normal values of standard deviation `std`.
    pub fn new(seed: u64, std: f64, device: &'a Device) -> Self {
        Self { seed: Some(seed), is_outline: false, std, device, transfer: Transfer::default() }
    }

    /// Zeros, which cost neither time nor, on a CPU, memory before they are written to.
    pub fn zeros(device: &'a Device) -> Self {
        Self { seed: None, is_outline: false, std: 0.0, device, transfer: Transfer::default() }
    }

    /// Shapes: one zero stands for all values, so that a model of any size costs no memory.
    pub fn outline(device: &'a Device) -> Self {
        Self { is_outline: true, ..Self::zeros(device) }
    }

    /// The same under a parametrization.
    pub fn under(self, transfer: Transfer) -> Self {
        Self { transfer, ..self }
    }

    /// What the parametrization multiplies.
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// The device on which parameters are made.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// A parameter whose values are a function of numbers spread evenly over (0, 1).
    ///
    /// `name` must be the parameter's full name, so that no two draw the same numbers.
    pub fn uniform<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        value: impl Fn(f64) -> f64 + Sync,
    ) -> Param<Tensor<D>> {
        self.random(name, shape, |stream, i| value(stream.uniform(i)))
    }

    /// A parameter of normal values with standard deviation `scale * std`, adjusted by the parametrization.
    ///
    /// `name` must be the parameter's full name, so that no two draw the same numbers.
    pub fn normal<const D: usize>(&self, name: &str, shape: [usize; D], scale: f64) -> Param<Tensor<D>> {
        let std = self.std * scale * self.transfer.init(name, D);
        self.random(name, shape, |stream, i| stream.normal(i) * std)
    }

    fn random<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        value: impl Fn(Stream, u64) -> f64 + Sync,
    ) -> Param<Tensor<D>> {
        if self.is_outline {
            let zero = Tensor::<D>::zeros([1; D], self.device);
            return Param::from_tensor(zero.expand(shape));
        }
        let Some(seed) = self.seed else { return Param::from_tensor(Tensor::zeros(shape, self.device)) };
        let stream = Stream::new(seed, name);
        let n = shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = (0..n).into_par_iter().map(|i| value(stream, i) as f32).collect();
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }
}
