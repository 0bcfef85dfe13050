use std::collections::BTreeMap;

use moe_data::mix::{Extension, MixOptions};
use moe_data::plans::replay::replay;
use moe_data::watch::Watch;
use moe_shards::{FamilyId, Plan, Sample};
use proptest::prelude::*;

use crate::each_once::build_of_families;
use crate::generated::{families, generated_build, source};
use crate::mixture::{lens, mix, refusal, samples};
use crate::support::Scratch;

type Lens = BTreeMap<(FamilyId, u8), u32>;

fn text(packing: &str, epochs: u32, more: &str) -> String {
    format!(
        "[mix]\nseq_len = 64\nepochs = {epochs}\nholdout = 0\npacking = '{packing}'\nlayout = 'stitched'\n{more}"
    )
}

/// Segments of a sample follow the format: texts of a family share one where each begins when the one before
/// it ends.
fn check_segments(sample: &Sample, lens: &Lens) {
    let mut before: Option<(FamilyId, u32, bool, u32)> = None;
    for piece in &sample.pieces {
        let tokens = piece.start as usize..(piece.start + piece.len) as usize;
        let segment = sample.segments[tokens.start];
        assert!(sample.segments[tokens.clone()].iter().all(|&s| s == segment));
        let goes_on =
            before.is_some_and(|(family, _, ended, _)| family == piece.family && ended && piece.offset == 0);
        let (expected, first) = match before {
            None => (0, 0),
            Some((_, segment, _, next)) => (segment + u32::from(!goes_on), if goes_on { next } else { 0 }),
        };
        assert_eq!(segment, expected);
        assert!(sample.positions[tokens.clone()].iter().copied().eq(first..first + piece.len));
        let ended = piece.offset + piece.len == lens[&(piece.family, piece.variant)];
        // The last token of a text has no target, whatever follows; so a text has the same targets in every layout.
        assert!(sample.loss_mask[tokens.start..tokens.end - 1].iter().all(|&on| on));
        assert_eq!(sample.loss_mask[tokens.end - 1], !ended);
        before = Some((piece.family, segment, ended, first + piece.len));
    }
}

/// Every token of every text occurs as often as there are passes, and no other.
fn check_counts(plan: &Plan, lens: &Lens, passes: u32) {
    let mut seen = BTreeMap::<(u32, FamilyId, u8), Vec<(u32, u32)>>::new();
    let mut trained = 0;
    for t in 0..plan.len() {
        let sample = plan.sample(t).unwrap();
        check_segments(&sample, lens);
        trained += sample.trained_tokens() as u64;
        for piece in &sample.pieces {
            let text = (sample.id.pass, piece.family, piece.variant);
            seen.entry(text).or_default().push((piece.offset, piece.len));
        }
    }
    let shown: Vec<_> =
        (0..passes).flat_map(|pass| lens.keys().map(move |key| (pass, key.0, key.1))).collect();
    assert!(seen.keys().copied().eq(shown), "each text once in each pass");
    for ((pass, family, variant), mut pieces) in seen {
        pieces.sort_unstable();
        let end = pieces.into_iter().fold(0, |at, (offset, len)| {
            assert_eq!(offset, at, "pass {pass}, family {family}, variant {variant}");
            at + len
        });
        assert_eq!(end, lens[&(family, variant)]);
    }
    let once: u64 = lens.values().map(|&len| u64::from(len) - 1).sum();
    assert_eq!(trained, once * u64::from(passes));
    assert_eq!(
        plan.lock().pools.iter().flat_map(|p| &p.passes).map(|p| p.trained_tokens).sum::<u64>(),
        trained
    );
}

#[test]
fn a_stitched_pass_shows_every_text_of_a_family_as_one_document() {
    let dir = tempfile::tempdir().unwrap();
    let texts = families(300, 3, 10, 4);
    let sources = [source("a", &texts)];
    let lens = lens(0, &sources[0]);
    let manifest = generated_build(dir.path(), 5000, &sources);
    let options = MixOptions { force: true, ..MixOptions::default() };
    for packing in ["best-fit", "concat"] {
        let (plan, outcome) = mix(dir.path(), &manifest, &text(packing, 4, ""), &options);
        assert_eq!(plan.lock().version, 4);
        check_counts(&plan, &lens, 4);
        let checked = replay(&plan, u64::MAX, 1, &Watch::idle()).unwrap();
        assert_eq!(checked.problems, [] as [String; 0]);
        let worth = &outcome.worth[0];
        assert_eq!(worth.sightings, BTreeMap::from([(4, lens.len() as u64)]));
        assert_eq!(worth.planned_tokens, 4 * worth.unique_tokens_with_variants);
        // What fits is not cut, and each pass begins with another text.
        let mut first = BTreeMap::<FamilyId, Vec<u8>>::new();
        for t in (0..plan.len()).filter(|_| packing == "best-fit") {
            let sample = plan.sample(t).unwrap();
            for of_family in sample.pieces.chunk_by(|a, b| a.family == b.family) {
                let family = of_family[0].family;
                let of_lens: Vec<u32> = lens.range((family, 0)..=(family, 9)).map(|(_, &len)| len).collect();
                if of_lens.iter().sum::<u32>() > 64 {
                    continue;
                }
                assert_eq!(of_family.len(), of_lens.len());
                let n = of_lens.len() as u8;
                assert!(of_family.windows(2).all(|two| two[1].variant == (two[0].variant + 1) % n));
                first.entry(family).or_default().push(of_family[0].variant);
            }
        }
        for mut begun in first.into_values().filter(|begun| begun.len() == 4) {
            let n = begun.iter().max().unwrap() + 1;
            begun.sort_unstable();
            begun.dedup();
            assert_eq!(begun.len(), usize::from(n.min(4)), "every text begins a pass in turn");
        }
    }
    let capped = text("concat", 9, "max_uses_per_text = 2\n");
    let (plan, _) = mix(dir.path(), &manifest, &capped, &options);
    check_counts(&plan, &lens, 2);
    let error =
        moe_data::mix::mixture::Mixture::decode(&text("concat", 2, "variants = 'each-once'\n"), "m".as_ref());
    assert!(error.unwrap_err().to_string().contains("`mix.variants`: layout = \"stitched\" shows all texts"));
    let error = refusal(dir.path(), &manifest, &text("concat", 2, "min_original_share = 0.9\n"));
    assert!(error.contains("leave out `layout = \"stitched\"`"), "{error}");
}

/// A stitched pass that stops in the middle of a family continues there, in longer sequences too.
#[test]
fn a_stitched_pass_continues_where_it_stopped() {
    for packing in ["best-fit", "concat"] {
        let dir = tempfile::tempdir().unwrap();
        let texts = families(400, 2, 12, 5);
        let sources = [source("a", &texts)];
        let lens = lens(0, &sources[0]);
        let manifest = generated_build(dir.path(), 5000, &sources);
        let (old, _) = mix(dir.path(), &manifest, &text(packing, 2, ""), &MixOptions::default());
        let from = old.len() * 5 / 8;
        let past = samples(&old, from);
        let extend = |from| MixOptions {
            extend: Some(Extension { from, takedown: Vec::new(), new_phases: true }),
            ..MixOptions::default()
        };
        let longer = text(packing, 3, "").replace("seq_len = 64", "seq_len = 100");
        let (new, _) = mix(dir.path(), &manifest, &longer, &extend(from));
        assert!(samples(&new, from) == past, "{packing}: the past has changed");
        let mut covered = BTreeMap::<(u32, FamilyId, u8), u32>::new();
        for t in 0..new.len() {
            let sample = new.sample(t).unwrap();
            check_segments(&sample, &lens);
            for piece in &sample.pieces {
                *covered.entry((sample.id.pass, piece.family, piece.variant)).or_default() += piece.len;
            }
        }
        assert_eq!(covered.len(), 3 * lens.len());
        assert!(covered.iter().all(|((_, family, variant), &n)| n == lens[&(*family, *variant)]));
        let one_order = text(packing, 4, "").replace("layout = 'stitched'\n", "");
        let error = moe_data::mix::make_plan(
            dir.path(),
            &manifest,
            &crate::mixture::read(&one_order, &manifest),
            &extend(from),
            &Watch::idle(),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`layout` is \"separate\", the plan has \"stitched\""), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_text_is_shown_once_a_pass_in_any_stitched_pool(
        n in 1usize..120, max_variants in 0u8..4, mean in 2usize..40, seed in any::<u64>(),
        seq_len in 8u32..200, epochs in 1u32..5, windows in 1u32..9, best_fit in any::<bool>(), order in 0usize..4,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let texts = families(n, max_variants, mean, seed);
        let sources = [source("a", &texts)];
        let manifest = generated_build(dir.path(), 5000, &sources);
        let order = ["gap", "fixed", "reshuffle", "documents"][order];
        let text = text(if best_fit { "best-fit" } else { "concat" }, epochs, &format!("windows = {windows}\norder = '{order}'\n"))
            .replace("seq_len = 64", &format!("seq_len = {seq_len}"));
        let (plan, _) = mix(dir.path(), &manifest, &text, &MixOptions::default());
        check_counts(&plan, &lens(0, &sources[0]), epochs);
        // A pure function of t: backward, and in batches of any split, the samples are the same.
        let forward = samples(&plan, plan.len());
        let again = Plan::open(dir.path()).unwrap();
        prop_assert!((0..plan.len()).rev().all(|t| again.sample(t).unwrap() == forward[t as usize]));
        let split: Vec<_> = (0..3).flat_map(|rank| again.batch(0..plan.len(), rank, 3).unwrap()).collect();
        prop_assert!(split == forward);
    }
}

/// Document and offset of each piece, sample after sample, for each pass.
fn passes(plan: &Plan) -> Vec<Vec<Vec<(u32, u32)>>> {
    let mut passes = Vec::new();
    for sample in samples(plan, plan.len()) {
        passes.resize(passes.len().max(sample.id.pass as usize + 1), Vec::new());
        let pieces = sample.pieces.iter().map(|piece| (piece.doc, piece.offset)).collect();
        passes[sample.id.pass as usize].push(pieces);
    }
    passes
}

#[test]
fn orders_of_passes_are_what_they_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let texts = families(900, 0, 20, 4);
    let manifest = generated_build(dir.path(), 5000, &[source("a", &texts)]);
    for packing in ["best-fit", "concat"] {
        let of_order = |order: &str| {
            let text =
                format!("[mix]\nseq_len = 64\nepochs = 3\nholdout = 0\npacking = '{packing}'\n{order}");
            let options = MixOptions { force: true, ..MixOptions::default() };
            let plan = mix(dir.path(), &manifest, &text, &options).0;
            assert_eq!(replay(&plan, u64::MAX, 1, &Watch::idle()).unwrap().problems, [] as [String; 0]);
            let lock = &plan.lock().pools[0];
            (
                passes(&plan),
                lock.windows.len() - 1,
                lock.passes[0].bins_per_window.clone(),
                plan.lock().version,
            )
        };
        let (gap, n_windows, bins, version) = of_order("");
        assert!(n_windows > 4 && version == 1);
        assert!(of_order("order = 'gap'\n") == (gap.clone(), n_windows, bins.clone(), 1));
        let (fixed, n, _, version) = of_order("order = 'fixed'\n");
        assert_eq!((n, version), (n_windows, 4));
        assert!(fixed[0] == gap[0] && fixed[1] == fixed[0] && fixed[2] == fixed[0]);

        let (reshuffled, ..) = of_order("order = 'reshuffle'\n");
        assert!(reshuffled[0] == gap[0] && reshuffled[1] != reshuffled[0] && reshuffled[2] != reshuffled[1]);
        let mut from = 0;
        for n in bins {
            let window = from..from + n as usize;
            let sequences = |pass: usize| {
                let mut sorted = reshuffled[pass][window.clone()].to_vec();
                sorted.sort_unstable();
                sorted
            };
            assert!(sequences(0) == sequences(1) && sequences(1) == sequences(2), "the same sequences");
            from = window.end;
        }

        let (documents, n, ..) = of_order("order = 'documents'\n");
        assert_eq!(n, 1);
        let first_half = |pass: &[Vec<(u32, u32)>]| -> Vec<u32> {
            pass[..pass.len() / 2]
                .iter()
                .flatten()
                .filter(|piece| piece.1 == 0)
                .map(|piece| piece.0)
                .collect()
        };
        let common = |passes: &[Vec<Vec<(u32, u32)>>]| {
            let (a, b) = (first_half(&passes[0]), first_half(&passes[1]));
            a.iter().filter(|doc| b.contains(doc)).count() as f64 / a.len() as f64
        };
        // Half of the first half is in the first half again; with windows nearly all of it.
        assert!((0.4..0.6).contains(&common(&documents)), "{}", common(&documents));
        assert!(common(&gap) > 0.9, "{}", common(&gap));
    }
}

#[test]
fn explain_says_which_texts_are_stitched() {
    let scratch = Scratch::new();
    build_of_families(&scratch, "[mix]\nseq_len = 128\nholdout = 0\nlayout = 'stitched'\nepochs = 2\n");
    let said = scratch.ok(&["explain", "0"]).out;
    let stitched = said.matches("stitched: attends to the texts of its family before it").count();
    let texts = said.matches("  family ").count();
    assert!(stitched >= 1 && texts > stitched, "{said}");
    let json: serde_json::Value = serde_json::from_str(&scratch.ok(&["explain", "0", "--json"]).out).unwrap();
    let segments: Vec<u64> =
        json["pieces"].as_array().unwrap().iter().map(|piece| piece["segment"].as_u64().unwrap()).collect();
    assert_eq!(segments.windows(2).filter(|two| two[0] == two[1]).count(), stitched);
    scratch.ok(&["verify"]);
    // An exported plan says which pieces are one segment.
    scratch.ok(&["export", "--plan-npy"]);
    let described = std::fs::read_to_string(scratch.path("out/export/plan.json")).unwrap();
    assert!(described.contains("\"segment\""), "{described}");
    let pieces = std::fs::read(scratch.path("out/export/pieces.npy")).unwrap();
    let first: Vec<u64> = pieces[4096..]
        .chunks_exact(48)
        .map(|row| u64::from_le_bytes(row[40..].try_into().unwrap()))
        .take(segments.len())
        .collect();
    assert_eq!(first, segments);
}
