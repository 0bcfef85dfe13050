use std::path::PathBuf;

use moe_shards::{DocumentMeta, FamilyId, Hash, Shard, ShardSpec, ShardWriter, TokenId};

const DOCS: [(&str, u64, &[u32]); 3] =
    [("a/1", 3, &[5, 6, 7]), ("naïve", 9, &[]), ("c", u64::MAX, &[65_498, 1, 1, 2])];

fn compat_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/compat")
}

fn meta(i: usize, family: u64) -> DocumentMeta {
    DocumentMeta {
        family: FamilyId(family),
        variant: 2,
        style: 1,
        quality: 9,
        flags: 0b101,
        lang: 77,
        source: 3,
        n_bytes: 10 + i as u32,
    }
}

fn write(dir: &std::path::Path, name: &str, vocab_size: u32) {
    let spec = ShardSpec {
        vocab_size,
        eod: TokenId(0),
        tokenizer: Hash::of(b"tokenizer"),
        build: Hash::of(b"build"),
    };
    let mut writer = ShardWriter::create(dir, name, spec).unwrap();
    for (i, (id, family, tokens)) in DOCS.iter().enumerate() {
        let tokens: Vec<TokenId> = tokens.iter().map(|&t| TokenId(t)).collect();
        writer.append(id, &meta(i, *family), &tokens).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn version_1_opens_for_ever() {
    for name in ["v1-u16", "v1-u32"] {
        let shard = Shard::open(&compat_dir().join(format!("{name}.mdx"))).unwrap();
        shard.verify().unwrap();
        assert_eq!((shard.n_docs(), shard.n_tokens(), shard.eod()), (3, 10, TokenId(0)));
        assert_eq!(shard.tokenizer(), Hash::of(b"tokenizer"));
        for (i, (id, family, tokens)) in DOCS.iter().enumerate() {
            let doc = i as u32;
            assert_eq!(shard.id(doc).unwrap(), *id);
            assert_eq!(shard.meta(doc).unwrap(), meta(i, *family));
            assert_eq!(shard.tokens(doc).unwrap().to_vec(), [tokens, &[0][..]].concat());
        }
    }
}

/// Today's writer still writes the committed bytes.
#[test]
fn the_writer_still_writes_version_1() {
    let dir = tempfile::tempdir().unwrap();
    // `MOE_SHARDS_WRITE_COMPAT` makes the files of a new version; see docs/shard-format.md.
    let target = if std::env::var_os("MOE_SHARDS_WRITE_COMPAT").is_some() {
        compat_dir()
    } else {
        dir.path().to_owned()
    };
    for (name, vocab_size) in [("v1-u16", 65_499), ("v1-u32", 65_500)] {
        write(&target, name, vocab_size);
        for extension in ["mdx", "bin"] {
            let file = format!("{name}.{extension}");
            assert_eq!(
                std::fs::read(target.join(&file)).unwrap(),
                std::fs::read(compat_dir().join(&file)).unwrap(),
                "{file}"
            );
        }
    }
}
