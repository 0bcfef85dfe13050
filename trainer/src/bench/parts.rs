//! The parts of a step, each alone: forward, and forward with backward.

use burn::tensor::{Device, Tensor};

use super::{Setup, batch, noise, time};
use crate::model::Model;
use crate::model::attention::AttentionConfig;
use crate::model::context::{BatchCounts, Context, Pass};
use crate::model::init::Init;
use crate::model::moe::MoeLayer;
use crate::model::size::size;
use crate::model::transfer::Multipliers;
use crate::objective::{Targets, cross_entropy};
use crate::ops::global_norm::global_norm;
use crate::ops::routing::sort_by_expert;
use crate::ops::rows::{combine_rows, gather_rows};
use crate::optim::{Optimizer, Update, kept_bytes, trained};

/// One part, on one micro-batch (the optimizer: on all parameters).
#[derive(Debug, Clone, serde::Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Milliseconds forward.
    pub forward_ms: f64,
    /// Milliseconds backward; 0 where there is none.
    pub backward_ms: f64,
    /// Floating-point operations of its products, forward and backward.
    pub flops: f64,
    /// Bytes that have to be read and written at least, forward and backward.
    pub bytes: f64,
    /// How often it occurs in a step.
    pub times: usize,
}

impl Part {
    /// Milliseconds forward and backward.
    pub fn ms(&self) -> f64 {
        self.forward_ms + self.backward_ms
    }

    /// TFLOP/s of its products.
    pub fn tflops(&self) -> f64 {
        self.flops / self.ms() / 1e9
    }

    /// GB/s of the bytes that it has to move.
    pub fn gb_per_s(&self) -> f64 {
        self.bytes / self.ms() / 1e6
    }
}

pub(super) fn measure(setup: &Setup) -> crate::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let bench = Bench::new(setup);
    let config = &setup.geometry;
    let n_moe = (0..config.n_layers).filter(|&layer| config.is_moe(layer)).count();
    if n_moe > 0 {
        parts.extend(bench.mixture(n_moe)?);
    }
    let mut kinds: Vec<(&AttentionConfig, usize)> = Vec::new();
    for layer in 0..config.n_layers {
        let kind = config.attention(layer);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, n_blocks)) => *n_blocks += 1,
            None => kinds.push((kind, 1)),
        }
    }
    for (kind, n_blocks) in &kinds {
        let name = if kinds.len() == 1 { "attention".into() } else { format!("attention, {}", kind.kind()) };
        parts.push(bench.attention(kind, *n_blocks, name)?);
    }
    parts.push(bench.loss()?);
    parts.push(bench.optimizer()?);
    Ok(parts)
}

/// A micro-batch and what all parts need.
struct Bench<'a> {
    setup: &'a Setup,
    ctx: Context,
    targets: Vec<u32>,
    mask: Vec<bool>,
    autodiff: Device,
    micro_batches: usize,
}

impl<'a> Bench<'a> {
    fn new(setup: &'a Setup) -> Self {
        let config = &setup.geometry;
        let samples = setup.step.micro_batch.min(setup.batch);
        let batch = batch(samples, config.seq_len, config.vocab_size, 0);
        let autodiff = setup.device.clone().autodiff();
        let input = batch.input(0..samples, &autodiff);
        let ctx = Context::new(&input, Pass::EVAL, BatchCounts::of(&input.valid), &config.ropes());
        let micro_batches = setup.batch.div_ceil(samples);
        Self { setup, ctx, targets: batch.targets, mask: batch.loss_mask, autodiff, micro_batches }
    }

    fn tokens(&self) -> usize {
        self.targets.len()
    }

    /// Tracked noise in the type of computation.
    fn leaf(&self, name: &str, shape: [usize; 2]) -> Tensor<2> {
        let dtype = self.setup.geometry.compute.dtype();
        let values = noise(name, shape, &self.setup.device).cast(dtype);
        Tensor::from_inner(values).require_grad()
    }

    /// Times a function of a tracked tensor without and with its gradients.
    fn both(&self, call: impl Fn() -> Tensor<2>) -> crate::Result<[f64; 2]> {
        let (device, n) = (&self.setup.device, self.setup.n_repeats);
        let forward = time(device, n, &call)?;
        let both = time(device, n, || call().sum().backward())?;
        Ok([1e3 * forward, 1e3 * (both - forward).max(0.0)])
    }

    fn mixture(&self, n_layers: usize) -> crate::Result<Vec<Part>> {
        let config = &self.setup.geometry;
        let init = Init::new(1, config.init_std, &self.autodiff);
        let layer = MoeLayer::new(config, 0, 1.0, "bench", &init);
        let (d, k) = (config.d_model, config.moe.top_k);
        let narrow = config.expert_width();
        let x = self.leaf("x", [self.tokens(), d]);
        let (router, experts) = (layer.router(), layer.experts());
        let n_rows = (self.tokens() * k) as f64;
        let times = n_layers * self.micro_batches;
        let width = d as f64 * config.compute.bytes() as f64;

        let [forward_ms, backward_ms] = self.both(|| router.route(x.clone(), &self.ctx).weights)?;
        let routing = router.route(x.clone(), &self.ctx);
        let router = Part {
            name: "router".into(),
            forward_ms,
            backward_ms,
            flops: (6 * self.tokens() * d * config.moe.n_experts) as f64,
            bytes: 3.0 * self.tokens() as f64 * width,
            times,
        };
        let routes = sort_by_expert(&routing.choices, config.moe.n_experts);
        let weights = routing.weights.detach();
        let (x, width) = (self.leaf("rows", [self.tokens(), narrow]), width * narrow as f64 / d as f64);
        let [forward_ms, backward_ms] =
            self.both(|| combine_rows(gather_rows(x.clone(), &routes), weights.clone(), &routes))?;
        let rows = Part {
            name: "dispatch and combine".into(),
            forward_ms,
            backward_ms,
            flops: 0.0,
            // One writes rows and the other reads them, and the same again backward, where the combination
            // also reads the rows for the gradient of its weights.
            bytes: 5.0 * n_rows * width + 4.0 * self.tokens() as f64 * width,
            times,
        };
        let gathered = gather_rows(x.clone(), &routes).detach().require_grad();
        let [forward_ms, backward_ms] = self.both(|| experts.on_rows(gathered.clone(), &routes, None))?;
        let experts = Part {
            name: "experts".into(),
            forward_ms,
            backward_ms,
            flops: 18.0 * n_rows * (narrow * config.moe.expert_ffn) as f64,
            bytes: self.expert_bytes(),
            times,
        };
        Ok(vec![router, rows, experts])
    }

    /// Rows in and out, gate and up, and the matrices, once each way.
    fn expert_bytes(&self) -> f64 {
        let config = &self.setup.geometry;
        let (d, f, e) = (config.expert_width(), config.moe.expert_ffn, config.moe.n_experts);
        let rows = self.tokens() * config.moe.top_k;
        let values = 3 * (rows * (2 * d + 3 * f) + 3 * e * d * f);
        values as f64 * config.compute.bytes() as f64
    }

    fn attention(&self, kind: &AttentionConfig, n_blocks: usize, name: String) -> crate::Result<Part> {
        let config = &self.setup.geometry;
        let init = Init::new(1, config.init_std, &self.autodiff);
        let layer = kind.build(config.place(1.0), "bench", &init);
        let cost = kind.cost(config.d_model, config.seq_len);
        let x = self.leaf("x", [self.tokens(), config.d_model]);
        let [forward_ms, backward_ms] = self.both(|| layer.forward(x.clone(), &self.ctx))?;
        let values = self.tokens() as u64 * 3 * cost.values + 3 * cost.parameters;
        Ok(Part {
            name,
            forward_ms,
            backward_ms,
            // Work that is computed twice counts once.
            flops: self.tokens() as f64 * cost.flops as f64,
            bytes: (values * config.compute.bytes()) as f64,
            times: n_blocks * self.micro_batches,
        })
    }

    fn loss(&self) -> crate::Result<Part> {
        let config = &self.setup.geometry;
        let (d, vocab) = (config.d_model, config.vocab_size);
        let hidden = self.leaf("hidden", [self.tokens(), d]);
        let head = noise("head", [d, vocab], &self.setup.device) * config.init_std;
        let head = Tensor::<2>::from_inner(head).require_grad();
        let targets = Targets { ids: &self.targets, mask: &self.mask };
        let seconds = time(&self.setup.device, self.setup.n_repeats, || {
            let ce = cross_entropy(hidden.clone(), head.clone(), targets, 1.0);
            ce.surrogate.backward()
        })?;
        let logits = (self.tokens() * vocab) as f64;
        Ok(Part {
            name: "head and loss".into(),
            forward_ms: 1e3 * seconds,
            backward_ms: 0.0,
            flops: 6.0 * logits * d as f64,
            // Logits written, read twice and replaced by their gradient, which two products read.
            bytes: 6.0 * logits * config.compute.bytes() as f64,
            times: self.micro_batches,
        })
    }

    fn optimizer(&self) -> crate::Result<Part> {
        let model = Model::new(&self.setup.geometry, 1, &self.autodiff);
        let kept = kept_bytes(&self.setup.groups, &self.setup.geometry);
        let mut optimizer = Optimizer::new(self.setup.groups.clone(), &model);
        let gradients: Vec<Option<Tensor<1>>> =
            trained(&model).into_iter().map(|p| Some(p.value.zeros_like() + 1e-3)).collect();
        let mut model = Some(model);
        let seconds = time(&self.setup.device, self.setup.n_repeats.min(3), || {
            // The norm is part of the measurement, though it clips nothing.
            let norm = global_norm(gradients.iter().flatten()).expect("every parameter has a gradient");
            let factor = norm * 0.0 + 1.0;
            let old = model.take().expect("put back by every call");
            let multipliers = Multipliers::default();
            let update = Update { number: 1, rate: 1e-3, factor: &factor, multipliers };
            model = Some(optimizer.step(old, gradients.clone(), &update, &[]));
        })?;
        Ok(Part {
            name: "norm and optimizer".into(),
            forward_ms: 1e3 * seconds,
            backward_ms: 0.0,
            flops: 0.0,
            // The gradient is read twice; the value and what its rule keeps are read and written.
            bytes: 16.0 * size(&self.setup.geometry).total as f64 + 2.0 * kept.moments as f64,
            times: 1,
        })
    }
}
