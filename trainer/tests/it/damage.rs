use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moe_shards::Plan;
use moe_train::data::SampleSource;
use moe_train::data::checked_plan::CheckedPlan;

use crate::support::write_plan;

/// Changes one byte of the tokens, two bytes each, of document `doc` by `change`.
fn damage(out: &Path, doc: u32, change: impl FnOnce(&mut [u8])) {
    let plan = Plan::open(out).expect("the plan opens");
    let (start, len) = plan.shards()[0].span(doc).expect("the document is there");
    let path = out.join("shards/words-v0-00000.bin");
    let mut bytes = std::fs::read(&path).expect("read");
    change(&mut bytes[2 * start as usize..2 * (start + len) as usize]);
    std::fs::write(&path, bytes).expect("write");
}

fn train(dir: &Path) -> (Option<i32>, String) {
    let args = ["--shards", "out", "--preset", "smoke", "--steps", "2", "--run", "r", "-q"];
    let output = Command::new(env!("CARGO_BIN_EXE_moe-train"))
        .args(args)
        .current_dir(dir)
        .output()
        .expect("the program runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// An id beyond the vocabulary used to panic in burn, an id within it was trained on.
#[test]
fn a_damaged_token_ends_a_run_before_its_first_step_naming_shard_and_document() {
    for (what, expected) in [
        (&[0xff, 0xff], "token 65535 at position 0 is outside the vocabulary of 9"),
        (&[0x09, 0x00], "token 9 at position 0"),
        (&[0x00, 0x00], "checksum"),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        write_plan(&dir.path().join("out"), 1);
        damage(&dir.path().join("out"), 17, |tokens| tokens[..2].copy_from_slice(what));
        let (code, said) = train(dir.path());
        assert_eq!(code, Some(3), "{said}");
        for part in ["words-v0-00000", "doc-17`", expected] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("panicked") && !dir.path().join("r").exists(), "{said}");
    }
}

#[test]
fn a_shard_that_became_shorter_is_named() {
    let dir = tempfile::tempdir().expect("dir");
    let out = dir.path().join("out");
    write_plan(&out, 1);
    let plan = Plan::open(&out).expect("the plan opens");
    plan.sample(0).expect("it is whole");
    let bin = std::fs::File::options().write(true).open(out.join("shards/words-v0-00000.bin"));
    bin.and_then(|bin| bin.set_len(4096)).expect("truncate");
    let error = plan.sample(0).expect_err("it is shorter").to_string();
    assert!(error.contains("words-v0-00000.bin: file size: expected"), "{error}");
    drop(plan);
    let (code, said) = train(dir.path());
    assert_eq!((code, said.contains("words-v0-00000")), (Some(3), true), "{said}");
}

/// A large data set is checked during training, and the next sample reports what was found.
#[test]
fn damage_that_is_found_in_the_background_ends_the_run() {
    let dir = tempfile::tempdir().expect("dir");
    let out = dir.path().join("out");
    write_plan(&out, 1);
    // A held-out document, which no training sample would read.
    damage(&out, 20, |tokens| tokens[0] ^= 1);
    let source = CheckedPlan::start(Plan::open(&out).expect("the plan opens"), 0).expect("it starts");
    let source: Arc<dyn SampleSource> = Arc::new(source);
    let deadline = Instant::now() + Duration::from_secs(60);
    let error = loop {
        if let Err(error) = source.sample(0) {
            break error;
        }
        assert!(Instant::now() < deadline, "nothing was found");
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("doc-20`"), "{error}");
    assert!(CheckedPlan::start(Plan::open(&out).expect("the plan opens"), u64::MAX).is_err());
}
