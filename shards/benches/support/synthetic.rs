//! A finished build without text: real shards, index and manifest, over documents with log-normal lengths.
//!
//! For plans of many documents the tokens are a sparse file, so that the disk is not what is measured: the
//! index is then written here, from `docs/shard-format.md` alone.

use std::fs::{self, File};
use std::path::Path;

use moe_shards::permute::mix64;
use moe_shards::{
    DocumentMeta, FamilyId, Hash, Manifest, Result, ShardInfo, ShardSpec, ShardWriter, SourceInfo, TokenId,
    TokenizerInfo,
};
use xxhash_rust::xxh3::xxh3_64;

/// Median length of a document in tokens; with [`SIGMA`] the mean is 732, near that of web text.
const MEDIAN: f64 = 400.0;
/// Standard deviation of the logarithm of the length.
const SIGMA: f64 = 1.1;
const LENGTHS: std::ops::RangeInclusive<f64> = 8.0..=200_000.0;
const VOCAB: u32 = 50_257;
const EOD: u32 = 50_256;
/// Shards of a source and variant, each a range of families, as a build cuts them.
const PREFIX_BITS: u32 = 3;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Synthetic {
    /// Documents: four fifths of them `web`, one tenth originals of `wiki`, one tenth a rephrasing of each of
    /// those.
    pub docs: u64,
    /// Write tokens; otherwise they are a hole in the file and read as zeros.
    pub tokens: bool,
}

/// Numbers that look random, each a function of its place.
fn draw(stream: u64, i: u64) -> u64 {
    mix64(mix64(stream.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ i)
}

/// Uniform in (0, 1].
fn unit(word: u64) -> f64 {
    ((word >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// Length of a document in tokens, EOD included (Box and Muller's method for the normal distribution).
fn length(stream: u64, i: u64) -> u64 {
    let radius = (-2.0 * unit(draw(stream, 2 * i)).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * unit(draw(stream, 2 * i + 1))).cos();
    (MEDIAN * (SIGMA * normal).exp()).clamp(*LENGTHS.start(), *LENGTHS.end()) as u64
}

/// One shard to write.
struct Part {
    name: String,
    source: u16,
    variant: u8,
    prefix: u64,
    docs: u64,
}

impl Part {
    /// Ascending, all different, spread over the prefix: like sorted hashes.
    fn family(&self, i: u64) -> FamilyId {
        let width = (1u64 << (64 - PREFIX_BITS)) / self.docs;
        let within = i * width + draw(u64::from(self.source), self.prefix << 40 | i) % width;
        FamilyId((self.prefix << (64 - PREFIX_BITS)) + within)
    }

    fn meta(&self, i: u64) -> DocumentMeta {
        DocumentMeta {
            family: self.family(i),
            variant: self.variant,
            source: self.source,
            n_bytes: self.length(i) as u32 * 4,
            ..DocumentMeta::default()
        }
    }

    fn stream(&self) -> u64 {
        u64::from(self.source) << 32 | u64::from(self.variant) << 16 | self.prefix
    }

    fn length(&self, i: u64) -> u64 {
        length(self.stream(), i)
    }

    fn id(&self, i: u64) -> String {
        format!("{:x}-{i:08x}", self.prefix)
    }
}

/// Writes the build to `dir`; returns its manifest.
///
/// # Errors
/// The disk refuses.
///
/// # Panics
/// Fewer than 80 documents: some shards would be empty.
pub fn write(dir: &Path, what: Synthetic) -> Result<Manifest> {
    assert!(what.docs >= 80, "{} documents, at least 80 are needed", what.docs);
    let shards_dir = dir.join("shards");
    fs::create_dir_all(&shards_dir).expect("the folder of the benchmark can be made");
    let token_bytes: Vec<u8> =
        (0..VOCAB).flat_map(|id| (if id == EOD { 0 } else { 4u16 }).to_le_bytes()).collect();
    let tokenizer = Hash::of(b"synthetic");
    moe_shards::atomic::write_file(&dir.join("token_bytes.u16"), &token_bytes)?;
    let spec =
        ShardSpec { vocab_size: VOCAB, eod: TokenId(EOD), tokenizer, build: Hash::of(b"synthetic build") };

    let tenth = what.docs / 10;
    let mut shards = Vec::new();
    for (source, variant, docs) in [(0, 0, what.docs - 2 * tenth), (1, 0, tenth), (1, 1, tenth)] {
        let n = 1u64 << PREFIX_BITS;
        for prefix in 0..n {
            let name = format!("{}-v{variant}-{prefix:05}", ["web", "wiki"][usize::from(source)]);
            let docs = docs * (prefix + 1) / n - docs * prefix / n;
            let part = Part { name, source, variant, prefix, docs };
            shards.push(if what.tokens {
                write_tokens(&shards_dir, &part, spec)?
            } else {
                write_index(&shards_dir, &part, spec)?
            });
        }
    }
    shards.sort_by(|a, b| a.name.cmp(&b.name));
    let source = |name: &str, variants: &[&str]| SourceInfo {
        name: name.to_owned(),
        variants: variants.iter().map(|&v| v.to_owned()).collect(),
    };
    let manifest = Manifest {
        version: Manifest::VERSION,
        build: spec.build,
        tokenizer: TokenizerInfo {
            file: "tokenizer.json".to_owned(),
            blake3: tokenizer,
            vocab_size: VOCAB,
            eod_id: EOD,
            token_bytes_file: "token_bytes.u16".to_owned(),
            token_bytes_blake3: Hash::of(&token_bytes),
        },
        sources: vec![source("web", &["original"]), source("wiki", &["original", "rephrased"])],
        languages: Vec::new(),
        tags: Vec::new(),
        shards,
    };
    manifest.write(dir)?;
    Ok(manifest)
}

fn write_tokens(dir: &Path, part: &Part, spec: ShardSpec) -> Result<ShardInfo> {
    let mut writer = ShardWriter::create(dir, &part.name, spec)?;
    for i in 0..part.docs {
        // Squaring a uniform number favors small ids, as a tokenizer does.
        let token = |j| {
            let u = unit(draw(part.stream() ^ i << 20, j));
            TokenId((u * u * f64::from(EOD - 1)) as u32)
        };
        let tokens: Vec<TokenId> = (1..part.length(i)).map(token).collect();
        writer.append(&part.id(i), &part.meta(i), &tokens)?;
    }
    writer.finish()
}

/// Digest of this many zero bytes.
fn hash_of_zeros(mut n_bytes: u64) -> Hash {
    let (block, mut hasher) = (vec![0; 1 << 20], blake3::Hasher::new());
    while n_bytes > 0 {
        let n = n_bytes.min(block.len() as u64);
        hasher.update(&block[..n as usize]);
        n_bytes -= n;
    }
    Hash(*hasher.finalize().as_bytes())
}

/// An index over a hole: sections and header as the specification lays out version 1.
fn write_index(dir: &Path, part: &Part, spec: ShardSpec) -> Result<ShardInfo> {
    let (mut ends, mut families, mut metas) = (Vec::new(), Vec::new(), Vec::new());
    let (mut id_ends, mut id_bytes) = (0u64.to_le_bytes().to_vec(), Vec::new());
    let (mut n_tokens, mut n_text_bytes) = (0u64, 0u64);
    for i in 0..part.docs {
        let meta = part.meta(i);
        n_tokens += part.length(i);
        n_text_bytes += u64::from(meta.n_bytes);
        ends.extend(n_tokens.to_le_bytes());
        families.extend(meta.family.0.to_le_bytes());
        // No quality, tags or language.
        metas.extend([meta.variant, meta.style, 0, 0, 0, 0]);
        metas.extend(meta.source.to_le_bytes());
        metas.extend(meta.n_bytes.to_le_bytes());
        metas.extend([0; 4]);
        id_bytes.extend(part.id(i).into_bytes());
        id_ends.extend((id_bytes.len() as u64).to_le_bytes());
    }
    let ids = [id_ends, id_bytes].concat();

    let mut file = vec![0; 256];
    let mut table = Vec::new();
    for section in [&ends, &families, &metas, &ids] {
        file.resize(file.len().next_multiple_of(64), 0);
        table.extend([file.len() as u64, section.len() as u64, xxh3_64(section)]);
        file.extend(section);
    }
    // A hole reads as zeros.
    let bin = hash_of_zeros(n_tokens * 2);
    let mut header = b"MOEMDX01".to_vec();
    header.extend([1u32, 2].map(u32::to_le_bytes).concat());
    header.extend([part.docs, n_tokens].map(u64::to_le_bytes).concat());
    header.extend([spec.eod.0, spec.vocab_size].map(u32::to_le_bytes).concat());
    header.extend(n_text_bytes.to_le_bytes());
    header.extend([spec.tokenizer.0, bin.0, spec.build.0].concat());
    header.extend(table.iter().flat_map(|word| word.to_le_bytes()));
    header.extend((file.len() as u64).to_le_bytes());
    header.extend(xxh3_64(&header).to_le_bytes());
    file[..256].copy_from_slice(&header);

    let bin_bytes = n_tokens * 2;
    let hole = File::create(dir.join(format!("{}.bin", part.name))).and_then(|bin| bin.set_len(bin_bytes));
    hole.expect("the file system has sparse files");
    moe_shards::atomic::write_file(&dir.join(format!("{}.mdx", part.name)), &file)?;
    Ok(ShardInfo {
        name: part.name.clone(),
        source: part.source,
        variant: part.variant,
        n_docs: part.docs,
        n_tokens,
        n_text_bytes,
        n_trained_tokens: None,
        bin_bytes,
        bin_blake3: bin,
        mdx_bytes: file.len() as u64,
        mdx_blake3: Hash::of(&file),
    })
}
