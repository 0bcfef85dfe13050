//! Learned scores of documents: a linear classifier over hashed words and pairs that is trained and applied here, and
//! models of fastText that were trained elsewhere.

pub mod calibrate;
pub mod evaluate;
pub mod fasttext;
pub mod features;
pub mod model;
pub mod train;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

pub use self::fasttext::{FastTextModel, Newlines};
pub use self::features::Features;
pub use self::model::Model;
use crate::error::{Error, Result};

/// Anything that gives a text a score from 0 to 1.
#[derive(Debug)]
pub enum Scorer {
    /// A model of this program.
    Own(Box<Model>),
    /// The probability of a label of fastText.
    FastText {
        /// The model.
        model: Box<FastTextModel>,
        /// Number of the label.
        label: usize,
        /// What becomes of line ends.
        newlines: Newlines,
    },
}

/// Identifies a scorer.
#[derive(Debug, PartialEq)]
struct Key {
    path: PathBuf,
    n_bytes: u64,
    changed: Option<SystemTime>,
    label: Option<String>,
    newlines: Newlines,
}

/// Scorers in use.
static SHARED: Mutex<Vec<(Key, Weak<Scorer>)>> = Mutex::new(Vec::new());

impl Scorer {
    /// Opens a model by its content. `label` is needed for a model of fastText, and only such a model uses `newlines`.
    ///
    /// # Errors
    /// The file is not a model, or the label is missing, unknown or has no meaning.
    pub fn open(path: &Path, label: Option<&str>, newlines: Newlines) -> Result<Scorer> {
        let mut first = [0; 8];
        let mut file = std::fs::File::open(path).map_err(Error::io(path, "open"))?;
        // A shorter file is not a model of either kind; the readers say so.
        std::io::Read::read(&mut file, &mut first).map_err(Error::io(path, "read"))?;
        if first == *model::MAGIC {
            return match label {
                None => Ok(Scorer::Own(Box::new(Model::read(path)?))),
                Some(label) => Err(Error::Usage(format!(
                    "{} is a classifier of this program, which has no label `{label}`; leave the label out",
                    path.display()
                ))),
            };
        }
        let model = Box::new(FastTextModel::read(path)?);
        let Some(label) = label else {
            let message = format!(
                "{} is a model of fastText; say which of its labels is the score, such as `{}`",
                path.display(),
                model.labels()[0]
            );
            return Err(Error::Usage(message));
        };
        let label = model.label(label)?;
        Ok(Scorer::FastText { model, label, newlines })
    }

    /// As [`Scorer::open`], but shares a scorer with the same file and label that is still in use.
    ///
    /// # Errors
    /// As [`Scorer::open`].
    pub fn shared(path: &Path, label: Option<&str>, newlines: Newlines) -> Result<Arc<Scorer>> {
        let data = std::fs::metadata(path).map_err(Error::io(path, "read"))?;
        let key = Key {
            path: path.to_owned(),
            n_bytes: data.len(),
            changed: data.modified().ok(),
            label: label.map(str::to_owned),
            newlines,
        };
        // Held while loading: the other threads want the same one.
        let mut kept = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, scorer)| scorer.strong_count() > 0);
        if let Some(scorer) =
            kept.iter().find(|(other, _)| *other == key).and_then(|(_, kept)| kept.upgrade())
        {
            return Ok(scorer);
        }
        let scorer = Arc::new(Scorer::open(path, label, newlines)?);
        kept.push((key, Arc::downgrade(&scorer)));
        Ok(scorer)
    }

    /// Score of a text, 0 to 1.
    pub fn score(&self, text: &str) -> f64 {
        match self {
            Scorer::Own(model) => model.score(text),
            Scorer::FastText { model, label, newlines } => model.score(text, *label, *newlines),
        }
    }
}
