//! Shared by the verbs that ask a language model: the client, its progress, and its results.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use moe_llm::{Cache, Client, ClientConfig, Conversation, Progress};
use moe_report::progress::Bar;

use crate::error::{Error, Result};
use crate::printer::Printer;

/// How a server is asked.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// Name of the environment variable that holds the API key
    #[arg(long, value_name = "NAME")]
    pub api_key_env: Option<String>,
    /// Most requests in flight; the client finds how many the server handles best
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: u32,
    /// Seconds for one request
    #[arg(long, value_name = "SECS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub deadline: u64,
    /// Ask again the questions that the server could not answer
    #[arg(long)]
    pub retry_poisoned: bool,
}

/// Requests in flight at the beginning, if more are allowed.
const FIRST_CONCURRENCY: u32 = 8;

impl ServerArgs {
    /// A client for the server at this address; nothing is sent yet.
    ///
    /// # Errors
    /// A setting cannot be used, or the variable of the API key is not set.
    pub(super) fn client(&self, base_url: &str) -> Result<Client> {
        Ok(Client::new(ClientConfig {
            api_key_env: self.api_key_env.clone(),
            concurrency: self.concurrency.min(FIRST_CONCURRENCY),
            max_concurrency: self.concurrency,
            deadline: Duration::from_secs(self.deadline),
            retry_poisoned: self.retry_poisoned,
            ..ClientConfig::new(base_url)
        })?)
    }
}

/// Runs conversations to their ends, with progress on the bar or in lines. The client takes conversations as it has room for them; one
/// that cannot be made leaves its error in `broken` and ends the sequence.
///
/// # Errors
/// That error, or that of the client; earlier answers are kept.
pub(super) fn lead<C: Conversation>(
    client: &Client,
    conversations: impl IntoIterator<Item = C>,
    broken: &RefCell<Option<Error>>,
    cache: &mut Cache,
    bar: &Bar,
    printer: &Printer,
    stop: &AtomicBool,
) -> Result<Progress> {
    let mut observe = |progress: &Progress| {
        let n_done = progress.conversations_done + progress.conversations_failed;
        let now = format!("{} in flight, {:.0} tokens/s", progress.in_flight, progress.tokens_per_second());
        bar.set_position(n_done);
        bar.set_message(now);
    };
    let summary = client.run(conversations, cache, &mut observe, stop);
    bar.finish_and_clear();
    if let Some(error) = broken.take() {
        return Err(error);
    }
    let summary = summary?;
    printer.note(&format!(
        "{} answers from the server, {} from the cache, {} given up, {:.0} tokens a second",
        summary.answered,
        summary.cached,
        summary.given_up + summary.poisoned,
        summary.tokens_per_second()
    ));
    if summary.unfinished > 0 {
        printer.warn(&format!(
            "{} of {} answers were not finished by the model: cut off at its limit of tokens, refused, empty or too long; \
             they are kept and not asked again",
            summary.unfinished, summary.answered
        ));
    }
    if summary.other_model > 0 {
        printer.warn(&format!(
            "{} of {} answers name another model than the one that was asked for",
            summary.other_model, summary.answered
        ));
    }
    if summary.given_up > 0 {
        printer.warn(&format!(
            "{} requests were given up; poisoned.jsonl next to the cache has the reasons, --retry-poisoned asks again",
            summary.given_up
        ));
    }
    Ok(summary)
}

/// Warns about damage in an opened cache.
pub(super) fn sound(cache: Cache, printer: &Printer) -> Cache {
    let opened = cache.opened();
    if opened.damaged_lines > 0 {
        let dir = cache.dir().display();
        printer.warn(&format!(
            "{dir}: {} lines are not as they were written and count as not there; `moe-data verify {dir}` names them: bring the file back from a copy, or their questions will be asked again",
            opened.damaged_lines
        ));
    }
    cache
}

/// Takes over the answers of the shares of the cache in `dir`, and returns those of which nothing else is left to take.
///
/// # Errors
/// A share is still being asked, or a file cannot be used.
pub(super) fn take_shares(cache: &mut Cache, dir: &Path, printer: &Printer) -> Result<Vec<Cache>> {
    // All of them first, so that none is taken while another is being written.
    let shares = Cache::shares(dir)?;
    let shares: Vec<Cache> =
        shares.iter().map(|share| Ok(sound(Cache::open(share)?, printer))).collect::<Result<_>>()?;
    let (mut n_new, mut n_poisoned, mut n_shares) = (0, 0, BTreeMap::<usize, BTreeSet<usize>>::new());
    for share in &shares {
        let taken = cache.take(share)?;
        n_new += taken.completions;
        n_poisoned += taken.poisoned;
        if let Some((index, of)) = Cache::share_of(share.dir()) {
            n_shares.entry(of).or_default().insert(index);
        }
    }
    printer.note(&format!("answers taken over: {n_new}, requests given up: {n_poisoned}"));
    for (of, found) in n_shares {
        let missing: Vec<String> =
            (0..of).filter(|index| !found.contains(index)).map(|index| index.to_string()).collect();
        if !missing.is_empty() {
            printer
                .warn(&format!("of {of} shares, these have no answers to take over: {}", missing.join(", ")));
        }
    }
    Ok(shares)
}

/// Removes shares that were taken over, and their file `settings`. Those with damage stay, so that it can be mended.
///
/// # Errors
/// A file cannot be removed.
pub(super) fn remove_shares(shares: Vec<Cache>, settings: Option<&str>, printer: &Printer) -> Result<()> {
    for share in shares {
        if share.opened().damaged_lines > 0 {
            printer.warn(&format!("{} stays, because of its damage", share.dir().display()));
            continue;
        }
        share.delete(settings)?;
    }
    Ok(())
}

/// Warns about answers that are not taken over yet, and would be asked again: those of other numbers of shares than `of`.
///
/// # Errors
/// The folder of the cache cannot be listed.
pub(super) fn warn_of_shares(cache: &Path, of: Option<usize>, printer: &Printer) -> Result<()> {
    let mut shares = Cache::shares(cache)?;
    shares.retain(|share| Cache::share_of(share).map(|(_, of)| of) != of);
    if let Some(first) = shares.first() {
        let n = shares.len();
        printer.warn(&format!(
            "the answers of {n} shares, such as {}, are not collected yet and count as not there",
            first.display()
        ));
    }
    Ok(())
}
