//! The one table of configuration keys: it drives parsing, defaults, ranges, `config --explain`,
//! the fingerprint, and the comparison on resume.

use super::value::{Kind, Value};

/// One configuration key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Section and name, as in `moe.router.score`.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Value when the key is absent; `None` means derived or off, as `doc` says.
    pub default: Option<Value>,
    /// Whether the trained parameters depend on it. Such keys enter the fingerprint, and a resumed
    /// run may not change them.
    pub identity: bool,
    /// What it does, with its unit.
    pub doc: &'static str,
}

const fn int(min: i64, max: i64) -> Kind {
    Kind::Int { min, max }
}

const fn float(min: f64, max: f64) -> Kind {
    Kind::Float { min, max }
}

const fn key(name: &'static str, kind: Kind, default: Value, doc: &'static str) -> Key {
    Key { name, kind, default: Some(default), identity: true, doc }
}

const fn free(name: &'static str, kind: Kind, default: Value, doc: &'static str) -> Key {
    Key { name, kind, default: Some(default), identity: false, doc }
}

use Value::{Bool, Float, Int, Text};

const MANY: i64 = 1 << 40;
const WIDE: i64 = 1 << 20;

/// All keys, by section.
pub const KEYS: &[Key] = &[
    key(
        "run.seed",
        int(0, i64::MAX),
        Int(1),
        "seed of the initial parameters; the order of the data is the plan's",
    ),
    Key {
        name: "run.steps",
        kind: int(1, MANY),
        default: None,
        identity: true,
        doc: "optimizer steps; absent: as many whole batches as the plan has samples for. A resumed run may be made \
              longer or shorter where that changes no learning rate of its past: before the fall of wsd, or constant",
    },
    free("run.device", Kind::Device, Text(std::borrow::Cow::Borrowed("auto")), "auto, cpu, cuda or cuda:N"),
    free("run.log_every", int(1, MANY), Int(10), "steps between lines of metrics.jsonl"),
    free(
        "run.eval_every",
        int(1, MANY),
        Int(200),
        "steps between validations; one more follows the last step",
    ),
    free(
        "run.save_every",
        int(1, MANY),
        Int(200),
        "steps between checkpoints; one more follows the last step",
    ),
    free(
        "run.recompute",
        Kind::Bool,
        Bool(false),
        "keep only the input of each block and compute the block again in the backward pass: a third more work, \
         far less memory, the same gradients",
    ),
    Key {
        name: "run.peak_tflops",
        kind: float(1e-3, 1e7),
        default: None,
        identity: false,
        doc: "peak of the device in TFLOP/s, of which perf/mfu in the metrics is a share; absent: no such share",
    },
    free("run.keep", int(1, 1_000_000), Int(3), "checkpoints to keep, the newest ones"),
    free(
        "data.shards",
        Kind::Path,
        Text(std::borrow::Cow::Borrowed("out")),
        "folder of the shards and the plan",
    ),
    key("data.batch", int(1, WIDE), Int(8), "samples of one optimizer step"),
    Key {
        name: "data.micro_batch",
        kind: int(1, WIDE),
        default: None,
        identity: false,
        doc: "samples of one forward pass; absent: the whole batch. Changes memory and the rounding of sums; with \
              moe.balance.switch, less than the batch costs another forward pass, which counts",
    },
    free("data.prefetch", int(0, WIDE), Int(16), "samples read ahead by a thread; 0 reads when needed"),
    free("data.validation_samples", int(1, MANY), Int(64), "validation samples used, from the first"),
    key("model.d_model", int(2, WIDE), Int(128), "width of the residual stream"),
    key("model.layers", int(1, 10_000), Int(4), "blocks"),
    key(
        "model.dense_layers",
        int(0, 10_000),
        Int(1),
        "leading blocks with a dense feed-forward; the others are mixtures of experts",
    ),
    key("model.dense_ffn", int(1, WIDE), Int(384), "hidden width of a dense feed-forward"),
    key("model.norm_eps", float(1e-12, 1e-2), Float(1e-5), "added to the mean square in RMSNorm"),
    key(
        "model.tie_embeddings",
        Kind::Bool,
        Bool(true),
        "use the embedding, transposed, as output projection",
    ),
    key(
        "model.init_std",
        float(1e-6, 1.0),
        Float(0.02),
        "standard deviation of initial weights; projections back into the residual stream get it over sqrt(2 * layers)",
    ),
    key(
        "precision.compute",
        Kind::Choice(&["f32", "bf16"]),
        Text(std::borrow::Cow::Borrowed("f32")),
        "type of activations and products; parameters, moments, router, softmax, norms and loss are f32 either \
         way. bf16 needs a GPU",
    ),
    free(
        "precision.tensor_cores",
        Kind::Bool,
        Bool(true),
        "let our kernels use the tensor cores of a GPU that has them for bf16; changes speed and rounding",
    ),
    key("attention.heads", int(1, 4096), Int(4), "query heads; the width of a head is d_model / heads"),
    key("attention.kv_heads", int(1, 4096), Int(2), "key and value heads; divides attention.heads"),
    key("attention.rope_theta", float(1.0, 1e9), Float(10_000.0), "base of the rotary frequencies"),
    key("moe.experts", int(1, 65_536), Int(8), "routed experts of a block"),
    key("moe.top_k", int(1, 65_536), Int(2), "routed experts that each token visits"),
    key("moe.shared", int(0, 1024), Int(1), "shared experts, visited by every token"),
    key("moe.expert_ffn", int(1, WIDE), Int(128), "hidden width of one expert"),
    key(
        "moe.router.score",
        Kind::Choice(&["softmax", "sigmoid"]),
        Text(std::borrow::Cow::Borrowed("sigmoid")),
        "function from router logits to scores",
    ),
    key(
        "moe.router.norm_weights",
        Kind::Bool,
        Bool(true),
        "divide the weights of the chosen experts by their sum",
    ),
    key("moe.router.route_scale", float(1e-3, 1e3), Float(1.0), "factor of the weights, after the division"),
    key(
        "moe.balance.bias_rate",
        float(0.0, 1.0),
        Float(0.0),
        "step of the loss-free selection bias (arXiv 2408.15664), in units of the score; 0 is off. Made for sigmoid \
         scores: softmax scores are about 1 / E, beside which a step is E times as large",
    ),
    key(
        "moe.balance.switch",
        float(0.0, 10.0),
        Float(0.0),
        "coefficient of the Switch auxiliary loss (arXiv 2101.03961); 0 is off",
    ),
    key(
        "moe.balance.sequence",
        float(0.0, 10.0),
        Float(0.0),
        "coefficient of the sequence-wise auxiliary loss (arXiv 2412.19437); 0 is off",
    ),
    key(
        "moe.balance.z",
        float(0.0, 10.0),
        Float(0.0),
        "coefficient of the router z-loss (arXiv 2202.08906); 0 is off. It is least where the logits of a token are \
         all -ln E; with sigmoid scores, which do not depend on each other, that is a weak pull of every score toward \
         1 / (E + 1) beside keeping logits small",
    ),
    key("optim.lr", float(0.0, 10.0), Float(2e-3), "highest learning rate"),
    key("optim.beta1", float(0.0, 0.999_999), Float(0.9), "memory of the mean of gradients"),
    key("optim.beta2", float(0.0, 0.999_999), Float(0.95), "memory of the mean of squared gradients"),
    key("optim.eps", float(1e-20, 1.0), Float(1e-8), "added to the root of the second moment"),
    key(
        "optim.weight_decay",
        float(0.0, 10.0),
        Float(0.1),
        "decay of matrices per step and unit of learning rate, routers included; norms, biases, embeddings and the \
         output projection have none",
    ),
    key("optim.clip", float(1e-6, 1e9), Float(1.0), "largest norm of all gradients together"),
    key(
        "schedule.kind",
        Kind::Choice(&["wsd", "cosine", "constant"]),
        Text(std::borrow::Cow::Borrowed("wsd")),
        "wsd: constant, then a linear fall; cosine: falls from the warm-up to the end; constant: never falls",
    ),
    key("schedule.warmup", float(0.0, 1.0), Float(0.05), "share of the steps in which the rate rises"),
    Key {
        name: "schedule.warmup_steps",
        kind: int(0, MANY),
        default: None,
        identity: true,
        doc: "steps in which the rate rises; absent: the share schedule.warmup of all steps",
    },
    key(
        "schedule.decay",
        float(0.0, 1.0),
        Float(0.3),
        "share of the steps in which wsd falls, 0 for never; without effect on cosine and constant",
    ),
    Key {
        name: "schedule.decay_steps",
        kind: int(0, MANY),
        default: None,
        identity: true,
        doc: "last steps in which wsd falls, 0 for never; absent: the share schedule.decay of all steps",
    },
    key("schedule.floor", float(0.0, 1.0), Float(0.1), "last rate as a share of the highest"),
];

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether a key does nothing but decide the learning rate of each step. Where that does not change
/// the rate of a step already made, a resumed run may change it.
pub fn is_of_schedule(name: &str) -> bool {
    name.starts_with("schedule.") || ["run.steps", "optim.lr"].contains(&name)
}

/// The key whose name is most like `name`, if any is close.
pub fn nearest(name: &str) -> Option<&'static Key> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_string();
    let likeness = |key: &Key| {
        strsim::jaro_winkler(key.name, name).max(0.98 * strsim::jaro_winkler(&last(key.name), &last(name)))
    };
    KEYS.iter()
        .map(|key| (likeness(key), key))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_section_a_doc_and_a_default_in_range() {
        for key in KEYS {
            assert!(key.name.contains('.') && key.doc.len() > 5, "{}", key.name);
            if let Some(default) = &key.default {
                assert_eq!(key.kind.check(default), Ok(default.clone()), "{}", key.name);
            }
            assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1, "{}", key.name);
        }
    }

    #[test]
    fn misspelt_keys_find_their_neighbour() {
        assert_eq!(nearest("moe.topk").map(|key| key.name), Some("moe.top_k"));
        assert_eq!(nearest("optim.weigth_decay").map(|key| key.name), Some("optim.weight_decay"));
        assert!(nearest("x.qqqqqq").is_none());
    }
}
