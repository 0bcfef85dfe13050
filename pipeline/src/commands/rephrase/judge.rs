//! Judging: from the cache to files, without a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_llm::Cache;
use moe_shards::atomic;

use super::{Setup, cache_folder, folder, read_cache, say};
use crate::commands::server::warn_of_shares;
use crate::error::{Error, Result};
use crate::listing;
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::rephrase::assemble::{Assembly, Outcome};
use crate::rephrase::choice::Selection;
use crate::rephrase::record::Ledger;
use crate::rephrase::report::{Report, TITLE};
use crate::watch::Watch;

/// Flags of `rephrase validate` and `rephrase collect`.
#[derive(Clone, Debug, Args)]
pub struct JudgeArgs {
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Folder of the style files [default: the one used for asking]
    #[arg(long, value_name = "DIR")]
    pub styles_dir: Option<PathBuf>,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `rephrase report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Folder of the style files [default: the one used for asking]
    #[arg(long, value_name = "DIR")]
    pub styles_dir: Option<PathBuf>,
    /// The page
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// Samples of each style, accepted and rejected
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub samples: usize,
}

/// `moe-data rephrase validate`: judges the answers again with the current limits.
///
/// # Errors
/// Nothing was asked yet, a template changed, or a file cannot be used.
pub(super) fn validate(args: &JudgeArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let out = &args.out;
    let setup = Setup::read(out, args.styles_dir.as_deref())?;
    let _lock = OutputLock::acquire(out)?;
    let selection = setup.choose()?;
    let cache = open(out, printer)?;
    let ledger = assemble(&setup, &selection, &cache, out, printer, stop, |_| Ok(()))?;
    say(printer, &folder(out), &ledger, args.json);
    Ok(())
}

/// `moe-data rephrase report`: judges the answers again and writes a page about the results.
///
/// # Errors
/// As [`validate`], or the page cannot be written.
pub(super) fn report(args: &ReportArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let (out, page) = (&args.out, &args.output);
    listing::check_single(page, |start| start.contains(TITLE))?;
    let setup = Setup::read(out, args.styles_dir.as_deref())?;
    let _lock = OutputLock::acquire(out)?;
    let selection = setup.choose()?;
    let cache = open(out, printer)?;
    let mut report = Report::new(args.samples);
    let ledger = assemble(&setup, &selection, &cache, out, printer, stop, |outcome| {
        report.see(outcome);
        Ok(())
    })?;
    let revision =
        if setup.model.revision.is_empty() { String::new() } else { format!(" ({})", setup.model.revision) };
    let html = report.html(&ledger, &format!("{}{revision}", setup.model.name));
    atomic::write_file(page, html.as_bytes())?;
    printer.note(&ledger.table());
    printer.note(&format!("wrote {}", page.display()));
    Ok(())
}

/// Writes the files of a selection.
pub(super) fn assemble(
    setup: &Setup,
    selection: &Selection,
    cache: &Cache,
    out: &Path,
    printer: &Printer,
    stop: Arc<AtomicBool>,
    see: impl FnMut(&Outcome<'_>) -> Result<()>,
) -> Result<Ledger> {
    let n_pairs = selection.chosen.iter().map(|chosen| chosen.styles.len() as u64).sum();
    let watch = Watch::new(stop, printer.work_bar("judge", n_pairs, "variants"));
    let ledger = assembly(setup, selection, cache).write(&folder(out), &watch, see);
    watch.finish();
    ledger
}

/// The selection with its answers.
pub(super) fn assembly<'a>(setup: &'a Setup, selection: &'a Selection, cache: &'a Cache) -> Assembly<'a> {
    Assembly {
        originals: &setup.originals,
        selection,
        styles: &setup.styles,
        model: &setup.model,
        licence: setup.settings.licence.as_deref(),
        cache,
    }
}

fn open(out: &Path, printer: &Printer) -> Result<Cache> {
    let missing = || {
        Error::Usage(format!("{} does not exist; run moe-data rephrase first", cache_folder(out).display()))
    };
    warn_of_shares(&cache_folder(out), None, printer)?;
    read_cache(out, printer)?.ok_or_else(missing)
}
