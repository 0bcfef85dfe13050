//! Writes sorted documents as shards, with the files that a build leaves next to them.

use std::path::Path;

use moe_shards::{
    DocumentMeta, FamilyId, Hash, Manifest, ShardInfo, ShardSpec, ShardWriter, SourceInfo, TokenId,
    TokenizerInfo,
};
use serde_json::json;

use super::{Corpus, Reading, Row, Tokenizer, hash_of};
use crate::dedup::exact;
use crate::document::{Count, family_of_text};
use crate::error::{Error, Result};
use crate::json;
use crate::ledger::{Kept, Ledger};
use crate::listing::{Entry, Listing, Maker};
use crate::publish::TOKEN_BYTES;
use crate::recipe::ORIGINAL;
use crate::tables;
use crate::tables::texts::{self, TextsWriter};
use crate::watch::Watch;

/// What to import, in which form, and where to.
pub struct Imported<'a> {
    /// The files.
    pub corpora: &'a [Corpus],
    /// Their documents.
    pub reading: Reading,
    /// Name of the source.
    pub source: &'a str,
    /// The tokenizer that made the tokens.
    pub tokenizer: &'a Tokenizer,
    /// Its file.
    pub tokenizer_file: &'a [u8],
    /// Largest size of a shard's tokens, in bytes.
    pub shard_bytes: u64,
}

/// Reason for a document without text.
const EMPTY: &str = "empty";

/// Writes the shards and their files to the empty folder `out`; the manifest comes last.
///
/// # Errors
/// A write fails; [`Error::Check`] when a document was lost.
pub fn write(mut imported: Imported<'_>, out: &Path, watch: &Watch) -> Result<Ledger> {
    let mut rows = std::mem::take(&mut imported.reading.rows);
    let Imported { reading, source, tokenizer, tokenizer_file, .. } = &imported;
    let mut ledger = Ledger::new([*source]);
    let entry = ledger.source(source);
    rows.iter().for_each(|row| entry.read += Count::one(u64::from(row.n_bytes)));
    let mut duplicates = Count::default();
    rows.dedup_by(|row, kept| {
        let is_known = row.family == kept.family;
        if is_known {
            duplicates += Count::one(u64::from(row.n_bytes));
        }
        is_known
    });
    entry.read += reading.empty;
    let dropped = [(exact::REASON, duplicates), (EMPTY, reading.empty)];
    entry.dropped.extend(dropped.into_iter().filter(|(_, n)| n.docs > 0).map(|(why, n)| (why.to_owned(), n)));

    let token_bytes: Vec<u8> =
        tokenizer.vocabulary.token_bytes().iter().flat_map(|n| n.to_le_bytes()).collect();
    let info = TokenizerInfo {
        file: tables::TOKENIZER.to_owned(),
        blake3: Hash::of(tokenizer_file),
        vocab_size: tokenizer.vocab_size,
        eod_id: tokenizer.eod,
        token_bytes_file: TOKEN_BYTES.to_owned(),
        token_bytes_blake3: Hash::of(&token_bytes),
    };
    let build = json::digest(&json!({ "import": source, "tokenizer": info.blake3 }));
    let ranges = ranges(&rows, imported.shard_bytes, TokenId(tokenizer.vocab_size));
    let names: Vec<String> = (0..ranges.len()).map(|i| format!("{source}-v0-{i:05}")).collect();
    let mut listing = Listing::open(out, Maker::Build, [])?;
    let of_shards = names.iter().flat_map(|name| {
        ["bin", "mdx"]
            .map(|kind| format!("shards/{name}.{kind}"))
            .into_iter()
            .chain([format!("dedup/{name}.texts")])
    });
    let fixed = [tables::TOKENIZER, TOKEN_BYTES, Ledger::FILE, Manifest::FILE].map(str::to_owned);
    listing.claim(of_shards.chain(fixed))?;

    let spec =
        ShardSpec { vocab_size: info.vocab_size, eod: TokenId(info.eod_id), tokenizer: info.blake3, build };
    let mut shards = Vec::new();
    for (name, range) in names.iter().zip(ranges) {
        let info = shard(&imported, &rows[range], name, &spec, out, watch)?;
        entry_of(&mut listing, out, &info)?;
        let kept = &mut ledger.source(source).kept;
        *kept = Kept {
            docs: kept.docs + info.n_docs,
            bytes: kept.bytes + info.n_text_bytes,
            tokens: kept.tokens + info.n_tokens,
        };
        shards.push(info);
    }
    ledger.check()?;
    listing.write_file(tables::TOKENIZER, tokenizer_file)?;
    listing.write_file(TOKEN_BYTES, &token_bytes)?;
    listing.write_file(Ledger::FILE, &json::canonical(&ledger))?;
    let manifest = Manifest {
        version: Manifest::VERSION,
        build,
        tokenizer: info,
        sources: vec![SourceInfo { name: (*source).to_owned(), variants: vec![ORIGINAL.to_owned()] }],
        languages: Vec::new(),
        tags: Vec::new(),
        shards,
    };
    listing.note(Manifest::FILE, Entry::of(&manifest.to_bytes()?));
    listing.finish()?;
    manifest.write(out)?;
    Ok(ledger)
}

/// Rows of each shard.
fn ranges(rows: &[Row], shard_bytes: u64, vocab_size: TokenId) -> Vec<std::ops::Range<usize>> {
    let width = moe_shards::TokenWidth::for_vocab(vocab_size.0).bytes() as u64;
    let mut ranges = Vec::new();
    let (mut start, mut n_bytes) = (0, 0);
    for (i, row) in rows.iter().enumerate() {
        let more = u64::from(row.n_tokens) * width;
        if i > start && n_bytes + more > shard_bytes {
            ranges.push(start..i);
            (start, n_bytes) = (i, 0);
        }
        n_bytes += more;
    }
    if start < rows.len() {
        ranges.push(start..rows.len());
    }
    ranges
}

fn shard(
    imported: &Imported<'_>,
    rows: &[Row],
    name: &str,
    spec: &ShardSpec,
    out: &Path,
    watch: &Watch,
) -> Result<ShardInfo> {
    let mut writer = ShardWriter::create(&out.join("shards"), name, *spec)?;
    let mut table = TextsWriter::create(&texts::path(out, name))?;
    for row in rows {
        let gone = || Error::data(out, "a file changed while it was read; run the command again");
        let corpus = imported.corpora.get(row.corpus as usize).ok_or_else(gone)?;
        let ids = corpus.ids(row.doc as usize, imported.tokenizer)?;
        let (text, is_given_back) = imported.tokenizer.text(&ids);
        if text.len() as u64 != u64::from(row.n_bytes) || family_of_text(&text).0 != row.family {
            return Err(gone());
        }
        let meta =
            DocumentMeta { family: FamilyId(row.family), n_bytes: row.n_bytes, ..DocumentMeta::default() };
        let tokens: Vec<TokenId> = ids.into_iter().map(TokenId).collect();
        writer.append(&format!("{}:{}", corpus.name, row.doc), &meta, &tokens)?;
        let stored = match is_given_back {
            true => None,
            false => Some(texts::compress(&text).map_err(Error::io(&corpus.path, "compress a text of"))?),
        };
        table.append(hash_of(&text), stored.as_deref().map(|frame| (row.n_bytes, frame)))?;
        watch.advance(1)?;
    }
    let info = writer.finish()?;
    table.finish(info.bin_blake3)?;
    Ok(info)
}

fn entry_of(listing: &mut Listing, out: &Path, info: &ShardInfo) -> Result<()> {
    let name = &info.name;
    listing.note(&format!("shards/{name}.bin"), Entry { bytes: info.bin_bytes, blake3: info.bin_blake3 });
    listing.note(&format!("shards/{name}.mdx"), Entry { bytes: info.mdx_bytes, blake3: info.mdx_blake3 });
    listing.note(&format!("dedup/{name}.texts"), Entry::of_file(&texts::path(out, name))?);
    Ok(())
}
