//! Documents of files, read and normalized as a build with default settings does.

use std::path::{Path, PathBuf};

use moe_report::progress::Bar;
use rayon::prelude::*;

use crate::error::{Error, Problem, Result};
use crate::normalize::{NormalizeConfig, normalize};
use crate::read::{self, FieldPaths, Slice};
use crate::recipe::LimitsConfig;
use crate::recipe::inputs::{self, InputFile};

/// A document of a file.
pub(super) struct Document {
    /// The file's name.
    pub file: String,
    /// Its name: the value of the id field, or file and offset.
    pub id: String,
    /// Value of the family field, if requested.
    pub family: Option<String>,
    /// Its normalized text.
    pub text: String,
}

/// Amount of text read ahead.
const BATCH_BYTES: usize = 16 << 20;

/// The files at some paths.
///
/// # Errors
/// [`Error::Recipe`] with every path that matches nothing.
fn files(paths: &[PathBuf]) -> Result<Vec<InputFile>> {
    let paths: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    inputs::find(Path::new(""), &paths).map_err(|messages| {
        let problem = |message| Problem { file: None, line: None, key: String::new(), message };
        Error::Recipe { problems: messages.into_iter().map(problem).collect() }
    })
}

/// Yields the normalized documents of files, a few megabytes at a time, and returns how many records were not documents. `bar` shows the
/// progress.
///
/// # Errors
/// A file cannot be read, no record is a document, or the error of `take`.
pub(super) fn for_each_batch(
    paths: &[PathBuf],
    fields: &FieldPaths,
    bar: &Bar,
    mut take: impl FnMut(Vec<Document>) -> Result<()>,
) -> Result<u64> {
    let limits = LimitsConfig::default().of_readers();
    let (mut n_bad, mut n_good, mut first_bad) = (0, 0u64, None);
    let (mut batch, mut n_bytes) = (Vec::new(), 0);
    let normalized = |mut batch: Vec<Document>| {
        batch.par_iter_mut().for_each(|document| {
            if let std::borrow::Cow::Owned(text) = normalize(&document.text, NormalizeConfig::default()) {
                document.text = text;
            }
        });
        batch
    };
    let mut read_file = |file: &InputFile| -> Result<()> {
        let mut reader = read::open(&file.path, &file.name, None, Slice::Whole, fields, limits)?;
        let mut consumed = 0;
        while let Some(record) = reader.next_record()? {
            match record.content {
                Ok(raw) => {
                    n_good += 1;
                    bar.saw_document();
                    n_bytes += raw.text.len();
                    let id = raw.id.unwrap_or_else(|| format!("{}:{}", file.name, record.offset));
                    batch.push(Document { file: file.name.clone(), id, family: raw.family, text: raw.text });
                }
                Err(bad) if bad.cause.is_skipped() => {}
                Err(bad) => {
                    n_bad += record.n_records;
                    first_bad.get_or_insert_with(|| {
                        format!("{}, offset {}: {}", file.path.display(), record.offset, bad.cause.name())
                    });
                }
            }
            let now = reader.consumed_bytes();
            bar.inc(now - consumed);
            consumed = now;
            if n_bytes >= BATCH_BYTES {
                take(normalized(std::mem::take(&mut batch)))?;
                n_bytes = 0;
            }
        }
        Ok(())
    };
    let files = files(paths)?;
    bar.set_length(files.iter().map(|file| file.n_bytes).sum());
    for file in files {
        file.unchanged(|| read_file(&file))?;
    }
    take(normalized(batch))?;
    bar.finish_and_clear();
    match (n_good, first_bad) {
        (0, Some(first)) => Err(Error::Usage(format!("no record is a document; the first: {first}"))),
        (0, None) => Err(Error::Usage("these files hold no records".to_owned())),
        _ => Ok(n_bad),
    }
}
