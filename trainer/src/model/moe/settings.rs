//! Settings of every mixture of experts.

use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{WIDE, float, int};

/// What routed experts compute between their matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// SwiGLU.
    Swiglu,
    /// Squared ReLU.
    Relu2,
}

settings! {
    /// Numbers and widths of experts.
    pub struct MoeSettings in "moe" {
        /// routed experts per block
        experts: usize = 8, int(1, 65_536);
        /// routed experts that each token visits
        top_k: usize = 2, int(1, 65_536);
        /// shared experts, visited by every token
        shared: usize = 1, int(0, 1024);
        /// hidden width of one expert
        expert_ffn: usize = 128, int(1, WIDE);
        /// width that routed experts work on, between a shared down projection and a shared up projection; 0:
        /// that of the residual stream. Router and shared experts always see the residual stream (NVIDIA's
        /// LatentMoE)
        latent: usize = 0, int(0, WIDE);
        /// swiglu: (silu(x W_gate) * x W_up) W_down; relu2: relu(x W_up)^2 W_down (So et al. 2021, arXiv
        /// 2109.08668), a third fewer parameters. Shared experts and dense feed-forwards are always SwiGLU
        expert_activation: Activation = Activation::Swiglu, Kind::Choice(&["swiglu", "relu2"]);
        /// multiply the shared experts by sigmoid(x w), one number per token, 0.5 at first (Qwen2-MoE)
        shared_gate: bool = false, Kind::Bool;
        /// dropout of the hidden values of routed experts in training: fraction set to zero, the others
        /// scaled up (Fedus et al. 2021, arXiv 2101.03961, section 2.4); for fine-tuning
        expert_dropout: f64 = 0.0, float(0.0, 0.9);
    }
}
