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
mod share;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand};
use moe_llm::Cache;

pub use self::ask::AskArgs;
pub use self::batch::{ExportBatchArgs, ImportBatchArgs};
pub use self::import::ImportArgs;
pub use self::judge::{JudgeArgs, ReportArgs};
use crate::commands::server::sound;
use crate::error::{Error, Result};
use crate::mix::count;
use crate::printer::Printer;
use crate::rephrase::choice::{Choice, Selection};
use crate::rephrase::job::{Job, Model, Talk};
use crate::rephrase::parents::{Originals, Place};
use crate::rephrase::record::Ledger;
use crate::rephrase::settings::{self, Settings};
use crate::rephrase::style::{self, Style};

/// Flags of `rephrase` itself, and its other verbs.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RephraseArgs {
    /// Verbs that do not ask a server
    #[command(subcommand)]
    pub verb: Option<RephraseVerb>,
    /// What is asked, and whom
    #[command(flatten)]
    pub ask: AskArgs,
}

/// The other verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum RephraseVerb {
    /// Judge the answers again with the current limits of the style files, without a server
    Validate(JudgeArgs),
    /// Write a page with samples side by side, counts, and histograms of what the gates measured
    Report(ReportArgs),
    /// Judge variants that another program wrote and keep those that pass
    Import(ImportArgs),
    /// Take the answers of the shares that --array asked together, and judge them
    Collect(JudgeArgs),
    /// Write the open questions as a batch file (JSON lines) instead of asking a server
    ExportBatch(ExportBatchArgs),
    /// Read the answers of a batch, and judge them
    ImportBatch(ImportBatchArgs),
}

/// What to ask.
#[derive(Clone, Debug, Args)]
pub struct WhatArgs {
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Name of the model on the server
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Distinguishes files of that name, such as a commit or a quantization; part of every key
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub revision: String,
    /// Styles, separated by commas [default: all in the folder]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub styles: Vec<String>,
    /// Folder of the style files
    #[arg(long, value_name = "DIR", default_value = "configs/styles")]
    pub styles_dir: PathBuf,
    /// Most styles of a document
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub per_doc: usize,
    /// Most documents [default: all]; a larger number later keeps these and adds more
    #[arg(long, value_name = "N", value_parser = count::parse_u64)]
    pub max_docs: Option<u64>,
    /// Seed of the choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// License of what the model writes, stored with every variant
    #[arg(long = "license", alias = "licence", value_name = "TEXT")]
    pub licence: Option<String>,
}

/// Runs the command or one of its verbs. `stop` is set when the user asks to stop.
///
/// # Errors
/// Everything in [`Error`]; earlier answers are kept.
pub fn run(args: &RephraseArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    match &args.verb {
        Some(RephraseVerb::Validate(args)) => judge::validate(args, printer, stop),
        Some(RephraseVerb::Report(args)) => judge::report(args, printer, stop),
        Some(RephraseVerb::Import(args)) => import::run(args, printer, stop),
        Some(RephraseVerb::Collect(args)) => share::collect(args, printer, stop),
        Some(RephraseVerb::ExportBatch(args)) => batch::export(args, printer),
        Some(RephraseVerb::ImportBatch(args)) => batch::import(args, printer, stop),
        None => ask::run(&args.ask, printer, stop),
    }
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
        let missing =
            || Error::Usage("--model is missing; give the name of the model on the server".to_owned());
        let name = args.model.clone().ok_or_else(missing)?;
        let originals = Originals::open(&args.out)?;
        let styles = style::read_all(&args.styles_dir, &args.styles)?;
        let model = Model { name, revision: args.revision.clone() };
        if args.per_doc == 0 {
            return Err(Error::Usage("--per-doc is 0; expected at least 1".to_owned()));
        }
        let choice = Choice {
            styles: &styles,
            per_document: args.per_doc,
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
        Setup::of(Settings::read(&folder(out))?, out, styles_dir)
    }

    /// As settings say, with the current limits.
    fn of(settings: Settings, out: &Path, styles_dir: Option<&Path>) -> Result<Setup> {
        let styles = settings.styles(styles_dir)?;
        let setup = Setup { originals: Originals::open(out)?, model: settings.model(), styles, settings };
        setup.check_sources()?;
        Ok(setup)
    }

    fn check_sources(&self) -> Result<()> {
        let sources = self.originals.sources();
        for style in &self.styles {
            if let Some(other) = style.uses.sources.iter().find(|name| !sources.contains(name)) {
                let hint = moe_cli::nearest::hint(other, sources.iter().map(String::as_str));
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

/// The conversations of a selection, in the order of the documents' places.
fn talks<'a>(
    setup: &'a Setup,
    selection: &'a Selection,
    places: &'a [Place],
    broken: &'a RefCell<Option<Error>>,
) -> impl Iterator<Item = Talk<'a>> {
    let parents = setup.originals.at(places).map_while(|parent| match parent {
        Ok(parent) => Some(Arc::new(parent)),
        Err(error) => {
            broken.replace(Some(error));
            None
        }
    });
    parents.zip(&selection.chosen).flat_map(move |(parent, chosen)| {
        let styles = chosen.styles.iter().filter_map(|&i| setup.styles.get(i));
        styles.map(move |style| Job::new(&setup.model, style, parent.clone()).into_talk())
    })
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
