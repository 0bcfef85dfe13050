//! `moe-data verify PATH`: reads everything and checks that nothing changed since it was written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_report::progress::Bar;
use moe_shards::{Hash, Manifest, Plan, PlanLock, Shard, ShardInfo};
use serde_json::json;

use crate::decontaminate::report::Decontamination;
use crate::error::{Error, Result};
use crate::ledger::{Kept, Ledger};
use crate::listing::{Listing, Maker};
use crate::mix::{MIXTURE_FILE, WORTH_FILE};
use crate::plans::replay::{Replay, replay};
use crate::printer::Printer;
use crate::publish::TOKEN_BYTES;
use crate::tables::texts::{self, ReadableShard};
use crate::watch::Watch;

/// Flags of `verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Output folder or shard (.mdx)
    #[arg(value_name = "PATH", default_value = "out")]
    pub path: PathBuf,
    /// Samples of the plan to check, chosen at random; 0 = none
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub samples: u64,
    /// Seed of the choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the command on an output folder or a single shard.
///
/// # Errors
/// [`Error::Check`] with every difference found, each naming its file; other errors when the path
/// holds nothing to verify.
pub fn run(args: &VerifyArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let path = &args.path;
    let Found { n_files, mut problems, plan, not_covered } =
        if path.is_dir() { folder(path, &printer.work_bar("verify", 0, "shards"))? } else { shard(path)? };
    let mut replayed = None;
    if let Some(plan) = plan.filter(|_| args.samples > 0) {
        let watch = Watch::new(stop, printer.count_bar("replay", args.samples.min(plan.len())));
        let found = replay(&plan, args.samples, args.seed, &watch);
        watch.finish();
        let found = found?;
        problems.extend(found.problems.iter().cloned());
        if found.n_problems > found.problems.len() as u64 {
            problems.push(format!("{} more like these", found.n_problems - found.problems.len() as u64));
        }
        replayed = Some(found);
    }
    if args.json {
        let value = json!({
            "ok": problems.is_empty(),
            "checked": n_files,
            "replay": replayed,
            "problems": problems,
            "not_covered": not_covered,
        });
        printer.data(&format!("{value}\n"));
    }
    if !not_covered.is_empty() {
        printer.warn(&format!(
            "no digest covers what an earlier version wrote or an interrupted command left: {}; run the command that makes it again",
            not_covered.join(", ")
        ));
    }
    if problems.is_empty() {
        printer.note(&format!("{}: {n_files} files are as they were written", path.display()));
        if let Some(Replay { samples, of, pieces, count_rows, .. }) = replayed {
            printer.note(&format!(
                "{samples} of {of} samples replayed: {pieces} pieces and {count_rows} rows of counts keep the plan's promises"
            ));
        }
        return Ok(());
    }
    let hint = "make them again with `moe-data build --fresh` and `moe-data mix`, or bring back the files from a copy";
    Err(Error::Check(format!("{}\n  {hint}", problems.join("\n"))))
}

/// Contents of the files, and the plan if it can be opened.
struct Found {
    n_files: u64,
    problems: Vec<String>,
    plan: Option<Plan>,
    /// Files without anything to compare them with.
    not_covered: Vec<String>,
}

fn shard(path: &Path) -> Result<Found> {
    if !path.exists() {
        return Err(Error::Usage(format!("{} does not exist", path.display())));
    }
    let problem = Shard::open(&path.with_extension("mdx")).and_then(|shard| shard.verify()).err();
    let problems = problem.map(|e| e.to_string()).into_iter().collect();
    Ok(Found { n_files: 2, problems, plan: None, not_covered: Vec::new() })
}

fn folder(out: &Path, bar: &Bar) -> Result<Found> {
    let mut found = Found { n_files: 0, problems: Vec::new(), plan: None, not_covered: Vec::new() };
    // An export, the folder of rephrasing, or a cache of completions can be checked by itself.
    let is_build = out.join(Manifest::FILE).exists();
    if is_build || !Maker::ALL.iter().any(|maker| Listing::path(out, *maker).exists()) && !is_cache(out) {
        check_build(out, &mut found, bar)?;
    }
    for folder in [None, Some("export"), Some("rephrase"), Some("rephrase-import")] {
        let folder = folder.map_or_else(|| out.to_owned(), |name| out.join(name));
        for maker in Maker::ALL {
            check_listing(&folder, maker, is_build, &mut found);
        }
    }
    for cache in [out.to_owned(), out.join("cache"), out.join("rephrase/cache")] {
        if is_cache(&cache) {
            check_cache(&cache, &mut found);
        }
    }
    bar.finish_and_clear();
    Ok(found)
}

/// Files that the manifest and the plan name.
fn check_build(out: &Path, found: &mut Found, bar: &Bar) -> Result<()> {
    let manifest = Manifest::read(out)?;
    found.n_files += 2;
    bar.set_length(manifest.shards.len() as u64);
    for info in &manifest.shards {
        found.n_files += 3;
        found.problems.extend(check_shard(out, &manifest, info));
        found.problems.extend(check_texts(out, &manifest, info).err().map(|e| e.to_string()));
        bar.inc(1);
    }
    let tokenizer = &manifest.tokenizer;
    let files =
        [(&tokenizer.file, tokenizer.blake3), (&tokenizer.token_bytes_file, tokenizer.token_bytes_blake3)];
    for (name, expected) in files {
        found.n_files += 1;
        found.problems.extend(check_hash(&out.join(name), expected));
    }
    found.problems.extend(check_ledger(out, &manifest));
    if out.join(PlanLock::FILE).exists() {
        match Plan::open(out).and_then(|plan| Ok((plan.verify()?, plan))) {
            Ok((n_files, plan)) => {
                // plan.lock and the files that it names.
                found.n_files += 1 + n_files;
                found.plan = Some(plan);
            }
            Err(e) => found.problems.push(e.to_string()),
        }
    }
    Ok(())
}

/// The files of a list, except those checked with the build.
fn check_listing(folder: &Path, maker: Maker, is_build: bool, found: &mut Found) {
    let listing = match Listing::read(folder, maker) {
        Ok(Some(listing)) => listing,
        Ok(None) => {
            let written: &[&str] = match maker {
                Maker::Build => &["recipe.lock.toml", Decontamination::FILE, "audit", "quarantine"],
                Maker::Mix => &[MIXTURE_FILE, WORTH_FILE],
                Maker::Export | Maker::Text | Maker::Rephrase => &[],
            };
            let there = written.iter().map(|name| folder.join(name)).filter(|path| path.exists());
            found.not_covered.extend(there.map(|path| path.display().to_string()));
            return;
        }
        Err(e) => return found.problems.push(e.to_string()),
    };
    let is_checked = |name: &str| match maker {
        Maker::Build => {
            let in_shards = name.starts_with("shards/");
            let by_manifest = ["tokenizer.json", TOKEN_BYTES].contains(&name);
            is_build && (in_shards || by_manifest)
        }
        Maker::Mix => name.starts_with("plan/"),
        Maker::Export | Maker::Text | Maker::Rephrase => false,
    };
    let verified = listing.verify(is_checked);
    // Ledger, manifest, plan and texts were already counted.
    let counted = ["MANIFEST.json", Ledger::FILE, PlanLock::FILE];
    let counted = |name: &String| counted.contains(&name.as_str()) || name.starts_with("dedup/");
    let twice = match is_build && matches!(maker, Maker::Build | Maker::Mix) {
        true => listing.files().keys().filter(|name| counted(name)).count() as u64,
        false => 0,
    };
    found.n_files += verified.checked.saturating_sub(twice);
    found.problems.extend(verified.problems);
    found.not_covered.extend(verified.not_covered.iter().map(|path| path.display().to_string()));
}

fn is_cache(folder: &Path) -> bool {
    moe_llm::Cache::is_at(folder)
}

/// Every byte of a cache of completions.
fn check_cache(folder: &Path, found: &mut Found) {
    found.n_files += 1;
    match moe_llm::Cache::verify(folder) {
        Ok(verified) => found.problems.extend(verified.problems),
        Err(e) => found.problems.push(e.to_string()),
    }
}

fn check_shard(out: &Path, manifest: &Manifest, info: &ShardInfo) -> Vec<String> {
    let mdx = Manifest::mdx_path(out, &info.name);
    let mut problems: Vec<String> =
        [(mdx.with_extension("bin"), info.bin_blake3), (mdx.clone(), info.mdx_blake3)]
            .into_iter()
            .filter_map(|(path, expected)| check_hash(&path, expected))
            .collect();
    match Shard::open(&mdx) {
        Ok(shard) => {
            problems.extend(shard.verify().err().map(|e| e.to_string()));
            let wrong = |what, found: String, expected: String| {
                (found != expected)
                    .then(|| format!("{}: {what} is {found}, the manifest says {expected}", mdx.display()))
            };
            let tokenizer = manifest.tokenizer.blake3.to_string();
            problems.extend(wrong("the tokenizer", shard.tokenizer().to_string(), tokenizer));
            problems.extend(wrong(
                "the number of documents",
                shard.n_docs().to_string(),
                info.n_docs.to_string(),
            ));
        }
        // A missing file was already reported.
        Err(_) if !problems.is_empty() => {}
        Err(e) => problems.push(e.to_string()),
    }
    problems
}

/// Reads the text of every document.
fn check_texts(out: &Path, manifest: &Manifest, info: &ShardInfo) -> Result<()> {
    let tokenizer = out.join(&manifest.tokenizer.file);
    let mdx = Manifest::mdx_path(out, &info.name);
    let mut shard = ReadableShard::open(&mdx, &texts::path(out, &info.name), &tokenizer)?;
    (0..shard.shard.n_docs()).try_for_each(|doc| shard.text(doc).map(drop))
}

fn check_hash(path: &Path, expected: Hash) -> Option<String> {
    match Hash::of_file(path) {
        Ok(found) if found == expected => None,
        Ok(found) => Some(format!(
            "{}: blake3 is {}, the manifest says {}",
            path.display(),
            found.short(),
            expected.short()
        )),
        Err(e) => Some(e.to_string()),
    }
}

fn check_ledger(out: &Path, manifest: &Manifest) -> Vec<String> {
    let ledger = match Ledger::read(out) {
        Ok(ledger) => ledger,
        Err(e) => return vec![e.to_string()],
    };
    let mut problems: Vec<String> = ledger.check().err().map(|e| e.to_string()).into_iter().collect();
    for (i, source) in manifest.sources.iter().enumerate() {
        let mut kept = Kept::default();
        for shard in manifest.shards.iter().filter(|shard| usize::from(shard.source) == i) {
            kept.docs += shard.n_docs;
            kept.bytes += shard.n_text_bytes;
            kept.tokens += shard.n_tokens;
        }
        let noted = ledger.sources.get(&source.name).map(|entry| entry.kept).unwrap_or_default();
        if noted != kept {
            problems.push(format!(
                "{}: source `{}` has {} documents and {} tokens, its shards hold {} and {}",
                out.join(Ledger::FILE).display(),
                source.name,
                noted.docs,
                noted.tokens,
                kept.docs,
                kept.tokens
            ));
        }
    }
    problems
}
