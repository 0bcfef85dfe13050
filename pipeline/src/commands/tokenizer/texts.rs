//! Texts of files, read and normalised as a build with default settings does.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{Error, Problem, Result};
use crate::normalize::{NormalizeConfig, normalize};
use crate::read::{self, FieldPaths, Slice};
use crate::recipe::LimitsConfig;
use crate::recipe::inputs::{self, InputFile};

/// Which texts to read.
#[derive(Clone, Debug, Default)]
pub struct TextArgs {
    /// Files, folders or globs.
    pub paths: Vec<PathBuf>,
    /// Field with the text.
    pub text: String,
    /// Field whose values form groups.
    pub group: Option<String>,
}

/// A text and its group, which is the file's name if the records have no field for it.
pub(super) struct Text {
    pub group: String,
    pub text: String,
}

/// Text that is read before it is handed out.
const BATCH_BYTES: usize = 16 << 20;

impl TextArgs {
    /// The files.
    ///
    /// # Errors
    /// [`Error::Recipe`] with every path that leads nowhere.
    pub(super) fn files(&self) -> Result<Vec<InputFile>> {
        let paths: Vec<String> = self.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        inputs::find(Path::new(""), &paths).map_err(|messages| {
            let problem = |message| Problem { file: None, line: None, key: String::new(), message };
            Error::Recipe { problems: messages.into_iter().map(problem).collect() }
        })
    }

    /// Hands all texts to `take`, some megabytes at a time, and returns how many records were no documents.
    ///
    /// # Errors
    /// A file cannot be read, no record is a document, or the error of `take`.
    pub(super) fn for_each_batch(&self, mut take: impl FnMut(Vec<Text>) -> Result<()>) -> Result<u64> {
        let fields =
            FieldPaths { text: self.text.clone(), family: self.group.clone(), ..FieldPaths::default() };
        let (mut n_bad, mut n_good, mut first_bad) = (0, 0u64, None);
        let (mut batch, mut n_bytes) = (Vec::new(), 0);
        for file in self.files()? {
            let limits = LimitsConfig::default().of_readers();
            let mut reader = read::open(&file.path, &file.name, None, Slice::Whole, &fields, limits)?;
            while let Some(record) = reader.next_record()? {
                match record.content {
                    Ok(raw) => {
                        n_good += 1;
                        n_bytes += raw.text.len();
                        batch.push(Text {
                            group: raw.family.unwrap_or_else(|| file.name.clone()),
                            text: raw.text,
                        });
                    }
                    Err(bad) if bad.cause.is_skipped() => {}
                    Err(bad) => {
                        n_bad += record.n_records;
                        first_bad.get_or_insert_with(|| {
                            format!("{}, offset {}: {}", file.path.display(), record.offset, bad.cause.name())
                        });
                    }
                }
                if n_bytes >= BATCH_BYTES {
                    take(normalized(std::mem::take(&mut batch)))?;
                    n_bytes = 0;
                }
            }
        }
        take(normalized(batch))?;
        match (n_good, first_bad) {
            (0, Some(first)) => Err(Error::Usage(format!("no record is a document; the first: {first}"))),
            (0, None) => Err(Error::Usage("there is no record in these files".to_owned())),
            _ => Ok(n_bad),
        }
    }
}

fn normalized(mut batch: Vec<Text>) -> Vec<Text> {
    batch.par_iter_mut().for_each(|text| {
        if let std::borrow::Cow::Owned(normal) = normalize(&text.text, NormalizeConfig::default()) {
            text.text = normal;
        }
    });
    batch
}
