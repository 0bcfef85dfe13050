//! `moe-data rephrase export-batch` and `import-batch`: the same questions as files, for hosts that answer batches.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use moe_llm::{Cache, batch};

use super::{Setup, WhatArgs, ask, cache_folder, folder, judge, say};
use crate::commands::server::sound;
use crate::error::Result;
use crate::listing;
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::rephrase::parents::Place;

/// Writes the currently open questions. Chunks that need the answer to an earlier one come in a later round.
///
/// # Errors
/// The build, the styles, the cache or the file cannot be used.
pub fn export(args: &WhatArgs, file: &Path, retry_poisoned: bool, printer: &Printer) -> Result<()> {
    listing::check_single(file, |start| start.starts_with("{\"custom_id\":\""))?;
    let setup = Setup::new(args)?;
    let _lock = OutputLock::acquire(&args.out)?;
    let selection = setup.choose()?;
    let cache = sound(Cache::open(&cache_folder(&args.out))?, printer);
    setup.settings.write(&folder(&args.out))?;
    let places: Vec<Place> = selection.chosen.iter().map(|chosen| chosen.place).collect();
    let broken = RefCell::new(None);
    let talks = ask::talks(&setup, &selection, &places, &broken);
    let exported = batch::export(talks, &cache, file, batch::ExportLimits::default(), retry_poisoned);
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
pub fn import(
    out: &Path,
    answers: &Path,
    exported: &Path,
    json: bool,
    printer: &Printer,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    let setup = Setup::read(out, None)?;
    let _lock = OutputLock::acquire(out)?;
    let keys = batch::exported_keys(exported)?;
    let mut cache = sound(Cache::open(&cache_folder(out))?, printer);
    let imported = batch::import(answers, &keys, &mut cache)?;
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
    say(printer, &folder(out), &ledger, json);
    Ok(())
}
