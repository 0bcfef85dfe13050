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
    let loaded = checkpoint::load(&path).expect("whole");
    assert_eq!(loaded.state.parameter_hash, first.parameter_hash);
    let state = loaded.train_state(&autodiff()).expect("a state");
    let config = run_config(&["data.prefetch=1", "run.log_every=3", "run.save_every=4"]);
    let second = train(broken.path(), &config, Some(state), None);
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
        optim/grad_norm optim/clip_frac perf/tokens_per_s data/t data/hash data/tokens_seen router/1/load \
        router/1/maxvio router/1/h_norm router/1/e_eff router/1/dead router/1/max_load router/1/dropped \
        router/1/bias_range router/1/logit_max router/1/logit_min router/1/z";
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
