use std::collections::BTreeMap;

use moe_data::mix::MixOptions;
use moe_shards::{FamilyId, Plan};
use serde_json::{Value, json};

use crate::generated::{families, generated_build, source};
use crate::mixture::{mix, refusal};
use crate::support::{Scratch, small_recipe, text};

/// How often each text is shown up to and with each pass, whole texts only.
fn shown(plan: &Plan) -> BTreeMap<u32, BTreeMap<(FamilyId, u8), u32>> {
    let mut passes = BTreeMap::<u32, BTreeMap<(FamilyId, u8), u32>>::new();
    for t in 0..plan.len() {
        let sample = plan.sample(t).unwrap();
        for piece in sample.pieces.iter().filter(|piece| piece.offset == 0) {
            *passes.entry(sample.id.pass).or_default().entry((piece.family, piece.variant)).or_default() += 1;
        }
    }
    passes
}

/// With five texts and five passes, the original used to be shown up to three times, and one or two texts
/// never.
#[test]
fn each_text_of_a_family_is_shown_once_before_any_is_shown_again() {
    let dir = tempfile::tempdir().unwrap();
    let texts: Vec<_> = families(600, 4, 30, 4).into_iter().filter(|texts| texts.len() == 5).collect();
    let manifest = generated_build(dir.path(), 5000, &[source("a", &texts)]);
    for packing in ["best-fit", "concat"] {
        let text = format!(
            "[mix]\nseq_len = 64\nepochs = 10\nholdout = 0\nvariants = 'each-once'\npacking = '{packing}'\n"
        );
        let options = MixOptions { force: true, ..MixOptions::default() };
        let (plan, outcome) = mix(dir.path(), &manifest, &text, &options);
        assert_eq!(plan.lock().version, 3);
        let mut sum = BTreeMap::<(FamilyId, u8), u32>::new();
        for (pass, texts_of_pass) in shown(&plan) {
            let originals = texts_of_pass.keys().filter(|(_, variant)| *variant == 0).count();
            assert!(originals.abs_diff(texts.len() / 5) <= 1, "pass {pass}: {originals} of {}", texts.len());
            texts_of_pass.into_iter().for_each(|(text, n)| *sum.entry(text).or_default() += n);
            if pass == 4 || pass == 9 {
                assert_eq!(sum.len(), 5 * texts.len(), "after pass {pass}");
                assert!(sum.values().all(|&n| n == (pass + 1) / 5), "after pass {pass}");
            }
        }
        // Two rounds over all texts: worth between ten showings of one text and two of five.
        let worth = &outcome.worth[0];
        assert_eq!(worth.sightings, BTreeMap::from([(2, 5 * texts.len() as u64)]));
        assert_eq!(worth.planned_tokens, 2 * worth.unique_tokens_with_variants);
        assert!(worth.effective_tokens_if_new > 1.9 * worth.unique_tokens_with_variants as f64);
    }
}

/// Under a cap a family rests only when every one of its texts has been shown as often as the cap allows.
#[test]
fn a_family_rests_only_when_no_unseen_text_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let texts = families(400, 3, 30, 4);
    let manifest = generated_build(dir.path(), 5000, &[source("a", &texts)]);
    let text =
        "[mix]\nseq_len = 64\nepochs = 9\nholdout = 0\nvariants = 'each-once'\nmax_uses_per_text = 1\n";
    let (plan, outcome) = mix(dir.path(), &manifest, text, &MixOptions::default());
    let mut sum = BTreeMap::<(FamilyId, u8), u32>::new();
    shown(&plan).into_values().flatten().for_each(|(text, n)| *sum.entry(text).or_default() += n);
    let all: usize = texts.iter().map(Vec::len).sum();
    assert_eq!((sum.len(), sum.values().max()), (all, Some(&1)));
    assert_eq!(outcome.worth[0].planned_tokens, outcome.worth[0].unique_tokens_with_variants);
    let both = "[mix]\nseq_len = 64\n[[pool]]\nsource = 'a'\nvariants = 'each-once'\noriginal_share = 0.2\n";
    let error = moe_data::mix::mixture::Mixture::decode(both, "m.toml".as_ref()).unwrap_err().to_string();
    assert!(error.contains("shows every text equally often"), "{error}");
    let capped = "[mix]\nseq_len = 64\nepochs = 4\nvariants = 'each-once'\nmin_original_share = 0.9\n";
    let error = refusal(dir.path(), &manifest, capped);
    assert!(error.contains("leave out `variants = \"each-once\"`"), "{error}");
}

/// A build of families of three texts, with a plan.
pub fn build_of_families(scratch: &Scratch, mixture: &str) -> Value {
    let record = |i: usize, version: &str| {
        let text = format!("{} It is version {version} of it.", text(i));
        format!(
            "{}\n",
            json!({ "id": format!("{i}-{version}"), "text": text, "f": format!("f{i}"), "v": version })
        )
    };
    let lines: String =
        (0..30).flat_map(|i| ["one", "two", "three"].map(|version| record(i, version))).collect();
    scratch.write("a.jsonl", lines);
    let keys = "id = \"id\"\nfamily = \"f\"\nvariant = \"v\"\nvariants = [\"one\", \"two\", \"three\"]\n";
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", "").replace("id = \"id\"\n", keys));
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
    scratch.write("m.toml", mixture);
    serde_json::from_str(&scratch.ok(&["mix", "--mixture", "m.toml", "--json"]).out).unwrap()
}

#[test]
fn half_an_epoch_more_shows_half_of_the_families_once_more() {
    let scratch = Scratch::new();
    let plan = build_of_families(&scratch, "[mix]\nseq_len = 64\nholdout = 0\n");
    assert_eq!(plan["pools"][0]["passes"], 4.0);
    let mix = |epochs: &str| {
        let args =
            ["mix", "--mixture", "m.toml", "--epochs", epochs, "--seq-len", "0.064K", "--force", "--json"];
        serde_json::from_str::<Value>(&scratch.ok(&args).out).unwrap()["pools"][0]["passes"].as_f64().unwrap()
    };
    let passes = mix("1.5");
    assert!((1.5..1.55).contains(&passes), "{passes}");
    assert!((0.25..0.3).contains(&mix("0.25")));
    scratch.write(
        "m.toml",
        "[mix]\nseq_len = 64\nholdout = 0\ntokens = '9K'\n[[pool]]\nsource = 'a'\nweight = 1\n",
    );
    let error = scratch.fail(&["mix", "--mixture", "m.toml", "--epochs", "1.5", "--force"], 2).err;
    assert!(error.contains("1.5 epochs have"), "{error}");
    let error = scratch.fail(&["mix", "--mixture", "m.toml", "--epochs", "0", "--force"], 2).err;
    assert!(error.contains("--epochs") && error.contains("above 0, at most 1000"), "{error}");
}

/// It used to be ignored: the windows of a pool are cut when it begins.
#[test]
fn an_extension_that_changes_the_windows_says_so() {
    let scratch = Scratch::new();
    build_of_families(&scratch, "[mix]\nseq_len = 64\nholdout = 0\nwindows = 4\nmax_uses_per_text = 3\n");
    let extend = |mixture: &str| {
        scratch.write("m.toml", mixture);
        scratch.fail(&["mix", "--extend", "--from", "10", "--mixture", "m.toml"], 2).err
    };
    let error = extend("[mix]\nseq_len = 64\nholdout = 0\nwindows = 8\nmax_uses_per_text = 3\n");
    assert!(error.contains("`mix.windows` is 8, the plan has 4"), "{error}");
    // No Rust syntax in messages.
    let error = extend("[mix]\nseq_len = 64\nholdout = 0\nwindows = 4\n");
    assert!(error.contains("`max_uses_per_text` is not set, the plan has 3"), "{error}");
    let error = extend(
        "[mix]\nseq_len = 64\nholdout = 0\nwindows = 4\nmax_uses_per_text = 3\nvariants = 'each-once'\n",
    );
    assert!(error.contains("`variants` is \"each-once\", the plan has \"share\""), "{error}");
}

#[test]
fn a_family_is_taken_down_with_all_its_texts_and_what_remains_is_counted() {
    let scratch = Scratch::new();
    build_of_families(&scratch, "[mix]\nseq_len = 64\nholdout = 0\n");
    let family = serde_json::from_str::<Value>(&scratch.ok(&["where", "3-one", "--json"]).out).unwrap();
    let family = family["documents"][0]["family"].as_str().unwrap().to_owned();
    scratch.write("gone.txt", format!("family:7-two\nfamily:{family}\n5-one\n"));
    let said = scratch.ok(&["mix", "--extend", "--from", "10", "--takedown", "gone.txt", "-v"]).err;
    let expected = "taken down: 7 documents of 3 families; 1 of these keep 2 other texts, 2 have none left";
    assert!(said.contains(expected), "{said}");
    let said = scratch.ok(&["where", "7-three"]).out;
    assert!(said.contains("taken down from sample 10 on; 0 other texts of its family remain"), "{said}");
    let said = scratch.ok(&["where", "5-one"]).out;
    assert!(said.contains("taken down from sample 10 on; 2 other texts of its family remain"), "{said}");
    assert!(!scratch.ok(&["where", "5-two"]).out.contains("taken down"));
    scratch.write("gone.txt", "family:nobody\n");
    let said = scratch.fail(&["mix", "--extend", "--from", "10", "--takedown", "gone.txt"], 2).err;
    assert!(said.contains("`family:nobody`"), "{said}");
}
