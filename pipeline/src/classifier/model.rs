//! A model and its file, see [`docs/classifier-format.md`](../../docs/classifier-format.md).

use std::fs;
use std::path::Path;

use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};

use super::calibrate::{Calibration, logistic};
use super::features::{BUCKET_BITS, Features};
use crate::error::{Error, Result};

/// First bytes of a model.
pub const MAGIC: &[u8; 8] = b"moecls\0\n";
/// Version written by this program.
pub const VERSION: u32 = 1;
/// Bytes before the description.
const HEAD_BYTES: usize = 32;
/// Bytes of the checksum at the end.
const SUM_BYTES: usize = 32;
/// Longest description.
const MAX_DESCRIPTION: usize = 1 << 20;

/// A linear classifier of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// How texts become buckets.
    pub features: Features,
    /// Weight of no bucket.
    pub bias: f32,
    /// How it was made.
    pub training: Training,
    /// Weight of each bucket.
    pub weights: Vec<f32>,
}

/// How a model was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Documents it learned from: positive, negative.
    pub documents: [u64; 2],
    /// Documents that were held out.
    pub held_out: [u64; 2],
    /// Share that was held out, by a hash of seed and text.
    pub held_out_share: f64,
    /// Passes.
    pub epochs: u32,
    /// Learning rate at the start; it falls linearly to 0.
    pub learning_rate: f64,
    /// Width of the embeddings that were learned, or 0 for weights that were learned themselves.
    pub dim: u32,
    /// Seed of the order and of the held-out documents.
    pub seed: u64,
    /// Area under the curve over the held-out documents, if there are any.
    pub auc: Option<f64>,
    /// Share of them classified correctly at a threshold of 0.5.
    pub accuracy: Option<f64>,
    /// Calibration of the scores, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

impl Model {
    /// Probability that a text is like the positive documents, 0 to 1: the logistic function of the bias and the weights of all
    /// words and pairs, divided by the square root of their number.
    pub fn score(&self, text: &str) -> f64 {
        logistic(self.log_odds(text))
    }

    /// The same before the logistic function.
    pub fn log_odds(&self, text: &str) -> f64 {
        let (mut sum, mut n) = (0.0, 0u64);
        self.features.for_each(text, |bucket| {
            sum += f64::from(self.weights[bucket as usize]);
            n += 1;
        });
        f64::from(self.bias) + sum / (n.max(1) as f64).sqrt()
    }

    /// Applies a calibration: it maps log-odds, so it can be folded into the weights.
    pub fn calibrate(&mut self, calibration: Calibration) {
        let Calibration { scale, shift, .. } = calibration;
        self.weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
        self.bias = (f64::from(self.bias) * scale + shift) as f32;
        self.training.calibration = Some(calibration);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A write fails.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = AtomicFile::create(path)?;
        file.write(&self.encode())?;
        Ok(file.commit()?)
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let description = crate::json::canonical(&self.training);
        let mut bytes =
            Vec::with_capacity(HEAD_BYTES + description.len() + self.weights.len() * 4 + SUM_BYTES);
        bytes.extend_from_slice(MAGIC);
        for number in [VERSION, self.features.word_ngrams, self.features.bucket_bits] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.bias.to_le_bytes());
        bytes.extend_from_slice(&(description.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&description);
        self.weights.iter().for_each(|weight| bytes.extend_from_slice(&weight.to_le_bytes()));
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is missing, no model, newer than this program, or damaged.
    pub fn read(path: &Path) -> Result<Model> {
        let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
        Model::decode(&bytes).map_err(|message| Error::data(path, message))
    }

    /// Parses a model; the error says what is wrong.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Model, String> {
        if !bytes.starts_with(MAGIC) {
            return Err("is not a classifier; expected a file of `moe-data classifier train`".to_owned());
        }
        let number =
            |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let short = || format!("ends after {} bytes; make it again, or copy it again", bytes.len());
        let version = number(8).ok_or_else(short)?;
        if version != VERSION {
            return Err(format!("has version {version}; this program reads {VERSION}"));
        }
        let features = Features {
            word_ngrams: number(12).ok_or_else(short)?,
            bucket_bits: number(16).ok_or_else(short)?,
        };
        if !(1..=2).contains(&features.word_ngrams) || !BUCKET_BITS.contains(&features.bucket_bits) {
            let Features { word_ngrams, bucket_bits } = features;
            return Err(format!(
                "has n-grams of {word_ngrams} words and 2^{bucket_bits} buckets, which no model has"
            ));
        }
        let bias = f32::from_bits(number(20).ok_or_else(short)?);
        let n = bytes.get(24..HEAD_BYTES).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let n =
            n.and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= MAX_DESCRIPTION).ok_or_else(short)?;
        let n_weights = 1usize << features.bucket_bits;
        let expected = HEAD_BYTES + n + n_weights * 4 + SUM_BYTES;
        if bytes.len() != expected {
            return Err(format!("has {} bytes, expected {expected}; copy it again", bytes.len()));
        }
        let (content, sum) = bytes.split_at(expected - SUM_BYTES);
        if blake3::hash(content).as_bytes() != sum {
            return Err("is damaged: its checksum does not fit; copy it again".to_owned());
        }
        let training =
            serde_json::from_slice(&content[HEAD_BYTES..HEAD_BYTES + n]).map_err(|e| e.to_string())?;
        let weights: Vec<f32> = content[HEAD_BYTES + n..]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        if !bias.is_finite() || weights.iter().any(|weight| !weight.is_finite()) {
            return Err("has weights that are not numbers; train it again".to_owned());
        }
        Ok(Model { features, bias, training, weights })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model() -> Model {
        let features = Features { word_ngrams: 2, bucket_bits: 8 };
        let mut weights = vec![0.0; 256];
        for bucket in features.of("good text") {
            weights[bucket as usize] += 1.0;
        }
        let training = Training { documents: [3, 4], auc: Some(0.75), ..Training::default() };
        Model { features, bias: -1.0, training, weights }
    }

    #[test]
    fn the_score_is_the_logistic_of_the_weights_over_the_root_of_their_number() {
        // Two words and one pair, in different buckets.
        let expected = 1.0 / (1.0 + (1.0 - 3.0 / 3f64.sqrt()).exp());
        assert!((model().score("Good  text") - expected).abs() < 1e-12);
        assert!((model().score("") - 1.0 / (1.0 + 1f64.exp())).abs() < 1e-12);
    }

    /// The file was written by another program, from the documented format.
    #[test]
    fn a_committed_model_of_version_1_opens_and_scores_as_it_did() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/v1.moecls");
        let model = Model::read(&path).unwrap();
        assert_eq!(model.training.documents, [3, 4]);
        for (text, score) in [
            ("Clear proofs, naïve or not, in 1905.", 0.864_304_446_027_678_1),
            ("buy CHEAP now", 0.198_701_921_489_589_04),
            ("", 0.377_540_668_798_145_4),
            ("clear\nproofs (1776)", 0.520_821_285_372_743),
        ] {
            assert!((model.score(text) - score).abs() < 1e-9, "{text:?}: {}", model.score(text));
        }
    }

    #[test]
    fn the_file_brings_the_model_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.moecls");
        model().write(&path).unwrap();
        assert_eq!(Model::read(&path).unwrap(), model());
        let error = Model::read(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    proptest! {
        #[test]
        fn damaged_files_are_refused_and_never_panic(at in 0usize..1300, flip in 1u8.., cut in 0usize..1300) {
            let bytes = model().encode();
            let mut flipped = bytes.clone();
            let at = at % bytes.len();
            flipped[at] ^= flip;
            prop_assert!(Model::decode(&flipped).is_err());
            prop_assert!(Model::decode(&bytes[..cut % bytes.len()]).is_err());
        }
    }
}
