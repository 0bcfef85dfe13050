//! Stage 1 for variants that `moe-data rephrase` accepted: a file of them to documents in the families of their originals. From here on
//! they are treated like all documents: the same filters, deduplication and cuts.
//!
//! Writes `documents.parquet`.

use std::path::Path;

use moe_cli::nearest;
use serde::{Deserialize, Serialize};

use crate::document::{Count, DocumentId, Metadata, TextHash};
use crate::error::{Error, Result};
use crate::normalize::{NormalizeConfig, normalize};
use crate::recipe::inputs::InputFile;
use crate::rephrase::record::{self, Accepted};
use crate::stage::{Report, Stage};
use crate::tables::DOCUMENTS;
use crate::tables::documents::{Document, DocumentWriter};
use crate::watch::Watch;

/// What to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RephrasedParams {
    /// Name of the source.
    pub source: String,
    /// The file of accepted variants.
    pub input: InputFile,
    /// Names of all variants of the source, including the styles.
    pub variants: Vec<String>,
    /// Normal form.
    pub normalize: NormalizeConfig,
}

/// Name of a variant's document: its original's, `#`, its style.
pub fn name(record: &Accepted) -> String {
    format!("{}#{}", record.parent, record.style)
}

impl Stage for RephrasedParams {
    const NAME: &'static str = "rephrased";
    type Inputs = ();

    /// # Errors
    /// The file is not ours, was changed, or is of another source, or the recipe does not list a style.
    fn run(&self, _: &(), folder: &Path, watch: &Watch) -> Result<Report> {
        self.input.unchanged(|| self.read(folder, watch))
    }
}

impl RephrasedParams {
    fn read(&self, folder: &Path, watch: &Watch) -> Result<Report> {
        let path = &self.input.path;
        record::check_accepted(path)?;
        let mut documents = DocumentWriter::create(&folder.join(DOCUMENTS))?;
        let mut report = Report::default();
        for record in record::accepted(path)? {
            let record = record?;
            let wrong = |message: String| Error::data(path, format!("`{}`: {message}", name(&record)));
            if record.source != self.source {
                return Err(wrong(format!("is of source `{}`, expected `{}`", record.source, self.source)));
            }
            let variant = self.variants.iter().position(|variant| *variant == record.style);
            let variant = variant.and_then(|number| u8::try_from(number).ok()).ok_or_else(|| {
                let hint = nearest::hint(&record.style, self.variants.iter().skip(1).map(String::as_str));
                Error::Usage(format!(
                    "{}: has variants of style `{}`, which `rephrase.styles` does not list; {hint}",
                    path.display(),
                    record.style
                ))
            })?;
            let text = normalize(&record.text, self.normalize);
            let raw_bytes = u32::try_from(record.text.len()).map_err(|_| wrong("is too long".to_owned()))?;
            if text.trim().is_empty() {
                return Err(wrong("is empty".to_owned()));
            }
            let family = u64::from_str_radix(&record.family, 16);
            let family = family.map_err(|_| wrong("`family` is not hexadecimal".to_owned()))?;
            let id = name(&record);
            let tags = record.tags.join("\n");
            documents.append(&Document {
                id: &id,
                document_id: DocumentId::new(&self.source, &id),
                family: moe_shards::FamilyId(family),
                variant,
                raw_bytes,
                text_hash: TextHash::of(&text),
                metadata: Metadata {
                    quality: record.quality,
                    language: record.language.as_deref(),
                    tags: &tags,
                    date: record.date.as_deref(),
                    score: record.score,
                    url: record.url.as_deref(),
                    ..Metadata::default()
                },
                text: &text,
            })?;
            let count = Count::one(u64::from(raw_bytes));
            report.tags.extend(record.tags);
            report.read += count;
            report.kept += count;
            watch.advance_by_document(count.bytes)?;
        }
        documents.finish()?;
        Ok(report)
    }
}
