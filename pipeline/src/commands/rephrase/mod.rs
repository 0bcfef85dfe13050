//! `moe-data rephrase`: asks a model to rephrase the documents that a build kept, and judges its answers.
//!
//! ```text
//! build -> choose -> ask (cache) -> judge -> accepted-SOURCE.jsonl, rejected.jsonl, ledger.json -> next build
//! ```

mod ask;
mod batch;
mod dry_run;
mod import;
mod judge;

use std::path::{Path, PathBuf};

use moe_llm::Cache;

pub use self::ask::{AskArgs, run as ask};
pub use self::batch::{export, import as import_batch};
pub use self::import::{ImportArgs, run as import};
pub use self::judge::{report, validate};
use crate::commands::server::sound;
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::rephrase::choice::{Choice, Selection};
use crate::rephrase::job::Model;
use crate::rephrase::parents::Originals;
use crate::rephrase::record::Ledger;
use crate::rephrase::settings::{self, Settings};
use crate::rephrase::style::{self, Style};

/// Decides which questions are asked.
#[derive(Clone, Debug)]
pub struct WhatArgs {
    /// Folder of the build.
    pub out: PathBuf,
    /// Name of the model on the server.
    pub model: String,
    /// Distinguishes files of that name.
    pub revision: String,
    /// Names of styles; all of the folder when empty.
    pub styles: Vec<String>,
    /// Folder of the style files.
    pub styles_dir: PathBuf,
    /// Most styles of a document.
    pub per_document: usize,
    /// Most documents.
    pub max_docs: Option<u64>,
    /// Seed of the choice.
    pub seed: u64,
    /// License of what the model writes.
    pub licence: Option<String>,
}

/// Folder of rephrasing in a build's folder.
fn folder(out: &Path) -> PathBuf {
    out.join("rephrase")
}

/// Folder of the completions.
fn cache_folder(out: &Path) -> PathBuf {
    folder(out).join("cache")
}

/// Everything known before asking.
struct Setup {
    originals: Originals,
    styles: Vec<Style>,
    model: Model,
    settings: Settings,
}

impl Setup {
    /// Reads the build and the styles.
    fn new(args: &WhatArgs) -> Result<Setup> {
        let originals = Originals::open(&args.out)?;
        let styles = style::read_all(&args.styles_dir, &args.styles)?;
        let model = Model { name: args.model.clone(), revision: args.revision.clone() };
        if args.per_document == 0 {
            return Err(Error::Usage("--per-doc is 0; expected at least 1".to_owned()));
        }
        let choice = Choice {
            styles: &styles,
            per_document: args.per_document,
            max_documents: args.max_docs,
            seed: args.seed,
        };
        let settings = Settings::new(&model, &args.styles_dir, &styles, &choice, args.licence.clone());
        let setup = Setup { originals, styles, model, settings };
        setup.check_sources()?;
        Ok(setup)
    }

    /// As an earlier run left it, with the current limits.
    fn read(out: &Path, styles_dir: Option<&Path>) -> Result<Setup> {
        let settings = Settings::read(&folder(out))?;
        let styles = settings.styles(styles_dir)?;
        let setup = Setup { originals: Originals::open(out)?, model: settings.model(), styles, settings };
        setup.check_sources()?;
        Ok(setup)
    }

    fn check_sources(&self) -> Result<()> {
        let sources = self.originals.sources();
        for style in &self.styles {
            if let Some(other) = style.uses.sources.iter().find(|name| !sources.contains(name)) {
                let hint = crate::nearest::hint(other, sources.iter().map(String::as_str));
                let message = format!("style `{}`: the build has no source `{other}`; {hint}", style.name());
                return Err(Error::Usage(message));
            }
        }
        Ok(())
    }

    /// The choice; an empty one is an error.
    fn choose(&self) -> Result<Selection> {
        let selection = self.settings.choice(&self.styles).choose(&self.originals)?;
        if selection.chosen.is_empty() {
            let message = format!(
                "none of the {} originals of the build fits any style; [use] of the style files says which do",
                selection.originals
            );
            return Err(Error::Usage(message));
        }
        Ok(selection)
    }
}

/// Opens the cache for reading; a missing one is empty.
fn read_cache(out: &Path, printer: &Printer) -> Result<Option<Cache>> {
    let folder = cache_folder(out);
    if !folder.exists() {
        return Ok(None);
    }
    Ok(Some(sound(Cache::open_read_only(&folder)?, printer)))
}

/// Prints what was made and the next command.
fn say(printer: &Printer, folder: &Path, ledger: &Ledger, json: bool) {
    if json {
        // A ledger is always JSON.
        printer.data(&format!("{}\n", serde_json::to_value(ledger).unwrap_or_default()));
    }
    printer.note(&ledger.table());
    let styles: Vec<String> = ledger
        .styles
        .iter()
        .filter(|(_, style)| style.accepted > 0)
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    if ledger.waiting() > 0 {
        printer.note(&format!("{} pairs wait for answers: run moe-data rephrase again", ledger.waiting()));
    }
    if styles.is_empty() {
        printer.note("nothing was accepted; moe-data rephrase report shows why");
        return;
    }
    // The report shows what the server was asked.
    let look = if folder.join(settings::FILE).exists() { "moe-data rephrase report, then " } else { "" };
    printer.note(&format!(
        "next: {look}add to the recipe\n  [rephrase]\n  from = {:?}   # relative to the recipe\n  styles = [{}]\nand run moe-data build again",
        folder.display().to_string(),
        styles.join(", ")
    ));
}
