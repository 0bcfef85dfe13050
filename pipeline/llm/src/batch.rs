//! Requests and answers as files, for servers that take them in batches.
//!
//! The format is that of OpenAI's batch interface, which vLLM's `run-batch` and hosted services share: one
//! line per request, whose `custom_id` is here the request's key, and a line for each answer, in any order. A
//! conversation of several requests takes several rounds of export and import, since a request may depend on
//! the answer before it.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use moe_shards::atomic::AtomicFile;
use serde::Serialize;
use serde_json::Value;

use crate::cache::{Cache, Poisoned};
use crate::client::{Conversation, Failure, Step};
use crate::completion::{Completion, Unreadable, error_message};
use crate::error::{Error, Result};
use crate::request::Key;

/// How large a batch file may be. Services refuse larger ones.
#[derive(Clone, Copy, Debug)]
pub struct ExportLimits {
    /// Requests per file.
    pub requests: u64,
    /// Bytes per file.
    pub bytes: u64,
}

impl Default for ExportLimits {
    /// OpenAI's: 50,000 requests and 200 MB.
    fn default() -> ExportLimits {
        ExportLimits { requests: 50_000, bytes: 200_000_000 }
    }
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The files: the requested path, then `STEM-00001.EXTENSION` and so on if the limits require more.
    pub files: Vec<PathBuf>,
    /// Requests in them.
    pub requests: u64,
    /// Requests that the cache answered.
    pub cached: u64,
    /// Conversations whose next request is in the files; equal requests of several conversations are written
    /// once.
    pub waiting: u64,
    /// Conversations that are complete.
    pub done: u64,
    /// Conversations that wait for a request on the poison list.
    pub poisoned: u64,
}

/// Writes the next unanswered request of every conversation. Existing files are replaced.
///
/// # Errors
/// The cache cannot be read, a file cannot be written, or a single request is larger than the limits.
pub fn export<C: Conversation>(
    conversations: impl IntoIterator<Item = C>,
    cache: &Cache,
    path: &Path,
    limits: ExportLimits,
    retry_poisoned: bool,
) -> Result<Exported> {
    let mut exported = Exported::default();
    let mut written = HashSet::new();
    let mut file: Option<(AtomicFile, ExportLimits)> = None;
    for mut conversation in conversations {
        let mut answer = None;
        let request = loop {
            let Step::Ask(request) = conversation.next(answer.as_ref()) else { break None };
            answer = cache.get(&request.key())?;
            match answer {
                Some(_) => exported.cached += 1,
                None => break Some(request),
            }
        };
        let Some(request) = request else {
            exported.done += 1;
            continue;
        };
        let key = request.key();
        if let Some(poisoned) = cache.poisoned(&key).filter(|_| !retry_poisoned) {
            conversation.failed(&Failure::Poisoned(poisoned.reason.clone()));
            exported.poisoned += 1;
            continue;
        }
        exported.waiting += 1;
        if !written.insert(key) {
            continue;
        }
        let body = request.body();
        let line = format!(
            "{{\"custom_id\":\"{key}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{body}}}\n"
        );
        let bytes = line.len() as u64;
        if bytes > limits.bytes || limits.requests == 0 {
            let message = format!("a request of {bytes} bytes is larger than a whole file may be");
            return Err(Error::data(path, message));
        }
        let (open, left) = match file.take() {
            Some((open, left)) if left.requests > 0 && left.bytes >= bytes => (open, left),
            full => {
                full.map_or(Ok(()), |(full, _)| full.commit())?;
                let path = numbered(path, exported.files.len());
                let open = AtomicFile::create(&path)?;
                exported.files.push(path);
                (open, limits)
            }
        };
        let (open, left) = file.insert((open, left));
        open.write(line.as_bytes())?;
        left.requests -= 1;
        left.bytes -= bytes;
        exported.requests += 1;
    }
    file.map_or(Ok(()), |(last, _)| last.commit())?;
    Ok(exported)
}

/// `a/b.jsonl` and `a/b-00001.jsonl`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number:05}"));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

/// The keys of an exported file.
///
/// # Errors
/// The file cannot be read, or a line has no key as its `custom_id`.
pub fn exported_keys(path: &Path) -> Result<HashSet<Key>> {
    let mut keys = HashSet::new();
    for (number, line) in lines(path)?.enumerate() {
        let line = line.map_err(Error::io(path, "read"))?;
        if line.trim().is_empty() {
            continue;
        }
        let value: Option<Value> = serde_json::from_str(&line).ok();
        let key = value.as_ref().and_then(|value| value["custom_id"].as_str()?.parse().ok());
        let wrong = || {
            let number = number + 1;
            Error::data(
                path,
                format!("line {number}: expected a `custom_id` of 64 hex digits; is this an exported file?"),
            )
        };
        keys.insert(key.ok_or_else(wrong)?);
    }
    Ok(keys)
}

/// What an import found. Every line of the file is in exactly one of the first six counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Answers that were added to the cache.
    pub matched: u64,
    /// Answers to requests that the cache had already answered; the cache keeps its answer.
    pub already_cached: u64,
    /// Requests that failed for a reason that may pass, by reason; they can be exported again.
    pub failed: BTreeMap<String, u64>,
    /// Requests that will always fail, by reason; they went to the poison list.
    pub given_up: BTreeMap<String, u64>,
    /// Answers with a `custom_id` that was not exported.
    pub unknown: u64,
    /// Lines that cannot be read, by reason.
    pub malformed: BTreeMap<String, u64>,
    /// Lines of the file that are not empty.
    pub lines: u64,
    /// Exported requests without a line.
    pub unmatched: u64,
}

/// Reads the answers of a batch into the cache. `exported` are the requested keys, see [`exported_keys`].
///
/// # Errors
/// The file cannot be read, or the cache cannot be written. Invalid lines are counted, and the others are
/// still read.
pub fn import(path: &Path, exported: &HashSet<Key>, cache: &mut Cache) -> Result<Imported> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut imported = Imported::default();
    let mut seen = HashSet::new();
    for line in lines(path)? {
        let line = match line {
            // Not UTF-8: the line is lost, and the reader is after it.
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                imported.lines += 1;
                *imported.malformed.entry("not UTF-8".into()).or_default() += 1;
                continue;
            }
            line => line.map_err(Error::io(path, "read"))?,
        };
        if line.trim().is_empty() {
            continue;
        }
        imported.lines += 1;
        let mut malformed = |why: &str| *imported.malformed.entry(why.to_owned()).or_default() += 1;
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            malformed("not JSON");
            continue;
        };
        let Some(id) = value["custom_id"].as_str() else {
            malformed("no `custom_id`");
            continue;
        };
        let Some(key) = id.parse::<Key>().ok().filter(|key| exported.contains(key)) else {
            imported.unknown += 1;
            continue;
        };
        seen.insert(key);
        if cache.contains(&key) {
            imported.already_cached += 1;
            continue;
        }
        match answer(&value, time) {
            Ok(completion) => {
                cache.append(&key, &completion)?;
                imported.matched += 1;
            }
            Err(Failure::Malformed(why) | Failure::Unusable(why)) => malformed(&why),
            Err(failure) => {
                let reason = failure.to_string();
                if failure.verdict() == crate::client::Verdict::GiveUp {
                    cache.poison(Poisoned { key, reason: reason.clone(), tries: 1, time })?;
                    *imported.given_up.entry(reason).or_default() += 1;
                } else {
                    *imported.failed.entry(reason).or_default() += 1;
                }
            }
        }
    }
    imported.unmatched = exported.difference(&seen).count() as u64;
    cache.flush()?;
    Ok(imported)
}

/// The answer of a line, or why there is none.
fn answer(line: &Value, time: u64) -> std::result::Result<Completion, Failure> {
    let response = &line["response"];
    let body = &response["body"];
    let status = response["status_code"].as_u64().and_then(|status| u16::try_from(status).ok());
    match status {
        Some(200) => Completion::from_value(body, time).map_err(|e| match e {
            Unreadable::Malformed(why) => Failure::Malformed(why),
            Unreadable::Unusable(why) => Failure::Unusable(why),
            Unreadable::Error { status, message } => {
                Failure::Status { status: status.unwrap_or(502), message, retry_after: None }
            }
        }),
        Some(status) => {
            let message = error_message(if body.is_null() { line } else { body }).chars().take(300).collect();
            Err(Failure::Status { status, message, retry_after: None })
        }
        // The batch ended before the request was sent, such as `batch_expired`.
        None if !line["error"].is_null() => {
            let code = line["error"]["code"].as_str().unwrap_or("error");
            Err(Failure::Broken(format!(
                "{code}: {}",
                error_message(line).chars().take(300).collect::<String>()
            )))
        }
        None => Err(Failure::Malformed("neither `response` nor `error`".into())),
    }
}

fn lines(path: &Path) -> Result<impl Iterator<Item = std::io::Result<String>>> {
    Ok(BufReader::new(File::open(path).map_err(Error::io(path, "open"))?).lines())
}
