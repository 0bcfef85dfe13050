//! `moe-data rephrase export-batch` and `import-batch`: the same questions as files, for hosts that answer batches.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_llm::{Cache, batch};

use super::{Setup, WhatArgs, cache_folder, folder, judge, say, talks};
use crate::commands::server::{sound, warn_of_shares};
use crate::error::Result;
use crate::listing;
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::rephrase::parents::Place;

/// Flags of `rephrase export-batch`.
#[derive(Clone, Debug, Args)]
pub struct ExportBatchArgs {
    /// The file; further ones are FILE-00001 and so on, since hosts limit the size
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What is asked
    #[command(flatten)]
    pub what: WhatArgs,
    /// Export again the questions that the server could not answer
    #[arg(long)]
    pub retry_poisoned: bool,
}

/// Flags of `rephrase import-batch`.
#[derive(Clone, Debug, Args)]
pub struct ImportBatchArgs {
    /// The answers, as the host returned them
    #[arg(value_name = "ANSWERS")]
    pub answers: PathBuf,
    /// The exported file that they belong to
    #[arg(long, value_name = "FILE")]
    pub exported: PathBuf,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Writes the currently open questions. Chunks that need the answer to an earlier one come in a later round.
///
/// # Errors
/// The build, the styles, the cache or the file cannot be used.
pub(super) fn export(args: &ExportBatchArgs, printer: &Printer) -> Result<()> {
    let (file, out) = (&args.file, &args.what.out);
    listing::check_single(file, |start| start.starts_with("{\"custom_id\":\""))?;
    let setup = Setup::new(&args.what)?;
    let _lock = OutputLock::acquire(out)?;
    let selection = setup.choose()?;
    warn_of_shares(&cache_folder(out), None, printer)?;
    let cache = sound(Cache::open(&cache_folder(out))?, printer);
    setup.settings.write(&folder(out))?;
    let places: Vec<Place> = selection.chosen.iter().map(|chosen| chosen.place).collect();
    let broken = RefCell::new(None);
    let talks = talks(&setup, &selection, &places, &broken);
    let exported = batch::export(talks, &cache, file, batch::ExportLimits::default(), args.retry_poisoned);
    if let Some(error) = broken.into_inner() {
        return Err(error);
    }
    let exported = exported?;
    printer.note(&format!(
        "{} requests in {} files; {} variants wait for them, {} are complete, {} given up",
        exported.requests,
        exported.files.len(),
        exported.waiting,
        exported.done,
        exported.poisoned
    ));
    for file in &exported.files {
        printer.data(&format!("{}\n", file.display()));
    }
    printer.note(
        "next: moe-data rephrase import-batch ANSWERS --exported FILE, then export again until nothing waits",
    );
    Ok(())
}

/// Reads answers into the cache and judges everything.
///
/// # Errors
/// Nothing was exported yet, or a file cannot be used.
pub(super) fn import(args: &ImportBatchArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let out = &args.out;
    let setup = Setup::read(out, None)?;
    let _lock = OutputLock::acquire(out)?;
    let keys = batch::exported_keys(&args.exported)?;
    let mut cache = sound(Cache::open(&cache_folder(out))?, printer);
    let imported = batch::import(&args.answers, &keys, &mut cache)?;
    cache.flush()?;
    let sum = |counts: &std::collections::BTreeMap<String, u64>| counts.values().sum::<u64>();
    printer.note(&format!(
        "{} lines: {} answers, {} known before, {} failed, {} given up, {} unknown, {} unreadable; {} requests without a line",
        imported.lines,
        imported.matched,
        imported.already_cached,
        sum(&imported.failed),
        sum(&imported.given_up),
        imported.unknown,
        sum(&imported.malformed),
        imported.unmatched
    ));
    for (reason, n) in imported.failed.iter().chain(&imported.given_up).chain(&imported.malformed) {
        printer.note(&format!("  {reason}: {n}"));
    }
    let selection = setup.choose()?;
    let ledger = judge::assemble(&setup, &selection, &cache, out, printer, stop, |_| Ok(()))?;
    say(printer, &folder(out), &ledger, args.json);
    Ok(())
}
