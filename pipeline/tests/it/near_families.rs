use std::collections::{BTreeMap, BTreeSet};

use moe_shards::{FamilyId, Manifest, Plan, Shard};

use crate::support::{Random, Scratch, assert_same};

/// 60 pages, of which every third has two near copies and every fifth one.
fn corpus() -> Vec<String> {
    let mut random = Random(12);
    let mut lines = Vec::new();
    for n in 0..60 {
        let words: Vec<String> = (0..220).map(|_| format!("w{}", random.below(30_000))).collect();
        let n_copies = if n % 3 == 0 { 2 } else { usize::from(n % 5 == 0) };
        for copy in 0..=n_copies {
            let mut words = words.clone();
            // A word changes five shingles of 216, so copies have an index of about 0.9 with the page.
            (0..copy * 2).for_each(|i| words[30 * i + copy] = format!("changed{copy}"));
            let id = format!("page-{n}-{copy}");
            lines.push(serde_json::json!({ "id": id, "text": words.join(" ") }).to_string());
        }
    }
    lines
}

const RECIPE: &str = "[[source]]\nname = \"web\"\npaths = [\"docs\"]\nid = \"id\"\n[tokenizer]\ntrain = { vocab_size = 400 }\n\
                      [dedup.minhash]\naction = \"family\"\nmax_source_removed = 0.0\n";

/// The number of the page that a document is a text of.
fn page(id: &str) -> usize {
    id.split('-').nth(1).unwrap().parse().unwrap()
}

fn write(scratch: &Scratch, lines: &[String], per_file: usize) {
    for (i, part) in lines.chunks(per_file).enumerate() {
        scratch.write(&format!("docs/{i}.jsonl"), part.join("\n"));
    }
    scratch.write("r.toml", RECIPE);
}

#[test]
fn near_duplicates_of_one_family_are_shown_in_turn_and_far_apart() {
    let scratch = Scratch::new();
    let lines = corpus();
    write(&scratch, &lines, 1000);
    let said = scratch.ok(&["build", "--recipe", "r.toml"]);
    assert!(
        said.err.contains("0 near-duplicates removed, 48 put into the family of their survivor"),
        "{}",
        said.err
    );
    let ledger = scratch.ledger("out");
    let source = &ledger.sources["web"];
    assert_eq!((source.kept.docs as usize, source.dropped.len()), (lines.len(), 0));
    assert_eq!(source.variants.unwrap().documents, 48);

    // One family a page, its texts numbered from 0.
    let out = scratch.path("out");
    let manifest = Manifest::read(&out).unwrap();
    assert_eq!(manifest.sources[0].variants, ["original", "near-duplicate-1", "near-duplicate-2"]);
    let mut families: BTreeMap<FamilyId, Vec<(u8, usize)>> = BTreeMap::new();
    let mut joined = String::new();
    for info in &manifest.shards {
        let shard = Shard::open(&Manifest::mdx_path(&out, &info.name)).unwrap();
        for doc in 0..shard.n_docs() {
            let entry = families.entry(shard.family(doc).unwrap()).or_default();
            let (variant, id) = (shard.meta(doc).unwrap().variant, shard.id(doc).unwrap());
            entry.push((variant, page(id)));
            if variant > 0 {
                joined = id.to_owned();
            }
        }
    }
    assert_eq!(families.len(), 60);
    for texts in families.values_mut() {
        texts.sort_unstable();
        assert!(texts.iter().enumerate().all(|(i, text)| usize::from(text.0) == i), "{texts:?}");
        assert!(texts.iter().all(|text| text.1 == texts[0].1), "{texts:?}");
    }

    // Each pass shows one text of a page, not the same as the pass before, and never soon again.
    scratch.ok(&["mix", "--epochs", "4", "--seq-len", "256"]);
    scratch.ok(&["verify", "out"]);
    let plan = Plan::open(&out).unwrap();
    let mut shown: BTreeMap<FamilyId, BTreeMap<u32, (u8, u64, u64)>> = BTreeMap::new();
    for t in 0..plan.len() {
        let sample = plan.sample(t).unwrap();
        for piece in &sample.pieces {
            let pass =
                shown.entry(piece.family).or_default().entry(sample.id.pass).or_insert((piece.variant, t, t));
            assert_eq!(pass.0, piece.variant, "two texts of one family in a pass");
            pass.2 = t;
        }
    }
    let per_pass = plan.len() / 4;
    for (family, passes) in &shown {
        let n_texts = families[family].len();
        let variants: BTreeSet<u8> = passes.values().map(|pass| pass.0).collect();
        // Half of the passes show the original, the others rotate.
        assert_eq!(variants.len(), n_texts.min(3), "{passes:?}");
        let passes: Vec<_> = passes.values().collect();
        for pair in passes.windows(2) {
            assert!(
                pair[1].1 - pair[0].2 > per_pass / 2,
                "{} to {} of {per_pass} a pass",
                pair[0].2,
                pair[1].1
            );
        }
    }

    let rows = scratch.ok(&["why", &joined]).out;
    assert!(rows.starts_with(&format!("web/{joined}: kept")), "{rows}");
    assert!(
        rows.contains(&format!("like       of web/page-{}-", page(&joined)))
            && rows.contains("(family, Jaccard 0."),
        "{rows}"
    );
}

#[test]
fn families_of_near_duplicates_do_not_depend_on_split_or_threads() {
    let scratch = Scratch::new();
    let mut lines = corpus();
    write(&scratch, &lines, 1000);
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "one", "--threads", "1"]);
    std::fs::remove_dir_all(scratch.path("docs")).unwrap();
    Random(2).shuffle(&mut lines);
    write(&scratch, &lines, 17);
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "many", "--threads", "3", "--memory", "1MiB"]);
    assert_same(&scratch.results("many"), &scratch.results("one"));
}

/// What near-duplicates of one family share is not cut out of them, no more than out of declared variants.
#[test]
fn cuts_leave_near_duplicates_of_one_family_whole() {
    let scratch = Scratch::new();
    write(&scratch, &corpus(), 40);
    scratch.write("r.toml", format!("{RECIPE}[dedup.substring]\nmin_bytes = 80\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    assert!(scratch.ledger("out").sources["web"].cut.is_empty());
    let removing = format!("{RECIPE}[dedup.substring]\nmin_bytes = 80\n").replace("\"family\"", "\"remove\"");
    scratch.write("r.toml", removing.replace("max_source_removed = 0.0", "max_source_removed = 1.0"));
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "removed"]);
    assert_eq!(scratch.ledger("removed").sources["web"].kept.docs, 60);
}
