//! How far parameters moved in a step, and how large they are, by group if there are several.

use burn::tensor::Tensor;

use crate::model::Model;
use crate::model::parameters::Parameter;
use crate::ops::global_norm::global_norm;
use crate::optim::{self, Groups};

/// Roots of mean squares of some parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Motion {
    /// Of the step's update.
    pub update_rms: f64,
    /// Of the parameters after it.
    pub weight_rms: f64,
}

/// The motion of all trained parameters, and of each group if there are several.
pub(super) fn motion(before: Vec<Parameter>, model: &Model, groups: &Groups) -> (Motion, Vec<Motion>) {
    let (mut of, mut sizes, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    // One difference at a time: all of them would be another copy of the model.
    for (before, after) in before.into_iter().zip(optim::trained(model)) {
        of.push(groups.find(&after.name).0);
        sizes.push(after.len());
        let norm = |x: Tensor<1>| global_norm([&x]).unwrap_or_else(|| Tensor::zeros([1], &x.device()));
        norms.push(norm(after.value.clone() - before.value));
        norms.push(norm(after.value));
    }
    if norms.is_empty() {
        return (Motion::default(), Vec::new());
    }
    // f64 on the CPU, f32 elsewhere.
    let norms: Vec<f64> = Tensor::cat(norms, 0).into_data().iter::<f64>().collect();
    let sum = |is_meant: &dyn Fn(usize) -> bool| {
        let meant = || (0..sizes.len()).filter(|&index| is_meant(of[index]));
        let n = meant().map(|index| sizes[index]).sum::<usize>().max(1) as f64;
        let rms = |which: usize| {
            let squares: f64 = meant().map(|index| norms[2 * index + which].powi(2)).sum();
            (squares / n).sqrt()
        };
        Motion { update_rms: rms(0), weight_rms: rms(1) }
    };
    let of_groups = match groups.all().len() {
        1 => Vec::new(),
        n => (0..n).map(|group| sum(&|of| of == group)).collect(),
    };
    (sum(&|_| true), of_groups)
}
