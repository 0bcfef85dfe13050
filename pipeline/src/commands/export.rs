//! `moe-data export`: shards, plans and texts for other programs.

mod text;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_shards::{Manifest, Plan};
use serde_json::json;

use crate::error::{Error, Result};
use crate::export::text::{TextCompression, TextFormat};
use crate::export::{self, Exported, PlanExport};
use crate::intact;
use crate::listing::{Entry, Listing, Maker};
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::recipe::ByteSize;
use crate::watch::Watch;

/// Flags of `export`.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["megatron", "npy", "plan_npy", "jsonl", "parquet"])))]
pub struct ExportArgs {
    /// Write Megatron-LM's .idx next to each shard; the tokens are not copied
    #[arg(long)]
    pub megatron: bool,
    /// Write the tokens of each shard, and the ends of its documents, as .npy
    #[arg(long)]
    pub npy: bool,
    /// Write which tokens make up each sample of the plan, as .npy
    #[arg(long)]
    pub plan_npy: bool,
    /// Write the texts of the kept documents, after all rules and cuts, to a folder as JSON Lines
    #[arg(long, value_name = "DIR")]
    pub jsonl: Option<PathBuf>,
    /// Write the texts of the kept documents to a folder as Parquet
    #[arg(long, value_name = "DIR")]
    pub parquet: Option<PathBuf>,
    /// Compression of the texts
    #[arg(long, value_name = "NAME", value_enum, default_value_t = TextCompression::Zstd)]
    pub compression: TextCompression,
    /// Text of a file, in bytes as read, at least 1KiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_file_size)]
    pub file_size: ByteSize,
    /// Threads that write texts [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Samples of the plan, such as 0..1000 [default: all]
    #[arg(long, value_name = "A..B", requires = "plan_npy", value_parser = parse_range)]
    pub range: Option<Range<u64>>,
    /// Write the sequences too: tokens, targets, segments
    #[arg(long, requires = "plan_npy")]
    pub rows: bool,
    /// Folder of the .npy files [default: OUT/export]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Folder of the build and its plan
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// List the files as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// The build or the plan is missing or damaged, the range is past the end, a file that is not ours is in the way, or a write fails.
pub fn run(args: &ExportArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    if args.jsonl.is_some() && args.jsonl == args.parquet {
        return Err(Error::Usage("--jsonl and --parquet need folders of their own".to_owned()));
    }
    let mut files: Vec<Exported> = Vec::new();
    for (to, format) in [(&args.jsonl, TextFormat::Jsonl), (&args.parquet, TextFormat::Parquet)] {
        if let Some(to) = to {
            files.extend(text::run(args, to, format, printer, &stop)?);
        }
    }
    if args.megatron || args.npy || args.plan_npy {
        files.extend(arrays(args, printer, stop)?);
    }
    if args.json {
        printer.data(&format!("{}\n", json!({ "files": files })));
    } else {
        let lines = files.iter().map(|file| format!("{}  {}\n", file.path.display(), ByteSize(file.bytes)));
        printer.data(&lines.collect::<String>());
    }
    let sum = ByteSize(files.iter().map(|file| file.bytes).sum());
    printer.note(&format!("{} files, {sum}; docs/interop.md says how to read them", files.len()));
    Ok(())
}

/// Writes the forms of shards and the plan.
fn arrays(args: &ExportArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<Vec<Exported>> {
    let manifest = Manifest::read(&args.out)?;
    let to = args.to.clone().unwrap_or_else(|| args.out.join("export"));
    let is_inside = args.to.is_none() || args.megatron;
    let _lock = is_inside.then(|| OutputLock::acquire(&args.out)).transpose()?;
    let n_bytes: u64 = manifest.shards.iter().map(|shard| shard.bin_bytes).sum();
    // Nothing is written from damaged shards.
    let shards = intact::open_all(&args.out, &manifest)?;
    if let Some(masked) = shards.iter().find(|shard| shard.has_mask()) {
        refuse_masked(args, masked.path())?;
    }
    let watch = Watch::new(stop.clone(), printer.bar("check", n_bytes));
    let checked = intact::check(&shards, &watch);
    watch.finish();
    checked?;
    let mut listings = claim(args, &manifest, &to)?;
    let mut files: Vec<Exported> = Vec::new();
    let watch = Watch::new(stop.clone(), printer.bar("export", if args.npy { n_bytes } else { 0 }));
    for shard in &shards {
        let mdx = shard.path().to_owned();
        watch.advance(0)?;
        if args.megatron {
            files.push(export::megatron(&mdx, shard)?);
        }
        if args.npy {
            files.extend(export::tokens(&mdx, shard, &to, &watch)?);
        }
    }
    watch.finish();
    if args.plan_npy {
        let plan = Plan::open(&args.out)?;
        let range = args.range.clone().unwrap_or(0..plan.len());
        let watch = Watch::new(stop, printer.count_bar("plan", 2 * range.end.saturating_sub(range.start)));
        let what = PlanExport { range, rows: args.rows };
        let written = export::plan(&plan, &what, &to, &watch);
        watch.finish();
        files.extend(written?);
    }
    for file in &files {
        for (folder, listing) in &mut listings {
            if let Some(name) = file.path.strip_prefix(&folder).ok().and_then(|name| name.to_str())
                && listing.has(name)
            {
                listing.note(name, Entry { bytes: file.bytes, blake3: file.blake3 });
            }
        }
    }
    listings.into_iter().try_for_each(|(_, listing)| listing.finish())?;
    Ok(files)
}

/// Refuses forms that cannot say which tokens of a shard are trained.
fn refuse_masked(args: &ExportArgs, shard: &Path) -> Result<()> {
    let flag = match () {
        () if args.megatron => "--megatron",
        () if args.npy => "--npy",
        () if args.plan_npy && !args.rows => "--plan-npy without --rows",
        () => return Ok(()),
    };
    Err(Error::Usage(format!(
        "{}: says which of its tokens are trained, as conversations do, and {flag} has no place for it, so that all would \
         be: export the samples with --plan-npy --rows, whose targets.npy leaves out the others, or read the plan in Python",
        shard.display()
    )))
}

/// Lists the files about to be written, by folder.
fn claim(args: &ExportArgs, manifest: &Manifest, to: &Path) -> Result<Vec<(PathBuf, Listing)>> {
    let shards = || manifest.shards.iter().map(|shard| shard.name.as_str());
    let mut listings = Vec::new();
    if args.megatron {
        let names: Vec<String> = shards().map(|name| format!("shards/{name}.idx")).collect();
        // Versions without lists wrote indexes too.
        let earlier = names.iter().filter(|name| export::is_index(&args.out.join(name))).cloned();
        let mut listing = Listing::open(&args.out, Maker::Export, earlier)?;
        listing.claim(names.iter().cloned())?;
        listings.push((args.out.clone(), listing));
    }
    let mut names = Vec::new();
    if args.npy {
        names.extend(shards().flat_map(export::token_names));
    }
    if args.plan_npy {
        names.extend(export::plan_names(args.rows).map(str::to_owned));
    }
    if !names.is_empty() {
        // In our own folder they wrote everything with these names.
        let earlier = if args.to.is_none() { names.clone() } else { Vec::new() };
        let is_same = |(folder, _): &&mut (PathBuf, Listing)| {
            folder == to
                || folder.canonicalize().is_ok_and(|folder| to.canonicalize().is_ok_and(|to| to == folder))
        };
        match listings.iter_mut().find(is_same) {
            Some((_, listing)) => listing.claim(names)?,
            None => {
                let mut listing = Listing::open(to, Maker::Export, earlier)?;
                listing.claim(names)?;
                listings.push((to.to_owned(), listing));
            }
        }
    }
    Ok(listings)
}

/// `A..B`: samples `A` to `B - 1`.
fn parse_range(text: &str) -> std::result::Result<Range<u64>, String> {
    let parts = text.split_once("..").and_then(|(a, b)| Some(a.parse::<u64>().ok()?..b.parse::<u64>().ok()?));
    let range = parts.filter(|range| range.start < range.end);
    range.ok_or_else(|| "expected A..B with A below B, such as 0..1000".to_owned())
}

/// A size of at least 1 KiB: a smaller one would make a file of each document.
fn parse_file_size(text: &str) -> std::result::Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    match size.0 {
        0..1024 => Err(format!("{size} is too small; expected at least 1KiB")),
        _ => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open() {
        assert_eq!(parse_range("3..10"), Ok(3..10));
        for bad in ["3", "3..3", "4..3", "..3", "a..b", "1..=3"] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }
}
