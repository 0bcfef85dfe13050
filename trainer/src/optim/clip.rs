//! Norms of gradients, and the factors that clip them: one over all parameters, and one for each group with
//! its own maximum norm, which is then not part of the norm of the rest. Everything stays on the device.

use burn::tensor::Tensor;

use super::{Optimizer, trained};
use crate::model::Model;
use crate::ops::global_norm::{clip_factor, norm_of, squares};

/// What clips the gradients of one update.
#[derive(Debug, Clone)]
pub struct Clipping {
    /// Norm over all gradients, `[1]`.
    pub norm: Tensor<1>,
    /// The factor of all other gradients, `[1]`; NaN if a norm or the loss is not finite.
    pub factor: Tensor<1>,
    /// The factors of groups with their own maximum norm, by group, `[1]` each.
    pub own: Vec<Option<Tensor<1>>>,
    /// The norm of each group, `[1]` each; none if there is only one group.
    pub of_groups: Vec<Tensor<1>>,
}

/// Norms of gradients before they are clipped.
#[derive(Debug)]
pub struct Norms {
    /// Over all gradients, `[1]`.
    pub all: Tensor<1>,
    /// The blocks' sums of squares of each gradient, with its group.
    squares: Vec<(usize, Tensor<1>)>,
}

impl Optimizer {
    /// The norms of gradients that are in the order of [`trained`].
    pub fn norms(&self, model: &Model, gradients: &[Option<Tensor<1>>]) -> Norms {
        let of_group = |(parameter, gradient): (_, &Option<Tensor<1>>)| {
            let parameter: crate::model::parameters::Parameter = parameter;
            Some((self.groups().find(&parameter.name).0, squares(gradient.as_ref()?)))
        };
        let squares: Vec<_> = trained(model).into_iter().zip(gradients).filter_map(of_group).collect();
        let all = norm_of(squares.iter().map(|(_, squares)| squares.clone()).collect());
        let all = all.unwrap_or_else(|| Tensor::zeros([1], &model.device().without_autodiff()));
        Norms { all, squares }
    }

    /// The factors that clip gradients of these norms. A loss that is not finite, `[1]`, makes all of them
    /// not finite.
    pub fn clip(&self, norms: Norms, loss: Tensor<1>, max_norm: f64) -> Clipping {
        let Norms { all, squares } = norms;
        let groups = self.groups().all();
        let norm_where = |is_meant: &dyn Fn(usize) -> bool| {
            let meant = squares.iter().filter(|(group, _)| is_meant(*group));
            norm_of(meant.map(|(_, squares)| squares.clone()).collect()).unwrap_or_else(|| all.zeros_like())
        };
        let of_groups: Vec<Tensor<1>> = match groups.len() {
            1 => Vec::new(),
            n => (0..n).map(|index| norm_where(&|group| group == index)).collect(),
        };
        if groups.iter().all(|group| group.clip.is_none()) {
            let factor = clip_factor(all.clone(), loss, max_norm);
            return Clipping { norm: all, factor, own: Vec::new(), of_groups };
        }
        // If one group is not finite, no group is changed.
        let loss = loss.cast(all.dtype()) + all.clone() * 0.0;
        let rest = norm_where(&|group| groups[group].clip.is_none());
        let own = groups.iter().zip(&of_groups);
        let own = own.map(|(group, norm)| Some(clip_factor(norm.clone(), loss.clone(), group.clip?)));
        Clipping {
            factor: clip_factor(rest, loss.clone(), max_norm),
            own: own.collect(),
            norm: all,
            of_groups,
        }
    }

    /// The factor that clips groups without their own maximum norm, from norms that were read back.
    pub fn clip_factor(&self, norm: f64, of_groups: &[f64], max_norm: f64) -> f64 {
        let groups = self.groups().all();
        let norm = if groups.iter().all(|group| group.clip.is_none()) {
            norm
        } else {
            let rest = groups.iter().zip(of_groups).filter(|(group, _)| group.clip.is_none());
            rest.map(|(_, norm)| norm * norm).sum::<f64>().sqrt()
        };
        if norm > max_norm { max_norm / norm } else { 1.0 }
    }
}
