use std::path::{Path, PathBuf};

use moe_shards::{Error, Plan, Sample};

fn plan() -> Plan {
    let dir: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/plan-v1-best-fit");
    Plan::open(&dir).unwrap()
}

/// Samples `from..` in batches, each read by `world` ranks at the same time.
fn read(plan: &Plan, from: u64, batch: u64, world: u32) -> Vec<Sample> {
    let mut seen = Vec::new();
    let mut t = from;
    while t < plan.len() {
        let end = (t + batch).min(plan.len());
        let parts: Vec<Vec<Sample>> = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..world)
                .map(|rank| scope.spawn(move || plan.batch(t..end, rank, world).unwrap()))
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        // No rank has more than one sample more than another.
        let sizes = parts.iter().map(Vec::len);
        assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        seen.extend(parts.into_iter().flatten());
        t = end;
    }
    seen
}

#[test]
fn world_and_batch_size_change_nothing_in_the_sequence() {
    let plan = plan();
    let straight: Vec<Sample> = (0..plan.len()).map(|t| plan.sample(t).unwrap()).collect();
    for world in [1, 2, 3, 5, 8] {
        for batch in [7, 32, 33] {
            assert!(read(&plan, 0, batch, world) == straight, "world {world}, batch {batch}");
        }
    }
}

/// A run that stops at any sample continues with another world and batch size.
#[test]
fn a_run_resumes_anywhere_with_another_world_and_batch_size() {
    let plan = plan();
    let straight: Vec<Sample> = (0..plan.len()).map(|t| plan.sample(t).unwrap()).collect();
    for t in (0..plan.len()).step_by(13) {
        assert!(read(&plan, t, 9, 4) == straight[t as usize..], "from sample {t}");
    }
}

#[test]
fn errors_come_in_the_place_of_the_sample() {
    let plan = plan();
    let n = plan.len();
    // Only the rank whose slice leaves the plan gets the error.
    assert_eq!(plan.batch(n - 2..n + 2, 0, 2).unwrap().len(), 2);
    let error = plan.batch(n - 2..n + 2, 1, 2).unwrap_err();
    assert!(matches!(error, Error::PlanExhausted { t, len } if (t, len) == (n, n)), "{error}");
    assert!(plan.batch(0..4, 2, 2).unwrap_err().to_string().contains("rank 2 of 2"));
    assert!(plan.batch(5..5, 0, 3).unwrap().is_empty());
}
