use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::{Device, Tensor, TensorData};
use moe_shards::interleave::{Counts, Interleaver};
use moe_shards::pack::{Bins, PackedPiece};
use moe_shards::{
    DocumentMeta, FamilyId, Hash, Manifest, PLAN_VERSION, PackRef, Packing, PassLock, PhaseLock, Piece,
    PlanLock, PoolLock, Sample, SampleId, ShardRef, ShardSpec, ShardWriter, SourceInfo, TokenId,
    TokenizerInfo, ValidationLock,
};
use moe_train::config::{RunConfig, Values};
use moe_train::data::{Batch, Corpus, SampleSource};
use moe_train::metrics::Interval;
use moe_train::model::attention::grouped_query::GroupedQuerySettings;
use moe_train::model::config::{
    AttentionConfig, BalanceConfig, CapacitySettings, Compute, ModelConfig, MoeConfig, Parametrization,
    RouterConfig,
};
use moe_train::model::moe::Activation;
use moe_train::model::moe::balance::{Bias, Sequence, Switch, Z};
use moe_train::model::moe::router::top_k::TopKSettings;
use moe_train::model::{Model, PADDING};
use moe_train::ops::routing::Score;
use moe_train::optim::{AdamWConfig, Optimizer, Schedule, ScheduleKind};
use moe_train::random::{Stream, mix};
use moe_train::run::{Alarm, Observer, Progress, Run, Summary, Validation, Validator, run};
use moe_train::tasks::TaskResult;
use moe_train::train::{StepConfig, TrainState};

pub const VOCAB: usize = 29;
pub const SEQ: usize = 12;

/// Two layers, the second with 5 experts, of which 2 are used; odd shapes on purpose.
pub fn tiny_model() -> ModelConfig {
    ModelConfig {
        vocab_size: VOCAB,
        seq_len: SEQ,
        d_model: 12,
        n_layers: 2,
        n_dense_layers: 1,
        dense_ffn: 10,
        norm_eps: 1e-5,
        tie_embeddings: false,
        init_std: 0.3,
        parametrization: Parametrization::default(),
        compute: Compute::F32,
        attention: AttentionConfig::GroupedQuery(GroupedQuerySettings {
            heads: 2,
            kv_heads: 1,
            rope_theta: 1e4,
            ..GroupedQuerySettings::default()
        })
        .into(),
        moe: MoeConfig {
            n_experts: 5,
            top_k: 2,
            n_shared: 1,
            expert_ffn: 7,
            latent: 0,
            expert_activation: Activation::Swiglu,
            shared_gate: false,
            expert_dropout: 0.0,
            router: router(Score::Sigmoid),
            balance: no_balance(),
            capacity: CapacitySettings::default(),
        },
    }
}

pub fn no_balance() -> BalanceConfig {
    BalanceConfig::default()
}

/// Balancers of these strengths.
pub fn balance(bias_rate: f64, switch: f64, sequence: f64, z: f64) -> BalanceConfig {
    BalanceConfig {
        bias: Bias { bias_rate },
        switch: Switch { switch },
        sequence: Sequence { sequence },
        z: Z { z },
        ..BalanceConfig::default()
    }
}

/// A router of these scores.
pub fn router(score: Score) -> RouterConfig {
    RouterConfig::TopK(TopKSettings { score, norm_weights: true, route_scale: 1.5 })
}

pub fn autodiff() -> Device {
    Device::flex().autodiff()
}

/// Samples of two documents each, the second a variant, with some padding: a pure function of t.
pub fn sample(t: u64, seq: usize) -> Sample {
    let stream = Stream::new(7, "sample");
    let draw = |i: usize| stream.bits(t * 1000 + i as u64);
    let used = seq - (t % 3) as usize;
    let cut = 2 + draw(999) as usize % (used - 3);
    let tokens: Vec<u32> =
        (0..seq).map(|i| if i < used { 1 + (draw(i) % (VOCAB as u64 - 1)) as u32 } else { 0 }).collect();
    let segment = |i: usize| {
        if i < cut {
            0
        } else if i < used {
            1
        } else {
            PADDING
        }
    };
    let has_target = |i: usize| i + 1 < used && i + 1 != cut;
    let piece = |start: usize, end: usize, variant| Piece {
        start: start as u32,
        len: (end - start) as u32,
        shard: 0,
        doc: 0,
        offset: 0,
        family: FamilyId(t),
        variant,
    };
    Sample {
        id: SampleId { pool: (t % 2) as u16, pass: (t / 40) as u32, bin: t },
        targets: (0..seq).map(|i| if has_target(i) { tokens[i + 1] } else { 0 }).collect(),
        loss_mask: (0..seq).map(has_target).collect(),
        segments: (0..seq).map(segment).collect(),
        positions: (0..seq).map(|i| if i < cut { i } else if i < used { i - cut } else { 0 } as u32).collect(),
        pieces: vec![piece(0, cut, 0), piece(cut, used, 1)],
        tokens,
    }
}

pub fn batch(first_t: u64, n: u64) -> Batch {
    let samples: Vec<Sample> = (first_t..first_t + n).map(|t| sample(t, SEQ)).collect();
    Batch::new(first_t, &samples)
}

/// A training state with a fresh model.
pub fn state(config: &ModelConfig) -> TrainState {
    state_on(config, &Device::flex())
}

pub fn state_on(config: &ModelConfig, device: &Device) -> TrainState {
    let model = Model::new(config, 3, &device.clone().autodiff());
    let adamw = AdamWConfig::default();
    let optimizer = Optimizer::new(adamw, &model);
    TrainState::new(model, optimizer)
}

pub fn step_config(micro_batch: usize, rate: f64) -> StepConfig {
    let kind = ScheduleKind::Wsd;
    let schedule =
        Schedule { kind, peak: rate, warmup: 0, decay: 0, period: None, floor: 1.0, n_steps: 1000 };
    StepConfig { micro_batch, clip: 1.0, skip: None, average: None, schedule, seed: 1, recompute: false }
}

struct Synthetic;

impl SampleSource for Synthetic {
    fn len(&self) -> u64 {
        80
    }

    fn seq_len(&self) -> usize {
        SEQ
    }

    fn sample(&self, t: u64) -> moe_train::Result<Sample> {
        Ok(sample(t, SEQ))
    }

    fn validation_len(&self) -> u64 {
        4
    }

    fn validation_sample(&self, i: u64) -> moe_train::Result<Sample> {
        Ok(sample(10_000 + i, SEQ))
    }
}

pub fn corpus() -> Corpus {
    Corpus {
        samples: Arc::new(Synthetic),
        plan_id: Hash::of(b"synthetic"),
        vocab_size: VOCAB,
        eod: 0,
        token_bytes: vec![2; VOCAB],
        pool_names: vec!["even".into(), "odd".into()],
        tokenizer: b"{}".to_vec(),
        chat: Vec::new(),
    }
}

/// Whether some block has heads of `attention.heads`.
pub fn has_shared_heads(assignments: &[&str]) -> bool {
    let kind = assignments.iter().find_map(|assignment| assignment.strip_prefix("attention.kind="));
    kind.is_none_or(|kind| ["gqa", "swa"].contains(&kind))
}

/// A run of 20 steps of the model above.
pub fn run_config(assignments: &[&str]) -> RunConfig {
    let base = [
        "run.log_every=1",
        "run.eval_every=10",
        "run.save_every=5",
        "data.batch=4",
        "model.d_model=12",
        "model.layers=2",
        "model.dense_ffn=10",
        "attention.heads=2",
        "attention.kv_heads=1",
        "moe.experts=5",
        "moe.expert_ffn=7",
        "moe.balance.bias_rate=0.01",
        "moe.balance.sequence=0.01",
        "moe.balance.z=0.001",
        "optim.lr=0.01",
    ];
    let (mut values, mut problems) = (Values::default(), Vec::new());
    let of_heads = |assignment: &str| assignment.starts_with("attention.");
    let base = base.iter().filter(|assignment| has_shared_heads(assignments) || !of_heads(assignment));
    for assignment in base.chain(assignments) {
        values.read_assignment(assignment, &mut problems);
    }
    let config = RunConfig::new(values, problems).expect("a valid configuration");
    config.with_plan_len(&Synthetic).expect("a plan that is long enough")
}

/// Prints nothing; stops the run after a step if requested.
#[derive(Default)]
pub struct Silent {
    pub stop_after: Option<u64>,
    pub stop: Arc<AtomicBool>,
}

impl Observer for Silent {
    fn step(&mut self, progress: &Progress) {
        if self.stop_after == Some(progress.step) {
            self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    fn validation(&mut self, _: u64, _: &Validation) {}

    fn tasks(&mut self, _: u64, _: &[TaskResult]) {}

    fn alarm(&mut self, _: u64, _: &Alarm) {}

    fn saved(&mut self, _: &Path) {}
}

/// Continues training from `state`, with the measurements since its last line of metrics, or from a fresh
/// one, to the end or to `stop_after`.
pub fn train(
    dir: &Path,
    config: &RunConfig,
    state: Option<(TrainState, Interval)>,
    stop_after: Option<u64>,
) -> Summary {
    std::fs::create_dir_all(dir).expect("folder");
    let corpus = corpus();
    let (state, interval) = state.unwrap_or_else(|| {
        let model = Model::new(&config.model(VOCAB, SEQ), config.run.seed, &autodiff());
        let optimizer = Optimizer::new(config.groups.clone(), &model);
        (TrainState::new(model, optimizer), Interval::default())
    });
    let validator = Validator::new(&corpus, config.data.validation_samples, config.data.samples_per_pass())
        .expect("samples");
    let mut observer = Silent { stop_after, ..Silent::default() };
    let stop = observer.stop.clone();
    // The observer runs before the loop looks at the flag of the next step, so the loop stops one
    // step later than it is told to; what matters here is that it saves there.
    let run_of = Run {
        dir,
        config,
        corpus: &corpus,
        validator: validator.as_ref(),
        suite: None,
        interval,
        stop: &stop,
        stop_after: None,
        fail_on: &[],
    };
    run(state, run_of, &mut observer).expect("a run")
}

/// The state of a checkpoint, ready for [`train`].
pub fn loaded(path: &Path) -> (TrainState, Interval) {
    let loaded = moe_train::checkpoint::load(path).expect("whole");
    let interval =
        loaded.state.interval.clone().map(|value| Interval::from_json(value).expect("an interval"));
    (loaded.train_state(&autodiff()).expect("a state"), interval.unwrap_or_default())
}

pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("f32")
}

/// The largest absolute difference.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// `n` numbers between -1 and 1.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let stream = Stream::new(seed, "noise");
    (0..n as u64).map(|i| (2.0 * stream.uniform(i) - 1.0) as f32).collect()
}

/// A build and a plan on disk, as `moe-data` would write them: one source of generated documents, two passes,
/// every tenth family held out.
pub fn write_plan(dir: &Path, seed: u64) {
    write_plan_with(dir, seed, true);
}

/// The same with nothing held out.
pub fn write_plan_without_validation(dir: &Path, seed: u64) {
    write_plan_with(dir, seed, false);
}

fn write_plan_with(dir: &Path, seed: u64, holds_out: bool) {
    const SEQ_LEN: u32 = 32;
    let words = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let vocab: Vec<String> =
        words.iter().enumerate().map(|(i, word)| format!("\"{word}\":{}", i + 1)).collect();
    let tokenizer = format!(
        "{{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,\
         \"pre_tokenizer\":{{\"type\":\"Whitespace\"}},\"post_processor\":null,\"decoder\":null,\
         \"model\":{{\"type\":\"WordLevel\",\"vocab\":{{\"[EOD]\":0,{}}},\"unk_token\":\"[EOD]\"}}}}",
        vocab.join(",")
    );
    let token_bytes: Vec<u8> = (0..9u16).flat_map(|id| u16::from(id > 0).to_le_bytes()).collect();
    std::fs::create_dir_all(dir).expect("folder");
    std::fs::write(dir.join("tokenizer.json"), &tokenizer).expect("write");
    std::fs::write(dir.join("token_bytes.u16"), &token_bytes).expect("write");
    let tokenizer = TokenizerInfo {
        file: "tokenizer.json".into(),
        blake3: Hash::of(tokenizer.as_bytes()),
        vocab_size: 9,
        eod_id: 0,
        token_bytes_file: "token_bytes.u16".into(),
        token_bytes_blake3: Hash::of(&token_bytes),
    };
    let build = Hash::of(b"generated");
    let spec = ShardSpec { vocab_size: 9, eod: TokenId(0), tokenizer: tokenizer.blake3, build };
    let mut writer = ShardWriter::create(&dir.join("shards"), "words-v0-00000", spec).expect("shard");
    let n_docs = 200u64;
    for doc in 0..n_docs {
        // Each word is followed by the next one, with occasional exceptions: easy to learn.
        let len = 5 + mix(seed ^ doc) % 20;
        let word = |i: u64| 1 + ((mix(doc) + i + mix(doc * 100 + i) % 8 / 7) % 8) as u32;
        let tokens: Vec<TokenId> = (0..len).map(|i| TokenId(word(i))).collect();
        let meta =
            DocumentMeta { family: FamilyId(doc << 32), n_bytes: len as u32, ..DocumentMeta::default() };
        writer.append(&format!("doc-{doc}"), &meta, &tokens).expect("document");
    }
    let shard = writer.finish().expect("shard");
    let shard_ref = ShardRef { name: shard.name.clone(), mdx_blake3: shard.mdx_blake3 };
    let manifest = Manifest {
        version: Manifest::VERSION,
        build,
        tokenizer,
        sources: vec![SourceInfo { name: "words".into(), variants: vec!["original".into()] }],
        languages: Vec::new(),
        tags: Vec::new(),
        shards: vec![shard],
    };
    manifest.write(dir).expect("manifest");

    let pack = |name: &str, docs: &mut dyn Iterator<Item = u64>| {
        let mut bins = Bins::default();
        let mut room = SEQ_LEN;
        let mut docs = docs.peekable();
        let is_empty = docs.peek().is_none();
        for doc in docs {
            let len = 5 + (mix(seed ^ doc) % 20) as u32 + 1;
            if len > room {
                bins.close();
                room = SEQ_LEN;
            }
            bins.pieces.push(PackedPiece { doc: doc as u32, offset: 0, len });
            room -= len;
        }
        if !is_empty {
            bins.close();
        }
        let file = format!("plan/{name}.pack");
        bins.write(&dir.join(&file), SEQ_LEN).expect("pack index");
        let blake3 = Hash::of_file(&dir.join(&file)).expect("hash");
        (bins.len() as u64, PackRef { file, blake3 })
    };
    let is_held_out = |doc: u64| holds_out && doc.is_multiple_of(10);
    let n_held_out = if holds_out { n_docs / 10 } else { 0 };
    let passes: Vec<PassLock> = (0..2u64)
        .map(|pass| {
            let mut docs: Vec<u64> = (0..n_docs).filter(|doc| !is_held_out(*doc)).collect();
            docs.sort_by_key(|doc| mix(doc ^ pass << 40));
            let (n_bins, pack) = pack(&format!("words-{pass}"), &mut docs.into_iter());
            let n = 0;
            PassLock {
                bins_per_window: vec![n_bins],
                trained_tokens: n,
                placed_tokens: n,
                originals: n,
                pack: Some(pack),
            }
        })
        .collect();
    let (n_bins, validation) = pack("words-validation", &mut (0..n_docs).filter(|doc| is_held_out(*doc)));
    let n_samples = passes.iter().map(PassLock::n_bins).sum();
    let counts = "plan/main.counts".to_string();
    let rule = Interleaver::new(&[n_samples]).expect("quotas");
    Counts::write(&dir.join(&counts), &rule).expect("counts");
    let counts_blake3 = Hash::of_file(&dir.join(&counts)).expect("hash");
    let mut lock = PlanLock {
        version: PLAN_VERSION,
        seed,
        holdout_ppm: if holds_out { 100_000 } else { 0 },
        proxy: None,
        manifest: manifest.hash().expect("hash"),
        pools: vec![PoolLock {
            name: "words".into(),
            generation: 0,
            shards: vec![shard_ref],
            seq_len: SEQ_LEN,
            packing: Packing::BestFit,
            n_families: n_docs - n_held_out,
            n_families_with_variants: 0,
            original_share: [1, 1],
            variants: Default::default(),
            layout: Default::default(),
            order: Default::default(),
            selection: None,
            max_uses_per_text: None,
            continues: None,
            windows: vec![0, n_docs - n_held_out],
            passes,
            validation: ValidationLock {
                n_families: n_held_out,
                n_bins,
                trained_tokens: 0,
                pack: validation,
            },
        }],
        phases: vec![PhaseLock {
            name: "main".into(),
            generation: 0,
            t_start: 0,
            n_samples,
            shown_samples: None,
            seq_len: SEQ_LEN,
            quotas: vec![n_samples],
            counts: PackRef { file: counts, blake3: counts_blake3 },
            chain: Hash::default(),
        }],
        extends: Vec::new(),
        takedowns: Vec::new(),
        id: Hash::default(),
    };
    lock.seal().expect("seal");
    lock.write(dir).expect("plan");
}

/// Checks that CONTRIBUTING.md shows an example, word for word, except for its title and its test.
pub fn assert_shown(own: &str) {
    let is_shown = |part: &&str| !part.contains("mod registry") && !part.contains("#[test]");
    let shown: Vec<&str> = own.split("\n\n").skip(1).take_while(is_shown).collect();
    let page = include_str!("../../../CONTRIBUTING.md");
    assert!(page.contains(&shown.join("\n\n")), "CONTRIBUTING.md shows something else than this file");
}
