//! Rows of Parquet and Arrow: the columns that the recipe names, as records.

use arrow::array::{Array, LargeStringArray, RecordBatch};

use super::dotted::{as_text, find, is_string};
use super::kept::KeptColumns;
use super::metadata::MetadataColumns;
use super::record::ConversationColumns;
use super::{Bad, Cause, FieldPaths, Raw};
use crate::document::OwnedMetadata;

/// The wanted columns of one batch, as text.
#[derive(Default)]
pub(super) struct Columns {
    n_rows: usize,
    id: Option<LargeStringArray>,
    text: Option<LargeStringArray>,
    text_is_string: bool,
    /// In the place of the text.
    conversation: Option<ConversationColumns>,
    family: Option<LargeStringArray>,
    variant: Option<LargeStringArray>,
    metadata: MetadataColumns,
    kept: KeptColumns,
    /// The fields with metadata that have a column, as [`FieldPaths::present`].
    pub present: u8,
}

impl Columns {
    pub fn of(batch: &RecordBatch, fields: &FieldPaths) -> Columns {
        let column = |path: &str| find(batch, path);
        let text = column(&fields.text);
        Columns {
            n_rows: batch.num_rows(),
            id: fields.id.as_deref().and_then(column).and_then(as_text),
            text_is_string: text.as_ref().is_some_and(|column| is_string(column.data_type())),
            text: text.and_then(as_text),
            conversation: (fields.conversation.as_deref()).map(|names| ConversationColumns::of(batch, names)),
            family: fields.family.as_deref().and_then(column).and_then(as_text),
            variant: fields.variant.as_deref().and_then(column).and_then(as_text),
            metadata: MetadataColumns::of(batch, &fields.metadata),
            kept: KeptColumns::of(batch, &fields.keep),
            present: (fields.metadata.named().enumerate())
                .fold(0, |bits, (i, (_, field))| bits | u8::from(column(field).is_some()) << i),
        }
    }

    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub fn text_bytes(&self, row: usize) -> u64 {
        match &self.conversation {
            Some(columns) => columns.row(row).map_or(0, |text| text.len() as u64),
            None => value(&self.text, row).map_or(0, |text| text.len() as u64),
        }
    }

    pub fn row(&self, row: usize, fields: &FieldPaths, max_doc_bytes: u64) -> std::result::Result<Raw, Bad> {
        let name = |wanted: &Option<String>, column: &Option<LargeStringArray>, missing| match wanted {
            None => Ok(None),
            Some(_) => value(column, row).map(|v| Some(v.to_owned())).ok_or(missing),
        };
        let conversation = self.conversation.as_ref().and_then(|columns| columns.row(row));
        let text = conversation.as_deref().or_else(|| value(&self.text, row));
        let is_text = self.text_is_string || self.conversation.is_some();
        let fields = || {
            let text = match text {
                None => return Err(Cause::MissingText),
                Some(_) if !is_text => return Err(Cause::TextNotAString),
                Some("") => return Err(Cause::EmptyText),
                Some(text) if text.len() as u64 > max_doc_bytes => return Err(Cause::TooLong),
                Some(text) => text.to_owned(),
            };
            Ok(Raw {
                id: match name(&fields.id, &self.id, Cause::MissingId) {
                    Err(Cause::MissingId) if fields.id_optional => None,
                    id => id?,
                },
                text,
                family: name(&fields.family, &self.family, Cause::MissingFamily)?,
                variant: name(&fields.variant, &self.variant, Cause::MissingVariant)?,
                metadata: OwnedMetadata {
                    kept: self.kept.row(row),
                    ..self.metadata.row(row, &fields.metadata)?
                },
                guessed: None,
            })
        };
        fields().map_err(|cause| Bad::new(cause, text.unwrap_or_default().as_bytes()))
    }
}

fn value(column: &Option<LargeStringArray>, row: usize) -> Option<&str> {
    column.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row))
}
