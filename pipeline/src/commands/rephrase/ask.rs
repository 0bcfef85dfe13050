//! Asking: every chosen pair of document and style is a conversation; the client runs many of them at once.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_llm::Cache;

use super::{Setup, WhatArgs, cache_folder, dry_run, folder, judge, say, share, talks};
use crate::commands::server::{ServerArgs, lead, sound, warn_of_shares};
use crate::commands::share::{Array, share_of};
use crate::error::{Error, Result};
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::rephrase::parents::Place;

/// Flags of `rephrase`.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// What is asked
    #[command(flatten)]
    pub what: WhatArgs,
    /// Who is asked
    #[command(flatten)]
    pub server: ServerArgs,
    /// Run N documents, print them, and estimate the cost of all
    #[arg(long, value_name = "N")]
    pub dry_run: Option<u64>,
    /// Ask a share of the documents only, such as 3/16, counted from 0, at the same time as other processes ask the other shares; a
    /// missing number is that of the array of Slurm or of the indexed job of Kubernetes. Then run moe-data rephrase collect
    #[arg(long, value_name = "[I/]N", conflicts_with_all = ["dry_run", "json"])]
    pub array: Option<Array>,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the command. `stop` is set when the user asks to stop.
///
/// # Errors
/// Everything in [`Error`]; earlier answers are kept.
pub(super) fn run(args: &AskArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let missing = "--base-url is missing; name a server, or use one of validate, report, import, collect, export-batch, import-batch";
    let url = args.server.base_url.as_deref().ok_or_else(|| Error::Usage(missing.to_owned()))?;
    let out = &args.what.out;
    let setup = Setup::new(&args.what)?;
    let client = args.server.client(url)?;
    if args.array.is_some() {
        return share::ask(out, share_of(args.array)?, &setup, &client, printer, &stop);
    }
    let _lock = OutputLock::acquire(out)?;
    let mut selection = setup.choose()?;
    let n_chosen = selection.chosen.len() as u64;
    if let Some(few) = args.dry_run {
        selection.chosen.sort();
        selection.chosen.truncate(usize::try_from(few).unwrap_or(usize::MAX));
        selection.chosen.sort_by_key(|chosen| chosen.place);
    }
    let n_pairs: u64 = selection.chosen.iter().map(|chosen| chosen.styles.len() as u64).sum();
    printer.note(&format!(
        "asking {} at {url} for {n_pairs} variants of {} documents ({} of {} originals fit a style)",
        setup.model.name,
        selection.chosen.len(),
        selection.fitting,
        selection.originals
    ));
    warn_of_shares(&cache_folder(out), None, printer)?;
    let mut cache = sound(Cache::open(&cache_folder(out))?, printer);
    if args.dry_run.is_none() {
        setup.settings.write(&folder(out))?;
    }
    let places: Vec<Place> = selection.chosen.iter().map(|chosen| chosen.place).collect();
    let broken = RefCell::new(None);
    let talks = talks(&setup, &selection, &places, &broken);
    let bar = printer.work_bar("rephrase", n_pairs, "variants");
    let summary = lead(&client, talks, &broken, &mut cache, &bar, printer, &stop)?;
    if args.dry_run.is_some() {
        return dry_run::show(&setup, &selection, n_chosen, &cache, &summary, printer, stop);
    }
    let ledger = judge::assemble(&setup, &selection, &cache, out, printer, stop, |_| Ok(()))?;
    say(printer, &folder(out), &ledger, args.json);
    Ok(())
}
