//! Builds without text: shards of counted tokens, of any shape a plan may meet.

use std::path::Path;

use moe_shards::permute::mix64;
use moe_shards::{
    DocumentMeta, FamilyId, Hash, Manifest, Names, ShardSpec, ShardWriter, SourceInfo, TokenId, TokenizerInfo,
};

/// Texts of a family as (variant, tokens without EOD).
pub type Texts = Vec<(u8, usize)>;

/// A source of a generated build.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Name.
    pub name: &'a str,
    /// Families of the first shard of each variant; the family's number is its position.
    pub families: &'a [Texts],
    /// Families of a second one, numbered on.
    pub more: &'a [Texts],
    /// Quality, language (0 = unknown, 1 = de, 2 = en) and tag bits (1 = code, 2 = math) of a family.
    pub label: fn(usize) -> (Option<u8>, u16, u8),
}

/// A source with one shard per variant, without labels.
pub fn source<'a>(name: &'a str, families: &'a [Texts]) -> Source<'a> {
    Source { name, families, more: &[], label: |_| (None, 0, 0) }
}

/// Families with `1 + i % (max_variants + 1)` texts of skewed lengths around `mean`.
pub fn families(n: usize, max_variants: u8, mean: usize, seed: u64) -> Vec<Texts> {
    let len = |i: usize, v: u8| {
        let draw = mix64(seed ^ mix64((i as u64) << 8 | u64::from(v)));
        // A long tail: one text in sixteen is eight times as long.
        let scale = if draw.is_multiple_of(16) { 8 } else { 1 };
        1 + (draw >> 8) as usize % (2 * mean * scale)
    };
    (0..n)
        .map(|i| (0..=(i % (usize::from(max_variants) + 1)) as u8).map(|v| (v, len(i, v))).collect())
        .collect()
}

/// Writes a build as `moe-data build` would, with counted tokens instead of text: token `i` of a text is
/// a hash of (source, family, variant, i), so that a test can tell which text it sees. Variants are marked as written by
/// a model.
pub fn generated_build(out: &Path, vocab_size: u32, sources: &[Source<'_>]) -> Manifest {
    std::fs::create_dir_all(out).unwrap();
    let token_bytes: Vec<u8> = (0..vocab_size).flat_map(|id| if id == 0 { [0, 0] } else { [3, 0] }).collect();
    std::fs::write(out.join("token_bytes.u16"), &token_bytes).unwrap();
    std::fs::write(out.join("tokenizer.json"), b"{}").unwrap();
    let tokenizer = TokenizerInfo {
        file: "tokenizer.json".to_owned(),
        blake3: Hash::of(b"{}"),
        vocab_size,
        eod_id: 0,
        token_bytes_file: "token_bytes.u16".to_owned(),
        token_bytes_blake3: Hash::of(&token_bytes),
    };
    let build = Hash::of(b"generated");
    let (languages, tags) = (["de", "en"].map(str::to_owned), ["code", "math"].map(str::to_owned));
    let spec = ShardSpec { vocab_size, eod: TokenId(0), tokenizer: tokenizer.blake3, build };
    let mut shards = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        for (part, families) in [source.families, source.more].into_iter().enumerate() {
            let first = if part == 0 { 0 } else { source.families.len() };
            let n_variants = families.iter().flatten().map(|text| text.0 + 1).max().unwrap_or(0);
            for variant in 0..n_variants {
                let name = format!("{}-v{variant}-{part:05}", source.name);
                let names = Names::new(languages.clone().into(), tags.clone().into()).unwrap();
                let writer = ShardWriter::create(&out.join("shards"), &name, spec).unwrap();
                let mut writer = writer.with_names(names);
                let mut docs: Vec<(FamilyId, usize, usize)> = Vec::new();
                for (i, texts) in families.iter().enumerate() {
                    let text = texts.iter().find(|text| text.0 == variant);
                    docs.extend(text.map(|text| (family_id(number, first + i), first + i, text.1)));
                }
                docs.sort_unstable();
                for (id, family, len) in docs {
                    let (quality, language, tags) = (source.label)(family);
                    let meta = DocumentMeta {
                        family: id,
                        variant,
                        style: variant,
                        source: number as u16,
                        n_bytes: 3 * len as u32,
                        quality,
                        language,
                        tags,
                    };
                    let draw = |i| 1 + (token(number, family, variant, i) % u64::from(vocab_size - 1)) as u32;
                    let tokens: Vec<TokenId> = (0..len).map(|i| TokenId(draw(i))).collect();
                    writer.append(&format!("{}/{family}/{variant}", source.name), &meta, &tokens).unwrap();
                }
                shards.push(writer.finish().unwrap());
            }
        }
    }
    shards.sort_by(|a, b| a.name.cmp(&b.name));
    let sources = sources.iter().map(|source| SourceInfo {
        name: source.name.to_owned(),
        variants: (0..4).map(|v| format!("v{v}")).collect(),
    });
    let manifest = Manifest {
        version: Manifest::VERSION,
        build,
        tokenizer,
        sources: sources.collect(),
        languages: languages.into(),
        tags: tags.into(),
        shards,
    };
    manifest.write(out).unwrap();
    manifest
}

/// Id of a generated family.
pub fn family_id(source: usize, family: usize) -> FamilyId {
    FamilyId(mix64(mix64(source as u64 + 1) ^ family as u64))
}

fn token(source: usize, family: usize, variant: u8, i: usize) -> u64 {
    mix64(mix64(mix64(source as u64 ^ 77) ^ family as u64) ^ (u64::from(variant) << 32 | i as u64))
}
