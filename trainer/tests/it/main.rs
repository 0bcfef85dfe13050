//! Integration tests of the trainer, on the CPU, with models of a few thousand parameters.

/// Small corpora, configurations and helpers.
mod support;

/// What the model computes: masks, causality, oracles.
mod model;

/// Every kind of attention compared with a naive one, in packs, and later tokens.
mod attention;
mod oracles;

/// Reading token by token compared with reading all at once.
mod generation;

/// Gradients against finite differences.
mod gradients;

/// What a training step does: accumulation, balancing, overfitting.
mod step;

/// Data order, checkpoints, resume.
mod resume;

/// The program as users run it, with a real plan on disk.
mod program;

/// Shards that are damaged before or during a run.
mod damage;

/// Runs that are damaged, moved, made longer, or refused before they begin.
mod runs;

/// Forks, runs that stop on request, and reports before they begin.
mod forks;

/// Runs that are killed while they save.
mod kills;

/// Skipped steps, averages of weights, groups, fused matrices, batch ramps, parametrizations.
mod optim;

/// Models that are exported to other programs and imported from them.
mod export;

/// Questions answered by likelihood.
mod tasks;

/// Runs that begin with the weights of others.
mod tuning;

/// Mixtures of experts that begin as dense models.
mod upcycle;

/// What each configuration key changes.
mod keys;

/// Numbers of reference implementations.
mod golden;
mod golden_attention;

/// Every kind of router, and capacity: reference numbers, padding, causality, micro-batches.
mod routers;

/// What the documentation says about kinds, and parts that belong to no kind of router.
mod kinds;

/// The examples of CONTRIBUTING.md.
mod example_balancer;
mod example_op;
mod example_router;
mod example_rule;

/// The GPU path on a GPU, possibly a software one; needs the feature `wgpu` or `cuda`.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod gpu;

/// Pages about runs.
mod report;
