//! `moe-data rephrase --array I/N` asks a share of the documents, in a cache of its own, and `rephrase collect` takes all of them
//! together. So many processes can ask many servers at the same time.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_llm::{Cache, Client};
use moe_shards::atomic;

use super::ask::{AskArgs, talks};
use super::{Setup, cache_folder, folder, judge, say};
use crate::cluster::Share;
use crate::commands::server::{lead, sound, take_shares};
use crate::error::{Error, Result};
use crate::json;
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::rephrase::parents::Place;
use crate::rephrase::settings::{self, Settings};

/// Flags of `rephrase collect`.
#[derive(Clone, Debug, Args)]
pub struct CollectArgs {
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Asks the documents of a share: those whose ids leave its number when divided by the number of shares, so that a larger choice later
/// leaves documents in their shares.
///
/// # Errors
/// Everything in [`Error`]; earlier answers are kept.
pub(super) fn ask(
    args: &AskArgs,
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
    let mut cache = sound(Cache::open_share(&cache_folder(&args.what.out), index, of)?, printer);
    atomic::write_file(&cache.dir().join(settings::FILE), &json::canonical(&setup.settings))?;
    let places: Vec<Place> = selection.chosen.iter().map(|chosen| chosen.place).collect();
    let broken = RefCell::new(None);
    let talks = talks(setup, &selection, &places, &broken);
    let bar = printer.work_bar("rephrase", n_pairs, "variants");
    lead(client, talks, &broken, &mut cache, &bar, printer, stop)?;
    let out = args.what.out.display();
    printer.note(&format!("next: when all shares are done, moe-data rephrase collect --out {out}"));
    Ok(())
}

/// Takes the answers of all shares over, and judges them.
///
/// # Errors
/// There are no shares, one of them is still being asked, or they were asked with different settings.
pub(super) fn collect(args: &CollectArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let out = &args.out;
    let caches = cache_folder(out);
    let shares = Cache::shares(&caches)?;
    let Some(first) = shares.first() else {
        let message = "there are no shares to collect; moe-data rephrase --array I/N asks one";
        return Err(Error::Usage(format!("{}: {message}", caches.display())));
    };
    let _lock = OutputLock::acquire(out)?;
    let settings = Settings::read(first)?;
    for share in &shares {
        if Settings::read(share)? != settings {
            return Err(Error::Usage(format!(
                "{} and {} were asked with different settings (their {} show which); expected the same flags for all shares: \
                 ask one of them again, or remove its folder",
                first.display(),
                share.display(),
                settings::FILE
            )));
        }
    }
    let mut cache = Cache::open(&caches)?;
    take_shares(&mut cache, &shares, printer, |share| remove(&share.join(settings::FILE)))?;
    settings.write(&folder(out))?;
    let setup = Setup::read(out, None)?;
    let selection = setup.choose()?;
    let ledger = judge::assemble(&setup, &selection, &sound(cache, printer), out, printer, stop, |_| Ok(()))?;
    say(printer, &folder(out), &ledger, args.json);
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(Error::io(path, "remove"))
}
