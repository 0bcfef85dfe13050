//! Stage 4, if the recipe asks for it: trains a tokenizer on a sample of the kept documents. The sample
//! is chosen by document id, so it is the same for any order and any split of the input.
//!
//! Writes `tokenizer.json`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use moe_shards::atomic;
use serde::{Deserialize, Serialize};

use super::inputs::{CutDocuments, inputs};
use super::{Report, Stage};
use crate::document::Count;
use crate::error::{Error, Result};
use crate::tables::TOKENIZER;
use crate::tables::cuts::Cuts;
use crate::tables::documents::{Columns, DocumentBatches};
use crate::tables::rows::{self, KeptRow};
use crate::tokenizer::EOD;
use crate::tokenizer::train::Words;
use crate::watch::Watch;

/// What to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainParams {
    /// Tokens wanted.
    pub vocab_size: u32,
    /// Bytes of text to train on.
    pub sample_bytes: u64,
    /// Special tokens beside the end of document.
    pub special_tokens: Vec<String>,
}

/// Document ids are hashes; their first bits cut the corpus into this many equal random parts.
const BUCKET_BITS: u32 = 16;

inputs! {
    /// What a tokenizer is trained on.
    pub struct TrainInputs {
        /// All parts.
        parts: Vec<CutDocuments>,
    }
}

impl Stage for TrainParams {
    const NAME: &'static str = "train";
    type Inputs = TrainInputs;

    /// # Errors
    /// A part is damaged, or a write fails.
    fn run(&self, inputs: &TrainInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let sample = Sample::choose(&inputs.parts, self.sample_bytes)?;
        // The library wants an iterator that cannot fail, so an error ends it and is kept here.
        let failure = Mutex::new(None);
        let keep_failure = |e| {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
        };
        let texts = sample
            .parts
            .iter()
            .flat_map(|part| part.batches(&self.special_tokens, watch))
            .map_while(|batch| batch.map_err(&keep_failure).ok());
        let words = Words::count(texts.flatten());
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let path = folder.join(TOKENIZER);
        let json = words.and_then(|words| words.train(self.vocab_size, &self.special_tokens));
        let json = json.map_err(|message| Error::Tokenizer { path: path.clone(), message })?;
        watch.advance(0)?;
        atomic::write_file(&path, json.as_bytes())?;
        Ok(Report { kept: sample.count, ..Report::default() })
    }
}

/// The documents to train on.
struct Sample {
    parts: Vec<SamplePart>,
    count: Count,
}

struct SamplePart {
    documents: PathBuf,
    cuts: PathBuf,
    rows: Vec<u32>,
}

impl Sample {
    /// The longest prefix of the buckets that stays within `sample_bytes`, at least one bucket
    /// that holds a document.
    fn choose(parts: &[CutDocuments], sample_bytes: u64) -> Result<Sample> {
        let mut bucket_bytes = vec![0u64; 1 << BUCKET_BITS];
        let parts: Vec<(&CutDocuments, Vec<KeptRow>)> = parts
            .iter()
            .map(|part| Ok((part, rows::survivors(&part.kept, &part.removed)?)))
            .collect::<Result<_>>()?;
        for row in parts.iter().flat_map(|(_, rows)| rows) {
            bucket_bytes[bucket(row)] += u64::from(row.raw_bytes);
        }
        let mut total = 0;
        let n_buckets = bucket_bytes.iter().take_while(|&&bytes| {
            let first = total == 0;
            total += bytes;
            first || total <= sample_bytes
        });
        let n_buckets = n_buckets.count();
        let mut count = Count::default();
        let parts = parts.into_iter().map(|(part, rows)| {
            let chosen = rows.into_iter().filter(|row| bucket(row) < n_buckets);
            let chosen = chosen.inspect(|row| count += Count::one(u64::from(row.raw_bytes)));
            let rows = chosen.map(|row| row.row).collect();
            SamplePart { documents: part.documents.clone(), cuts: part.cuts.clone(), rows }
        });
        let parts = parts.collect();
        Ok(Sample { parts, count })
    }
}

fn bucket(row: &KeptRow) -> usize {
    (row.document_id >> (u64::BITS - BUCKET_BITS)) as usize
}

impl SamplePart {
    /// The chosen texts, a batch at a time.
    fn batches<'a>(
        &'a self,
        specials: &'a [String],
        watch: &'a Watch,
    ) -> impl Iterator<Item = Result<Vec<String>>> + Send + 'a {
        let open = || Ok((Cuts::read(&self.cuts)?, DocumentBatches::open(&self.documents, Columns::All)?));
        let (cuts, batches, failed) = match self.rows.is_empty() {
            true => (Cuts::default(), None, None),
            false => match open() {
                Ok((cuts, batches)) => (cuts, Some(batches), None),
                Err(e) => (Cuts::default(), None, Some(Err(e))),
            },
        };
        let mut wanted = self.rows.iter().copied().peekable();
        let texts = batches.into_iter().flatten().map(move |batch| {
            let mut texts = Vec::new();
            let mut n_bytes = 0;
            for (row, document) in batch?.documents() {
                if wanted.next_if_eq(&row).is_some() {
                    n_bytes += u64::from(document.raw_bytes);
                    let text = cuts.of(row).apply(document.text)?.into_owned();
                    match document.metadata.marks.is_empty() {
                        true => texts.push(text),
                        // What a template writes as special tokens is not text to learn words from.
                        false => texts.extend(apart(text, specials)),
                    }
                }
            }
            watch.advance(n_bytes)?;
            Ok(texts)
        });
        failed.into_iter().chain(texts)
    }
}

/// The pieces of a text between special tokens.
fn apart(text: String, specials: &[String]) -> Vec<String> {
    let names = specials.iter().map(String::as_str).chain([EOD]);
    names.fold(vec![text], |pieces, name| {
        pieces.iter().flat_map(|piece| piece.split(name)).map(str::to_owned).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_are_taken_out_of_conversations() {
        let specials = ["<a>".to_owned(), "<b>".to_owned()];
        assert_eq!(apart("<a>x<b>y<|endoftext|>".to_owned(), &specials), ["", "x", "y", ""]);
    }

    fn chosen(rows: &[KeptRow], sample_bytes: u64) -> Vec<u32> {
        let dir = tempfile::tempdir().unwrap();
        let (kept, removed) = (dir.path().join("kept"), dir.path().join("removed"));
        rows::write(&kept, rows).unwrap();
        rows::write::<KeptRow>(&removed, &[]).unwrap();
        let part = CutDocuments { documents: "documents".into(), kept, removed, cuts: "cuts".into() };
        Sample::choose(&[part], sample_bytes).unwrap().parts[0].rows.clone()
    }

    #[test]
    fn the_sample_follows_the_ids_and_stays_within_its_bytes() {
        let row = |row: u32, bucket: u64| KeptRow {
            row,
            document_id: bucket << 48 | u64::from(row),
            raw_bytes: 100,
        };
        let rows = [row(0, 900), row(1, 3), row(2, 65_535), row(3, 3)];
        assert_eq!(chosen(&rows, 1_000_000), [0, 1, 2, 3]);
        assert_eq!(chosen(&rows, 300), [0, 1, 3]);
        assert_eq!(chosen(&rows, 299), [1, 3]);
        // The first bucket with a document is taken even if it is too large.
        assert_eq!(chosen(&rows, 1), [1, 3]);
        assert_eq!(chosen(&[], 1), [0; 0]);
    }
}
