//! Mixtures of experts initialized from a dense model (Komatsuzaki et al. 2022, arXiv 2212.05055): each
//! expert is the dense feed-forward, or a part of it (He et al. 2024, arXiv 2410.07524), so that the first
//! step computes what the dense model did.
//!
//! With granularity G the hidden channels of the dense feed-forward are cut into G parts. Expert e has part e
//! mod G, and the G experts of a group have the same logits, so that a token visits whole groups; their
//! outputs are multiplied by G.

use std::collections::BTreeMap;

use burn::tensor::Device;

use crate::error::{Error, Result};
use crate::model::moe::{Activation, RouterConfig};
use crate::model::parameters::{BALANCE_BIAS, Parameter, from_host, parameters, replace_all};
use crate::model::{Model, ModelConfig};
use crate::random::Stream;

/// How a dense feed-forward becomes experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Upcycling {
    /// Parts that the hidden channels are cut into.
    pub granularity: usize,
    /// Fraction of each expert's hidden channels to redraw, with the mean and deviation of what they replace
    /// (Nakamura et al. 2025, arXiv 2502.19261). The model is then no longer equivalent.
    pub redraw: f64,
}

impl Upcycling {
    /// Why a dense model cannot become this mixture of experts and compute the same, by key; empty if it can.
    pub fn problems(&self, dense: &ModelConfig, mixture: &ModelConfig) -> Vec<String> {
        let (g, moe) = (self.granularity, &mixture.moe);
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        require(
            dense.n_dense_layers >= dense.n_layers,
            format!(
                "model.dense_layers = {}: the model already has mixtures of experts",
                dense.n_dense_layers
            ),
        );
        require(
            mixture.n_dense_layers < mixture.n_layers,
            format!("model.dense_layers = {}: no block is left for experts", mixture.n_dense_layers),
        );
        require(
            moe.expert_ffn * g == dense.dense_ffn,
            format!("--granularity {g}: does not divide model.dense_ffn = {}", dense.dense_ffn),
        );
        for (key, n) in [("moe.experts", moe.n_experts), ("moe.top_k", moe.top_k)] {
            require(n.is_multiple_of(g), format!("{key} = {n} is not a multiple of --granularity {g}"));
        }
        require(moe.latent == 0, format!("moe.latent = {}: must be 0", moe.latent));
        require(moe.n_shared == 0, format!("moe.shared = {}: must be 0", moe.n_shared));
        require(moe.expert_activation == Activation::Swiglu, "moe.expert_activation: must be swiglu".into());
        let is_normed = match &moe.router {
            RouterConfig::TopK(settings) => settings.norm_weights,
            _ => false,
        };
        require(
            is_normed,
            "moe.router: must be top_k with norm_weights = true, whose weights sum to 1".into(),
        );
        problems
    }

    /// The mixture of experts of a geometry with the weights of a dense model, with routers and redrawn
    /// channels from a seed.
    ///
    /// # Errors
    /// [`Error::Config`] with [`Upcycling::problems`], and when a parameter has no counterpart.
    pub fn apply(
        &self,
        dense: (&ModelConfig, &Model),
        geometry: &ModelConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Model> {
        let problems = self.problems(dense.0, geometry);
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        let old: BTreeMap<String, Parameter> =
            parameters(dense.1).into_iter().map(|parameter| (parameter.name.clone(), parameter)).collect();
        let model = Model::new(geometry, seed, device);
        let inner = device.clone().without_autodiff();
        let values = parameters(&model).into_iter().map(|new| {
            let values = self.values(&new, &old, geometry, seed).ok_or_else(|| {
                let problem =
                    format!("{}: the dense model has no counterpart with shape {:?}", new.name, new.shape);
                Error::Config(vec![problem])
            })?;
            Ok(from_host(values, &inner))
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        Ok(replace_all(model, values))
    }

    /// The values of a parameter of the mixture of experts; none if the dense model has no counterpart.
    fn values(
        &self,
        new: &Parameter,
        old: &BTreeMap<String, Parameter>,
        geometry: &ModelConfig,
        seed: u64,
    ) -> Option<Vec<f32>> {
        if let Some(same) = old.get(&new.name) {
            return (same.shape == new.shape).then(|| same.to_host());
        }
        if let Some((block, matrix)) = new.name.split_once(".experts.") {
            let dense = old.get(&format!("{block}.{matrix}"))?.to_host();
            return Some(self.experts(new, matrix, &dense, geometry, seed));
        }
        let last = new.name.rsplit('.').next().unwrap_or_default();
        match last {
            "weight" if new.name.ends_with(".router.weight") => {
                Some(self.grouped(new.to_host(), geometry.moe.n_experts))
            }
            // Zero.
            BALANCE_BIAS => Some(new.to_host()),
            _ => None,
        }
    }

    /// Router columns `[d_model, experts]`, equal within a group.
    fn grouped(&self, mut router: Vec<f32>, n_experts: usize) -> Vec<f32> {
        for row in router.chunks_mut(n_experts) {
            for group in row.chunks_mut(self.granularity) {
                let first = group[0];
                group.fill(first);
            }
        }
        router
    }

    /// A matrix of all experts, from that of the dense feed-forward.
    fn experts(
        &self,
        new: &Parameter,
        matrix: &str,
        dense: &[f32],
        geometry: &ModelConfig,
        seed: u64,
    ) -> Vec<f32> {
        let (d, f, g) = (geometry.d_model, geometry.moe.expert_ffn, self.granularity);
        let is_back = matrix == "w_down";
        // Weights sum to 1 over all experts of a token, of which G share a copy of the feed-forward.
        let scale = match (&geometry.moe.router, is_back) {
            (RouterConfig::TopK(settings), true) => (g as f64 / settings.route_scale) as f32,
            _ => 1.0,
        };
        // The block's name, so that a channel is redrawn in all three matrices.
        let block = new.name.split(".experts.").next().unwrap_or_default();
        let (which, draws) = (
            Stream::new(seed, &format!("{block}.redraw")),
            Stream::new(seed, &format!("{}.redraw", new.name)),
        );
        let mut all = Vec::with_capacity(new.len());
        for expert in 0..geometry.moe.n_experts {
            let first = expert % g * f;
            let place = |channel: usize, i: usize| if is_back { channel * d + i } else { i * f + channel };
            let mut own = vec![0.0f32; d * f];
            for channel in 0..f {
                for i in 0..d {
                    let from = if is_back { (first + channel) * d + i } else { i * f * g + first + channel };
                    own[place(channel, i)] = dense[from] * scale;
                }
            }
            let is_redrawn = |channel: &usize| which.uniform((expert * f + channel) as u64) < self.redraw;
            let redrawn: Vec<usize> = (0..f).filter(is_redrawn).collect();
            let places = || redrawn.iter().flat_map(|&channel| (0..d).map(move |i| place(channel, i)));
            let n = (redrawn.len() * d).max(1) as f64;
            let mean = places().map(|at| f64::from(own[at])).sum::<f64>() / n;
            let variance = places().map(|at| (f64::from(own[at]) - mean).powi(2)).sum::<f64>() / n;
            for at in places() {
                let draw = draws.normal((expert * d * f + at) as u64);
                own[at] = (mean + draw * variance.sqrt()) as f32;
            }
            all.extend(own);
        }
        all
    }
}
