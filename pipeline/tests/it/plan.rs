use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use moe_data::mix::count::Count;
use moe_data::mix::mixture::{MixConfig, Mixture, PoolConfig};
use moe_data::mix::{MixOptions, make_plan};
use moe_data::watch::Watch;
use moe_shards::family::Holdout;
use moe_shards::{Error, FamilyId, Packing, Plan, Sample};
use proptest::prelude::*;

use crate::generated::{Source, families, family_id, generated_build, source};

fn mixture(config: MixConfig, pools: &[&str]) -> Mixture {
    let pool = pools.iter().map(|name| PoolConfig { source: (*name).into(), ..PoolConfig::default() });
    Mixture { mix: config, pool: pool.collect(), ..Mixture::default() }
}

fn plan(out: &Path, config: MixConfig, sources: &[Source<'_>]) -> Plan {
    let manifest = generated_build(out, 5000, sources);
    let names: Vec<&str> = sources.iter().map(|source| source.name).collect();
    let options = MixOptions { force: true, ..MixOptions::default() };
    make_plan(out, &manifest, &mixture(config, &names), &options, &Watch::idle()).unwrap();
    Plan::open(out).unwrap()
}

fn config(seq_len: u32, packing: Packing) -> MixConfig {
    MixConfig { seq_len, packing, holdout: 0.05, seed: 3, ..MixConfig::default() }
}

/// What a pass showed: for each family the (variant, offset, len) of its pieces.
type Shown = BTreeMap<FamilyId, Vec<(u8, u32, u32)>>;

fn shown_by_pass(plan: &Plan) -> BTreeMap<(u16, u32), Shown> {
    let mut passes = BTreeMap::<(u16, u32), Shown>::new();
    for t in 0..plan.len() {
        let sample = plan.sample(t).unwrap();
        let pass = passes.entry((sample.id.pool, sample.id.pass)).or_default();
        for piece in &sample.pieces {
            pass.entry(piece.family).or_default().push((piece.variant, piece.offset, piece.len));
        }
    }
    passes
}

fn check_passes(plan: &Plan, sources: &[Source<'_>], epochs: u32, seq_len: u32, packing: Packing) {
    let holdout = Holdout { ppm: 50_000, seed: 3 };
    let passes = shown_by_pass(plan);
    assert_eq!(passes.len() as u32, epochs * sources.len() as u32);
    for (number, source) in sources.iter().enumerate() {
        let mut uses = BTreeMap::<(FamilyId, u8), u32>::new();
        for pass in 0..epochs {
            let mut shown = passes[&(number as u16, pass)].clone();
            let (mut with_variants, mut originals) = (0u32, 0u32);
            for (i, texts) in source.families.iter().enumerate() {
                let id = family_id(number, i);
                let Some(mut pieces) = shown.remove(&id) else {
                    assert!(holdout.contains(id), "family {i} is missing from pass {pass}");
                    continue;
                };
                assert!(!holdout.contains(id), "held-out family {i} is trained on");
                // One text of the family, each of its tokens once.
                let variant = pieces[0].0;
                assert!(pieces.iter().all(|piece| piece.0 == variant), "two texts of one family in a pass");
                let len = 1 + texts.iter().find(|text| text.0 == variant).unwrap().1 as u32;
                pieces.sort_unstable_by_key(|piece| piece.1);
                assert!(
                    packing == Packing::Concat || len > seq_len || pieces.len() == 1,
                    "a document that fits was cut"
                );
                let end = pieces.iter().fold(0, |at, piece| {
                    assert_eq!(piece.1, at);
                    at + piece.2
                });
                assert_eq!(end, len);
                *uses.entry((id, variant)).or_default() += 1;
                if texts.len() > 1 {
                    with_variants += 1;
                    originals += u32::from(variant == 0);
                }
            }
            assert!(shown.is_empty(), "families from nowhere");
            // Half of the families with variants show their original, exact to one family.
            assert!((2 * originals).abs_diff(with_variants) <= 1, "{originals} of {with_variants}");
        }
        // All texts of a family are used before one repeats too often.
        for (i, texts) in
            source.families.iter().enumerate().filter(|(i, _)| !holdout.contains(family_id(number, *i)))
        {
            let count = |v: u8| uses.get(&(family_id(number, i), v)).copied().unwrap_or(0);
            let expected_originals =
                if texts.len() == 1 { epochs..=epochs } else { epochs / 2..=epochs.div_ceil(2) };
            assert!(expected_originals.contains(&count(0)), "family {i}: {} originals", count(0));
        }
    }
}

#[test]
fn every_pass_shows_every_family_once_in_one_text() {
    for packing in [Packing::BestFit, Packing::Concat] {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (families(700, 2, 60, 1), families(90, 0, 200, 2));
        let sources = [source("a", &a), source("b", &b)];
        let plan = plan(dir.path(), config(128, packing), &sources);
        check_passes(&plan, &sources, 4, 128, packing);
    }
}

#[test]
fn padding_is_below_half_a_percent() {
    for packing in [Packing::BestFit, Packing::Concat] {
        let dir = tempfile::tempdir().unwrap();
        let a = families(9000, 1, 60, 4);
        let plan = plan(dir.path(), config(128, packing), &[source("a", &a)]);
        let placed: u64 = plan.lock().pools[0].passes.iter().map(|pass| pass.placed_tokens).sum();
        let positions = plan.len() * 128;
        assert!(
            (positions - placed) * 200 < positions,
            "{packing:?}: {} of {positions} are padding",
            positions - placed
        );
    }
}

/// Held-out families never reach training, and validation shows exactly them.
#[test]
fn validation_is_disjoint_from_training() {
    let dir = tempfile::tempdir().unwrap();
    let a = families(400, 2, 60, 5);
    let plan = plan(dir.path(), config(128, Packing::BestFit), &[source("a", &a)]);
    let trained: BTreeSet<FamilyId> =
        (0..plan.len()).flat_map(|t| plan.sample(t).unwrap().pieces).map(|p| p.family).collect();
    let mut held_out = BTreeSet::new();
    for i in 0..plan.validation_len() {
        for piece in plan.validation_sample(i).unwrap().pieces {
            assert_eq!(piece.variant, 0, "validation shows originals");
            held_out.insert(piece.family);
        }
    }
    assert!(held_out.len() > 5 && trained.is_disjoint(&held_out));
    assert_eq!(trained.len() + held_out.len(), 400);
    assert!(plan.validation_sample(plan.validation_len()).is_err());
}

/// The guarantee of windows: two showings of a family are nearly a pass apart, in this pool's samples.
#[test]
fn the_gap_between_two_appearances_is_at_least_the_promised_one() {
    for packing in [Packing::BestFit, Packing::Concat] {
        let dir = tempfile::tempdir().unwrap();
        let a = families(4000, 1, 40, 7);
        let sources = [source("a", &a)];
        let manifest = generated_build(dir.path(), 5000, &sources);
        let options = MixOptions { force: true, ..MixOptions::default() };
        let outcome =
            make_plan(dir.path(), &manifest, &mixture(config(64, packing), &["a"]), &options, &Watch::idle())
                .unwrap();
        let plan = Plan::open(dir.path()).unwrap();
        let mut last = BTreeMap::<FamilyId, (u32, u64)>::new();
        let mut least = u64::MAX;
        for t in 0..plan.len() {
            let sample = plan.sample(t).unwrap();
            for piece in sample.pieces {
                if let Some((pass, before)) = last.insert(piece.family, (sample.id.pass, t))
                    && pass != sample.id.pass
                {
                    least = least.min(t - before);
                }
            }
        }
        let promised = outcome.worth[0].min_gap_samples.unwrap();
        assert!(
            least >= promised,
            "{packing:?}: a family came back after {least} samples, {promised} were promised"
        );
        assert_eq!(outcome.worth[0].windows, 16);
        assert!(outcome.worth[0].min_gap_passes.unwrap() > 0.9, "{:?}", outcome.worth[0].min_gap_passes);
    }
}

/// Stop and resume at every sample of a plan: a fresh process, an unlucky order, the same bytes.
#[test]
fn every_sample_is_the_same_in_any_order_and_after_any_restart() {
    for packing in [Packing::BestFit, Packing::Concat] {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (families(3000, 2, 30, 1), families(500, 0, 60, 2), families(40, 1, 100, 3));
        let sources = [source("a", &a), source("b", &b), source("c", &c)];
        let first = plan(dir.path(), config(32, packing), &sources);
        assert!(first.len() > 10_000, "{}", first.len());
        let straight: Vec<Sample> = (0..first.len()).map(|t| first.sample(t).unwrap()).collect();
        // A permutation of all t, read from a plan that is reopened every thousand samples.
        let order = moe_shards::permute::Permutation::new(first.len(), 5);
        let mut fresh = Plan::open(dir.path()).unwrap();
        for i in 0..first.len() {
            if i.is_multiple_of(1000) {
                fresh = Plan::open(dir.path()).unwrap();
            }
            let t = order.forward(i);
            assert!(fresh.sample(t).unwrap() == straight[t as usize], "sample {t}");
        }
        assert!(matches!(fresh.sample(first.len()), Err(Error::PlanExhausted { .. })));
    }
}

/// World size, batch size and threads change who reads a sample, never which sample it is.
#[test]
fn ranks_and_batch_sizes_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (families(300, 2, 50, 1), families(100, 0, 80, 2));
    let plan = plan(dir.path(), config(64, Packing::BestFit), &[source("a", &a), source("b", &b)]);
    let straight: Vec<Sample> = (0..plan.len()).map(|t| plan.sample(t).unwrap()).collect();
    for world in [1, 2, 3, 5, 8] {
        for batch in [7, 32, 33] {
            let mut seen = Vec::new();
            let mut t = 0;
            while t < plan.len() {
                let end = (t + batch).min(plan.len());
                // Ranks read at the same time, as the ranks of a run do.
                let parts: Vec<Vec<Sample>> = std::thread::scope(|scope| {
                    let ranks: Vec<_> = (0..world)
                        .map(|rank| {
                            scope.spawn({
                                let plan = &plan;
                                move || plan.batch(t..end, rank, world).unwrap()
                            })
                        })
                        .collect();
                    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
                });
                seen.extend(parts.into_iter().flatten());
                t = end;
            }
            assert!(seen == straight, "world {world}, batch {batch}");
        }
    }
    assert!(plan.batch(0..8, 2, 2).is_err());
}

/// The trainer's view of a sample: targets are the next tokens of the same document, once each.
#[test]
fn targets_are_the_next_tokens_and_every_one_is_trained_once() {
    for packing in [Packing::BestFit, Packing::Concat] {
        let dir = tempfile::tempdir().unwrap();
        let a = families(120, 1, 70, 9);
        let plan = plan(dir.path(), config(48, packing), &[source("a", &a)]);
        let docs = plan.pools()[0].docs();
        let mut trained = BTreeMap::<u32, u64>::new();
        for t in 0..plan.len() {
            let sample = plan.sample(t).unwrap();
            assert!(
                [sample.targets.len(), sample.segments.len(), sample.positions.len(), sample.loss_mask.len()]
                    == [48; 4]
            );
            for (segment, piece) in sample.pieces.iter().enumerate() {
                let shard = &docs.shards()[piece.shard as usize];
                let document = shard.tokens(piece.doc).unwrap().to_vec();
                for i in 0..piece.len as usize {
                    let (at, token) = (piece.start as usize + i, piece.offset as usize + i);
                    assert_eq!(sample.tokens[at], document[token]);
                    assert_eq!(sample.segments[at], segment as u32);
                    assert_eq!(sample.positions[at], i as u32);
                    assert_eq!(sample.loss_mask[at], token + 1 < document.len());
                    if sample.loss_mask[at] {
                        assert_eq!(sample.targets[at], document[token + 1]);
                        *trained.entry(sample.id.pass).or_default() += 1;
                    }
                }
            }
        }
        for (pass, count) in trained {
            assert_eq!(plan.lock().pools[0].passes[pass as usize].trained_tokens, count);
        }
    }
}

#[test]
fn weights_share_out_a_token_budget() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (families(900, 0, 50, 1), families(300, 0, 50, 2));
    let manifest = generated_build(dir.path(), 5000, &[source("a", &a), source("b", &b)]);
    let mut mixture =
        mixture(MixConfig { tokens: Some(Count(60_000)), ..config(64, Packing::BestFit) }, &["a", "b"]);
    mixture.pool[0].weight = Some(1.0);
    mixture.pool[1].weight = Some(3.0);
    let options = MixOptions::default();
    let outcome = make_plan(dir.path(), &manifest, &mixture, &options, &Watch::idle()).unwrap();
    let plan = Plan::open(dir.path()).unwrap();
    let mut trained = [0usize; 2];
    for t in 0..plan.len() {
        let sample = plan.sample(t).unwrap();
        trained[usize::from(sample.id.pool)] += sample.trained_tokens();
    }
    for (found, wanted) in trained.into_iter().zip([15_000usize, 45_000]) {
        assert!(found.abs_diff(wanted) * 100 < wanted * 2, "{found} trained tokens, {wanted} wanted");
    }
    assert!(outcome.written);
    assert!(
        !make_plan(dir.path(), &manifest, &mixture, &options, &Watch::idle()).unwrap().written,
        "nothing changed"
    );

    let forced = MixOptions { force: true, ..MixOptions::default() };
    mixture.mix.tokens = Some(Count(600_000));
    let error = make_plan(dir.path(), &manifest, &mixture, &forced, &Watch::idle()).unwrap_err().to_string();
    assert!(error.contains("pool `b`: its weight asks for 450000 trained tokens, 4 epochs have"), "{error}");
    mixture.mix.tokens = Some(Count(50_000));
    let error = make_plan(dir.path(), &manifest, &mixture, &options, &Watch::idle()).unwrap_err().to_string();
    assert!(error.contains("holds another plan") && error.contains("--force"), "{error}");
    assert!(Plan::open(dir.path()).is_ok(), "the old plan is untouched");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_invariants_hold_for_random_pools(
        n in 1usize..200, max_variants in 0u8..4, mean in 2usize..80, seed in any::<u64>(),
        seq_len in 8u32..200, epochs in 1u32..6, windows in 1u32..20, best_fit in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let packing = if best_fit { Packing::BestFit } else { Packing::Concat };
        let a = families(n, max_variants, mean, seed);
        let sources = [source("a", &a)];
        // A pool all of whose families are held out has no plan.
        prop_assume!((0..n).any(|i| !Holdout { ppm: 50_000, seed: 3 }.contains(family_id(0, i))));
        let plan = plan(dir.path(), MixConfig { epochs: f64::from(epochs), windows, ..config(seq_len, packing) }, &sources);
        check_passes(&plan, &sources, epochs, seq_len, packing);
        plan.verify().unwrap();
    }
}
