use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use moe_data::mix::mixture::Mixture;
use moe_data::mix::{MixOptions, MixOutcome, make_plan};
use moe_data::watch::Watch;
use moe_shards::{FamilyId, Manifest, Plan, Sample};

use crate::generated::{Source, Texts, families, family_id, generated_build, source};
use crate::support::Scratch;

pub fn read(text: &str, manifest: &Manifest) -> Mixture {
    Mixture::decode(text, Path::new("mix.toml")).unwrap().resolve(manifest, None).unwrap()
}

pub fn mix(out: &Path, manifest: &Manifest, text: &str, options: &MixOptions) -> (Plan, MixOutcome) {
    let outcome = make_plan(out, manifest, &read(text, manifest), options, &Watch::idle()).unwrap();
    let plan = Plan::open(out).unwrap();
    plan.verify().unwrap();
    (plan, outcome)
}

pub fn refusal(out: &Path, manifest: &Manifest, text: &str) -> String {
    let options = MixOptions { force: true, ..MixOptions::default() };
    make_plan(out, manifest, &read(text, manifest), &options, &Watch::idle()).unwrap_err().to_string()
}

pub fn samples(plan: &Plan, until: u64) -> Vec<Sample> {
    (0..until).map(|t| plan.sample(t).unwrap()).collect()
}

/// Trained tokens of each root pool in samples `range`.
fn trained(plan: &Plan, range: std::ops::Range<u64>) -> BTreeMap<String, u64> {
    let mut trained = BTreeMap::new();
    for t in range {
        let sample = plan.sample(t).unwrap();
        let root = plan.lock().root(usize::from(sample.id.pool));
        *trained.entry(plan.lock().pools[root].name.clone()).or_default() += sample.trained_tokens() as u64;
    }
    trained
}

/// Over all streams of a pool: a pass shows each family in one text, no token twice, every token if the pass
/// is whole; with best-fit nothing that fits the shortest sequence is cut. Returns the number of whole
/// passes.
pub fn check_passes(plan: &Plan, root: usize, lens: &BTreeMap<(FamilyId, u8), u32>, best_fit: bool) -> u32 {
    type Pieces = BTreeMap<FamilyId, (u8, Vec<(u32, u32)>)>;
    let mut passes = BTreeMap::<u32, Pieces>::new();
    let shortest = plan.lock().phases.iter().map(|phase| phase.seq_len).min().unwrap();
    for t in 0..plan.len() {
        let sample = plan.sample(t).unwrap();
        assert_eq!(sample.tokens.len(), plan.seq_len_at(t).unwrap());
        if plan.lock().root(usize::from(sample.id.pool)) != root {
            continue;
        }
        for piece in &sample.pieces {
            let pass = passes.entry(sample.id.pass).or_default();
            let (variant, pieces) = pass.entry(piece.family).or_insert((piece.variant, Vec::new()));
            assert_eq!(*variant, piece.variant, "two texts of a family in pass {}", sample.id.pass);
            pieces.push((piece.offset, piece.len));
        }
    }
    let last = *passes.keys().last().unwrap();
    let n_families = plan.lock().pools[root].n_families;
    let mut whole = 0;
    for (pass, families) in passes {
        let mut complete = families.len() as u64 == n_families;
        for (family, (variant, mut pieces)) in families {
            let len = lens[&(family, variant)];
            pieces.sort_unstable();
            assert!(
                !best_fit || len > shortest || pieces.len() == 1,
                "a document of {len} was cut: {pieces:?}"
            );
            let mut at = 0;
            for (offset, part) in pieces {
                assert!(offset >= at, "tokens of family {family} are shown twice in pass {pass}");
                complete &= offset == at;
                at = offset + part;
            }
            complete &= at == len;
        }
        assert!(complete || pass == last, "pass {pass} lost tokens");
        whole += u32::from(complete);
    }
    whole
}

pub fn lens(number: usize, source: &Source<'_>) -> BTreeMap<(FamilyId, u8), u32> {
    let all: Vec<&Texts> = source.families.iter().chain(source.more).collect();
    let texts = all.iter().enumerate().flat_map(|(i, texts)| texts.iter().map(move |text| (i, text)));
    texts.map(|(i, &(variant, len))| ((family_id(number, i), variant), len as u32 + 1)).collect()
}

/// A pool that stops in the middle of a pass continues there, in sequences of another length: to the token.
#[test]
fn phases_of_other_lengths_continue_the_pass_where_it_stopped() {
    for packing in ["best-fit", "concat"] {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (families(900, 2, 40, 1), families(500, 0, 60, 2));
        let sources = [source("a", &a), source("b", &b)];
        let manifest = generated_build(dir.path(), 5000, &sources);
        let phase = |name, tokens, seq_len, weights| {
            format!(
                "[[phase]]\nname = '{name}'\ntokens = {tokens}\nseq_len = {seq_len}\nweights = {{ {weights} }}\n"
            )
        };
        // Short phases in a row, one of them inside a window that the phase before has begun.
        let text = format!(
            "[mix]\npacking = '{packing}'\nholdout = 0.05\nwindows = 8\n[[pool]]\nsource = 'a'\n[[pool]]\nsource = 'b'\n{}{}{}{}{}",
            phase("main", 80_000, 64, "a = 1, b = 1"),
            phase("long", 2_000, 256, "a = 1"),
            phase("short", 1_500, 48, "a = 3, b = 1"),
            phase("back", 40_000, 64, "a = 1, b = 2"),
            phase("same", 10_000, 64, "a = 1, b = 1"),
        );
        let (plan, outcome) = mix(dir.path(), &manifest, &text, &MixOptions::default());
        assert_eq!(plan.lock().version, 2);
        let names = plan.pool_names();
        assert_eq!(names, ["a", "b", "a@long", "a@short", "b@short", "a@back", "b@back"]);
        for (number, source) in sources.iter().enumerate() {
            let whole = check_passes(&plan, number, &lens(number, source), packing == "best-fit");
            assert!(whole >= 1, "{packing}: no pass of {} is whole", source.name);
        }
        // Each phase has its tokens and shares, to a sample or two of each pool.
        let phases = plan.lock().phases.clone();
        for (phase, (tokens, shares)) in phases.iter().zip([
            (80_000, [0.5, 0.5]),
            (2_000, [1.0, 0.0]),
            (1_500, [0.75, 0.25]),
            (40_000, [1.0 / 3.0, 2.0 / 3.0]),
            (10_000, [0.5, 0.5]),
        ]) {
            let found = trained(&plan, phase.t_start..phase.t_end());
            for (name, share) in ["a", "b"].into_iter().zip(shares) {
                let (found, wanted) = (*found.get(name).unwrap_or(&0) as f64, f64::from(tokens) * share);
                let slack = 0.02 * wanted + 2.0 * f64::from(phase.seq_len);
                assert!(
                    (found - wanted).abs() <= slack,
                    "{packing} {} {name}: {found} of {wanted}",
                    phase.name
                );
            }
        }
        // The table counts what is shown.
        for (number, worth) in outcome.worth.iter().enumerate() {
            let mut shown = BTreeMap::<(FamilyId, u8), BTreeSet<u32>>::new();
            for sample in samples(&plan, plan.len()) {
                let mine = plan.lock().root(usize::from(sample.id.pool)) == number;
                for piece in sample.pieces.iter().filter(|_| mine) {
                    shown.entry((piece.family, piece.variant)).or_default().insert(sample.id.pass);
                }
            }
            let mut histogram = BTreeMap::<u32, u64>::new();
            shown.values().for_each(|passes| *histogram.entry(passes.len() as u32).or_default() += 1);
            let seen: BTreeMap<u32, u64> =
                worth.sightings.iter().filter(|(uses, _)| **uses > 0).map(|(&k, &v)| (k, v)).collect();
            assert_eq!(seen, histogram, "{packing} {}", worth.pool);
            assert_eq!(worth.family_sightings.values().sum::<u64>(), worth.families);
        }
    }
}

fn labeled(i: usize) -> (Option<u8>, u16, u8) {
    let quality = if i.is_multiple_of(50) { None } else { Some((i % 10) as u8) };
    (quality, (i % 3) as u16, 1 << (i % 2))
}

#[test]
fn pools_select_families_by_quality_language_and_tag() {
    for packing in ["best-fit", "concat"] {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (families(1200, 1, 30, 1), families(300, 0, 30, 2));
        let sources = [Source { label: labeled, ..source("a", &a) }, source("b", &b)];
        let manifest = generated_build(dir.path(), 5000, &sources);
        let text = format!(
            "[mix]\nepochs = 2\nseq_len = 64\nholdout = 0.05\npacking = '{packing}'\n\
             [[pool]]\nname = 'good'\nsource = ['a', 'b']\nquality = [7, 255]\nlanguage = ['en', 'de']\n\
             [[pool]]\nname = 'math'\nsource = 'a'\nquality = [0, 6]\ntag = ['math']\n"
        );
        let (plan, _) = mix(dir.path(), &manifest, &text, &MixOptions::default());
        let mut seen = [BTreeSet::new(), BTreeSet::new()];
        for sample in samples(&plan, plan.len()) {
            seen[usize::from(sample.id.pool)].extend(sample.pieces.iter().map(|piece| piece.family));
        }
        let holdout = moe_shards::family::Holdout { ppm: 50_000, seed: 1 };
        let expected = |takes: &dyn Fn(usize) -> bool| -> BTreeSet<FamilyId> {
            (0..1200)
                .filter(|&i| takes(i))
                .map(|i| family_id(0, i))
                .filter(|&id| !holdout.contains(id))
                .collect()
        };
        let good = expected(&|i| labeled(i).0.is_some_and(|q| q >= 7) && labeled(i).1 != 0);
        let math = expected(&|i| labeled(i).0.is_some_and(|q| q <= 6) && labeled(i).2 == 2);
        assert!(!good.is_empty() && !math.is_empty());
        assert!(seen == [good, math], "{packing}");
    }
    let dir = tempfile::tempdir().unwrap();
    let a = families(300, 0, 30, 1);
    let manifest = generated_build(dir.path(), 5000, &[Source { label: labeled, ..source("a", &a) }]);
    let pools = "[[pool]]\nname = 'x'\nsource = 'a'\nquality = [0, 5]\n[[pool]]\nname = 'y'\nsource = 'a'\nquality = [5, 9]\n";
    let error = refusal(dir.path(), &manifest, pools);
    assert!(error.contains("pools `x` and `y` share") && error.contains("exclude each other"), "{error}");
    let wrong = "[[pool]]\nsource = 'b'\nlanguage = ['eng']\ntag = ['maths']\n[[phase]]\nname = 'p'\ntokens = 5\nweights = { c = 1 }\n";
    let error =
        Mixture::decode(wrong, Path::new("m")).unwrap().resolve(&manifest, None).unwrap_err().to_string();
    for part in
        ["no source `b`", "no language `eng`", "did you mean `en`", "no tag `maths`", "no pool with `c`"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// Every bucket is shown as often as the curve says: 2.6 times are two whole passes and 0.6 of a third.
#[test]
fn a_curve_repeats_good_text_more_often() {
    let dir = tempfile::tempdir().unwrap();
    let a = families(3000, 0, 30, 1);
    let label = |i: usize| (Some((i % 10) as u8 + 1), 0, 0);
    let manifest = generated_build(dir.path(), 5000, &[Source { label, ..source("a", &a) }]);
    let text = "[mix]\nseq_len = 64\nholdout = 0.0\n[[pool]]\nsource = 'a'\nrepeat = 2.0\ncurve = { discard = 0.4, max_factor = 6.0 }\n";
    let (plan, outcome) = mix(dir.path(), &manifest, text, &MixOptions::default());
    let mut unique = [0u64; 11];
    a.iter().enumerate().for_each(|(i, texts)| unique[i % 10 + 1] += texts[0].1 as u64);
    let total: u64 = unique.iter().sum();
    let by_family: BTreeMap<FamilyId, usize> = (0..3000).map(|i| (family_id(0, i), i % 10 + 1)).collect();
    let mut shown = [0u64; 11];
    for sample in samples(&plan, plan.len()) {
        let pool = &plan.lock().pools[usize::from(sample.id.pool)].name;
        for piece in &sample.pieces {
            assert_eq!(*pool, format!("a-q{:03}", by_family[&piece.family]));
        }
        let bucket = by_family[&sample.pieces[0].family];
        shown[bucket] += sample.trained_tokens() as u64;
    }
    // q = 6 * 0.6 / 2 = 1.8; a bucket at places u..v: 2 (g(v) - g(u)) / (v - u).
    let g = |x: f64| ((x - 0.4) / 0.6).max(0.0).powf(1.8);
    let mut below = 0.0;
    for (bucket, (&unique, &shown)) in unique.iter().zip(&shown).enumerate().skip(1) {
        let share = unique as f64 / total as f64;
        let factor = 2.0 * (g(below + share) - g(below)) / share;
        below += share;
        let found = shown as f64 / unique as f64;
        let slack = 0.02 * factor + 2.0 * 64.0 / unique as f64;
        assert!(
            (found - factor).abs() < slack,
            "bucket {bucket}: shown {found} times, the curve says {factor}"
        );
    }
    let planned = outcome.plan.planned_tokens as f64 / total as f64;
    assert!((planned - 2.0).abs() < 0.02, "{planned}");
    let error = refusal(dir.path(), &manifest, &text.replace("repeat = 2.0", "repeat = 3.7"));
    assert!(error.contains("its curve allows 3.600"), "{error}");
}

#[test]
fn caps_are_errors_with_a_remedy_or_flow_over() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (families(900, 0, 50, 1), families(100, 0, 50, 2));
    let manifest = generated_build(dir.path(), 5000, &[source("a", &a), source("b", &b)]);
    let text = "[mix]\nseq_len = 64\ntokens = '200K'\n[[pool]]\nsource = 'a'\nweight = 1\n[[pool]]\nsource = 'b'\nweight = 1\nmax_epochs = 3\n";
    let error = refusal(dir.path(), &manifest, text);
    assert!(error.contains("pool `b`: its weight asks for 100000 trained tokens, 3 epochs have"), "{error}");
    assert!(error.contains("on_cap = \"redistribute\"") && error.contains("can be at most"), "{error}");
    let text = text.replace("[mix]", "[mix]\non_cap = 'redistribute'");
    let (plan, outcome) = mix(dir.path(), &manifest, &text, &MixOptions::default());
    let clip = &outcome.clips[0];
    assert_eq!((clip.pool.as_str(), clip.asked, outcome.clips.len()), ("b", 100_000, 1));
    assert_eq!(outcome.worth[1].passes, 3.0);
    assert_eq!(outcome.worth[1].planned_tokens, clip.given);
    let found = trained(&plan, 0..plan.len());
    let (a, wanted) = (found["a"], 200_000 - clip.given);
    assert!(a.abs_diff(wanted) < wanted / 50, "{a} of {wanted}");
    let error = refusal(dir.path(), &manifest, &text.replace("200K", "2M"));
    assert!(error.contains("its pools together have"), "{error}");
}

#[test]
fn amounts_are_passes_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (families(900, 0, 50, 1), families(300, 0, 50, 2));
    let manifest = generated_build(dir.path(), 5000, &[source("a", &a), source("b", &b)]);
    let text = "[mix]\nseq_len = 64\n[[pool]]\nsource = 'a'\nrepeat = 2.6\n[[pool]]\nsource = 'b'\ntokens = 30000\npacking = 'concat'\n";
    let (plan, outcome) = mix(dir.path(), &manifest, text, &MixOptions::default());
    assert!((outcome.worth[0].passes - 2.6).abs() < 0.01, "{}", outcome.worth[0].passes);
    let b = trained(&plan, 0..plan.len())["b"];
    assert!(b.abs_diff(30_000) < 600, "{b}");
    // One plan, both kinds of packing.
    let packed: Vec<bool> = plan.lock().pools.iter().map(|pool| pool.passes[0].pack.is_some()).collect();
    assert_eq!(packed, [true, false]);
    let error = refusal(dir.path(), &manifest, &text.replace("2.6", "4.5"));
    assert!(
        error.contains("`repeat = 4.5` is more than its 4 epochs") && error.contains("max_epochs = 5"),
        "{error}"
    );
}

/// A text that was shown often enough rests, and so does its family when it would be next.
#[test]
fn texts_are_shown_at_most_as_often_as_allowed() {
    for packing in ["best-fit", "concat"] {
        let dir = tempfile::tempdir().unwrap();
        let a = families(600, 2, 40, 3);
        let manifest = generated_build(dir.path(), 5000, &[source("a", &a)]);
        let text = format!("[mix]\nepochs = 6\nseq_len = 64\npacking = '{packing}'\nmax_uses_per_text = 2\n");
        let (plan, outcome) = mix(dir.path(), &manifest, &text, &MixOptions::default());
        let mut uses = BTreeMap::<(FamilyId, u8), BTreeSet<u32>>::new();
        for sample in samples(&plan, plan.len()) {
            for piece in &sample.pieces {
                uses.entry((piece.family, piece.variant)).or_default().insert(sample.id.pass);
            }
        }
        assert!(uses.values().all(|passes| passes.len() <= 2));
        assert!(outcome.worth[0].sightings.keys().all(|&n| n <= 2), "{:?}", outcome.worth[0].sightings);
        // Families of three texts: three originals in six passes would be one too many.
        let families_of_3: Vec<_> = (0..600).filter(|i| i % 3 == 2).map(|i| family_id(0, i)).collect();
        let shown =
            |id| uses.iter().filter(|((family, _), _)| *family == id).map(|(_, p)| p.len()).sum::<usize>();
        assert!(families_of_3.iter().filter(|&&id| shown(id) > 0).all(|&id| shown(id) == 5));
    }
}

#[test]
fn shares_of_originals_and_synthetic_text_are_limits_of_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let a = families(600, 1, 40, 3);
    let manifest = generated_build(dir.path(), 5000, &[source("a", &a)]);
    let text =
        "[mix]\nseq_len = 64\noriginal_share = 0.0\nmax_synthetic_share = 0.4\nmin_original_share = 0.6\n";
    let error = refusal(dir.path(), &manifest, text);
    assert!(
        error.contains("`mix.max_synthetic_share` allows 0.4")
            && error.contains("`mix.min_original_share` asks for 0.6"),
        "{error}"
    );
    let (plan, outcome) = mix(dir.path(), &manifest, &text.replace("= 0.0", "= 0.5"), &MixOptions::default());
    let mut by_variant = [0u64; 2];
    for sample in samples(&plan, plan.len()) {
        for piece in &sample.pieces {
            let range = piece.start as usize..(piece.start + piece.len) as usize;
            by_variant[usize::from(piece.variant)] +=
                sample.loss_mask[range].iter().filter(|&&on| on).count() as u64;
        }
    }
    let share = by_variant[0] as f64 / (by_variant[0] + by_variant[1]) as f64;
    assert!((share - outcome.plan.original_share).abs() < 1e-9 && (0.6..0.9).contains(&share), "{share}");
    assert!((outcome.plan.synthetic_share + share - 1.0).abs() < 1e-9);
}

/// A proxy has the families of lowest rank, and each of them as often as the whole plan.
#[test]
fn a_proxy_repeats_as_the_whole_plan_does() {
    for packing in ["best-fit", "concat"] {
        let (whole, part, smaller) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (families(4000, 1, 30, 1), families(2000, 0, 30, 2));
        let text = format!(
            "[mix]\nseq_len = 64\npacking = '{packing}'\ntokens = '400K'\n[[pool]]\nsource = 'a'\nweight = 1\n[[pool]]\nsource = 'b'\nweight = 1\n"
        );
        let outcome = |dir: &Path, proxy| {
            let manifest = generated_build(dir, 5000, &[source("a", &a), source("b", &b)]);
            mix(dir, &manifest, &text, &MixOptions { proxy, ..MixOptions::default() })
        };
        let (full, _) = outcome(whole.path(), None);
        let (proxy, worth) = outcome(part.path(), Some([1, 4]));
        let (eighth, _) = outcome(smaller.path(), Some([1, 8]));
        assert_eq!(proxy.lock().proxy, Some([1, 4]));
        assert_ne!(proxy.id(), full.id());
        for (whole, part) in full.lock().pools.iter().zip(&proxy.lock().pools) {
            assert_eq!(part.n_families, whole.n_families / 4);
            assert_eq!(
                part.validation,
                moe_shards::ValidationLock { pack: part.validation.pack.clone(), ..whole.validation.clone() }
            );
        }
        let shown = |plan: &Plan| -> BTreeSet<FamilyId> {
            samples(plan, plan.len()).iter().flat_map(|s| &s.pieces).map(|piece| piece.family).collect()
        };
        let families = shown(&proxy);
        assert!(shown(&full).is_superset(&families) && families.is_superset(&shown(&eighth)));
        let found = trained(&proxy, 0..proxy.len());
        assert!(found.values().all(|tokens| tokens.abs_diff(50_000) < 1_000), "{found:?}");
        // Repeats match: passes within the chance of drawing longer or shorter families.
        let passes = |number: usize, plan: &Plan| {
            let pool = &plan.lock().pools[number];
            plan.lock().phases[0].quotas[number] as f64 / (pool.passes[0].n_bins() as f64)
        };
        for (number, worth) in worth.worth.iter().enumerate() {
            let ratio = passes(number, &proxy) / passes(number, &full);
            assert!((0.9..1.1).contains(&ratio), "{}: {ratio}", worth.pool);
        }
    }
}

/// The command prints what was clipped, and JSON with everything.
#[test]
fn the_command_says_what_the_plan_is_worth() {
    let scratch = Scratch::new();
    let (a, b) = (families(900, 1, 50, 1), families(100, 0, 50, 2));
    generated_build(&scratch.path("out"), 5000, &[source("a", &a), source("b", &b)]);
    scratch.write(
        "mix.toml",
        "[mix]\nseq_len = 64\non_cap = 'redistribute'\n[[pool]]\nsource = 'a'\n[[pool]]\nsource = 'b'\n\
         [[phase]]\nname = 'main'\ntokens = '90K'\nweights = { a = 1, b = 1 }\n\
         [[phase]]\nname = 'anneal'\ntokens = '5K'\nseq_len = 128\nweights = { a = 1 }\n",
    );
    let dry = scratch.ok(&["mix", "--mixture", "mix.toml", "--dry-run", "--params", "7B"]);
    assert!(dry.err.contains("nothing was written") && !scratch.path("out/plan.lock").exists());
    assert!(dry.err.contains("parameters for each unique token"), "{}", dry.err);
    assert!(dry.err.contains("b: clipped in phase `main`:"), "{}", dry.err);
    assert!(dry.err.contains("arXiv 2506.12119"), "{}", dry.err);
    assert!(dry.out.contains("phase anneal: samples"), "{}", dry.out);
    let said = scratch.ok(&["mix", "--mixture", "mix.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["phases"][1]["seq_len"], 128);
    assert_eq!(json["clipped"][0]["pool"], "b");
    assert_eq!(json["pools"][1]["family_sightings"]["4"], json["pools"][1]["families"]);
    assert!(
        json["pools"][0]["min_gap_tokens"].as_u64().unwrap() > 0
            || json["pools"][0]["passes"].as_f64().unwrap() < 1.0
    );
    let again = scratch.ok(&["mix", "--mixture", "mix.toml"]);
    assert!(again.err.contains("nothing changed"), "{}", again.err);

    let t = json["samples"].as_u64().unwrap() / 2;
    scratch.write("gone.txt", "a/3/0\na/4/0\n");
    let (t, id) = (t.to_string(), json["plan"].as_str().unwrap()[..12].to_owned());
    let said = scratch.ok(&["mix", "--extend", "--from", &t, "--takedown", "gone.txt"]);
    assert!(
        said.err
            .contains(&format!("runs of plan {id} can go on with it if they have read at most {t} samples")),
        "{}",
        said.err
    );
    scratch.write("gone.txt", "nobody\n");
    let said = scratch.fail(&["mix", "--extend", "--from", &t, "--takedown", "gone.txt"], 2);
    assert!(said.err.contains("1 of 1 documents are in no shard: `nobody`"), "{}", said.err);
    let said = scratch.fail(&["mix", "--extend", "--from", "99999999", "--epochs", "5"], 2);
    assert!(said.err.contains("--from 99999999: expected 1 to"), "{}", said.err);
}
