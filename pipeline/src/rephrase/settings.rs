//! `settings.json`: settings of a run of `moe-data rephrase`, so that its other verbs need not repeat them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::Hash;
use serde::{Deserialize, Serialize};

use super::choice::Choice;
use super::job::Model;
use super::record;
use super::style::{self, Style};
use crate::error::{Error, Result};
use crate::json;
use crate::listing::{Listing, Maker};

/// Its name.
pub const FILE: &str = "settings.json";
const VERSION: u32 = 1;

/// Everything that decides the requests of a run and labels its results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    version: u32,
    /// Name of the model.
    pub model: String,
    /// Its revision.
    pub revision: String,
    /// Folder of the style files.
    pub styles_dir: PathBuf,
    /// Digests of the templates by name of the style.
    pub templates: BTreeMap<String, Hash>,
    /// Most styles of a document.
    pub per_document: usize,
    /// Most documents.
    pub max_documents: Option<u64>,
    /// Seed of the choice.
    pub seed: u64,
    /// License of what the model writes.
    pub licence: Option<String>,
}

impl Settings {
    /// The settings of a run with these styles.
    pub fn new(
        model: &Model,
        styles_dir: &Path,
        styles: &[Style],
        choice: &Choice<'_>,
        licence: Option<String>,
    ) -> Settings {
        Settings {
            version: VERSION,
            model: model.name.clone(),
            revision: model.revision.clone(),
            styles_dir: styles_dir.to_owned(),
            templates: styles.iter().map(|style| (style.name().to_owned(), style.template())).collect(),
            per_document: choice.per_document,
            max_documents: choice.max_documents,
            seed: choice.seed,
            licence,
        }
    }

    /// Reads the settings of a folder.
    ///
    /// # Errors
    /// Nothing was asked yet, or they are of another version.
    pub fn read(folder: &Path) -> Result<Settings> {
        let path = folder.join(FILE);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                let message = format!("{} does not exist; run moe-data rephrase first", path.display());
                Error::Usage(message)
            }
            _ => Error::io(&path, "read")(e),
        })?;
        let settings: Settings = serde_json::from_slice(&bytes).map_err(|e| {
            let again = "run moe-data rephrase, which writes it again and asks nothing twice";
            Error::data(&path, format!("is damaged or of another program ({e}); {again}"))
        })?;
        match settings.version {
            VERSION => Ok(settings),
            other => Err(Error::data(&path, format!("version {other}; this program reads {VERSION}"))),
        }
    }

    /// Writes the settings of a folder.
    ///
    /// # Errors
    /// A file that is not ours is in the way, or a write fails.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut listing = listing(folder)?;
        listing.claim([FILE.to_owned()])?;
        listing.write_file(FILE, &json::canonical(self))?;
        listing.finish()
    }

    /// Who was asked.
    pub fn model(&self) -> Model {
        Model { name: self.model.clone(), revision: self.revision.clone() }
    }

    /// Rereads the current styles, from `folder` if one is given.
    ///
    /// # Errors
    /// A file is missing or invalid, or its template has changed since asking.
    pub fn styles(&self, folder: Option<&Path>) -> Result<Vec<Style>> {
        let names: Vec<String> = self.templates.keys().cloned().collect();
        let styles = style::read_all(folder.unwrap_or(&self.styles_dir), &names)?;
        if let Some(style) =
            styles.iter().find(|style| self.templates.get(style.name()) != Some(&style.template()))
        {
            let message = format!(
                "the template of style `{}` was changed since it was asked with, so its answers belong to another style; \
                 run moe-data rephrase, which asks with the new one (only [gates] and [use] may change without asking)",
                style.name()
            );
            return Err(Error::Usage(message));
        }
        Ok(styles)
    }

    /// The choice of documents.
    pub fn choice<'a>(&self, styles: &'a [Style]) -> Choice<'a> {
        let Settings { per_document, max_documents, seed, .. } = *self;
        Choice { styles, per_document, max_documents, seed }
    }
}

/// The list of our files in the folder of rephrasing.
///
/// # Errors
/// It is damaged.
pub fn listing(folder: &Path) -> Result<Listing> {
    let mut earlier = Vec::new();
    // Versions without lists left settings, and then everything else with these names.
    if Settings::read(folder).is_ok() {
        earlier.extend([FILE, record::LEDGER, record::REJECTED].map(str::to_owned));
        earlier.extend(record::accepted_files(folder)?.keys().map(|source| record::accepted_name(source)));
    }
    Listing::open(folder, Maker::Rephrase, earlier)
}
