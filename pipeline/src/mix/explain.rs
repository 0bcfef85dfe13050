//! `moe-data explain T`: shows the text of sample `T`, with the trainer's lookup.

use std::path::Path;

use moe_shards::{Hash, Manifest, PassLock, Plan, Sample, Shard};
use serde::Serialize;
use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::intact;
use crate::tokenizer::unknown_token;
use crate::watch::Watch;

/// Sample `t` in words.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Sample.
    pub t: u64,
    /// Samples in the plan.
    pub n_samples: u64,
    /// The plan's id.
    pub plan: Hash,
    /// Pool.
    pub pool: String,
    /// Pass over the pool, from 0.
    pub pass: u32,
    /// Bin in the pass.
    pub bin: u64,
    /// Bins of the pass.
    pub n_bins: u64,
    /// Tokens with a target.
    pub trained_tokens: usize,
    /// Padding.
    pub padding: usize,
    /// Documents, in order.
    pub pieces: Vec<ExplainedPiece>,
}

/// A document's part in a sample.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedPiece {
    /// Name of the document in its source.
    pub document: String,
    /// Family.
    pub family: String,
    /// Number of the segment: tokens attend to earlier ones of theirs. Only stitched texts share one.
    pub segment: u32,
    /// Number of the variant, 0 = original.
    pub variant: u8,
    /// Its name.
    pub variant_name: String,
    /// Shard.
    pub shard: String,
    /// First token of the part.
    pub offset: u32,
    /// Tokens of the part.
    pub len: u32,
    /// Tokens of the document.
    pub document_tokens: usize,
    /// The text of the part.
    pub text: String,
    /// Its tokens by name, if the text does not show all of them: special and unknown ones, besides those that begin
    /// and end a document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<String>,
}

/// Looks sample `t` up and decodes it.
///
/// # Errors
/// `t` past the end of the plan, damaged files, or a tokenizer that is not the build's.
pub fn explain(out: &Path, t: u64) -> Result<Explanation> {
    let plan = Plan::open(out)?;
    let sample = plan.sample(t)?;
    check_old_shards(&plan, &sample)?;
    let names = Names::open(out, plan.manifest())?;
    let pool = &plan.lock().pools[usize::from(sample.id.pool)];
    let docs = plan.pools()[usize::from(sample.id.pool)].docs();
    let pieces = sample.pieces.iter().map(|piece| {
        let info = &plan.manifest().shards[piece.shard as usize];
        let shard = docs.shards().iter().zip(&pool.shards).find(|(_, named)| named.name == info.name);
        let (shard, _): (&Shard, _) =
            shard.ok_or_else(|| Error::Usage(format!("shard {} is not in the pool", info.name)))?;
        let variants = &plan.manifest().sources[usize::from(info.source)].variants;
        let ids = &sample.tokens[piece.start as usize..(piece.start + piece.len) as usize];
        Ok(ExplainedPiece {
            document: shard.id(piece.doc)?.to_owned(),
            family: piece.family.to_string(),
            segment: sample.segments[piece.start as usize],
            variant: piece.variant,
            variant_name: variants.get(usize::from(piece.variant)).cloned().unwrap_or_default(),
            shard: info.name.clone(),
            offset: piece.offset,
            len: piece.len,
            document_tokens: shard.tokens(piece.doc)?.len(),
            text: names.text(ids)?,
            tokens: names.if_hidden(ids, piece.offset == 0),
        })
    });
    Ok(Explanation {
        t,
        n_samples: plan.len(),
        plan: plan.id(),
        pool: pool.name.clone(),
        pass: sample.id.pass,
        bin: sample.id.bin,
        n_bins: pool.pass(sample.id.pass).map_or(0, PassLock::n_bins),
        trained_tokens: sample.trained_tokens(),
        padding: sample.tokens.len() - sample.pieces.iter().map(|piece| piece.len as usize).sum::<usize>(),
        pieces: pieces.collect::<Result<_>>()?,
    })
}

/// The sample was checked while it was read, but indexes of old versions have no document checksums: then the whole shard
/// is compared with its digest.
fn check_old_shards(plan: &Plan, sample: &Sample) -> Result<()> {
    let shown = |shard: &&Shard| {
        let name = shard.path().file_stem();
        let is_it = |number: u32| {
            plan.manifest().shards.get(number as usize).is_some_and(|info| name == Some(info.name.as_ref()))
        };
        !shard.has_document_sums() && sample.pieces.iter().any(|piece| is_it(piece.shard))
    };
    intact::check(plan.shards().into_iter().filter(shown), &Watch::idle())
}

/// The tokenizer of a build, to read its tokens with.
struct Names {
    tokenizer: Tokenizer,
    unknown: Option<u32>,
    eod: u32,
}

impl Names {
    fn open(out: &Path, manifest: &Manifest) -> Result<Names> {
        let path = out.join(&manifest.tokenizer.file);
        let file = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        let found = Hash::of(&file);
        if found != manifest.tokenizer.blake3 {
            let message = format!(
                "is not the tokenizer of the shards (digest {}): run `moe-data build` again",
                found.short()
            );
            return Err(Error::Tokenizer { path, message });
        }
        let wrong = |message: String| Error::Tokenizer { path: path.clone(), message };
        let tokenizer = Tokenizer::from_bytes(&file).map_err(|e| wrong(e.to_string()))?;
        let parsed = serde_json::from_slice(&file).map_err(|e| wrong(e.to_string()))?;
        let unknown = unknown_token(&tokenizer, &parsed).map(|(_, id)| id);
        Ok(Names { tokenizer, unknown, eod: manifest.tokenizer.eod_id })
    }

    fn text(&self, ids: &[u32]) -> Result<String> {
        // Special tokens (the EOD) are left out of the text.
        self.tokenizer.decode(ids, true).map_err(|e| Error::Usage(format!("tokens cannot be decoded: {e}")))
    }

    /// The names of all tokens, if some do not show in the text. A document may begin with a special token.
    fn if_hidden(&self, ids: &[u32], is_start: bool) -> Vec<String> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let is_special = |id: &u32| added.get(id).is_some_and(|token| token.special);
        let hides = ids.iter().enumerate().any(|(i, id)| {
            let is_boundary = *id == self.eod || i == 0 && is_start;
            Some(*id) == self.unknown || is_special(id) && !is_boundary
        });
        let name = |id: &u32| self.tokenizer.id_to_token(*id).unwrap_or_else(|| format!("<{id}>"));
        if hides { ids.iter().map(name).collect() } else { Vec::new() }
    }
}
