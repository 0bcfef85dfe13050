//! One task reads many small files, since every task costs files of its own in every stage.

use xxhash_rust::xxh3::xxh3_64;

use crate::recipe::inputs::InputFile;

/// Larger files are read alone.
const SMALL_BYTES: u64 = 1 << 20;
/// Files and bytes of a batch, at most.
const MAX_FILES: usize = 1024;
const MAX_BYTES: u64 = 8 << 20;
/// One in this many files ends a batch, by a hash of its name, so a new file changes only its own batch.
const MEAN_FILES: u64 = 512;

/// Consecutive files that are read together; files above `slice_bytes` are cut instead. With a `limit` on the records of a source, all files
/// are one batch.
pub(super) fn of(files: &[InputFile], slice_bytes: u64, limit: Option<u64>) -> Vec<&[InputFile]> {
    if limit.is_some() {
        return if files.is_empty() { Vec::new() } else { vec![files] };
    }
    let is_small = |file: &InputFile| file.n_bytes <= SMALL_BYTES.min(slice_bytes);
    let mut batches = Vec::new();
    let mut rest = files;
    while !rest.is_empty() {
        let (mut n, mut bytes) = (0, 0);
        for file in rest.iter().take(MAX_FILES).take_while(|file| is_small(file)) {
            bytes += file.n_bytes;
            if n > 0 && bytes > MAX_BYTES {
                break;
            }
            n += 1;
            if xxh3_64(file.name.as_bytes()).is_multiple_of(MEAN_FILES) {
                break;
            }
        }
        let (batch, behind) = rest.split_at(n.max(1));
        batches.push(batch);
        rest = behind;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, n_bytes: u64) -> InputFile {
        let (path, name) = (name.into(), name.to_owned());
        InputFile { path, name, n_bytes, changed_nanos: 0, etag: None, place: None }
    }

    #[test]
    fn small_files_are_read_together_and_large_ones_alone() {
        let files: Vec<InputFile> = [("a", 10), ("b", 20), ("c", 5 << 20), ("d", 1), ("e", 7 << 20)]
            .map(|(name, n_bytes)| file(name, n_bytes))
            .into();
        let sizes = |slice_bytes, limit| -> Vec<usize> {
            of(&files, slice_bytes, limit).iter().map(|batch| batch.len()).collect()
        };
        assert_eq!(sizes(64 << 20, None), [2, 1, 1, 1]);
        assert_eq!(sizes(15, None), [1, 1, 1, 1, 1]);
        assert_eq!(sizes(15, Some(3)), [5]);
        assert!(of(&[], 1, Some(3)).is_empty());
    }

    #[test]
    fn a_new_file_changes_only_the_batch_that_it_is_in() {
        let names: Vec<String> = (0..5000).map(|i| format!("f{i:05}")).collect();
        let files: Vec<InputFile> = names.iter().map(|name| file(name, 1000)).collect();
        let before = of(&files, 64 << 20, None);
        assert!((6..30).contains(&before.len()), "{}", before.len());
        let mut more = files.clone();
        more.insert(700, file("f00699x", 1000));
        let after = of(&more, 64 << 20, None);
        let new = after.iter().filter(|batch| !before.contains(batch)).count();
        assert!((1..=3).contains(&new), "{new}");
    }
}
