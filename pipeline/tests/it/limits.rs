use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use moe_data::mix::{Extension, MixOptions, MixOutcome};
use moe_shards::{FamilyId, Plan};

use crate::generated::{Source, families, generated_build, source};
use crate::mixture::{mix, refusal, samples};
use crate::support::{Scratch, line, small_recipe};

/// Ten quality buckets of equal share.
fn graded(texts: &[Vec<(u8, usize)>]) -> Source<'_> {
    Source { label: |i| (Some((i % 10) as u8), 0, 0), ..source("q", texts) }
}

fn curve(max_uses: u32, tokens: u64, more: &str) -> String {
    format!(
        "[mix]\nseq_len = 64\nmax_uses_per_text = {max_uses}\ntokens = {tokens}\n{more}[[pool]]\nsource = 'q'\n\
         weight = 1\ncurve = {{ discard = 0.3, max_factor = 4 }}\n"
    )
}

fn uses(plan: &Plan) -> BTreeMap<(FamilyId, u8), BTreeSet<u32>> {
    let mut uses = BTreeMap::<(FamilyId, u8), BTreeSet<u32>>::new();
    for sample in samples(plan, plan.len()) {
        for piece in &sample.pieces {
            uses.entry((piece.family, piece.variant)).or_default().insert(sample.id.pass);
        }
    }
    uses
}

/// It used to lay out empty passes forever.
#[test]
fn a_curve_that_asks_for_more_than_texts_may_be_shown_ends_in_an_error_or_a_clipped_plan() {
    let dir = tempfile::tempdir().unwrap();
    let texts = families(600, 0, 40, 3);
    let manifest = generated_build(dir.path(), 5000, &[graded(&texts)]);
    let total: usize = texts.iter().flatten().map(|text| text.1).sum();
    let wish = total as u64 * 5 / 2;
    // Four uses are enough for a factor of four.
    let (plan, outcome) = mix(dir.path(), &manifest, &curve(4, wish, ""), &MixOptions::default());
    assert!(outcome.clips.is_empty() && plan.len() > 100);
    let error = refusal(dir.path(), &manifest, &curve(2, wish, ""));
    assert!(error.contains("`max_uses_per_text = 2`") && error.contains("can be at most"), "{error}");
    // What the error calls possible is possible; a little more is not.
    let most: u64 = error.split("at most ").nth(2).unwrap().split(',').next().unwrap().parse().unwrap();
    let forced = MixOptions { force: true, ..MixOptions::default() };
    let (plan, _) = mix(dir.path(), &manifest, &curve(2, most, ""), &forced);
    assert!(uses(&plan).values().all(|passes| passes.len() <= 2));
    refusal(dir.path(), &manifest, &curve(2, most + 100, ""));
    let error = refusal(dir.path(), &manifest, &curve(2, wish, "on_cap = 'redistribute'\n"));
    assert!(error.contains("its pools together have"), "{error}");
    // Passes of a curve, without a budget.
    let repeat =
        curve(1, wish, "").replace(&format!("tokens = {wish}\n"), "").replace("weight = 1", "repeat = 2");
    let error = refusal(dir.path(), &manifest, &repeat);
    assert!(error.contains("`max_uses_per_text = 1`") && error.contains("families rest"), "{error}");
}

/// It used to lay out passes over a bucket without families forever.
#[test]
fn a_proxy_that_leaves_nothing_of_a_bucket_ends() {
    let dir = tempfile::tempdir().unwrap();
    let texts = families(800, 0, 40, 3);
    // The best bucket has most of the families.
    let uneven = Source { label: |i| (Some((i % 16).min(9) as u8), 0, 0), ..source("q", &texts) };
    let manifest = generated_build(dir.path(), 5000, &[uneven]);
    let total: usize = texts.iter().flatten().map(|text| text.1).sum();
    for (proxy, n_parts) in [([1, 8], 5), ([1, 100], 1)] {
        let options = MixOptions { proxy: Some(proxy), force: true, ..MixOptions::default() };
        let (plan, _) = mix(dir.path(), &manifest, &curve(9, total as u64 / 4, ""), &options);
        let shown = plan.lock().pools.iter().filter(|pool| pool.n_families > 0).count();
        assert!(!plan.is_empty() && shown >= n_parts, "{proxy:?}: {shown}");
    }
}

/// Resting used to be silent, whatever `on_cap` said.
#[test]
fn texts_that_rest_are_reported_and_are_an_error_if_a_number_of_passes_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let texts = families(300, 1, 40, 3);
    let manifest = generated_build(dir.path(), 5000, &[source("a", &texts)]);
    let text = |more: &str, pool: &str| {
        format!(
            "[mix]\nseq_len = 64\nepochs = 4\nmax_uses_per_text = 2\n{more}[[pool]]\nsource = 'a'\n{pool}"
        )
    };
    for (more, pool) in [("", "repeat = 4\n"), ("on_cap = 'error'\n", "")] {
        let error = refusal(dir.path(), &manifest, &text(more, pool));
        assert!(error.contains("with `max_uses_per_text = 2` its texts give"), "{error}");
    }
    // `epochs` is a ceiling: the plan is made, and reports what it lacks.
    let (plan, outcome) = mix(dir.path(), &manifest, &text("", ""), &MixOptions::default());
    let [clip] = &outcome.clips[..] else { panic!("{:?}", outcome.clips) };
    assert_eq!(clip.given, outcome.worth[0].planned_tokens);
    let whole = mix(
        dir.path(),
        &manifest,
        &text("", "").replace("max_uses_per_text = 2\n", ""),
        &MixOptions { force: true, ..MixOptions::default() },
    );
    assert_eq!(clip.asked, whole.1.worth[0].planned_tokens);
    assert!(clip.given < clip.asked && plan.len() < whole.0.len());
    // Three passes need no text more than twice where there are variants; without, they do.
    let clipped = text("on_cap = 'redistribute'\n", "repeat = 3\n");
    let (_, outcome) =
        mix(dir.path(), &manifest, &clipped, &MixOptions { force: true, ..MixOptions::default() });
    assert_eq!(outcome.clips.len(), 1);
}

#[test]
fn a_share_of_a_third_shows_every_family_its_original_once_in_three_passes() {
    let dir = tempfile::tempdir().unwrap();
    let texts: Vec<_> = families(900, 2, 30, 4).into_iter().filter(|texts| texts.len() == 3).collect();
    let manifest = generated_build(dir.path(), 5000, &[source("a", &texts)]);
    for share in ["'1/3'", "0.3333333333333333", "'2/6'"] {
        let text = format!("[mix]\nseq_len = 64\nepochs = 3\nholdout = 0\noriginal_share = {share}\n");
        let options = MixOptions { force: true, ..MixOptions::default() };
        let (plan, _) = mix(dir.path(), &manifest, &text, &options);
        assert_eq!(plan.lock().pools[0].original_share, [1, 3], "{share}");
        let uses = uses(&plan);
        assert_eq!(uses.len(), 3 * texts.len());
        assert!(uses.values().all(|passes| passes.len() == 1), "{share}");
    }
}

/// Trained tokens, those of originals and of texts by a model, and padding, as samples have them.
fn counted(plan: &Plan, from: u64) -> ([u64; 3], f64) {
    let (mut tokens, mut padding, mut positions) = ([0u64; 3], 0usize, 0usize);
    for t in from..plan.len() {
        let sample = plan.sample(t).unwrap();
        positions += sample.tokens.len();
        padding += sample.tokens.len();
        for piece in &sample.pieces {
            let range = piece.start as usize..(piece.start + piece.len) as usize;
            let trained = sample.loss_mask[range].iter().filter(|&&on| on).count() as u64;
            padding -= piece.len as usize;
            // The generated build marks variants as written by a model.
            let kinds = [true, piece.variant == 0, piece.variant > 0];
            tokens.iter_mut().zip(kinds).for_each(|(n, counts)| *n += if counts { trained } else { 0 });
        }
    }
    (tokens, padding as f64 / positions as f64)
}

fn check_figures(plan: &Plan, outcome: &MixOutcome, from: u64) {
    let (tokens, padding) = counted(plan, from);
    let sum = |of: fn(&moe_data::mix::effective_tokens::PoolTokens) -> u64| {
        outcome.worth.iter().map(of).sum::<u64>()
    };
    let said =
        [sum(|w| w.planned_tokens), sum(|w| w.planned_original_tokens), sum(|w| w.planned_synthetic_tokens)];
    assert_eq!(said, tokens);
    assert_eq!(outcome.plan.planned_tokens, tokens[0]);
    if let [worth] = &outcome.worth[..] {
        assert!((worth.padding - padding).abs() < 1e-12, "{} {padding}", worth.padding);
    }
}

/// They used to be shares of whole passes, printed to the digit.
#[test]
fn the_figures_of_a_partial_pass_are_counted() {
    for packing in ["best-fit", "concat"] {
        let dir = tempfile::tempdir().unwrap();
        let texts = families(700, 2, 40, 5);
        let manifest = generated_build(dir.path(), 5000, &[source("a", &texts)]);
        let head = format!(
            "[mix]\nseq_len = 64\npacking = '{packing}'\nwindows = 8\nepochs = 5\n[[pool]]\nsource = 'a'\n"
        );
        let forced = MixOptions { force: true, ..MixOptions::default() };
        for pool in ["repeat = 1.37\n", "repeat = 0.2\n", "tokens = 50000\n"] {
            let (plan, outcome) = mix(dir.path(), &manifest, &(head.clone() + pool), &forced);
            check_figures(&plan, &outcome, 0);
        }
        let phases = "[[phase]]\nname = 'x'\ntokens = 40000\nweights = { a = 1 }\n\
                      [[phase]]\nname = 'y'\ntokens = 30000\nseq_len = 100\nweights = { a = 1 }\n";
        let (plan, outcome) = mix(dir.path(), &manifest, &(head.clone() + phases), &forced);
        check_figures(&plan, &outcome, 0);
        let (plan, _) = mix(dir.path(), &manifest, &(head.clone() + "repeat = 2\n"), &forced);
        let from = plan.len() / 3;
        let extend = Some(Extension { from, takedown: Vec::new(), new_phases: true });
        let options = MixOptions { extend, ..MixOptions::default() };
        let (plan, outcome) = mix(dir.path(), &manifest, &(head + "repeat = 2.6\n"), &options);
        check_figures(&plan, &outcome, from);
    }
}

#[test]
fn a_plan_that_holds_nothing_out_says_so_and_names_the_least_share_that_would() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", (0..20).map(line).collect::<String>());
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.write("m.toml", "[mix]\nseq_len = 64\nholdout = 0.00001\n");
    let said = scratch.ok(&["mix", "--mixture", "m.toml"]).err;
    assert!(said.contains("a: none of its 20 families is held out (`mix.holdout` = 0.00001)"), "{said}");
    assert!(said.contains("nothing is held out, so training will measure no validation loss"), "{said}");
    let least = said.split("`holdout = ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    let held_out = |holdout: &str| {
        scratch.write("m.toml", format!("[mix]\nseq_len = 64\nholdout = {holdout}\n"));
        let said = scratch.ok(&["mix", "--mixture", "m.toml", "--force"]).err;
        let plan = Plan::open(Path::new(&scratch.path("out"))).unwrap();
        (plan.lock().pools[0].validation.n_families, said)
    };
    assert_eq!(held_out(&least).0, 1);
    let less = least.parse::<f64>().unwrap() - 1e-6;
    assert_eq!(held_out(&format!("{less:.6}")).0, 0);
    // A mixture that wants none is not told to want more.
    let (n, said) = held_out("0");
    assert!(n == 0 && !said.contains("none of its") && said.contains("no validation loss"), "{said}");
}
