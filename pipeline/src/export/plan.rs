//! A plan for Python: which tokens of which shard make up sample `t`, as arrays. A reader maps the
//! `.bin` files and these arrays and gets any sample by its number, without state and without copying
//! the tokens. `rows` adds the sequences themselves, for inspection or small runs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use moe_shards::variant::Layout;
use moe_shards::{Hash, Plan, Sample, Shard, TokenWidth, atomic};
use serde_json::json;

use super::Exported;
use super::npy::{Kind, NpyWriter};
use crate::error::{Error, Result};
use crate::json;
use crate::watch::Watch;

/// Columns of `samples.npy`.
const SAMPLE_COLUMNS: [&str; 5] = ["pool", "pass", "bin", "seq_len", "first_piece"];
/// Columns of `pieces.npy`; the last one only of plans with stitched families, where a segment may have several pieces.
const PIECE_COLUMNS: [&str; 6] = ["shard", "token", "len", "start", "has_next", "segment"];
/// The default ignored label of PyTorch's cross-entropy.
const NO_TARGET: i32 = -100;

/// What to export.
#[derive(Clone, Debug)]
pub struct PlanExport {
    /// Samples.
    pub range: Range<u64>,
    /// The sequences too.
    pub rows: bool,
}

/// Names of the files of a plan.
pub fn plan_names(rows: bool) -> impl Iterator<Item = &'static str> {
    let of_rows: &[&str] = if rows { &["tokens.npy", "targets.npy", "segments.npy"] } else { &[] };
    ["plan.json", "samples.npy", "pieces.npy"].into_iter().chain(of_rows.iter().copied())
}

/// Writes `plan.json`, `samples.npy`, `pieces.npy` and, if asked, `tokens.npy`, `targets.npy` and
/// `segments.npy` to the folder `to`. `watch` advances by one a sample, twice.
///
/// # Errors
/// The range is past the end of the plan, files are damaged, rows differ in length, or the disk is full.
pub fn plan(plan: &Plan, what: &PlanExport, to: &Path, watch: &Watch) -> Result<Vec<Exported>> {
    let Range { start, end } = what.range;
    if start >= end || end > plan.len() {
        let message = format!("--range {start}..{end}: the plan has the samples 0..{}", plan.len());
        return Err(Error::Usage(message));
    }
    let shards = shards_of(plan);
    let n = end - start;
    let path = to.join("samples.npy");
    let mut samples = NpyWriter::create(&path, Kind::I64, &[n, SAMPLE_COLUMNS.len() as u64])?;
    let (mut n_pieces, mut seq_len) = (0u64, None);
    let mut same_len = true;
    for t in start..end {
        let sample = plan.sample(t)?;
        let len = sample.tokens.len() as u64;
        same_len &= *seq_len.get_or_insert(len) == len;
        let id = sample.id;
        let row = [u64::from(id.pool), u64::from(id.pass), id.bin, len, n_pieces];
        row.iter().try_for_each(|value| samples.write(&value.to_le_bytes()))?;
        n_pieces += sample.pieces.len() as u64;
        watch.advance(1)?;
    }
    let seq_len = seq_len.unwrap_or(0);
    if what.rows && !same_len {
        let message = "the phases in this range have sequences of different lengths, which no array can hold; export them one by one with --range";
        return Err(Error::Usage(message.to_owned()));
    }
    let mut files = vec![samples.finish()?];
    let path = to.join("pieces.npy");
    let columns = piece_columns(plan);
    let mut pieces = NpyWriter::create(&path, Kind::I64, &[n_pieces, columns.len() as u64])?;
    let mut rows = if what.rows { Some(Rows::create(plan, to, [n, seq_len])?) } else { None };
    for t in start..end {
        let sample = plan.sample(t)?;
        for row in piece_rows(&sample, &shards)? {
            row[..columns.len()].iter().try_for_each(|value| pieces.write(&value.to_le_bytes()))?;
        }
        if let Some(rows) = &mut rows {
            rows.append(&sample)?;
        }
        watch.advance(1)?;
    }
    files.push(pieces.finish()?);
    if let Some(rows) = rows {
        files.extend(rows.finish()?);
    }
    files.push(describe(plan, what, to)?);
    Ok(files)
}

/// The open shards of all pools, by their number in the manifest.
fn shards_of(plan: &Plan) -> BTreeMap<u32, &Shard> {
    let numbers: BTreeMap<&str, u32> =
        plan.manifest().shards.iter().zip(0..).map(|(shard, number)| (shard.name.as_str(), number)).collect();
    let pools = plan.pools().iter().zip(&plan.lock().pools);
    let named = pools.flat_map(|(pool, lock)| pool.docs().shards().iter().zip(&lock.shards));
    named.filter_map(|(shard, lock)| Some((*numbers.get(lock.name.as_str())?, shard))).collect()
}

fn piece_columns(plan: &Plan) -> &'static [&'static str] {
    let stitched = plan.lock().pools.iter().any(|pool| pool.layout == Layout::Stitched);
    &PIECE_COLUMNS[..if stitched { 6 } else { 5 }]
}

fn piece_rows(sample: &Sample, shards: &BTreeMap<u32, &Shard>) -> Result<Vec<[u64; 6]>> {
    let row = |piece: &moe_shards::Piece| {
        let missing = || Error::Usage(format!("shard number {} is in no pool", piece.shard));
        let (first, len) = shards.get(&piece.shard).ok_or_else(missing)?.span(piece.doc)?;
        let (offset, n) = (u64::from(piece.offset), u64::from(piece.len));
        let has_next = u64::from(offset + n < len);
        let segment = u64::from(sample.segments[piece.start as usize]);
        Ok([u64::from(piece.shard), first + offset, n, u64::from(piece.start), has_next, segment])
    };
    sample.pieces.iter().map(row).collect()
}

/// The sequences as arrays of one row a sample.
struct Rows {
    tokens: NpyWriter,
    width: TokenWidth,
    targets: NpyWriter,
    segments: NpyWriter,
}

impl Rows {
    fn create(plan: &Plan, to: &Path, shape: [u64; 2]) -> Result<Rows> {
        let width = TokenWidth::for_vocab(plan.manifest().tokenizer.vocab_size);
        let kind = match width {
            TokenWidth::U16 => Kind::U16,
            TokenWidth::U32 => Kind::U32,
        };
        Ok(Rows {
            tokens: NpyWriter::create(&to.join("tokens.npy"), kind, &shape)?,
            width,
            targets: NpyWriter::create(&to.join("targets.npy"), Kind::I32, &shape)?,
            segments: NpyWriter::create(&to.join("segments.npy"), Kind::I32, &shape)?,
        })
    }

    fn append(&mut self, sample: &Sample) -> Result<()> {
        let bytes = &self.width.bytes();
        let tokens = sample.tokens.iter().flat_map(|token| token.to_le_bytes().into_iter().take(*bytes));
        self.tokens.write(&tokens.collect::<Vec<u8>>())?;
        let targets = sample.targets.iter().zip(&sample.loss_mask).flat_map(|(&target, &counts)| {
            // A vocabulary has at most a million tokens.
            let target = if counts { target as i32 } else { NO_TARGET };
            target.to_le_bytes()
        });
        self.targets.write(&targets.collect::<Vec<u8>>())?;
        // Padding, u32::MAX in a sample, becomes -1.
        let segments = sample.segments.iter().flat_map(|&segment| (segment as i32).to_le_bytes());
        self.segments.write(&segments.collect::<Vec<u8>>())
    }

    fn finish(self) -> Result<[Exported; 3]> {
        Ok([self.tokens.finish()?, self.targets.finish()?, self.segments.finish()?])
    }
}

fn describe(plan: &Plan, what: &PlanExport, to: &Path) -> Result<Exported> {
    let tokenizer = &plan.manifest().tokenizer;
    let dtype = match TokenWidth::for_vocab(tokenizer.vocab_size) {
        TokenWidth::U16 => "<u2",
        TokenWidth::U32 => "<u4",
    };
    let bins: Vec<String> =
        plan.manifest().shards.iter().map(|shard| format!("shards/{}.bin", shard.name)).collect();
    let value = json!({
        "version": 1,
        "plan": plan.id(),
        "first_sample": what.range.start,
        "n_samples": what.range.end - what.range.start,
        "token_dtype": dtype,
        "eod": tokenizer.eod_id,
        "pools": plan.pool_names(),
        "bins": bins,
        "sample_columns": SAMPLE_COLUMNS,
        "piece_columns": piece_columns(plan),
    });
    let path = to.join("plan.json");
    let bytes = json::canonical(&value);
    atomic::write_file(&path, &bytes)?;
    Ok(Exported { path, bytes: bytes.len() as u64, blake3: Hash::of(&bytes) })
}
