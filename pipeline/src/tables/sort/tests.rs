use proptest::prelude::*;

use super::*;
use crate::tables::rows::{BandRow, KeyRow};

/// Three rows in memory, two runs at a time, one row a batch: every path with a handful of rows.
const TINY: Limits = Limits { workers: 2, chunk_rows: 3, fan_in: 2, read_bytes: 0, batch_rows: 1 };

fn sorted(folder: &Path, limits: Limits, rows: &[BandRow]) -> Vec<BandRow> {
    let mut sorter = Sorter::with_limits(folder, limits, &Watch::idle()).unwrap();
    rows.iter().for_each(|row| sorter.push(*row).unwrap());
    let stream = sorter.finish().unwrap();
    let sorted = stream.map(Result::unwrap).collect();
    assert!(!folder.exists(), "runs were left behind");
    sorted
}

/// Few keys and documents, so that equal keys and equal rows are frequent.
fn band_rows() -> impl Strategy<Value = Vec<BandRow>> {
    let row = (0..8u64, 0..8u64).prop_map(|(key, document)| BandRow { key, document });
    proptest::collection::vec(row, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_limit_sorts_like_vec(rows in band_rows(), workers in 1..4usize, chunk_rows in 1..20usize,
                                fan_in in 2..6usize, batch_rows in 1..9usize) {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = rows.clone();
        expected.sort();
        let limits = Limits { workers, chunk_rows, fan_in, read_bytes: 0, batch_rows };
        prop_assert_eq!(sorted(&dir.path().join("sort"), limits, &rows), expected);
    }

    #[test]
    fn groups_are_the_chunks_of_the_sorted_rows(rows in band_rows(), skip in 0..4usize) {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::with_limits(&dir.path().join("sort"), TINY, &Watch::idle()).unwrap();
        rows.iter().for_each(|row| sorter.push(*row).unwrap());
        let mut expected = rows.clone();
        expected.sort();
        let mut groups = sorter.finish().unwrap().groups(|row| row.key);
        for (number, chunk) in expected.chunk_by(|a, b| a.key == b.key).enumerate() {
            let mut group = groups.next_group().unwrap().unwrap();
            prop_assert_eq!(group.key(), chunk[0].key);
            // Some groups are left unread, from the second row on or from the first.
            let n_read = if number % 2 == 0 { chunk.len() } else { skip.min(chunk.len()) };
            for row in &chunk[..n_read] {
                prop_assert_eq!(group.next_row().unwrap(), Some(*row));
            }
            if number % 2 == 0 {
                prop_assert_eq!(group.next_row().unwrap(), None);
                prop_assert_eq!(group.next_row().unwrap(), None);
            }
        }
        prop_assert!(groups.next_group().unwrap().is_none());
        prop_assert!(groups.next_group().unwrap().is_none());
    }
}

/// Pseudo-random rows; every 16th key is one of 1,000.
fn many_rows(n_rows: u64) -> impl Iterator<Item = BandRow> {
    (0..n_rows).map(|document| {
        let hash = xxhash_rust::xxh3::xxh3_64(&document.to_le_bytes());
        BandRow { key: if document % 16 == 0 { hash % 1000 } else { hash }, document }
    })
}

#[test]
fn real_limits_give_the_same_bytes_for_any_memory_and_threads() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<BandRow> = many_rows(300_000).collect();
    expected.sort();
    for (memory, threads) in [(0, 1), (1 << 20, 4), (3 << 20, 2), (64 << 20, 2)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let rows: Vec<BandRow> = pool.install(|| {
            let mut sorter = Sorter::new(&dir.path().join("sort"), memory, &Watch::idle()).unwrap();
            many_rows(300_000).for_each(|row| sorter.push(row).unwrap());
            sorter.finish().unwrap().map(Result::unwrap).collect()
        });
        assert!(rows == expected, "{memory} bytes, {threads} threads");
    }
}

#[test]
fn limits_follow_the_memory() {
    let gib = Limits::new::<BandRow>(1 << 30, 2);
    assert_eq!((gib.workers, gib.fan_in, gib.batch_rows), (2, 128, 1 << 16));
    // Three chunks of 16-byte rows in 15/16 of a GiB.
    assert_eq!(gib.chunk_rows, (1 << 30) / 16 * 15 / 3 / 16);
    let least = Limits::new::<BandRow>(0, 64);
    assert_eq!((least.workers, least.fan_in), (1, 3));
    assert!(least.chunk_rows * 16 * 2 <= 1 << 20);
    assert!(least.batch_rows * 16 * 4 + least.read_bytes <= 1 << 20);
}

#[test]
fn runs_of_other_tasks_are_merged_and_left_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("task.run");
    let mut run = RunWriter::create(&path).unwrap();
    (0..10).for_each(|key| run.push(BandRow { key, document: 0 }).unwrap());
    assert_eq!(run.commit().unwrap(), 10);
    let mut sorter = Sorter::with_limits(&dir.path().join("sort"), TINY, &Watch::idle()).unwrap();
    (0..4).for_each(|_| sorter.add_run(&path));
    sorter.push(BandRow { key: 5, document: 1 }).unwrap();
    let keys: Vec<u64> = sorter.finish().unwrap().map(|row| row.unwrap().key).collect();
    let expected: Vec<u64> = (0..10).flat_map(|key| vec![key; if key == 5 { 5 } else { 4 }]).collect();
    assert_eq!(keys, expected);
    assert!(path.exists());
}

#[test]
fn rows_with_wide_keys_sort_by_all_fields() {
    let dir = tempfile::tempdir().unwrap();
    let row = |key, source, row| KeyRow {
        key,
        source,
        variant: 0,
        document_id: 0,
        family: 0,
        raw_bytes: 0,
        metadata_hash: 0,
        row,
    };
    let mut sorter = Sorter::with_limits(&dir.path().join("sort"), TINY, &Watch::idle()).unwrap();
    let rows = [row(u128::MAX, 0, 0), row(1, 2, 0), row(1, 0, 9), row(1, 0, 3), row(0, 9, 9)];
    rows.iter().for_each(|row| sorter.push(*row).unwrap());
    let sorted: Vec<KeyRow> = sorter.finish().unwrap().map(Result::unwrap).collect();
    assert_eq!(sorted, [rows[4], rows[3], rows[2], rows[1], rows[0]]);
}

#[test]
fn a_damaged_run_is_an_error_and_not_fewer_rows() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sort");
    let mut sorter = Sorter::with_limits(&folder, TINY, &Watch::idle()).unwrap();
    many_rows(100).for_each(|row| sorter.push(row).unwrap());
    while let Some(worker) = sorter.workers.pop_front() {
        join(worker).unwrap();
    }
    let path = folder.join("000007.run");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 4;
    fs::write(&path, bytes).unwrap();
    let error = match sorter.finish() {
        Err(error) => error,
        Ok(stream) => stream.filter_map(Result::err).next().unwrap(),
    };
    assert!(error.to_string().contains("000007.run"), "{error}");
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn a_stream_that_is_dropped_early_removes_its_runs() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sort");
    let mut sorter = Sorter::with_limits(&folder, TINY, &Watch::idle()).unwrap();
    many_rows(50).for_each(|row| sorter.push(row).unwrap());
    let mut stream = sorter.finish().unwrap();
    assert!(stream.next_row().unwrap().is_some());
    assert!(folder.exists());
    drop(stream);
    assert!(!folder.exists());
}

#[test]
fn a_stop_is_obeyed_and_what_a_kill_left_is_no_part_of_the_next_sort() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sort");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watch = Watch::new(stop.clone(), moe_report::progress::Bar::hidden());
    let mut sorter = Sorter::with_limits(&folder, TINY, &watch).unwrap();
    many_rows(6).for_each(|row| sorter.push(row).unwrap());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = many_rows(6).try_for_each(|row| sorter.push(row)).unwrap_err();
    assert!(matches!(error, Error::Interrupted));
    drop(sorter);
    assert!(folder.exists());
    assert_eq!(sorted(&folder, TINY, &[BandRow { key: 3, document: 1 }]), [BandRow { key: 3, document: 1 }]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("sort");
    let error = Sorter::<BandRow>::new(&folder, 0, &Watch::idle()).err().unwrap();
    assert!(error.to_string().contains(&folder.display().to_string()), "{error}");
}
