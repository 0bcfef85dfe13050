use std::collections::BTreeMap;

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
    ("run.ema_decay", "0.5"),
    ("run.ema_from", "2"),
    ("run.keep", "1"),
    ("data.batch", "3"),
    ("data.batch_ramp", "[\"2 until step 2\"]"),
    ("data.prefetch", "0"),
    ("data.validation_samples", "1"),
    ("model.d_model", "16"),
    ("model.layers", "3"),
    ("model.dense_layers", "0"),
    ("model.dense_ffn", "11"),
    ("model.norm_eps", "1e-3"),
    ("model.tie_embeddings", "false"),
    ("model.init_std", "0.03"),
    ("model.parametrization", "mup"),
    ("model.parametrization", "complete"),
    ("model.base.d_model", "24"),
    ("model.base.head_dim", "3"),
    ("model.base.layers", "3"),
    ("model.base.ffn", "20"),
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
    ("attention.softcap", "0.05"),
    ("attention.tile_from", "1"),
    ("attention.rope.factor", "8.0"),
    ("attention.rope.original", "1000"),
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
    ("attention.nsa.heads", "2"),
    ("attention.nsa.kv_heads", "2"),
    ("attention.nsa.head_dim", "8"),
    ("attention.nsa.block", "3"),
    ("attention.nsa.selected", "1"),
    ("attention.nsa.window", "3"),
    ("attention.nsa.rope_theta", "100.0"),
    ("moe.experts", "6"),
    ("moe.top_k", "3"),
    ("moe.shared", "0"),
    ("moe.expert_ffn", "8"),
    ("moe.latent", "5"),
    ("moe.expert_activation", "relu2"),
    ("moe.shared_gate", "true"),
    ("moe.expert_dropout", "0.3"),
    ("moe.router.score", "softmax"),
    ("moe.router.norm_weights", "false"),
    ("moe.router.route_scale", "1.5"),
    ("moe.router.group_limited.groups", "2"),
    ("moe.router.group_limited.kept_groups", "1"),
    ("moe.router.group_limited.group_score", "max"),
    ("moe.router.group_limited.score", "softmax"),
    ("moe.router.group_limited.norm_weights", "false"),
    ("moe.router.group_limited.route_scale", "1.5"),
    ("moe.router.switch.jitter", "0.3"),
    ("moe.router.switch.init_scale", "2.0"),
    ("moe.router.gshard.second", "all"),
    ("moe.router.gshard.norm_weights", "false"),
    ("moe.router.noisy_top_k.noise", "0.5"),
    ("moe.router.hierarchical.groups", "4"),
    ("moe.router.hierarchical.top_groups", "1"),
    ("moe.balance.bias_rate", "0.02"),
    ("moe.balance.switch", "0.1"),
    ("moe.balance.sequence", "0.1"),
    ("moe.balance.z", "0.1"),
    ("moe.balance.quantile", "true"),
    ("moe.balance.importance", "1.0"),
    ("moe.balance.load", "1.0"),
    ("moe.balance.orthogonality", "1.0"),
    ("moe.capacity.factor", "0.5"),
    ("moe.capacity.eval_factor", "0.5"),
    ("moe.capacity.min", "14"),
    ("moe.capacity.policy", "probs"),
    ("moe.capacity.order", "rank"),
    ("moe.capacity.renormalize", "true"),
    ("optim.kind", "lion"),
    ("optim.lr", "0.02"),
    ("optim.beta1", "0.8"),
    ("optim.beta2", "0.9"),
    ("optim.eps", "1e-4"),
    ("optim.weight_decay", "0.2"),
    ("optim.clip", "1e-3"),
    ("optim.moments", "bf16"),
    ("optim.skip_sigma", "0"),
    ("optim.skip_window", "12"),
    ("optim.sgd.momentum", "0.8"),
    ("optim.sgd.nesterov", "true"),
    ("optim.sgd.weight_decay", "0.1"),
    ("optim.lion.beta1", "0.5"),
    ("optim.lion.beta2", "0.5"),
    ("optim.lion.weight_decay", "0.2"),
    ("optim.muon.momentum", "0.8"),
    ("optim.muon.nesterov", "false"),
    ("optim.muon.scale", "original"),
    ("optim.muon.scale", "rms_operator"),
    ("optim.muon.weight_decay", "0.2"),
    ("optim.muon.routers", "true"),
    ("optim.muon.beta1", "0.8"),
    ("optim.muon.beta2", "0.9"),
    ("optim.muon.eps", "1e-4"),
    ("optim.normuon.momentum", "0.8"),
    ("optim.normuon.nesterov", "false"),
    ("optim.normuon.neurons", "0.5"),
    ("optim.normuon.scale", "original"),
    ("optim.normuon.scale", "rms_operator"),
    ("optim.normuon.weight_decay", "0.2"),
    ("optim.normuon.routers", "true"),
    ("optim.normuon.beta1", "0.8"),
    ("optim.normuon.beta2", "0.9"),
    ("optim.normuon.eps", "1e-4"),
    ("schedule.kind", "cosine"),
    ("schedule.kind", "constant"),
    ("schedule.kind", "linear"),
    ("schedule.kind", "inverse_sqrt"),
    ("schedule.period_steps", "3"),
    ("schedule.period_tokens", "140"),
    ("schedule.warmup", "0.0"),
    ("schedule.warmup_steps", "1"),
    ("schedule.warmup_tokens", "1"),
    ("schedule.decay", "0.0"),
    ("schedule.decay_steps", "1"),
    ("schedule.decay_tokens", "1"),
    ("schedule.floor", "0.5"),
];

/// Keys that this test cannot try, and why.
const UNTRIED: &[(&str, &str)] = &[
    ("run.device", "there is one device here"),
    (
        "run.eval_tasks",
        "the program reads the files: `a_run_answers_tasks_on_its_way_and_a_resumed_one_the_same`",
    ),
    ("run.eval_tasks_every", "the same"),
    ("data.shards", "the samples are made up; `train_eval_sample_inspect_and_the_refusals` reads a plan"),
    ("moe.router.kind", "`every_router_learns_and_leaves_padding_alone`"),
    ("moe.router.expert_choice.allow_noncausal", "`expert_choice_is_not_causal_and_must_be_asked_for`"),
    ("attention.rope.scaling", "needs other keys: `stretched_positions_are_another_model`"),
    ("data.micro_batch", "changes the rounding of sums: `the_micro_batch_does_not_change_the_step`"),
    ("precision.compute", "bf16 needs a GPU: `bf16_learns_nearly_the_same`"),
];

/// Settings that keys with this prefix need to have an effect.
const NEEDED: &[(&str, &[&str])] = &[
    (
        "attention.rope.",
        &["attention.rope.scaling=yarn", "attention.rope.factor=4", "attention.rope.original=8"],
    ),
    ("attention.tile_from", &["attention.kind=mla"]),
    ("attention.nsa.", &["attention.nsa.block=2", "attention.nsa.selected=2", "attention.nsa.window=2"]),
    ("moe.router.group_limited.", &["moe.router.kind=group_limited", "moe.experts=8"]),
    ("moe.router.switch.", &["moe.router.kind=switch", "moe.balance.bias_rate=0", "moe.top_k=1"]),
    ("moe.router.gshard.", &["moe.router.kind=gshard", "moe.balance.bias_rate=0"]),
    ("moe.router.noisy_top_k.", &["moe.router.kind=noisy_top_k", "moe.balance.bias_rate=0"]),
    (
        "moe.router.hierarchical.",
        &[
            "moe.router.kind=hierarchical",
            "moe.balance.bias_rate=0",
            "moe.experts=8",
            "moe.router.hierarchical.groups=2",
        ],
    ),
    ("run.ema_from", &["run.ema_decay=0.5"]),
    ("optim.skip_sigma", &["optim.skip_sigma=1e3", "optim.skip_window=6"]),
    ("optim.skip_window", &["optim.skip_sigma=0", "optim.skip_window=6"]),
    ("model.base.", &["model.parametrization=complete"]),
    ("moe.balance.quantile", &["moe.balance.bias_rate=0"]),
    ("moe.balance.load", &["moe.router.kind=noisy_top_k", "moe.balance.bias_rate=0"]),
    ("moe.capacity.m", &["moe.capacity.factor=0.5", "moe.capacity.min=1"]),
    ("moe.capacity.p", &["moe.capacity.factor=0.5", "moe.capacity.min=1"]),
    ("moe.capacity.o", &["moe.capacity.factor=0.5", "moe.capacity.min=1"]),
    ("moe.capacity.r", &["moe.capacity.factor=0.5", "moe.capacity.min=1"]),
];

fn base(assignments: &[&str]) -> RunConfig {
    let few =
        ["run.steps=6", "run.log_every=2", "schedule.warmup=0.34", "schedule.decay=0.5", "optim.clip=2e-3"];
    let kept = ["run.eval_every=4", "run.save_every=4", "optim.lr=0.01"];
    run_config(&[&few[..], &kept, assignments].concat())
}

/// The choice that a key needs to have an effect.
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
    let mut bases = BTreeMap::new();
    for (index, (name, value)) in OTHER.iter().enumerate() {
        let key = KEYS.iter().find(|key| key.name == *name).expect("a key");
        // A setting of one kind of a part is tried with that kind, and other settings that it needs.
        let kind = choice(key);
        let needed =
            NEEDED.iter().find(|(begin, _)| name.starts_with(begin)).map_or(&[][..], |(_, all)| *all);
        let needed: Vec<&str> = kind.iter().map(String::as_str).chain(needed.iter().copied()).collect();
        let without = base(&needed);
        let config = base(&[&needed[..], &[format!("{name}={value}").as_str()]].concat());
        // Not by its own value: a length in tokens becomes a length in steps.
        assert_ne!(config.values, without.values, "{name} = {value} is no other value");
        let found = hash(&index.to_string(), &config);
        let fingerprint = without.values.fingerprint();
        let expected =
            *bases.entry(fingerprint.short()).or_insert_with(|| hash(&format!("base-{index}"), &without));
        assert_eq!(found != expected, key.identity, "{name} = {value}");
        let is_other = config.values.fingerprint() != fingerprint;
        assert_eq!(is_other, key.identity, "{name} in the fingerprint");
    }
}
