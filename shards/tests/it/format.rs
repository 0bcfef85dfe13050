use std::path::Path;

use moe_shards::{DocumentMeta, Error, FamilyId, Hash, Shard, ShardIndex, ShardSpec, ShardWriter, TokenId};
use proptest::prelude::*;

fn spec(vocab_size: u32) -> ShardSpec {
    ShardSpec { vocab_size, eod: TokenId(1), tokenizer: Hash::of(b"t"), build: Hash::of(b"b") }
}

fn family(id: u64) -> DocumentMeta {
    DocumentMeta { family: FamilyId(id), n_bytes: 4, ..DocumentMeta::default() }
}

fn example(dir: &Path) -> Vec<u8> {
    let mut writer = ShardWriter::create(dir, "s", spec(100)).unwrap();
    for i in 0..5u32 {
        let tokens: Vec<TokenId> = (0..i).map(|j| TokenId(10 * i + j)).collect();
        writer.append(&format!("doc-{i}"), &family(u64::from(i / 2)), &tokens).unwrap();
    }
    let info = writer.finish().unwrap();
    assert_eq!((info.n_docs, info.n_tokens, info.bin_bytes, info.n_text_bytes), (5, 15, 30, 20));
    assert_eq!(info.mdx_blake3, Hash::of_file(&dir.join("s.mdx")).unwrap());
    assert_eq!(info.bin_blake3, Hash::of_file(&dir.join("s.bin")).unwrap());
    std::fs::read(dir.join("s.mdx")).unwrap()
}

#[test]
fn a_shard_appears_only_when_finished() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(dir.path(), "s", spec(100)).unwrap();
    writer.append("a", &family(0), &[TokenId(3)]).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_writer_refuses_what_a_reader_could_not_use() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(dir.path(), "s", spec(100)).unwrap();
    writer.append("a", &family(5), &[TokenId(3)]).unwrap();
    assert!(matches!(writer.append("b", &family(4), &[]), Err(Error::Order { .. })));
    let error = writer.append("c", &family(6), &[TokenId(3), TokenId(100)]).unwrap_err();
    assert!(
        error.to_string().contains("`c`: token 100 at position 1 is outside the vocabulary of 100"),
        "{error}"
    );
    let other = DocumentMeta { variant: 1, ..family(6) };
    assert!(matches!(writer.append("d", &other, &[]), Err(Error::Format { .. })));
    let error = writer.append("e", &DocumentMeta { language: 1, ..family(6) }, &[]).unwrap_err().to_string();
    assert!(error.contains("language of a document: expected at most 0, found 1"), "{error}");
    let error = writer.append("e", &DocumentMeta { tags: 2, ..family(6) }, &[]).unwrap_err().to_string();
    assert!(error.contains("expected bits of 0 tags, found 0b00000010"), "{error}");
    assert!(ShardWriter::create(dir.path(), "s", ShardSpec { eod: TokenId(100), ..spec(100) }).is_err());
}

#[test]
fn every_flipped_byte_is_noticed_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = example(dir.path());
    let mdx = dir.path().join("s.mdx");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&mdx, &damaged).unwrap();
        let outcome = Shard::open(&mdx).and_then(|shard| shard.verify());
        // Padding between sections belongs to nothing and is not checked.
        let Err(error) = outcome else {
            assert_eq!(bytes[at], 0, "byte {at} was changed unnoticed");
            continue;
        };
        assert!(error.to_string().contains("s.mdx") || error.to_string().contains("s.bin"), "{error}");
    }
    std::fs::write(&mdx, &bytes).unwrap();
    for at in 0..30 {
        let bin = dir.path().join("s.bin");
        let good = std::fs::read(&bin).unwrap();
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        std::fs::write(&bin, damaged).unwrap();
        let shard = Shard::open(&mdx).unwrap();
        let error = shard.verify().unwrap_err().to_string();
        assert!(error.contains("s.bin"), "{error}");
        // Documents of 1, 2, 3, 4 and 5 tokens of two bytes: the one that holds the byte is named, and the
        // others are good.
        let hit = [2, 6, 12, 20, 30].iter().position(|&end| at < end).unwrap() as u32;
        assert!(error.contains(&format!("doc-{hit}`")), "byte {at}: {error}");
        let bad: Vec<u32> = (0..5).filter(|&doc| shard.checked_tokens(doc).is_err()).collect();
        assert_eq!(bad, [hit]);
        drop(shard);
        std::fs::write(&bin, good).unwrap();
    }
}

/// Documents of 1 to 4 tokens with the EOD, of which the last two are trained.
fn masked_example(dir: &Path) -> (Vec<u8>, Vec<Vec<bool>>) {
    let mut writer = ShardWriter::create(dir, "m", spec(100)).unwrap().with_mask();
    let mut all = Vec::new();
    for i in 0..4u32 {
        let tokens: Vec<TokenId> = (0..i).map(|j| TokenId(10 * i + j)).collect();
        let flags: Vec<bool> = (0..=i).map(|j| j + 1 >= i).collect();
        writer.append_masked(&format!("doc-{i}"), &family(u64::from(i)), &tokens, &flags).unwrap();
        all.push(flags);
    }
    let info = writer.finish().unwrap();
    assert_eq!((info.n_tokens, info.n_trained_tokens), (10, Some(7)));
    (std::fs::read(dir.join("m.mdx")).unwrap(), all)
}

#[test]
fn a_mask_says_which_tokens_are_trained() {
    let dir = tempfile::tempdir().unwrap();
    let (_, flags) = masked_example(dir.path());
    let shard = Shard::open(&dir.path().join("m.mdx")).unwrap();
    shard.verify().unwrap();
    for (doc, expected) in flags.iter().enumerate() {
        assert_eq!(&shard.mask(doc as u32).unwrap().unwrap().to_vec(), expected);
    }
    // The targets of tokens 0, 1, 2 of the document 30 31 32 EOD are 31, 32, EOD; EOD has none.
    let targets = |offset, len| shard.trained_targets(3, offset, len).unwrap();
    assert_eq!((targets(0, 4), targets(0, 2), targets(1, 2), targets(3, 1)), (2, 1, 2, 0));
    // Without a mask all tokens that have a target are trained.
    example(dir.path());
    let plain = Shard::open(&dir.path().join("s.mdx")).unwrap();
    assert!(plain.mask(3).unwrap().is_none());
    assert_eq!((plain.trained_targets(3, 0, 4).unwrap(), plain.trained_targets(3, 1, 2).unwrap()), (3, 2));
    assert!(plain.trained_targets(5, 0, 1).is_err());
}

#[test]
fn every_flipped_byte_of_a_masked_index_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, _) = masked_example(dir.path());
    let mdx = dir.path().join("m.mdx");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&mdx, &damaged).unwrap();
        let noticed = Shard::open(&mdx).and_then(|shard| shard.verify()).is_err();
        assert!(noticed || bytes[at] == 0, "byte {at} was changed unnoticed");
    }
    // A changed flag is found where the document is read: the last byte is that of the mask's bits 8 and 9.
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&mdx, &damaged).unwrap();
    let shard = Shard::open(&mdx).unwrap();
    assert!(shard.checked_tokens(2).is_ok());
    assert!(shard.checked_tokens(3).unwrap_err().to_string().contains("`doc-3`"));
}

#[test]
fn flags_come_one_for_each_token_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut plain = ShardWriter::create(dir.path(), "p", spec(100)).unwrap();
    let error = plain.append_masked("a", &family(1), &[TokenId(3)], &[true, true]).unwrap_err().to_string();
    assert!(error.contains("flags of a document: expected none, found 2"), "{error}");
    let mut masked = ShardWriter::create(dir.path(), "m", spec(100)).unwrap().with_mask();
    for error in [
        masked.append_masked("a", &family(1), &[TokenId(3)], &[true]).unwrap_err(),
        masked.append("a", &family(1), &[TokenId(3)]).unwrap_err(),
    ] {
        assert!(error.to_string().contains("expected 2"), "{error}");
    }
}

/// Runs as a separate process: see the test below.
#[test]
fn a_process_that_reads_a_lost_map() {
    let Some(dir) = std::env::var_os("MOE_SHARDS_LOSE_A_MAP") else { return };
    moe_shards::exit_when_maps_are_lost().unwrap();
    let dir = Path::new(&dir);
    let mut writer = ShardWriter::create(dir, "s", spec(100)).unwrap();
    writer.append("long", &family(1), &[TokenId(7); 100_000]).unwrap();
    writer.finish().unwrap();
    let shard = Shard::open(&dir.join("s.mdx")).unwrap();
    std::fs::File::options().write(true).open(dir.join("s.bin")).unwrap().set_len(0).unwrap();
    let sum: u64 = shard.token_bytes().iter().map(|&byte| u64::from(byte)).sum();
    panic!("read {sum} from a file without bytes");
}

#[cfg(unix)]
#[test]
fn truncating_a_mapped_shard_is_a_message_and_an_exit_code_not_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["format::a_process_that_reads_a_lost_map", "--exact", "--nocapture"])
        .env("MOE_SHARDS_LOSE_A_MAP", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("became shorter while it was read") && said.contains("moe-data verify"), "{said}");
}

#[test]
fn truncated_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = example(dir.path());
    for len in [0, 7, 255, 256, 319, 320, bytes.len() - 1] {
        assert!(ShardIndex::parse(Path::new("s.mdx"), &bytes[..len]).is_err(), "{len} bytes");
    }
    let bin = dir.path().join("s.bin");
    std::fs::write(&bin, &std::fs::read(&bin).unwrap()[..29]).unwrap();
    let error = Shard::open(&dir.path().join("s.mdx")).unwrap_err().to_string();
    assert!(error.contains("expected 15 tokens of 2 bytes, found 29 bytes"), "{error}");
}

#[test]
fn a_newer_version_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = example(dir.path());
    bytes[8] = 9;
    let error = ShardIndex::parse(Path::new("s.mdx"), bytes).unwrap_err().to_string();
    assert_eq!(error, "s.mdx: format version 9; this program reads up to 4: install a newer one");
}

/// Reads everything that can be read; the outcome does not matter, only that there is one.
fn exercise(bytes: Vec<u8>) {
    if let Ok(index) = ShardIndex::parse(Path::new("fuzz"), bytes) {
        for doc in (0..index.n_docs().min(50)).chain([index.n_docs(), u32::MAX]) {
            let outcomes = [index.span(doc).is_ok(), index.meta(doc).is_ok(), index.id(doc).is_ok()];
            assert!(doc < index.n_docs() || outcomes == [false; 3]);
            let flags = index.mask(doc).map(|mask| mask.is_none_or(|mask| mask.is_trained(0)));
            let targets = [(0, u32::MAX), (u32::MAX, u32::MAX)]
                .map(|(at, len)| index.trained_targets(doc, at, len).is_ok());
            assert!(doc < index.n_docs() || flags.is_err() && targets == [false; 2]);
        }
        assert!(index.verify_sections().is_ok() || index.n_docs() < u32::MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_give_an_error_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        exercise(bytes);
    }

    /// Damage anywhere in a good file, with the header's checksum corrected, so that the damage reaches the
    /// code after the check.
    #[test]
    fn a_damaged_header_with_a_valid_checksum_never_panics(
        at in 0usize..312, value in any::<u8>(), more in proptest::collection::vec((0usize..312, any::<u8>()), 0..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = example(dir.path());
        for (at, value) in more.into_iter().chain([(at, value)]) {
            bytes[at] = value;
        }
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..312]);
        bytes[312..320].copy_from_slice(&checksum.to_le_bytes());
        exercise(bytes);
    }

    #[test]
    fn what_goes_in_comes_out(
        mut docs in proptest::collection::vec((any::<u64>(), proptest::collection::vec(0u32..70_000, 0..40), ".{0,12}"), 0..30),
        wide in any::<bool>(),
    ) {
        docs.sort_by_key(|doc| doc.0);
        let dir = tempfile::tempdir().unwrap();
        let vocab_size = if wide { 70_000 } else { 65_000 };
        let mut writer = ShardWriter::create(dir.path(), "s", spec(vocab_size)).unwrap();
        for (id, tokens, name) in &docs {
            let tokens: Vec<TokenId> = tokens.iter().map(|t| TokenId(t % vocab_size)).collect();
            writer.append(name, &family(*id), &tokens).unwrap();
        }
        writer.finish().unwrap();
        let shard = Shard::open(&dir.path().join("s.mdx")).unwrap();
        shard.verify().unwrap();
        prop_assert_eq!(shard.n_docs() as usize, docs.len());
        for (i, (id, tokens, name)) in docs.iter().enumerate() {
            let doc = i as u32;
            let expected: Vec<u32> = tokens.iter().map(|t| t % vocab_size).chain([1]).collect();
            prop_assert_eq!(shard.tokens(doc).unwrap().to_vec(), expected);
            prop_assert_eq!(shard.family(doc).unwrap(), FamilyId(*id));
            prop_assert_eq!(shard.id(doc).unwrap(), name);
        }
    }
}
