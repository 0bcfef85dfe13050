//! The kernels compared with their plain forms, on any available GPU: `wgpu` on Mesa's lavapipe is a software
//! GPU that runs everywhere. Needs the feature `wgpu` or `cuda`; otherwise there is nothing to test.
#![cfg(feature = "gpu")]

mod adamw;
mod attention;
mod cross_entropy;
mod embedding;
mod grouped;
mod norm;
mod rotary;
mod routing;
mod rows;
mod support;
mod swiglu;
