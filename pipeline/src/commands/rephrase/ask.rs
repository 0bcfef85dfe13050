//! Asking: every chosen pair of document and style is a conversation; the client leads many of them at once.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use moe_llm::{Cache, Client, ClientConfig, Progress, Summary};

use super::{Setup, WhatArgs, cache_folder, dry_run, folder, judge, say};
use crate::error::{Error, Result};
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::rephrase::choice::Selection;
use crate::rephrase::job::{Job, Talk};
use crate::rephrase::parents::Place;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct AskArgs {
    /// What is asked.
    pub what: WhatArgs,
    /// Address of the server, up to and without `/chat/completions`.
    pub base_url: String,
    /// Name of the environment variable with the API key.
    pub api_key_env: Option<String>,
    /// Requests in flight at most.
    pub concurrency: u32,
    /// Seconds for one request.
    pub deadline_secs: u64,
    /// Do this many documents, show them, and say what all would cost.
    pub dry_run: Option<u64>,
    /// Ask given-up requests again.
    pub retry_poisoned: bool,
    /// Print the ledger as JSON.
    pub json: bool,
}

/// Runs the command. `stop` is set when the user asks to stop.
///
/// # Errors
/// Everything in [`Error`]; answers that came before are kept.
pub fn run(args: &AskArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let out: &PathBuf = &args.what.out;
    let setup = Setup::new(&args.what)?;
    let _lock = OutputLock::acquire(out)?;
    let client = Client::new(ClientConfig {
        api_key_env: args.api_key_env.clone(),
        concurrency: args.concurrency.min(8),
        max_concurrency: args.concurrency,
        deadline: Duration::from_secs(args.deadline_secs),
        retry_poisoned: args.retry_poisoned,
        ..ClientConfig::new(args.base_url.as_str())
    })?;
    let mut selection = setup.choose()?;
    let n_chosen = selection.chosen.len() as u64;
    if let Some(few) = args.dry_run {
        selection.chosen.sort();
        selection.chosen.truncate(usize::try_from(few).unwrap_or(usize::MAX));
        selection.chosen.sort_by_key(|chosen| chosen.place);
    }
    let n_pairs: u64 = selection.chosen.iter().map(|chosen| chosen.styles.len() as u64).sum();
    printer.note(&format!(
        "asking {} at {} for {n_pairs} variants of {} documents ({} of {} originals fit a style)",
        args.what.model,
        args.base_url,
        selection.chosen.len(),
        selection.fitting,
        selection.originals
    ));
    let mut cache = Cache::open(&cache_folder(out))?;
    if args.dry_run.is_none() {
        setup.settings.write(&folder(out))?;
    }
    let summary = ask(&setup, &selection, &client, &mut cache, printer, &stop, n_pairs)?;
    printer.note(&format!(
        "{} answers from the server, {} from the cache, {} given up, {:.0} tokens a second",
        summary.answered,
        summary.cached,
        summary.given_up + summary.poisoned,
        summary.tokens_per_second()
    ));
    if args.dry_run.is_some() {
        return dry_run::show(&setup, &selection, n_chosen, &cache, &summary, printer, stop);
    }
    let ledger = judge::assemble(&setup, &selection, &cache, out, printer, stop, |_| Ok(()))?;
    say(printer, out, &ledger, args.json);
    Ok(())
}

/// Leads all conversations to their ends.
fn ask(
    setup: &Setup,
    selection: &Selection,
    client: &Client,
    cache: &mut Cache,
    printer: &Printer,
    stop: &AtomicBool,
    n_pairs: u64,
) -> Result<Summary> {
    let bar = printer.work_bar("rephrase", n_pairs, "variants");
    let mut observe = |progress: &Progress| {
        bar.set_position(progress.conversations_done + progress.conversations_failed);
        bar.set_message(format!(
            "{} in flight, {:.0} tokens/s",
            progress.in_flight,
            progress.tokens_per_second()
        ));
    };
    let places: Vec<Place> = selection.chosen.iter().map(|chosen| chosen.place).collect();
    // The client takes conversations as it has room for them; an error of reading ends their sequence and is looked at afterwards.
    let broken = RefCell::new(None);
    let talks = talks(setup, selection, &places, &broken);
    let summary = client.run(talks, cache, &mut observe, stop);
    bar.finish_and_clear();
    if let Some(error) = broken.into_inner() {
        return Err(error);
    }
    Ok(summary?)
}

/// The conversations of a selection, in the order of the documents' places.
pub(super) fn talks<'a>(
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
