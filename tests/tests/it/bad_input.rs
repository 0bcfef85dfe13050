use std::fs;
use std::path::Path;

use e2e::{fail, succeed};

use crate::determinism::project;

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no `{from}`", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn flip_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_mixture_with_mistakes_is_refused_before_any_work() {
    let dir = project(1);
    succeed("moe-data", dir.path(), &["build"]);
    let file = dir.path().join("mistakes.toml");
    let mixture = "[mix]\nepoch = 2\nholdout = 0.9\n\n[[pool]]\nsource = \"bibel\"\n";
    fs::write(&file, mixture).unwrap();
    let said = fail("moe-data", dir.path(), &["mix", "--mixture", "mistakes.toml"], 2);
    assert!(said.contains("mistakes.toml:2: `mix.epoch`: unknown key; did you mean `epochs`?"), "{said}");
    assert!(said.contains("mistakes.toml:3: `mix.holdout`"), "{said}");
    fs::write(&file, "[[pool]]\nsource = \"bibel\"\nweight = 1.0\n").unwrap();
    let said = fail("moe-data", dir.path(), &["mix", "--mixture", "mistakes.toml"], 2);
    assert!(said.contains("the build has no source `bibel`; did you mean `bible`?"), "{said}");
    assert!(said.contains("mix.tokens"), "all problems are reported: {said}");
    assert!(!dir.path().join("out/plan.lock").exists());
}

#[test]
fn missing_pieces_name_the_command_that_makes_them() {
    let dir = tempfile::tempdir().unwrap();
    let said = fail("moe-data", dir.path(), &["mix"], 2);
    assert!(said.contains("moe-data build"), "{said}");
    let said = fail("moe-train", dir.path(), &["--shards", "out/"], 3);
    assert!(said.contains("moe-data"), "{said}");
    let built = project(1);
    succeed("moe-data", built.path(), &["build"]);
    let said = fail("moe-train", built.path(), &["--shards", "out/"], 3);
    assert!(said.contains("moe-data mix"), "{said}");
}

#[test]
fn damage_is_found_and_named() {
    let dir = project(1);
    succeed("moe-data", dir.path(), &["build"]);
    succeed("moe-data", dir.path(), &["mix"]);
    let out = dir.path().join("out");
    succeed("moe-data", dir.path(), &["verify", "out"]);

    let bin = fs::read_dir(out.join("shards"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "bin"))
        .unwrap();
    flip_byte(&bin, 1000);
    let said = fail("moe-data", dir.path(), &["verify", "out"], 1);
    assert!(said.contains(bin.file_name().unwrap().to_str().unwrap()), "{said}");
    flip_byte(&bin, 1000);

    let mdx = bin.with_extension("mdx");
    flip_byte(&mdx, 330);
    for (program, args, code) in
        [("moe-data", &["explain", "0"][..], 3), ("moe-train", &["--shards", "out/"], 3)]
    {
        let said = fail(program, dir.path(), args, code);
        assert!(said.contains("section `end` is damaged"), "{said}");
    }
    flip_byte(&mdx, 330);

    let pack =
        e2e::digests(&out.join("plan")).into_keys().find(|name| name.ends_with("bible-p001.pack")).unwrap();
    let pack = out.join("plan").join(pack);
    flip_byte(&pack, 500);
    let said = fail("moe-data", dir.path(), &["verify", "out"], 1);
    assert!(said.contains("bible-p001.pack"), "{said}");
    flip_byte(&pack, 500);

    replace(&out.join("plan.lock"), "\"seed\": 1", "\"seed\": 2");
    let said = fail("moe-data", dir.path(), &["explain", "0"], 3);
    assert!(said.contains("the file was edited; run `moe-data mix` again"), "{said}");
    replace(&out.join("plan.lock"), "\"seed\": 2", "\"seed\": 1");
    succeed("moe-data", dir.path(), &["explain", "0"]);
}

/// A plan of other shards is refused by everything that would read it, and made again by `mix`.
#[test]
fn a_plan_of_other_shards_is_refused() {
    let dir = project(1);
    succeed("moe-data", dir.path(), &["build"]);
    succeed("moe-data", dir.path(), &["mix"]);
    let recipe = dir.path().join("configs/build.toml");
    replace(&recipe, "vocab_size = 4096", "vocab_size = 1000");
    succeed("moe-data", dir.path(), &["build"]);
    let said = fail("moe-train", dir.path(), &["--shards", "out/"], 3);
    assert!(said.contains("the plan was made for other shards; run `moe-data mix` again"), "{said}");
    succeed("moe-data", dir.path(), &["mix"]);
    succeed("moe-data", dir.path(), &["explain", "0"]);
}

#[test]
fn another_plan_is_replaced_only_by_force() {
    let dir = project(1);
    succeed("moe-data", dir.path(), &["build"]);
    succeed("moe-data", dir.path(), &["mix", "--epochs", "4"]);
    let said = fail("moe-data", dir.path(), &["mix", "--epochs", "2"], 2);
    assert!(said.contains("--force"), "{said}");
    succeed("moe-data", dir.path(), &["mix", "--epochs", "2", "--force"]);
}

#[test]
fn explain_says_which_text_a_sample_is() {
    let dir = project(1);
    succeed("moe-data", dir.path(), &["build"]);
    succeed("moe-data", dir.path(), &["mix", "--epochs", "4"]);
    let n_samples = {
        let said: serde_json::Value =
            serde_json::from_str(&succeed("moe-data", dir.path(), &["explain", "0", "--json"])).unwrap();
        said["n_samples"].as_u64().unwrap()
    };
    let mut variants = std::collections::BTreeSet::new();
    for t in (0..n_samples).step_by(97) {
        let said = succeed("moe-data", dir.path(), &["explain", &t.to_string(), "--json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let pieces = said["pieces"].as_array().unwrap();
        assert!(!pieces.is_empty());
        for piece in pieces {
            let (document, variant) =
                (piece["document"].as_str().unwrap(), piece["variant_name"].as_str().unwrap());
            assert!(document.contains(variant), "{document} is not {variant}");
            assert!(piece["len"].as_u64().unwrap() <= 4 || !piece["text"].as_str().unwrap().is_empty());
            variants.insert(variant.to_owned());
        }
    }
    assert_eq!(variants.into_iter().collect::<Vec<_>>(), ["4.2", "5.2", "KJV", "WEB"]);
    let said = fail("moe-data", dir.path(), &["explain", &n_samples.to_string()], 3);
    assert!(said.contains("E-PLAN-EXHAUSTED"), "{said}");
}
