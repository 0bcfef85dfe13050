//! Settings of the shape of a model.

use crate::ops::Compute;
use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{WIDE, float, int};

settings! {
    /// Widths and depth.
    pub struct ModelSettings in "model" {
        /// width of the residual stream
        d_model: usize = 128, int(2, WIDE);
        /// blocks
        layers: usize = 4, int(1, 10_000);
        /// leading blocks with a dense feed-forward; the others are mixtures of experts
        dense_layers: usize = 1, int(0, 10_000);
        /// hidden width of a dense feed-forward
        dense_ffn: usize = 384, int(1, WIDE);
        /// added to the mean square in RMSNorm
        norm_eps: f64 = 1e-5, float(1e-12, 1e-2);
        /// use the embedding, transposed, as output projection
        tie_embeddings: bool = true, Kind::Bool;
        /// standard deviation of initial weights; for projections back into the residual stream divided by
        /// sqrt(2 * layers)
        init_std: f64 = 0.02, float(1e-6, 1.0);
    }
}

settings! {
    /// Number types.
    pub struct PrecisionSettings in "precision" {
        /// type of activations and products; parameters, moments, router, softmax, norms and loss are always
        /// f32. bf16 needs a GPU
        compute: Compute = Compute::F32, Kind::Choice(&["f32", "bf16"]);
        /// let our kernels use tensor cores for bf16 on a GPU that has them; changes speed and rounding
        tensor_cores: bool = true, Kind::Bool, free;
    }
}
