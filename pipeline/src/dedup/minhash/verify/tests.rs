use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::dedup::minhash::shingles::ShingleWriter;
use crate::tables::SHINGLES;

/// A document: its set, its declared family if any, its variant.
type Doc = (Vec<u64>, Option<u64>, u8);

fn params(similarity: Option<Similarity>, transitive: bool) -> VerifyParams {
    VerifyParams { similarity, transitive, variant_copy: 0.9, n_parts: 2 }
}

/// Runs the task on one connected set spread over two parts; (document, survivor, kind) of each verdict.
fn decide(dir: &Path, docs: &[Doc], params: VerifyParams, memory: u64) -> Vec<(u64, u64, u8)> {
    let _ = std::fs::remove_dir_all(dir);
    let folders = [dir.join("a"), dir.join("b")];
    let mut writers: Vec<ShingleWriter> =
        folders.iter().map(|f| ShingleWriter::create(&f.join(SHINGLES)).unwrap()).collect();
    let mut members = RunWriter::create(&dir.join("chunk.run")).unwrap();
    for (i, (set, family, variant)) in docs.iter().enumerate() {
        let part = i % 2;
        let extent = writers[part].append(set).unwrap();
        let row = CandidateRow {
            root: 0,
            rank: i as u64,
            part: part as u32,
            row: i as u32,
            n_bytes: 1,
            raw_bytes: 1,
            family: family.unwrap_or_default(),
            has_family: u8::from(family.is_some()),
            variant: *variant,
            shingle_start: extent.start,
            n_shingles: extent.n_shingles,
            shingle_hash: extent.hash,
            id_start: 0,
            id_bytes: 0,
        };
        members.push(row).unwrap();
    }
    members.commit().unwrap();
    writers.into_iter().for_each(|writer| writer.finish().unwrap());
    let inputs = VerifyInputs { members: dir.join("chunk.run"), folders: folders.to_vec() };
    let folder = dir.join("verdicts");
    std::fs::create_dir_all(&folder).unwrap();
    params.run(&inputs, &folder, &Watch::idle().with_memory(memory)).unwrap();
    let mut verdicts = RunReader::<VerdictRow>::open(&folder.join(VERDICTS), 0).unwrap();
    let mut found = Vec::new();
    while let Some(row) = verdicts.next_row().unwrap() {
        found.push((row.rank, row.kept_rank, row.verdict));
    }
    found.sort_unstable();
    found
}

fn alone(set: impl IntoIterator<Item = u64>) -> Doc {
    (set.into_iter().collect(), None, 0)
}

fn check(docs: &[Doc], params: VerifyParams, expected: &[(u64, u64, u8)]) {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(decide(dir.path(), docs, params, 1 << 20), expected);
}

const J: Option<Similarity> = Some(Similarity::Jaccard(0.7));

#[test]
fn a_chain_does_not_remove_its_far_end() {
    // J(0, 1) = J(1, 2) = 18/22 = 0.82 and J(0, 2) = 16/24 = 0.67.
    let chain = [alone(0..20), alone(2..22), alone(4..24)];
    check(&chain, params(J, false), &[(1, 0, 0)]);
    check(&chain, params(J, true), &[(1, 0, 0), (2, 0, 0)]);
    check(&chain, params(None, false), &[(1, 0, 0), (2, 0, 0)]);
}

#[test]
fn what_is_left_clusters_again() {
    // 2 and 3 are unlike 0 but like each other; 1 is like both 0 and 2, and 0 comes first.
    let docs = [alone(0..20), alone(2..22), alone(4..24), alone(5..25)];
    check(&docs, params(J, false), &[(1, 0, 0), (3, 2, 0)]);
}

#[test]
fn a_page_inside_a_page_goes_only_when_it_is_the_later_one() {
    let contained = Some(Similarity::Containment(0.9));
    check(&[alone(0..100), alone(10..30)], params(contained, false), &[(1, 0, 0)]);
    check(&[alone(10..30), alone(0..100)], params(contained, false), &[]);
    check(&[alone(0..100), alone(10..30)], params(J, false), &[]);
}

#[test]
fn texts_of_one_family_never_remove_each_other() {
    let of = |family, variant| ((0..20).collect::<Vec<u64>>(), Some(family), variant);
    // The copy of the original is reported, the same text of another family removed, by the first survivor.
    check(&[of(1, 0), of(1, 1), of(2, 0)], params(J, false), &[(1, 0, 1), (2, 0, 0)]);
    // An earlier stranger removes the whole family.
    check(&[alone(0..20), of(1, 0), of(1, 1)], params(J, false), &[(1, 0, 0), (2, 0, 0)]);
    // Without comparing texts, and by way of another document, a family holds, too.
    check(&[of(1, 0), of(1, 1), alone(0..20)], params(None, false), &[(2, 0, 0)]);
    check(&[of(1, 0), alone(0..20), of(1, 1)], params(J, true), &[(1, 0, 0), (2, 0, 1)]);
    // Two texts that differ by more than a copy are not reported.
    let other = ((0..17).collect::<Vec<u64>>(), Some(1), 1);
    check(&[of(1, 0), other], params(J, false), &[]);
}

#[test]
fn a_template_of_a_thousand_pages_is_decided_in_one_way() {
    // Half of each set is the template: J is 1/3 between all, but every tenth page is a copy of the one before.
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 8 | 1 << 60
    };
    let mut docs: Vec<Doc> = Vec::new();
    for i in 0..1000u64 {
        let mut set: BTreeSet<u64> = (0..50).collect();
        match i % 10 {
            9 => set = docs[i as usize - 1].0.iter().copied().collect(),
            _ => set.extend((0..50).map(|_| next())),
        }
        docs.push(alone(set));
    }
    let expected: Vec<(u64, u64, u8)> = (0..100).map(|i| (i * 10 + 9, i * 10 + 8, 0)).collect();
    check(&docs, params(J, false), &expected);
    check(&docs, params(J, true), &expected);
}

/// The definition, without blocks and indexes.
fn by_definition(docs: &[Doc], similarity: Option<Similarity>) -> Vec<(u64, u64)> {
    let mut survivors: Vec<usize> = Vec::new();
    let mut removed = Vec::new();
    for (i, (set, family, _)) in docs.iter().enumerate() {
        let is_like = |&s: &usize| {
            let (kept, kept_family, _) = &docs[s];
            let is_family = family.is_some() && family == kept_family;
            let overlap = signature::overlap(set, kept);
            !is_family && similarity.is_none_or(|s| s.holds(overlap, set.len(), kept.len()))
        };
        match survivors.iter().copied().find(is_like) {
            Some(survivor) => removed.push((i as u64, survivor as u64)),
            None => survivors.push(i),
        }
    }
    removed
}

fn similarities() -> impl Strategy<Value = Option<Similarity>> {
    prop_oneof![
        Just(None),
        (0.05f64..1.0).prop_map(|least| Some(Similarity::Jaccard(least))),
        (0.05f64..1.0).prop_map(|least| Some(Similarity::Containment(least))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Many documents, so that blocks fill up and the index is used; few shingles, so that much is alike.
    #[test]
    fn blocks_and_indexes_change_nothing(
        sets in prop::collection::vec((prop::collection::btree_set(0u64..30, 0..20), prop::option::of(0u64..5), 0u8..3), 1..150),
        similarity in similarities(),
    ) {
        let docs: Vec<Doc> = sets.into_iter().map(|(set, family, variant)| (set.into_iter().collect(), family, variant)).collect();
        let dir = tempfile::tempdir().unwrap();
        let expected = by_definition(&docs, similarity);
        let large = decide(dir.path(), &docs, params(similarity, false), 64 << 20);
        let removed: Vec<(u64, u64)> = large.iter().filter(|v| v.2 == 0).map(|v| (v.0, v.1)).collect();
        prop_assert_eq!(&removed, &expected);
        // Blocks of a few documents.
        prop_assert_eq!(&decide(dir.path(), &docs, params(similarity, false), 4000), &large);

        // Exactly one survivor for each removed document, and no survivor is removed.
        let gone: BTreeMap<u64, u64> = removed.iter().copied().collect();
        prop_assert_eq!(gone.len(), removed.len());
        prop_assert!(gone.values().all(|survivor| !gone.contains_key(survivor)));

        if similarity.is_some() {
            let transitive = decide(dir.path(), &docs, params(similarity, true), 64 << 20);
            prop_assert_eq!(decide(dir.path(), &docs, params(similarity, true), 4000), transitive);
        }
    }
}
