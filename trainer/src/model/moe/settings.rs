//! What can be set about every mixture of experts.

use crate::settings;
use crate::settings::{WIDE, int};

settings! {
    /// Numbers and width of experts.
    pub struct MoeSettings in "moe" {
        /// routed experts of a block
        experts: usize = 8, int(1, 65_536);
        /// routed experts that each token visits
        top_k: usize = 2, int(1, 65_536);
        /// shared experts, visited by every token
        shared: usize = 1, int(0, 1024);
        /// hidden width of one expert
        expert_ffn: usize = 128, int(1, WIDE);
    }
}
