use std::path::PathBuf;

use moe_shards::{
    DocumentMeta, FamilyId, Hash, Names, Plan, PlanLock, Shard, ShardSpec, ShardWriter, TokenId,
};

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
        quality: Some(9),
        tags: 0b101,
        language: 77,
        source: 3,
        n_bytes: 10 + i as u32,
    }
}

/// From version 2 on: a quality may be unknown without being 0, and languages and tags have names.
fn meta_2(i: usize, family: u64) -> DocumentMeta {
    let quality = [Some(0), None, Some(255)][i];
    DocumentMeta { quality, language: i as u16, ..meta(i, family) }
}

fn names() -> Names {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Names::new(set(&["de", "eng-Latn"]), set(&["faq", "news", "wiki"])).unwrap()
}

fn write(dir: &std::path::Path, name: &str, vocab_size: u32, is_masked: bool) {
    let spec = ShardSpec {
        vocab_size,
        eod: TokenId(0),
        tokenizer: Hash::of(b"tokenizer"),
        build: Hash::of(b"build"),
    };
    let mut writer = ShardWriter::create(dir, name, spec).unwrap().with_names(names());
    if is_masked {
        writer = writer.with_mask();
    }
    for (i, (id, family, tokens)) in DOCS.iter().enumerate() {
        let ids: Vec<TokenId> = tokens.iter().map(|&t| TokenId(t)).collect();
        let meta = meta_2(i, *family);
        match is_masked {
            true => writer.append_masked(id, &meta, &ids, &flags(tokens)).unwrap(),
            false => writer.append(id, &meta, &ids).unwrap(),
        }
    }
    writer.finish().unwrap();
}

fn opens(name: &str, meta: fn(usize, u64) -> DocumentMeta) -> Shard {
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
    shard
}

#[test]
fn version_1_opens_forever() {
    for name in ["v1-u16", "v1-u32"] {
        let shard = opens(name, meta);
        assert_eq!(shard.names(), &Names::default());
        assert_eq!(shard.language(0).unwrap(), None);
        assert_eq!(shard.tags(0).unwrap().count(), 0);
    }
}

#[test]
fn version_2_opens_forever() {
    for name in ["v2-u16", "v2-u32"] {
        let shard = opens(name, meta_2);
        assert_eq!(shard.names(), &names());
        let languages: Vec<_> = (0..3).map(|doc| shard.language(doc).unwrap()).collect();
        assert_eq!(languages, [None, Some("de"), Some("eng-Latn")]);
        assert_eq!(shard.tags(1).unwrap().collect::<Vec<_>>(), ["faq", "wiki"]);
    }
}

/// From version 3 on: the source is not stored, and every document has a checksum.
fn meta_3(i: usize, family: u64) -> DocumentMeta {
    DocumentMeta { source: 0, ..meta_2(i, family) }
}

#[test]
fn version_3_opens_forever() {
    for name in ["v3-u16", "v3-u32"] {
        let shard = opens(name, meta_3);
        assert_eq!(shard.names(), &names());
        assert_eq!(shard.checked_tokens(2).unwrap().to_vec(), [65_498, 1, 1, 2, 0]);
    }
}

/// Version 4 is version 3 with a mask: here of documents whose last tokens and EODs are trained.
fn flags(tokens: &[u32]) -> Vec<bool> {
    (0..=tokens.len()).map(|i| i > 1).collect()
}

#[test]
fn version_4_opens_forever() {
    let shard = opens("v4-u16", meta_3);
    assert_eq!((shard.names(), shard.n_trained_tokens()), (&names(), 5));
    for (i, (_, _, tokens)) in DOCS.iter().enumerate() {
        assert_eq!(shard.mask(i as u32).unwrap().unwrap().to_vec(), flags(tokens));
    }
}

/// Today's writer still writes the committed bytes.
#[test]
fn the_writer_still_writes_versions_3_and_4() {
    let dir = tempfile::tempdir().unwrap();
    // `MOE_SHARDS_WRITE_COMPAT` makes the files of a new version; see docs/shard-format.md.
    let target = if std::env::var_os("MOE_SHARDS_WRITE_COMPAT").is_some() {
        compat_dir()
    } else {
        dir.path().to_owned()
    };
    for (name, vocab_size) in [("v3-u16", 65_499), ("v3-u32", 65_500), ("v4-u16", 65_499)] {
        write(&target, name, vocab_size, name.starts_with("v4"));
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

/// One line for each sample: number, pool, pass, bin, trained tokens, padding, and document:offset:length of
/// each piece, after a `+` where it continues the segment of the one before it.
fn listing(name: &str) -> String {
    let dir = compat_dir().join(name);
    let plan = Plan::open(&dir).unwrap();
    plan.verify().unwrap();
    let names = plan.pool_names();
    let shards: Vec<Shard> = plan
        .manifest()
        .shards
        .iter()
        .map(|shard| Shard::open(&dir.join(format!("shards/{}.mdx", shard.name))).unwrap())
        .collect();
    let mut text = String::new();
    for t in 0..plan.len() {
        let sample = plan.sample(t).unwrap();
        let (id, trained) = (sample.id, sample.trained_tokens());
        let filled: usize = sample.pieces.iter().map(|piece| piece.len as usize).sum();
        let padding = sample.tokens.len() - filled;
        text += &format!("{t} {} {} {} {trained} {padding}", names[usize::from(id.pool)], id.pass, id.bin);
        let mut segment = None;
        for piece in &sample.pieces {
            let document = shards[piece.shard as usize].id(piece.doc).unwrap();
            let of_piece = Some(sample.segments[piece.start as usize]);
            let goes_on = if std::mem::replace(&mut segment, of_piece) == of_piece { "+" } else { "" };
            text += &format!(" {goes_on}{document}:{}:{}", piece.offset, piece.len);
        }
        text.push('\n');
    }
    for i in 0..plan.validation_len() {
        plan.validation_sample(i).unwrap();
    }
    text
}

/// The plans of version 1 were made, and their samples listed, by the program that wrote only that version.
/// Those of version 2 have phases of two lengths, texts that rest, an extension in the middle of a pass and a
/// takedown, that of version 3 shows each text of a family once before any of them is shown again, those of
/// version 4 have stitched families and other orders of passes, through an extension and a takedown.
#[test]
fn plans_of_every_version_give_the_same_samples_forever() {
    for (name, version) in [
        ("plan-v1-best-fit", 1),
        ("plan-v1-concat", 1),
        ("plan-v2-best-fit", 2),
        ("plan-v2-concat", 2),
        ("plan-v3", 3),
        ("plan-v4-best-fit", 4),
        ("plan-v4-concat", 4),
    ] {
        let lock = PlanLock::read(&compat_dir().join(name)).unwrap();
        assert_eq!(lock.version, version, "{name}");
        let samples = compat_dir().join(name).join("samples.txt");
        if std::env::var_os("MOE_SHARDS_WRITE_COMPAT").is_some() && !samples.exists() {
            std::fs::write(&samples, listing(name)).unwrap();
        }
        let expected = std::fs::read_to_string(&samples).unwrap();
        assert!(expected.lines().count() > 90 && listing(name) == expected, "{name}");
    }
}
