use std::collections::BTreeMap;

use moe_shards::{Plan, PlanLock};
use serde_json::Value;

use crate::support::{Scratch, line, lines, quickstart_recipe, small_recipe};

/// The quickstart's build and a plan of it, with families held out.
fn planned(packing: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("r.toml", quickstart_recipe());
    let mixture = format!("[mix]\nepochs = 2\nseq_len = 512\nholdout = 0.2\npacking = \"{packing}\"\n");
    scratch.write("mix.toml", mixture + "[[pool]]\nsource = \"bible\"\n[[pool]]\nsource = \"django\"\n");
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.ok(&["mix", "--mixture", "mix.toml"]);
    scratch
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn where_finds_exactly_the_samples_that_show_a_document() {
    for packing in ["best-fit", "concat"] {
        let scratch = planned(packing);
        let plan = Plan::open(&scratch.path("out")).unwrap();
        // All showings of all documents, by name.
        let mut shown: BTreeMap<String, Vec<(u64, u32, u32)>> = BTreeMap::new();
        for t in 0..plan.len() {
            let sample = plan.sample(t).unwrap();
            let pool = usize::from(sample.id.pool);
            for piece in &sample.pieces {
                let name = &plan.manifest().shards[piece.shard as usize].name;
                let at = plan.lock().pools[pool].shards.iter().position(|shard| shard.name == *name).unwrap();
                let id = plan.pools()[pool].docs().shards()[at].id(piece.doc).unwrap();
                shown.entry(id.to_owned()).or_default().push((t, piece.offset, piece.len));
            }
        }
        let mut all = Vec::new();
        for pool in plan.pools() {
            for shard in pool.docs().shards() {
                all.extend((0..shard.n_docs()).map(|doc| shard.id(doc).unwrap().to_owned()));
            }
        }
        let mut reasons = BTreeMap::<String, usize>::new();
        for id in all.iter().step_by(23) {
            let answer = json(&scratch.ok(&["where", id, "--json"]).out);
            let found: Vec<(u64, u32, u32)> = (answer["documents"][0]["shown"].as_array().unwrap().iter())
                .map(|s| {
                    let number = |key: &str| s[key].as_u64().unwrap();
                    (number("t"), number("offset") as u32, number("len") as u32)
                })
                .collect();
            assert_eq!(Some(&found), shown.get(id).or(Some(&Vec::new())), "{id}");
            if found.is_empty() {
                let reason = answer["documents"][0]["reason"].as_str().unwrap();
                *reasons.entry(reason.split(',').next().unwrap().to_owned()).or_default() += 1;
            }
        }
        assert!(reasons.contains_key("its family is held out for validation"), "{reasons:?}");
    }
}

#[test]
fn where_says_what_became_of_a_dropped_document() {
    let scratch = Scratch::new();
    let short = "{\"id\":\"short\",\"text\":\"too short\"}\n";
    let twin = line(3).replace("doc-3", "twin");
    scratch.write("a.jsonl", lines(0..50) + short + &twin);
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.ok(&["mix", "--epochs", "1", "--seq-len", "128"]);
    let said = scratch.ok(&["where", "short"]).out;
    assert!(said.contains("short: source a, dropped by filter: "), "{said}");
    let said = [scratch.ok(&["where", "twin"]).out, scratch.ok(&["where", "doc-3"]).out].concat();
    assert!(said.contains("exact duplicate of `"), "{said}");
    assert!(said.contains("  sample "), "{said}");
    let said = scratch.fail(&["where", "nobody"], 2).err;
    assert!(said.contains("is called `nobody`, neither in the shards nor in the audit"), "{said}");
}

#[test]
fn diff_names_the_settings_and_the_first_sample() {
    let scratch = planned("best-fit");
    let other = |name: &str, seed: &str| {
        scratch.ok(&["build", "--recipe", "r.toml", "--out", name]);
        scratch.ok(&["mix", "--mixture", "mix.toml", "--seed", seed, "--out", name]);
    };
    let seed = PlanLock::read(&scratch.path("out")).unwrap().seed;
    other("same", &seed.to_string());
    let said = scratch.ok(&["diff", "out", "same"]);
    assert!(said.out.is_empty() && said.err.contains("both are plan "), "{}{}", said.out, said.err);
    other("other", &(seed + 1).to_string());
    let found = json(&scratch.ok(&["diff", "out", "other", "--json"]).out);
    let (a, b) = (Plan::open(&scratch.path("out")).unwrap(), Plan::open(&scratch.path("other")).unwrap());
    let n = a.len().min(b.len());
    let equal: Vec<bool> =
        (0..n).map(|t| a.sample(t).unwrap().tokens == b.sample(t).unwrap().tokens).collect();
    assert_eq!(found["first_difference"].as_u64().unwrap() as usize, equal.iter().position(|e| !e).unwrap());
    assert_eq!(
        (&found["compared"], &found["equal"]),
        (&n.into(), &equal.iter().filter(|e| **e).count().into())
    );
    let keys: Vec<&str> =
        found["changes"].as_array().unwrap().iter().map(|c| c["key"].as_str().unwrap()).collect();
    assert!(keys.contains(&"seed") && !keys.contains(&"manifest"), "{keys:?}");
    let text = scratch.ok(&["diff", "out", "other"]).out;
    assert!(text.contains(&format!("  seed: {seed} -> {}\n", seed + 1)), "{text}");
}

/// It used to treat all samples of a phase with an equal link as equal, including those after an extension's
/// start and those with a document taken down.
#[test]
fn diff_finds_the_first_sample_that_an_extension_changes() {
    let scratch = planned("best-fit");
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "longer"]);
    scratch.ok(&["mix", "--mixture", "mix.toml", "--out", "longer"]);
    scratch.ok(&[
        "mix",
        "--mixture",
        "mix.toml",
        "--out",
        "longer",
        "--extend",
        "--from",
        "300",
        "--epochs",
        "3",
    ]);
    let plan = Plan::open(&scratch.path("out")).unwrap();
    let piece = &plan.sample(400).unwrap().pieces[0];
    let name = &plan.manifest().shards[piece.shard as usize].name;
    let shard = moe_shards::Shard::open(&moe_shards::Manifest::mdx_path(&scratch.path("out"), name)).unwrap();
    scratch.write("gone.txt", format!("{}\n", shard.id(piece.doc).unwrap()));
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "without"]);
    scratch.ok(&["mix", "--mixture", "mix.toml", "--out", "without"]);
    scratch.ok(&["mix", "--out", "without", "--extend", "--from", "200", "--takedown", "gone.txt"]);
    for other in ["longer", "without"] {
        let changed = Plan::open(&scratch.path(other)).unwrap();
        let same = |t: &u64| {
            let (a, b) = (plan.sample(*t).unwrap(), changed.sample(*t).unwrap());
            (a.tokens, a.targets, a.segments) == (b.tokens, b.targets, b.segments)
        };
        let first = (0..plan.len().min(changed.len())).find(|t| !same(t));
        let found = json(&scratch.ok(&["diff", "out", other, "--json"]).out);
        assert_eq!(found["first_difference"].as_u64(), first, "{other}");
        assert!(first.is_some_and(|t| t >= 200), "{other}: {first:?}");
    }
}

#[test]
fn verify_replays_samples_and_notices_broken_promises() {
    for packing in ["best-fit", "concat"] {
        let scratch = planned(packing);
        let out = scratch.path("out");
        let n = PlanLock::read(&out).unwrap().n_samples();
        let said = scratch.ok(&["verify", "out"]).err;
        assert!(said.contains(&format!("{n} of {n} samples replayed: ")), "{said}");
        let said = scratch.ok(&["verify", "out", "--samples", "10", "--seed", "4"]).err;
        assert!(said.contains(&format!("10 of {n} samples replayed: ")), "{said}");
        let found = json(&scratch.ok(&["verify", "out", "--json", "--samples", "0"]).out);
        assert_eq!((&found["ok"], &found["replay"]), (&true.into(), &Value::Null));
    }
    // Plans whose digests are right but which violate a guarantee.
    let scratch = planned("best-fit");
    let out = scratch.path("out");
    let good = PlanLock::read(&out).unwrap();
    let broken = |change: &dyn Fn(&mut PlanLock), said: &str| {
        let mut lock = good.clone();
        change(&mut lock);
        lock.seal().unwrap();
        lock.write(&out).unwrap();
        let found = scratch.fail(&["verify", "out"], 1).err;
        assert!(found.contains(said), "{said}: {found}");
    };
    broken(&|lock| lock.holdout_ppm = 300_000, " is held out for validation");
    broken(
        &|lock| {
            let bins = &mut lock.pools[0].passes[1].bins_per_window;
            let last = bins.len() - 1;
            bins[0] += bins[last];
            bins[last] = 0;
        },
        ": in window ",
    );
}
