use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::completion::Usage;

fn key(i: u32) -> Key {
    Key(Hash::of(&i.to_le_bytes()))
}

fn completion(i: u32) -> Completion {
    Completion {
        text: format!("answer {i}\n{}", "word ".repeat(i as usize % 50)),
        finish_reason: "stop".into(),
        usage: Usage { prompt_tokens: u64::from(i), completion_tokens: 2 },
        model: "m".into(),
        time: 1_700_000_000 + u64::from(i),
    }
}

/// Segments of a few completions.
fn small() -> CacheOptions {
    CacheOptions { segment_bytes: 2_000, ..CacheOptions::default() }
}

fn fill(dir: &Path, numbers: impl IntoIterator<Item = u32>) -> Cache {
    let mut cache = Cache::open_with(dir, small()).unwrap();
    for i in numbers {
        assert!(cache.append(&key(i), &completion(i)).unwrap());
    }
    cache
}

fn check(cache: &Cache, numbers: impl IntoIterator<Item = u32>) {
    let expected: BTreeMap<Key, Completion> = numbers.into_iter().map(|i| (key(i), completion(i))).collect();
    let mut found = BTreeMap::new();
    cache
        .for_each(|key, completion| {
            assert!(found.insert(*key, completion.clone()).is_none());
            Ok(())
        })
        .unwrap();
    assert_eq!(found, expected);
    assert_eq!(cache.len(), expected.len() as u64);
    for (key, completion) in &expected {
        assert_eq!(cache.get(key).unwrap().as_ref(), Some(completion));
    }
    assert_eq!(cache.get(&Key(Hash::of(b"other"))).unwrap(), None);
}

#[test]
fn everything_is_found_while_writing_and_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = fill(dir.path(), 0..60);
    assert!(cache.sealed.len() > 2, "{}", cache.sealed.len());
    check(&cache, 0..60);
    check(&Cache::open_read_only(dir.path()).unwrap(), 0..60);
    drop(cache);
    let mut cache = Cache::open_with(dir.path(), small()).unwrap();
    assert_eq!(cache.opened().completions, 60);
    assert!(!cache.append(&key(3), &completion(4)).unwrap(), "the first answer stays");
    cache.append(&key(60), &completion(60)).unwrap();
    check(&cache, 0..61);
    drop(cache);
    let verified = Cache::verify(dir.path()).unwrap();
    assert_eq!((verified.completions, verified.problems), (61, Vec::new()));
}

#[test]
fn the_digest_is_that_of_the_set() {
    let digest = |numbers: Vec<u32>, options: CacheOptions| {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open_with(dir.path(), options).unwrap();
        for i in numbers {
            // The time of an answer is not part of it.
            cache.append(&key(i), &Completion { time: 0, ..completion(i) }).unwrap();
        }
        cache.digest().unwrap()
    };
    let forward = digest((0..40).collect(), small());
    assert_eq!(forward, digest((0..40).rev().collect(), CacheOptions::default()));
    assert_eq!(forward, fill(tempfile::tempdir().unwrap().path(), 0..40).digest().unwrap());
    assert_ne!(forward, digest((0..39).collect(), small()));
}

#[test]
fn one_writes_and_others_read() {
    let dir = tempfile::tempdir().unwrap();
    let cache = fill(dir.path(), 0..5);
    let error = Cache::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("another process writes"), "{error}");
    let mut reader = Cache::open_read_only(dir.path()).unwrap();
    assert!(reader.append(&key(9), &completion(9)).is_err());
    check(&reader, 0..5);
    drop(cache);
    // A reader keeps what it saw, whatever the writer does later.
    drop(fill(dir.path(), 5..60));
    check(&reader, 0..5);
    check(&Cache::open_read_only(dir.path()).unwrap(), 0..60);
}

#[test]
fn a_missing_cache_is_made_for_writing_and_an_error_for_reading() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("no/such");
    assert!(Cache::open_read_only(&path).unwrap_err().to_string().contains("no/such"));
    assert!(Cache::open(&path).unwrap().is_empty());
}

#[test]
fn poisoned_requests_are_remembered_until_they_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = fill(dir.path(), 0..2);
    let poisoned = |i: u32, tries| Poisoned { key: key(i), reason: "status 400: no".into(), tries, time: 5 };
    cache.poison(poisoned(7, 1)).unwrap();
    cache.poison(poisoned(8, 1)).unwrap();
    cache.poison(poisoned(7, 2)).unwrap();
    drop(cache);
    let mut cache = Cache::open(dir.path()).unwrap();
    assert_eq!(cache.opened().poisoned, 2);
    assert_eq!(cache.poisoned(&key(7)), Some(&poisoned(7, 2)));
    cache.append(&key(7), &completion(7)).unwrap();
    assert_eq!(cache.poisoned(&key(7)), None);
    drop(cache);
    let cache = Cache::open_read_only(dir.path()).unwrap();
    assert_eq!(cache.all_poisoned().cloned().collect::<Vec<_>>(), [poisoned(8, 1)]);
}

#[test]
fn a_kill_while_sealing_leaves_one_of_the_two_files_to_count() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), 0..5));
    let plain = segment_path(dir.path(), 0, ".jsonl");
    let bytes = fs::read(&plain).unwrap();
    Cache::open(dir.path()).unwrap().seal().unwrap();
    // The kill came between making the sealed file and removing the plain one.
    fs::remove_file(segment_path(dir.path(), 1, ".jsonl")).unwrap();
    fs::write(&plain, bytes).unwrap();
    check(&Cache::open_read_only(dir.path()).unwrap(), 0..5);
    let cache = Cache::open(dir.path()).unwrap();
    check(&cache, 0..5);
    assert!(!plain.exists());
}

#[test]
fn damage_is_reported_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), 0..3));
    let path = segment_path(dir.path(), 0, ".jsonl");
    let mut bytes = fs::read(&path).unwrap();
    let at = HEADER.len() + 100;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let mut cache = Cache::open(dir.path()).unwrap();
    assert_eq!((cache.opened().damaged_lines, cache.len()), (1, 2));
    let verified = Cache::verify(dir.path()).unwrap();
    assert!(verified.problems[0].contains("completions-00000.jsonl: the line at byte 46 "), "{verified:?}");
    // Its request is sent again, and the answer counts.
    cache.append(&key(0), &completion(0)).unwrap();
    check(&cache, 0..3);
    // Sealing keeps the damaged line, since someone might repair it.
    cache.seal().unwrap();
    check(&cache, 0..3);
    assert_eq!(Cache::verify(dir.path()).unwrap().problems.len(), 1);
}

#[test]
fn damage_in_a_sealed_segment_is_an_error_and_not_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..5).seal().unwrap();
    let path = segment_path(dir.path(), 0, ".jsonl.zst");
    let mut bytes = fs::read(&path).unwrap();
    bytes[60] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let cache = Cache::open_read_only(dir.path()).unwrap();
    let error = cache.get(&key(0)).unwrap_err().to_string();
    assert!(error.contains("completions-00000.jsonl.zst: damaged: frame 0"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is cut off the end, only completions of the growing segment are lost, from its end, and the
    /// rest continues.
    #[test]
    fn a_torn_tail_loses_nothing_before_it(n in 1u32..40, segment_bytes in 300u32..4_000, cut in 0usize..600) {
        let dir = tempfile::tempdir().unwrap();
        let options = CacheOptions { segment_bytes, ..CacheOptions::default() };
        let mut cache = Cache::open_with(dir.path(), options).unwrap();
        for i in 0..n {
            cache.append(&key(i), &completion(i)).unwrap();
        }
        let (number, plain) = cache.growing.as_ref().unwrap();
        let path = segment_path(dir.path(), *number, ".jsonl");
        let growing = cache.writer.as_ref().unwrap().entries.len() as u32;
        let len = plain.len();
        drop(cache);
        let keep = (len - (cut as u64).min(len - HEADER.len() as u64 - 1)) as usize;
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..keep]).unwrap();

        let mut cache = Cache::open_with(dir.path(), options).unwrap();
        let left = cache.len() as u32;
        prop_assert!(left >= n - growing && left <= n);
        prop_assert_eq!(fs::metadata(&path).unwrap().len() + cache.opened().torn_bytes, keep as u64);
        check(&cache, 0..left);
        for i in left..n + 2 {
            prop_assert!(cache.append(&key(i), &completion(i)).unwrap());
        }
        check(&cache, 0..n + 2);
        drop(cache);
        prop_assert_eq!(Cache::verify(dir.path()).unwrap().problems, Vec::<String>::new());
    }

    /// Opening any bytes as a segment gives an error or a cache, never a panic.
    #[test]
    fn any_bytes_are_opened_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), ending in 0..3) {
        let dir = tempfile::tempdir().unwrap();
        let with_header = [HEADER.as_bytes(), b"\n", &bytes].concat();
        match ending {
            0 => fs::write(segment_path(dir.path(), 0, ".jsonl"), with_header).unwrap(),
            1 => fs::write(segment_path(dir.path(), 0, ".jsonl.zst"), &bytes).unwrap(),
            _ => fs::write(dir.path().join(POISON_FILE), with_header).unwrap(),
        }
        if let Ok(cache) = Cache::open(dir.path()) {
            prop_assert!(cache.is_empty());
        }
    }
}
