//! A sample of texts to train on. Membership depends only on the seed and the texts, not on
//! their order or on how files are split: each text has a random number, and the lowest are taken until
//! the sample is full.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use moe_report::progress::Bar;
use moe_shards::{Hash, Manifest, Shard};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::TextArgs;
use super::texts::Text;
use crate::error::{Error, Result};
use crate::tokenizer::{Encoder, EncoderOptions, EngineChoice};

/// Where the texts come from.
pub(super) enum Sampled<'a> {
    /// Files.
    Files(&'a TextArgs),
    /// The shards of a build, whose tokens are turned back into text.
    Build(&'a Path),
}

/// Texts to train on.
#[derive(Default)]
pub(super) struct Sample {
    /// In the order of their numbers.
    pub texts: Vec<String>,
    /// Bytes of them.
    pub n_bytes: u64,
}

impl Sample {
    /// Draws at most `n_bytes` of text, but at least one text.
    ///
    /// # Errors
    /// The texts cannot be read.
    pub fn draw(sampled: &Sampled<'_>, seed: u64, n_bytes: u64, bar: &Bar) -> Result<Sample> {
        let mut least = Least::new(seed, n_bytes);
        match sampled {
            Sampled::Files(args) => {
                args.for_each_batch(bar, |texts| {
                    texts.into_iter().for_each(|Text { text, .. }| least.offer(text));
                    Ok(())
                })?;
            }
            Sampled::Build(out) => texts_of_build(out, &mut |text| least.offer(text))?,
        }
        let n_bytes = least.n_bytes;
        Ok(Sample { texts: least.texts.into_values().collect(), n_bytes })
    }
}

/// The texts with the lowest numbers so far.
struct Least {
    seed: u64,
    max_bytes: u64,
    n_bytes: u64,
    /// By number; equal texts count once.
    texts: BTreeMap<Number, String>,
    /// The lowest number that was too much: nothing from there on is taken.
    bound: Option<Number>,
}

/// A text's random number; 128 bits, so that different texts have different ones.
type Number = (u64, u64);

impl Least {
    fn new(seed: u64, max_bytes: u64) -> Least {
        Least { seed, max_bytes, n_bytes: 0, texts: BTreeMap::new(), bound: None }
    }

    fn offer(&mut self, text: String) {
        let number = |seed| xxh3_64_with_seed(text.as_bytes(), seed);
        let key = (number(self.seed), number(self.seed.wrapping_add(1)));
        if self.bound.is_some_and(|bound| key >= bound) {
            return;
        }
        let n_bytes = text.len() as u64;
        if self.texts.insert(key, text).is_none() {
            self.n_bytes += n_bytes;
        }
        while self.n_bytes > self.max_bytes && self.texts.len() > 1 {
            if let Some((key, text)) = self.texts.pop_last() {
                self.n_bytes -= text.len() as u64;
                self.bound = Some(key);
            }
        }
    }
}

/// The manifest of a build and its tokenizer.
///
/// # Errors
/// They cannot be read, or do not belong together.
pub(super) fn open_build(out: &Path) -> Result<(Manifest, Arc<Encoder>)> {
    let manifest = Manifest::read(out)?;
    let path = out.join(&manifest.tokenizer.file);
    if Hash::of_file(&path)? != manifest.tokenizer.blake3 {
        let message = "is not the tokenizer of the shards; run `moe-data build` again".to_owned();
        return Err(Error::Tokenizer { path, message });
    }
    let eod = eod_name(&path, manifest.tokenizer.eod_id)?;
    let options =
        EncoderOptions { eod: Some(eod), engine: EngineChoice::Reference, ..EncoderOptions::default() };
    let encoder = Encoder::shared(&path, &options)?;
    if !encoder.is_byte_level() {
        let message =
            "is not byte-level, so texts cannot be read back from their tokens; name the files instead";
        return Err(Error::Tokenizer { path, message: message.to_owned() });
    }
    Ok((manifest, encoder))
}

fn texts_of_build(out: &Path, take: &mut dyn FnMut(String)) -> Result<()> {
    let (manifest, encoder) = open_build(out)?;
    let vocabulary = encoder.vocabulary();
    let mut ids = Vec::new();
    for info in &manifest.shards {
        let path = Manifest::mdx_path(out, &info.name);
        let shard = Shard::open(&path)?;
        for doc in 0..shard.n_docs() {
            ids.clear();
            shard.tokens(doc)?.extend_into(&mut ids);
            let text = vocabulary.text(&ids).ok_or_else(|| {
                Error::data(&path, format!("document {doc} is not text; run `moe-data verify`"))
            })?;
            take(text);
        }
    }
    Ok(())
}

/// The name of the end-of-document token, which the manifest has by id.
fn eod_name(path: &Path, id: u32) -> Result<String> {
    let tokenizer = tokenizers::Tokenizer::from_file(path)
        .map_err(|e| Error::Tokenizer { path: path.to_owned(), message: e.to_string() })?;
    tokenizer.id_to_token(id).ok_or_else(|| Error::Tokenizer {
        path: path.to_owned(),
        message: format!("has no token {id}, which ends the documents of the shards"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(texts: &[&str], seed: u64, max_bytes: u64) -> Vec<String> {
        let mut least = Least::new(seed, max_bytes);
        texts.iter().for_each(|text| least.offer((*text).to_owned()));
        assert_eq!(least.n_bytes, least.texts.values().map(|text| text.len() as u64).sum::<u64>());
        least.texts.into_values().collect()
    }

    #[test]
    fn the_sample_ignores_order_and_repeats() {
        // Texts of very different sizes: a large one in the middle must not let later ones in.
        let texts: Vec<String> = (0..200).map(|i| format!("text {i:03}{}", "!".repeat(i % 7 * 20))).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut twice: Vec<&str> = texts.iter().rev().copied().collect();
        twice.extend(&texts);
        for max_bytes in [1, 150, 1_000, 3_000, 1_000_000] {
            let sample = drawn(&texts, 7, max_bytes);
            assert_eq!(sample, drawn(&twice, 7, max_bytes));
            let n_bytes: usize = sample.iter().map(String::len).sum();
            assert!(sample.len() == 1 || n_bytes as u64 <= max_bytes);
        }
        assert_ne!(drawn(&texts, 7, 1_000), drawn(&texts, 8, 1_000));
    }
}
