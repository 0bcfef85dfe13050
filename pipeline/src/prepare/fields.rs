//! Compares the fields of a recipe with those of records.

use std::collections::BTreeSet;

use moe_cli::nearest;

use super::Prepared;
use crate::error::{Error, Problem, Result};
use crate::read::{Limits, peek};
use crate::recipe::SourceConfig;
use crate::recipe::inputs::InputFile;

/// Files of a source to check before the work starts.
const PEEK_FILES: usize = 8;

impl Prepared {
    /// Checks the first files of each source for the fields that every record must have. For
    /// sources of `--input`, a field `id` is used when there is one.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming each field that no record has, with the nearest existing one.
    pub fn check_fields(&mut self) -> Result<()> {
        let mut problems = Vec::new();
        for (source, files) in self.recipe.source.iter().zip(&self.inputs) {
            let names = first_field_names(source, files, self.recipe.limits.of_readers())?;
            let fields = source.fields();
            let text = if source.chat.is_some() { None } else { Some(fields.text) };
            let wanted =
                [("text", text), ("id", fields.id), ("family", fields.family), ("variant", fields.variant)];
            let place = files.first().map_or_else(String::new, |file| file.path.display().to_string());
            for (key, field) in wanted {
                let known = names.as_ref();
                let Some(field) = field.filter(|field| known.is_some_and(|names| !names.contains(field)))
                else {
                    continue;
                };
                problems.push(self.missing_field(source, known, &place, (key, &field)));
            }
            let first = files.first().filter(|_| source.chat.is_some() && names.is_none());
            if let Some(first) = first
                && peek::is_text(&first.path, source.form(), self.recipe.limits.of_readers())?
            {
                let message = format!(
                    "{} has no fields of which conversations could be made; they come as JSON lines, JSON, CSV, Parquet or Arrow",
                    first.path.display()
                );
                problems.push(self.problem(&format!("source.{}.chat", source.name), message));
            }
            let form = source.chat_form();
            for group in form.iter().flat_map(|form| form.needed().iter()) {
                let is_there =
                    names.as_ref().is_none_or(|known| group.iter().any(|name| known.contains(*name)));
                if let (false, Some(first)) = (is_there, group.first()) {
                    problems.push(self.missing_field(source, names.as_ref(), &place, ("chat", first)));
                }
            }
            self.first_fields.push(names);
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Recipe { problems }) }
    }

    /// Reports optional fields that no record of a source had. `seen` is what
    /// the reader's `FieldPaths` calls present, over all records.
    pub fn missing_fields(&self, source: usize, seen: u8) -> Vec<Problem> {
        let Some(config) = self.recipe.source.get(source) else { return Vec::new() };
        let fields = config.fields();
        let unseen = fields.metadata.named().enumerate().filter(|(i, _)| seen >> i & 1 == 0);
        let names = self.first_fields.get(source).and_then(Option::as_ref);
        unseen.map(|(_, named)| self.missing_field(config, names, "the source", named)).collect()
    }

    fn missing_field(
        &self,
        source: &SourceConfig,
        names: Option<&BTreeSet<String>>,
        place: &str,
        (key, field): (&str, &str),
    ) -> Problem {
        let hint = names.map(|names| format!("; {}", nearest::hint(field, names.iter().map(String::as_str))));
        let message = format!("no record of {place} has a field `{field}`{}", hint.unwrap_or_default());
        self.problem(&format!("source.{}.{key}", source.name), message)
    }
}

pub(super) fn first_field_names(
    source: &SourceConfig,
    files: &[InputFile],
    limits: Limits,
) -> Result<Option<BTreeSet<String>>> {
    let mut names: Option<BTreeSet<String>> = None;
    for file in files.iter().take(PEEK_FILES) {
        if let Some(found) = peek::field_names(&file.path, source.form(), limits)? {
            names.get_or_insert_default().extend(found);
        }
    }
    Ok(names)
}
