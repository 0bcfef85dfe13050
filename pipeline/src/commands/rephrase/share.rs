//! `moe-data rephrase --array I/N` asks a share of the documents, in a cache of its own, and `rephrase collect` takes all of them
//! together. So many processes can ask many servers at the same time.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use moe_llm::{Cache, Client};
use moe_shards::atomic;
use serde_json::json;

use super::judge::{self, JudgeArgs};
use super::{Setup, cache_folder, folder, say, talks};
use crate::cluster::Share;
use crate::commands::server::{lead, remove_shares, sound, take_shares, warn_of_shares};
use crate::error::{Error, Result};
use crate::json;
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::rephrase::parents::Place;
use crate::rephrase::settings::{self, Settings};

/// Asks the documents of a share: those whose ids leave its number when divided by the number of shares, so that a larger choice later
/// leaves documents in their shares.
///
/// # Errors
/// Everything in [`Error`]; earlier answers are kept.
pub(super) fn ask(
    out: &Path,
    share: Share,
    setup: &Setup,
    client: &Client,
    printer: &Printer,
    stop: &AtomicBool,
) -> Result<()> {
    let Share { index, of } = share;
    let mut selection = setup.choose()?;
    let n_documents = selection.chosen.len();
    selection.chosen.retain(|chosen| chosen.document_id % of as u64 == index as u64);
    let n_pairs: u64 = selection.chosen.iter().map(|chosen| chosen.styles.len() as u64).sum();
    printer.note(&format!(
        "share {index} of {of}: asking {} for {n_pairs} variants of {} of {n_documents} documents",
        setup.model.name,
        selection.chosen.len(),
    ));
    let caches = cache_folder(out);
    warn_of_shares(&caches, Some(of), printer)?;
    let settings = Cache::share_folder(&caches, index, of)?.join(settings::FILE);
    let write_settings = || atomic::write_file(&settings, &json::canonical(&setup.settings));
    // First, so that no answers are there without them; but not over those of another process that asks this share.
    if !settings.exists() {
        write_settings()?;
    }
    let mut cache = sound(Cache::open_share(&caches, index, of)?, printer);
    write_settings()?;
    let places: Vec<Place> = selection.chosen.iter().map(|chosen| chosen.place).collect();
    let broken = RefCell::new(None);
    let talks = talks(setup, &selection, &places, &broken);
    let bar = printer.work_bar("rephrase", n_pairs, "variants");
    lead(client, talks, &broken, &mut cache, &bar, printer, stop)?;
    let out = out.display();
    printer.note(&format!("next: when all shares are done, moe-data rephrase collect --out {out}"));
    Ok(())
}

/// Takes the answers of all shares over, judges them, and removes the shares: at the end, so that nothing is lost whenever it is killed.
///
/// # Errors
/// There are no shares, one of them is still being asked, or they were asked with different settings.
pub(super) fn collect(args: &JudgeArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let out = &args.out;
    let caches = cache_folder(out);
    let shares = Cache::shares(&caches)?;
    let Some(settings) = common_settings(&shares)? else {
        let message = "there are no shares to collect; moe-data rephrase --array I/N asks one, and moe-data rephrase validate judges what was collected";
        return Err(Error::Usage(format!("{}: {message}", caches.display())));
    };
    let setup = Setup::of(settings, out, args.styles_dir.as_deref())?;
    let _lock = OutputLock::acquire(out)?;
    let selection = setup.choose()?;
    setup.settings.write(&folder(out))?;
    let mut cache = sound(Cache::open(&caches)?, printer);
    let taken = take_shares(&mut cache, &caches, printer)?;
    let ledger = judge::assemble(&setup, &selection, &cache, out, printer, stop, |_| Ok(()))?;
    remove_shares(taken, Some(settings::FILE), printer)?;
    Cache::clear_shares(&caches, Some(settings::FILE))?;
    say(printer, &folder(out), &ledger, args.json);
    Ok(())
}

/// The settings that all shares were asked with; none without shares.
fn common_settings(shares: &[PathBuf]) -> Result<Option<Settings>> {
    let Some((first, others)) = shares.split_first() else { return Ok(None) };
    let settings = Settings::read(first)?;
    for share in others {
        // The same styles may be in another folder.
        let mut other = Settings::read(share)?;
        other.styles_dir.clone_from(&settings.styles_dir);
        if other != settings {
            let [expected, found] = [&settings, &other].map(|settings| json!(settings));
            let fields = expected.as_object().into_iter().flatten();
            let differ =
                fields.filter(|(name, value)| found[*name] != **value).map(|(name, _)| name.as_str());
            return Err(Error::Usage(format!(
                "{} and {} were asked with different settings ({}); expected the same flags for all shares: ask one of them again, or \
                 remove its folder",
                first.display(),
                share.display(),
                differ.collect::<Vec<_>>().join(", ")
            )));
        }
    }
    Ok(Some(settings))
}
