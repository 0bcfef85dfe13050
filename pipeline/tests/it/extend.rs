use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use moe_data::mix::{Extension, MixOptions, make_plan};
use moe_data::watch::Watch;
use moe_shards::{FamilyId, Plan, PlanLock};

use crate::generated::{Source, families, family_id, generated_build, source};
use crate::mixture::{check_passes, lens, mix, read, samples};
use crate::support::{Random, Scratch};

fn extension(from: u64) -> MixOptions {
    let extend = Extension { from, takedown: Vec::new(), new_phases: true };
    MixOptions { extend: Some(extend), ..MixOptions::default() }
}

fn pools(packing: &str, epochs: u32) -> String {
    format!("[mix]\nepochs = {epochs}\nseq_len = 64\npacking = '{packing}'\nholdout = 0.05\nwindows = 8\n")
}

/// Everything below T is the same, every pass continues to the token, and a run of the old plan is accepted
/// up to T.
#[test]
fn an_extension_keeps_the_past_and_continues_every_pass() {
    for packing in ["best-fit", "concat"] {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (families(700, 2, 40, 1), families(400, 0, 60, 2));
        let sources = [source("a", &a), source("b", &b)];
        let manifest = generated_build(dir.path(), 5000, &sources);
        let (old, _) = mix(dir.path(), &manifest, &pools(packing, 2), &MixOptions::default());
        let from = old.len() * 5 / 8;
        let past = samples(&old, from);
        let (new, outcome) = mix(dir.path(), &manifest, &pools(packing, 4), &extension(from));
        assert!(samples(&new, from) == past, "{packing}: the past has changed");
        assert_ne!(new.sample(from).unwrap(), old.sample(from).unwrap());
        let lock = new.lock();
        assert_eq!(lock.phases[0].chain, old.lock().phases[0].chain);
        assert_eq!(lock.phases[0].shown_samples, Some(from));
        assert_eq!(lock.common_prefix(old.lock()), from);
        assert!(lock.continues_run(old.id(), from) && !lock.continues_run(old.id(), from + 1));
        assert!(lock.continues_run(new.id(), new.len()) && !old.lock().continues_run(new.id(), 1));
        assert_eq!(new.pool_names()[2..], [format!("a@t{from}"), format!("b@t{from}")]);
        for (number, source) in sources.iter().enumerate() {
            let whole = check_passes(&new, number, &lens(number, source), packing == "best-fit");
            assert_eq!(whole, 4, "{packing} {}", source.name);
        }
        // Showings count from the beginning.
        assert_eq!(outcome.worth[1].family_sightings, BTreeMap::from([(4, outcome.worth[1].families)]));
        assert!((outcome.worth[0].passes - 4.0).abs() < 1e-9, "{}", outcome.worth[0].passes);

        // An extension of the extension, in its own past, with other sequences and weights.
        let text = pools(packing, 6)
            + "[[pool]]\nsource = 'a'\n[[pool]]\nsource = 'b'\n[[phase]]\nname = 'long'\ntokens = 30000\nseq_len = 200\nweights = { a = 1, b = 3 }\n";
        let from_2 = from + (new.len() - from) / 3;
        let past = samples(&new, from_2);
        let (third, _) = mix(dir.path(), &manifest, &text, &extension(from_2));
        assert!(samples(&third, from_2) == past);
        assert_eq!(third.seq_len_at(from_2).unwrap(), 200);
        assert!(
            third.lock().continues_run(old.id(), from) && !third.lock().continues_run(old.id(), from + 1)
        );
        assert!(third.lock().continues_run(new.id(), from_2));
        for (number, source) in sources.iter().enumerate() {
            check_passes(&third, number, &lens(number, source), packing == "best-fit");
        }
        // At the end of a plan nothing is cut.
        let (fourth, _) = mix(dir.path(), &manifest, &pools(packing, 7), &extension(third.len()));
        assert!(fourth.lock().phases.iter().filter(|phase| phase.shown_samples.is_some()).count() == 2);
        assert!(samples(&fourth, third.len()) == samples(&third, third.len()));
    }
}

#[test]
fn new_shards_form_a_separate_generation() {
    for packing in ["best-fit", "concat"] {
        let dir = tempfile::tempdir().unwrap();
        let (a, more, b) = (families(500, 1, 40, 1), families(300, 1, 40, 8), families(200, 0, 50, 3));
        let manifest = generated_build(dir.path(), 5000, &[source("a", &a)]);
        let (old, _) = mix(dir.path(), &manifest, &pools(packing, 2), &MixOptions::default());
        let from = old.len() / 2;
        let past = samples(&old, from);

        let grown = [Source { more: &more, ..source("a", &a) }, source("b", &b)];
        let manifest = generated_build(dir.path(), 5000, &grown);
        assert!(Plan::open(dir.path()).unwrap_err().to_string().contains("--extend"));
        let (new, outcome) = mix(dir.path(), &manifest, &pools(packing, 3), &extension(from));
        // New shards change the numbers of the old ones in the manifest, and nothing else.
        let renumbered = |mut sample: moe_shards::Sample| {
            sample.pieces.iter_mut().for_each(|piece| piece.shard = 0);
            sample
        };
        let now = samples(&new, from).into_iter().map(renumbered);
        assert!(now.eq(past.into_iter().map(renumbered)));
        assert_eq!(new.pool_names(), ["a", &format!("a@t{from}"), "a@g1", "b"]);
        let shown: BTreeSet<FamilyId> =
            (from..new.len()).flat_map(|t| new.sample(t).unwrap().pieces).map(|piece| piece.family).collect();
        let holdout = moe_shards::family::Holdout { ppm: 50_000, seed: 1 };
        let all = (0..800).map(|i| family_id(0, i)).chain((0..200).map(|i| family_id(1, i)));
        assert!(all.filter(|&id| !holdout.contains(id)).all(|id| shown.contains(&id)));
        for (worth, passes) in outcome.worth.iter().zip([3.0, 3.0, 3.0]) {
            assert!((worth.passes - passes).abs() < 1e-9, "{}: {}", worth.pool, worth.passes);
        }
        let whole = check_passes(&new, 2, &lens(0, &grown[0]), packing == "best-fit");
        assert_eq!(whole, 3);
    }
}

#[test]
fn documents_that_are_taken_down_become_padding_from_there_on() {
    for packing in ["best-fit", "concat"] {
        let dir = tempfile::tempdir().unwrap();
        let a = families(300, 0, 60, 1);
        let manifest = generated_build(dir.path(), 5000, &[source("a", &a)]);
        let (old, _) = mix(dir.path(), &manifest, &pools(packing, 3), &MixOptions::default());
        let (from, before) = (old.len() / 2, samples(&old, old.len()));
        let gone: Vec<usize> = (0..300).filter(|i| i % 30 == 7).collect();
        let extend = Extension {
            from,
            takedown: gone.iter().map(|i| format!("a/{i}/0")).collect(),
            new_phases: false,
        };
        let options = MixOptions { extend: Some(extend), ..MixOptions::default() };
        let (new, _) = mix(dir.path(), &manifest, &pools(packing, 3), &options);
        assert_eq!((new.len(), new.lock().phases.len()), (old.len(), 1));
        assert_eq!(new.lock().phases, old.lock().phases);
        assert_ne!(new.id(), old.id());
        assert_eq!(new.lock().common_prefix(old.lock()), from);
        let ids: BTreeSet<FamilyId> = gone.iter().map(|&i| family_id(0, i)).collect();
        let mut hidden = 0;
        for (t, old) in before.iter().enumerate() {
            let new = new.sample(t as u64).unwrap();
            if (t as u64) < from {
                assert!(new == *old);
                continue;
            }
            assert_eq!(new.id, old.id);
            let kept: Vec<_> =
                old.pieces.iter().filter(|piece| !ids.contains(&piece.family)).copied().collect();
            assert_eq!(new.pieces, kept);
            for piece in &old.pieces {
                let range = piece.start as usize..(piece.start + piece.len) as usize;
                if ids.contains(&piece.family) {
                    hidden += 1;
                    assert!(new.tokens[range.clone()].iter().all(|&token| token == 0));
                    assert!(new.loss_mask[range.clone()].iter().all(|&on| !on));
                    assert!(new.segments[range].iter().all(|&s| s == moe_shards::IGNORED_SEGMENT));
                } else {
                    assert_eq!(new.tokens[range.clone()], old.tokens[range.clone()]);
                    assert_eq!(new.loss_mask[range.clone()], old.loss_mask[range]);
                }
            }
        }
        assert!(hidden > 5);
    }
}

#[test]
fn what_an_extension_cannot_change_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let a = families(300, 1, 40, 1);
    let manifest = generated_build(dir.path(), 5000, &[source("a", &a)]);
    mix(dir.path(), &manifest, &pools("best-fit", 2), &MixOptions::default());
    let refused = |text: &str, options: &MixOptions| {
        make_plan(dir.path(), &manifest, &read(text, &manifest), options, &Watch::idle())
            .unwrap_err()
            .to_string()
    };
    let text = pools("best-fit", 3);
    let cases = [
        (text.replace("[mix]", "[mix]\nseed = 5"), "`mix.seed` is 5, the plan has 1"),
        (text.replace("0.05", "0.1"), "`mix.holdout` is 100000 per million"),
        (pools("concat", 3), "`packing` is concat, the plan has best-fit"),
        (text.replace("[mix]", "[mix]\noriginal_share = 0.25"), "`original_share` is 1/4, the plan has 1/2"),
        (
            format!("{text}[[pool]]\nname = 'x'\nsource = 'a'\n"),
            "pool `x` is not in the plan and has no new shards",
        ),
    ];
    for (text, expected) in cases {
        let error = refused(&text, &extension(10));
        assert!(error.contains(expected), "{error}");
    }
    assert!(refused(&text, &extension(0)).contains("--from 0: expected 1 to"));
    let proxy = MixOptions { proxy: Some([1, 2]), ..extension(10) };
    assert!(refused(&text, &proxy).contains("`--proxy`"));
    Plan::open(dir.path()).unwrap().verify().unwrap();
}

/// A job that is started again ran the same command twice: the second one extended what the first had made, by fewer samples
/// and under another id, and runs of the first could not continue.
#[test]
fn the_same_extension_again_changes_nothing() {
    let scratch = Scratch::new();
    let a = families(300, 1, 40, 1);
    generated_build(&scratch.path("out"), 5000, &[source("a", &a)]);
    scratch.ok(&["mix", "--epochs", "2", "--seq-len", "64"]);
    scratch.write("gone.txt", "a/3/0\na/a/4/0\n");
    scratch.write("m.toml", "[mix]\nepochs = 4\nseq_len = 64\n");
    let files = || files_of(&scratch.path("out"));
    for extend in [
        &["--from", "10", "--epochs", "3"][..],
        &["--from", "10", "--takedown", "gone.txt"],
        &["--from", "20", "--mixture", "m.toml"],
        &["--from", "30", "--mixture", "m.toml", "--takedown", "gone.txt"],
    ] {
        let command = [&["mix", "--extend"][..], extend].concat();
        let before = files();
        let said = scratch.ok(&command).err;
        assert!(!said.contains("nothing changed"), "{extend:?}: {said}");
        let once = files();
        assert_ne!(once, before);
        for _ in 0..2 {
            let said = scratch.ok(&command).err;
            assert!(
                said.contains("nothing changed: out/plan.lock is this plan already"),
                "{extend:?}: {said}"
            );
            assert_eq!(files(), once, "{extend:?}");
        }
    }
    // The documents are hidden from sample 10 on, so also from 40 on.
    let said = scratch.ok(&["mix", "--extend", "--from", "40", "--takedown", "gone.txt"]).err;
    assert!(said.contains("nothing changed"), "{said}");
    // Another start, another mixture, or other documents make another extension.
    let id = PlanLock::read(&scratch.path("out")).unwrap().id;
    scratch.ok(&["mix", "--extend", "--from", "31", "--mixture", "m.toml"]);
    let lock = PlanLock::read(&scratch.path("out")).unwrap();
    assert!(lock.id != id && lock.continues_run(id, 31));
    Plan::open(&scratch.path("out")).unwrap().verify().unwrap();
}

/// All files below a folder with their digests.
fn files_of(dir: &std::path::Path) -> BTreeMap<String, moe_shards::Hash> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let digest = moe_shards::Hash::of_file(&path).unwrap();
                    found.insert(path.to_string_lossy().into_owned(), digest);
                }
            }
        }
    }
    found
}

/// Leftovers of a killed or refused `mix` are removed by the next one; files that it did not write stay.
#[test]
fn stray_folders_of_plans_are_cleaned_up_and_nothing_else() {
    let scratch = Scratch::new();
    let a = families(300, 1, 40, 1);
    generated_build(&scratch.path("out"), 5000, &[source("a", &a)]);
    scratch.write("out/plan/0123456789ab/a-p000.pack", "stray");
    scratch.write("out/plan/0123456789ab/a-p001.pack.77.0.moe-tmp", "stray");
    scratch.write("out/plan/mine/notes.txt", "mine");
    scratch.ok(&["mix", "--epochs", "2", "--seq-len", "64"]);
    let folders = || std::fs::read_dir(scratch.path("out/plan")).unwrap().count();
    assert!(scratch.path("out/plan/mine/notes.txt").exists());
    assert_eq!(folders(), 2);
    // A mixture that is refused after its passes were written.
    scratch.write("m.toml", "[mix]\nepochs = 3\nseq_len = 64\nmin_original_share = 0.99\n");
    scratch.fail(&["mix", "--mixture", "m.toml", "--force"], 2);
    assert_eq!(folders(), 2);
    scratch.ok(&["mix", "--extend", "--from", "5", "--epochs", "3"]);
    assert_eq!(folders(), 3);
    scratch.write("out/plan/ba9876543210/phase-000.counts", "stray");
    let said = scratch.ok(&["mix", "--extend", "--from", "5", "--epochs", "3"]).err;
    assert!(said.contains("nothing changed"), "{said}");
    assert_eq!(folders(), 3);
    Plan::open(&scratch.path("out")).unwrap().verify().unwrap();
}

/// An older program rounded shares of originals to a millionth.
#[test]
fn a_plan_with_a_rounded_share_can_be_extended_by_the_same_mixture() {
    let dir = tempfile::tempdir().unwrap();
    let a = families(300, 1, 40, 1);
    let manifest = generated_build(dir.path(), 5000, &[source("a", &a)]);
    let text =
        |share: &str| pools("best-fit", 2).replace("[mix]", &format!("[mix]\noriginal_share = {share}"));
    let (old, _) = mix(dir.path(), &manifest, &text("0.333333"), &MixOptions::default());
    assert_eq!(old.lock().pools[0].original_share, [333_333, 1_000_000]);
    let longer = text("0.3333333333333333").replace("epochs = 2", "epochs = 3");
    let (new, _) = mix(dir.path(), &manifest, &longer, &extension(20));
    assert_eq!(new.lock().pools[1].original_share, [333_333, 1_000_000]);
}

/// Twelve kills at random moments, each followed by the same command: in the end the files of an
/// uninterrupted extension.
#[test]
fn kills_during_an_extension_leave_the_same_files() {
    let scratch = Scratch::new();
    let a = families(2000, 1, 60, 1);
    for out in ["calm", "killed"] {
        generated_build(&scratch.path(out), 5000, &[source("a", &a)]);
        scratch.ok(&["mix", "--out", out, "--epochs", "2", "--seq-len", "64"]);
    }
    let extend = |out: &'static str| ["mix", "--out", out, "--extend", "--from", "100", "--epochs", "5"];
    let started = std::time::Instant::now();
    scratch.ok(&extend("calm"));
    let whole = started.elapsed();
    let mut random = Random(9);
    for _ in 0..12 {
        let mut command = scratch.command(&extend("killed"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
        child.kill().unwrap();
        child.wait().unwrap();
        Plan::open(&scratch.path("killed")).unwrap().sample(99).unwrap();
    }
    scratch.ok(&extend("killed"));
    // A moment that kills rarely hit: the plan is in place, but the list of its files is not.
    let list = scratch.path("killed").join(".moe-data/mix.json");
    let mut unfinished: serde_json::Value = serde_json::from_slice(&std::fs::read(&list).unwrap()).unwrap();
    for name in ["plan.toml", "plan.lock"] {
        unfinished["files"][name] = serde_json::Value::Null;
    }
    std::fs::write(&list, format!("{unfinished:#}\n")).unwrap();
    scratch.ok(&extend("killed"));
    let files = |out: &str| -> BTreeMap<String, moe_shards::Hash> {
        let root = scratch.path(out);
        let name = |path: String| path.strip_prefix(root.to_str().unwrap()).unwrap().to_owned();
        files_of(&root).into_iter().map(|(path, digest)| (name(path), digest)).collect()
    };
    assert_eq!(files("killed"), files("calm"));
}
