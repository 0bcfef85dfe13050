//! The one table of configuration keys: it drives parsing, defaults, ranges, `config --explain`,
//! the fingerprint, and the comparison on resume.

use std::sync::LazyLock;

use crate::model::config::{AttentionConfig, BalanceConfig, RouterConfig};
use crate::optim::rule;
use crate::settings::value::{Kind, Value};
use crate::settings::{float, int};

pub use crate::settings::Key;

const fn key(name: &'static str, kind: Kind, default: Value, doc: &'static str) -> Key {
    Key { name, kind, default: Some(default), identity: true, doc, of: None }
}

const fn free(name: &'static str, kind: Kind, default: Value, doc: &'static str) -> Key {
    Key { name, kind, default: Some(default), identity: false, doc, of: None }
}

use Value::{Bool, Float, Int, Text};

const MANY: i64 = 1 << 40;
const WIDE: i64 = 1 << 20;

/// All keys, by section: those of this file, and of each part of a model and of the optimizer its own.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let kind = |name, kinds: &'static [&'static str], doc| {
        key(name, Kind::Choice(kinds), Text(kinds[0].into()), doc)
    };
    let own = |kind: &'static str, kinds: Vec<(&'static str, Vec<Key>)>| {
        let of = move |(word, keys): (&'static str, Vec<Key>)| {
            keys.into_iter().map(move |key| Key { of: Some((kind, word)), ..key })
        };
        kinds.into_iter().flat_map(of).collect::<Vec<Key>>()
    };
    let rules: &'static [&'static str] = Vec::leak(rule::kinds());
    let mut keys = RUN.to_vec();
    keys.push(kind("attention.kind", AttentionConfig::KINDS, "kind of attention of every block"));
    keys.extend(own("attention.kind", AttentionConfig::keys()));
    keys.extend_from_slice(MOE);
    keys.push(kind("moe.router.kind", RouterConfig::KINDS, "how tokens find their experts"));
    keys.extend(own("moe.router.kind", RouterConfig::keys()));
    keys.extend(BalanceConfig::keys());
    keys.push(kind("optim.kind", rules, "rule by which parameters move"));
    keys.extend(own("optim.kind", rule::REGISTRY.iter().map(|entry| (entry.kind, (entry.keys)())).collect()));
    keys.extend_from_slice(OPTIM);
    keys
});

/// Keys of the run, the data and the shape of the model.
const RUN: &[Key] = &[
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
        of: None,
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
        of: None,
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
        of: None,
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
];

/// Keys of every mixture of experts.
const MOE: &[Key] = &[
    key("moe.experts", int(1, 65_536), Int(8), "routed experts of a block"),
    key("moe.top_k", int(1, 65_536), Int(2), "routed experts that each token visits"),
    key("moe.shared", int(0, 1024), Int(1), "shared experts, visited by every token"),
    key("moe.expert_ffn", int(1, WIDE), Int(128), "hidden width of one expert"),
];

/// Keys of every optimizer, and of the schedule.
const OPTIM: &[Key] = &[
    key("optim.lr", float(0.0, 10.0), Float(2e-3), "highest learning rate"),
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
        of: None,
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
        of: None,
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
        for key in KEYS.iter() {
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
