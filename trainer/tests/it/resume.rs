use std::path::Path;
use std::sync::Arc;

use moe_train::checkpoint;
use moe_train::data::{DataDigest, Loader, SampleSource};
use moe_train::error::Error;

use crate::support::*;

/// The data hash after reading 40 samples in some batch size, starting over in between.
fn digest(prefetch: usize, batch: usize, restart: bool) -> moe_shards::Hash {
    let source: Arc<dyn SampleSource> = corpus().samples;
    let mut loader = Loader::new(source.clone(), 0..40, prefetch, DataDigest::new());
    for at in (0..40).step_by(batch) {
        if restart && at == 20 {
            loader =
                Loader::new(source.clone(), 20..40, prefetch, DataDigest::resume(loader.digest().hash()));
        }
        assert_eq!(loader.next_batch(batch).expect("a batch").first_t, at as u64);
    }
    assert!(loader.next_batch(1).is_err(), "nothing comes after the end");
    loader.digest().hash()
}

#[test]
fn the_order_of_the_data_depends_on_nothing() {
    let expected = digest(0, 4, false);
    for prefetch in [0, 1, 8] {
        for (batch, restart) in [(4, true), (5, false), (10, true), (40, false)] {
            assert_eq!(digest(prefetch, batch, restart), expected, "prefetch {prefetch}, batch {batch}");
        }
    }
}

#[test]
fn a_resumed_run_is_bit_for_bit_the_run_without_interruption() {
    let (straight, broken) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let whole = train(straight.path(), &run_config(&[]), None, None);
    assert!(!whole.interrupted && whole.step == 20);

    let first = train(broken.path(), &run_config(&[]), None, Some(7));
    assert!(first.interrupted && first.step < 20);
    let path = checkpoint::resolve(broken.path(), None).expect("a checkpoint");
    assert_eq!(path, first.checkpoint);
    assert_eq!(checkpoint::load(&path).expect("whole").state.parameter_hash, first.parameter_hash);
    let config = run_config(&["data.prefetch=1", "run.log_every=3", "run.save_every=4"]);
    let second = train(broken.path(), &config, Some(loaded(&path)), None);
    assert_eq!(second.parameter_hash, whole.parameter_hash);
    assert_eq!(second.data_hash, whole.data_hash);

    let steps: Vec<u64> = std::fs::read_to_string(broken.path().join("metrics.jsonl"))
        .expect("metrics")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|line| line.get("train/ce").is_some())
        .filter_map(|line| line["step"].as_u64())
        .collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "no step twice: {steps:?}");
}

#[test]
fn every_rule_resumes_bit_for_bit() {
    let dir = tempfile::tempdir().expect("dir");
    for kind in moe_train::optim::rule::kinds() {
        let folder = |name: &str| dir.path().join(format!("{kind}-{name}"));
        let config = run_config(&["run.steps=6", "run.save_every=3", &format!("optim.kind={kind}")]);
        let whole = train(&folder("straight"), &config, None, None);
        train(&folder("broken"), &config, None, Some(2));
        let path = checkpoint::resolve(&folder("broken"), None).expect("a checkpoint");
        let second = train(&folder("broken"), &config, Some(loaded(&path)), None);
        assert_eq!(second.parameter_hash, whole.parameter_hash, "{kind}");
    }
}

#[test]
fn groups_of_the_configuration_train_and_resume_bit_for_bit() {
    let dir = tempfile::tempdir().expect("dir");
    let groups = "optim.group=[{names=['blocks.*'], rule='normuon', lr=0.02}, {names=['*.router.*'], frozen=true}, \
                  {names=['head'], rule='lion', lr=1e-3, beta2=0.5}]";
    let base = ["run.steps=6", "run.save_every=3", "model.tie_embeddings=false"];
    let config = run_config(&[&base[..], &[groups]].concat());
    let whole = train(&dir.path().join("straight"), &config, None, None);
    let broken = dir.path().join("broken");
    train(&broken, &config, None, Some(2));
    let (start, _) = loaded(&checkpoint::resolve(&broken, Some("step-00000000")).expect("a checkpoint"));
    let path = checkpoint::resolve(&broken, None).expect("a checkpoint");
    let found = checkpoint::load(&path).expect("whole");
    assert_eq!(found.config.values.to_toml(false), config.values.to_toml(false));
    let (state, interval) = loaded(&path);
    let parameters =
        |state: &moe_train::train::TrainState| moe_train::model::parameters::parameters(&state.model);
    for (old, new) in parameters(&start).iter().zip(parameters(&state)) {
        assert_eq!(old.to_host() == new.to_host(), old.name.contains(".router."), "{}", old.name);
    }
    let kept: Vec<String> =
        state.optimizer.state(&state.model).into_iter().map(|tensor| tensor.name).collect();
    assert!(kept.contains(&"m.head".to_string()) && !kept.contains(&"v.head".to_string()), "{kept:?}");
    assert!(kept.contains(&"v.embedding".to_string()) && !kept.iter().any(|name| name.contains("router")));
    let second = train(&broken, &config, Some((state, interval)), None);
    assert_eq!(second.parameter_hash, whole.parameter_hash);
    let plain = train(&dir.path().join("plain"), &run_config(&base), None, None);
    assert_ne!(whole.parameter_hash, plain.parameter_hash);
}

#[test]
fn muon_keeps_momentum_of_hidden_matrices_and_moments_of_the_rest() {
    let dir = tempfile::tempdir().expect("dir");
    train(dir.path(), &run_config(&["run.steps=1", "optim.kind=normuon"]), None, None);
    let (state, _) = loaded(&checkpoint::resolve(dir.path(), None).expect("a checkpoint"));
    let kept = state.optimizer.state(&state.model);
    let shape = |name: &str| kept.iter().find(|tensor| tensor.name == name).map(|t| t.shape.clone());
    let experts = "blocks.1.feed_forward.experts.w_up";
    assert_eq!(shape(&format!("momentum.{experts}")), Some(vec![5, 12, 7]));
    assert_eq!(shape(&format!("neurons.{experts}")), Some(vec![5, 1, 7]));
    assert_eq!(shape(&format!("m.{experts}")), None);
    for name in ["embedding", "norm.weight", "blocks.1.feed_forward.router.weight"] {
        assert!(shape(&format!("m.{name}")).is_some(), "{name}: {:?}", kept.iter().map(|t| &t.name));
        assert_eq!(shape(&format!("momentum.{name}")), None);
    }
}

fn metrics_with_clock(dir: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The lines of a run's metrics without times.
fn metrics(dir: &Path) -> Vec<serde_json::Value> {
    let mut lines = metrics_with_clock(dir);
    for line in &mut lines {
        line.as_object_mut().expect("an object").retain(|key, _| !key.starts_with("perf/"));
    }
    lines
}

#[test]
fn a_run_resumed_between_two_lines_writes_the_metrics_of_an_uninterrupted_one() {
    let (straight, broken) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let config = run_config(&["run.log_every=7", "run.save_every=5", "run.keep=9", "optim.clip=0.1"]);
    train(straight.path(), &config, None, None);
    train(broken.path(), &config, None, Some(12));
    // Step 13, six steps after the last line.
    let path = checkpoint::resolve(broken.path(), None).expect("a checkpoint");
    train(broken.path(), &config, Some(loaded(&path)), None);
    assert_eq!(metrics(broken.path()), metrics(straight.path()));
    // And from an earlier one, three steps after a line that is cut off.
    let path = checkpoint::resolve(broken.path(), Some("step-00000010")).expect("a checkpoint");
    train(broken.path(), &config, Some(loaded(&path)), None);
    assert_eq!(metrics(broken.path()), metrics(straight.path()));
}

#[test]
fn an_interrupted_run_has_no_validation_of_other_parameters() {
    let dir = tempfile::tempdir().expect("dir");
    let config = run_config(&["run.eval_every=4"]);
    let whole = train(&dir.path().join("whole"), &config, None, None);
    assert!(whole.validation.is_some_and(|v| v.losses.all.nats().is_some()));
    let interrupted = train(&dir.path().join("interrupted"), &config, None, Some(5));
    assert!(interrupted.interrupted && interrupted.validation.is_none());
}

#[test]
fn neither_prefetch_nor_micro_batch_changes_what_is_read() {
    let dir = tempfile::tempdir().expect("dir");
    let hash = |name: &str, assignments: &[&str]| {
        let run = dir.path().join(name);
        std::fs::create_dir(&run).expect("folder");
        train(&run, &run_config(&[&["run.steps=6"], assignments].concat()), None, None).data_hash
    };
    let expected = hash("plain", &["data.prefetch=0"]);
    assert_eq!(hash("ahead", &["data.prefetch=8"]), expected);
    assert_eq!(hash("split", &["data.prefetch=1", "data.micro_batch=3"]), expected);
    assert_ne!(hash("other", &["data.batch=3"]), expected, "a batch of 3 reads other samples in 6 steps");
}

#[test]
fn metrics_have_all_their_keys() {
    let dir = tempfile::tempdir().expect("dir");
    train(dir.path(), &run_config(&["run.steps=2"]), None, None);
    let text = std::fs::read_to_string(dir.path().join("metrics.jsonl")).expect("metrics");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let keys = "schema step train/ce train/bpb train/total train/aux_switch train/aux_sequence train/z \
        train/source/even/ce train/source/odd/ce train/pass/0/ce train/variant/0/ce train/variant/1/ce optim/lr \
        optim/grad_norm optim/clip_frac optim/update_rms perf/tokens_per_s perf/data_wait perf/tflops data/t data/hash data/tokens_seen data/tokens_read router/1/load \
        router/1/maxvio router/1/h_norm router/1/e_eff router/1/dead router/1/max_load router/1/dropped \
        router/1/bias_range router/1/logit_max router/1/logit_min router/1/z router/1/rows_min router/1/rows_mean \
        router/1/rows_max router/1/source/even/load router/1/source/odd/load router/1/source_information router/1/confidence";
    for key in keys.split_whitespace() {
        assert!(
            lines[0].get(key).is_some_and(|value| !value.is_null()),
            "{key} is missing from {}",
            lines[0]
        );
    }
    let validation = lines.last().expect("lines");
    for key in ["validation/ce", "validation/bpb", "validation/unigram_ce", "validation/source/odd/ce"] {
        assert!(validation.get(key).is_some_and(serde_json::Value::is_f64), "{key}: {validation}");
    }
    for key in ["maxvio", "e_eff", "dead", "max_load", "source_information"] {
        let key = format!("validation/router/1/{key}");
        assert!(validation.get(&key).is_some_and(serde_json::Value::is_number), "{key}: {validation}");
    }
    assert!(lines[0].get("perf/mfu").is_none(), "a share of what is not known");
    train(&dir.path().join("b"), &run_config(&["run.steps=1", "run.peak_tflops=0.5"]), None, None);
    let line = metrics_with_clock(&dir.path().join("b")).remove(0);
    let number = |key: &str| line[key].as_f64().expect("a number");
    assert!((number("perf/mfu") - number("perf/tflops") / 0.5).abs() < 1e-12);
    // 2 choices of each of the real tokens among 5 experts.
    let rows = number("router/1/rows_mean") * 5.0 / 2.0;
    assert!(rows > 0.0 && rows <= 48.0 && rows.fract().abs() < 1e-9, "{rows}");
}

#[test]
fn a_checkpoint_of_version_1_opens_forever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoint-v1");
    let old = checkpoint::load(&path).expect("whole");
    assert_eq!((old.state.version, old.state.step, old.state.interval.is_none()), (1, 3, true));
    let (state, interval) = loaded(&path);
    assert!(interval.is_empty());
    let hash = checkpoint::parameter_hash(&moe_train::model::parameters::parameters(&state.model));
    assert_eq!(hash, old.state.parameter_hash);
    assert_eq!(hash.short(), "929754ad6b08");
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("write");
}

#[test]
fn a_flipped_bit_is_found_and_the_last_good_checkpoint_named() {
    for file in ["model.safetensors", "optim.safetensors", "state.json", "config.toml", "tokenizer.json"] {
        let dir = tempfile::tempdir().expect("dir");
        train(dir.path(), &run_config(&["run.steps=10"]), None, None);
        let path = checkpoint::resolve(dir.path(), None).expect("a checkpoint");
        assert!(checkpoint::load(&path).is_ok());
        flip(&path.join(file));
        let error = checkpoint::load(&path).expect_err("damaged");
        assert_eq!(error.exit_code(), 4);
        let text = error.to_string();
        assert!(text.contains(file) && text.contains("--from step-00000005"), "{text}");
        let good = checkpoint::resolve(dir.path(), Some("step-00000005")).expect("there");
        assert!(checkpoint::load(&good).is_ok());
    }
}

#[test]
fn only_the_newest_checkpoints_stay() {
    let dir = tempfile::tempdir().expect("dir");
    train(dir.path(), &run_config(&["run.keep=2"]), None, None);
    let mut names: Vec<String> = std::fs::read_dir(dir.path().join("checkpoints"))
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["latest", "step-00000015", "step-00000020"]);
}

#[test]
fn a_missing_run_says_so() {
    let error = checkpoint::resolve(Path::new("no/such/run"), None).expect_err("nothing there");
    assert!(matches!(error, Error::Checkpoint { .. }));
}
