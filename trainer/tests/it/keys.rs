use std::collections::BTreeMap;

use moe_shards::Hash;
use moe_train::config::RunConfig;
use moe_train::config::keys::{KEYS, Key};

use crate::support::*;

/// For each key another value than that of the base run, of which it is known whether the parameters
/// depend on it. Keys that identify a run must change them; the others must not.
const OTHER: &[(&str, &str)] = &[
    ("run.seed", "2"),
    ("run.steps", "3"),
    ("run.log_every", "3"),
    ("run.eval_every", "3"),
    ("run.save_every", "1"),
    ("run.recompute", "true"),
    ("run.peak_tflops", "1.0"),
    ("run.keep", "1"),
    ("data.batch", "3"),
    ("data.prefetch", "0"),
    ("data.validation_samples", "1"),
    ("model.d_model", "16"),
    ("model.layers", "3"),
    ("model.dense_layers", "0"),
    ("model.dense_ffn", "11"),
    ("model.norm_eps", "1e-3"),
    ("model.tie_embeddings", "false"),
    ("model.init_std", "0.03"),
    ("precision.tensor_cores", "false"),
    ("attention.kind", "mla"),
    ("attention.pattern", "[\"mla\", \"full\"]"),
    ("attention.last", "mla"),
    ("attention.heads", "1"),
    ("attention.kv_heads", "2"),
    ("attention.rope_theta", "100.0"),
    ("attention.head_dim", "4"),
    ("attention.rotary", "none"),
    ("attention.rotary_fraction", "0.7"),
    ("attention.qk_norm", "true"),
    ("attention.gate", "head"),
    ("attention.gate", "channel"),
    ("attention.sinks", "true"),
    ("attention.swa.window", "3"),
    ("attention.mla.heads", "2"),
    ("attention.mla.kv_rank", "8"),
    ("attention.mla.q_rank", "8"),
    ("attention.mla.nope_dim", "8"),
    ("attention.mla.rope_dim", "0"),
    ("attention.mla.value_dim", "8"),
    ("attention.mla.rope_theta", "100.0"),
    ("attention.kda.heads", "2"),
    ("attention.kda.key_dim", "8"),
    ("attention.kda.value_dim", "8"),
    ("attention.kda.conv", "2"),
    ("attention.kda.decay", "head"),
    ("moe.experts", "6"),
    ("moe.top_k", "3"),
    ("moe.shared", "0"),
    ("moe.expert_ffn", "8"),
    ("moe.router.score", "softmax"),
    ("moe.router.norm_weights", "false"),
    ("moe.router.route_scale", "1.5"),
    ("moe.balance.bias_rate", "0.02"),
    ("moe.balance.switch", "0.1"),
    ("moe.balance.sequence", "0.1"),
    ("moe.balance.z", "0.1"),
    ("optim.lr", "0.02"),
    ("optim.beta1", "0.8"),
    ("optim.beta2", "0.9"),
    ("optim.eps", "1e-4"),
    ("optim.weight_decay", "0.2"),
    ("optim.clip", "1e-3"),
    ("schedule.kind", "cosine"),
    ("schedule.kind", "constant"),
    ("schedule.warmup", "0.0"),
    ("schedule.warmup_steps", "1"),
    ("schedule.decay", "0.0"),
    ("schedule.decay_steps", "1"),
    ("schedule.floor", "0.5"),
];

/// Keys that this test cannot try, and why.
const UNTRIED: &[(&str, &str)] = &[
    ("run.device", "there is one device here"),
    ("data.shards", "the samples are made up; `train_eval_sample_inspect_and_the_refusals` reads a plan"),
    ("moe.router.kind", "there is one kind"),
    ("optim.kind", "there is one kind"),
    ("data.micro_batch", "changes the rounding of sums: `the_micro_batch_does_not_change_the_step`"),
    ("precision.compute", "bf16 needs a GPU: `bf16_learns_nearly_the_same`"),
];

fn base(assignments: &[&str]) -> RunConfig {
    let few =
        ["run.steps=6", "run.log_every=2", "schedule.warmup=0.34", "schedule.decay=0.5", "optim.clip=2e-3"];
    let kept = ["run.eval_every=4", "run.save_every=4", "optim.lr=0.01"];
    run_config(&[&few[..], &kept, assignments].concat())
}

/// What must be chosen for a key to count.
fn choice(key: &Key) -> Option<String> {
    let (kind, words) = key.of.as_ref()?;
    (*kind != "attention.pattern").then(|| format!("{kind}={}", words[0]))
}

#[test]
fn every_key_has_an_effect_or_is_known_to_have_none_on_results() {
    for key in KEYS.iter() {
        let is_listed = |list: &[(&str, &str)]| list.iter().any(|(name, _)| *name == key.name);
        assert!(is_listed(OTHER) != is_listed(UNTRIED), "{} is in one of both lists", key.name);
    }
    let dir = tempfile::tempdir().expect("dir");
    let hash =
        |name: &str, config: &RunConfig| train(&dir.path().join(name), config, None, None).parameter_hash;
    let mut bases: BTreeMap<Option<String>, Hash> = BTreeMap::new();
    for (index, (name, value)) in OTHER.iter().enumerate() {
        let key = KEYS.iter().find(|key| key.name == *name).expect("a key");
        let choice = choice(key);
        let plain: Vec<&str> = choice.iter().map(String::as_str).collect();
        let expected =
            *bases.entry(choice.clone()).or_insert_with(|| hash(&format!("base-{index}"), &base(&plain)));
        let assignment = format!("{name}={value}");
        let config = base(&[&plain[..], &[assignment.as_str()]].concat());
        assert_ne!(
            config.values.get(name),
            base(&plain).values.get(name),
            "{name} = {value} is no other value"
        );
        let found = hash(&index.to_string(), &config);
        assert_eq!(found != expected, key.identity, "{name} = {value}");
        let is_other = config.values.fingerprint() != base(&plain).values.fingerprint();
        assert_eq!(is_other, key.identity, "{name} in the fingerprint");
    }
}
