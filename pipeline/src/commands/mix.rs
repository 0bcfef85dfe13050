//! `moe-data mix`: reads the mixture, makes the plan, prints what it is worth.

mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_shards::{Manifest, PlanLock};
use serde_json::json;

use crate::error::{Error, Result};
use crate::lock::OutputLock;
use crate::mix::effective_tokens::PoolTokens;
use crate::mix::mixture::Mixture;
use crate::mix::{self, Extension, MixOptions, MixOutcome, count, takedown};
use crate::printer::Printer;
use crate::publish;
use crate::watch::Watch;

/// The default mixture file.
const DEFAULT_MIXTURE: &str = "configs/mix.toml";

/// Flags of `mix`.
#[derive(Clone, Debug, Args)]
pub struct MixArgs {
    /// Most passes over every family; 1.5 means one and a half [default: the mixture's]
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Tokens of a training sequence [default: the mixture's]
    #[arg(long, value_name = "N", value_parser = count::parse_u32)]
    pub seq_len: Option<u32>,
    /// Seed of all shuffling [default: the mixture's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Mixture file [default: configs/mix.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub mixture: Option<PathBuf>,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Threads [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Keep this share of the families and budgets: repeats, variants and phases stay as in the whole plan
    #[arg(long, value_name = "1/N", value_parser = count::parse_fraction)]
    pub proxy: Option<[u64; 2]>,
    /// Parameters of the model, such as 7B: warns when there are too many for the text
    #[arg(long, value_name = "N")]
    pub params: Option<count::Count>,
    /// Extend the existing plan: its samples below --from stay, the mixture decides the rest
    #[arg(long, requires = "from")]
    pub extend: bool,
    /// First sample that may change
    #[arg(long, value_name = "T", requires = "extend", value_parser = count::parse_u64)]
    pub from: Option<u64>,
    /// File of document names, one per line, to hide from sample --from on; with the prefix `family:`, all texts of their
    /// families; without --mixture and --epochs nothing else changes
    #[arg(long, value_name = "FILE", requires = "extend")]
    pub takedown: Option<PathBuf>,
    /// Replace another plan of the same shards
    #[arg(long)]
    pub force: bool,
    /// Print the table, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the table as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

impl MixArgs {
    /// The first sample that an extension may change.
    fn first_changed(&self) -> Option<u64> {
        self.from.filter(|_| self.extend)
    }
}

/// Runs the command. `stop` is set when the user asks to stop.
///
/// # Errors
/// Everything in [`Error`]; its exit code is the command's.
pub fn run(args: &MixArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let (mixture, origin) = read_mixture(args)?;
    if publish::is_text(&args.out) {
        let message = "was built with --text-only and has no shards; run moe-data build without it first";
        return Err(Error::Usage(format!("{} {message}", args.out.display())));
    }
    // Before locking, which would create the folder of a mistyped --out.
    Manifest::read(&args.out)?;
    let _lock = OutputLock::acquire(&args.out)?;
    let manifest = Manifest::read(&args.out)?;
    let mixture = mixture.resolve(&manifest, origin.as_deref())?;
    let from = origin.map_or_else(|| "built-in defaults".to_owned(), |file| file.display().to_string());
    printer.note(&format!("mixing {} by {from}", args.out.display()));

    let n_bytes = manifest.shards.iter().map(|shard| shard.bin_bytes).sum();
    let check = Watch::new(stop.clone(), printer.bar("check", n_bytes));
    let watch = Watch::new(stop, printer.bar("mix", mix::work(&manifest, &mixture)));
    let threads = args.threads.map_or(0, usize::from);
    // 0 lets rayon take one thread for each core.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| Error::Machine(format!("cannot start {threads} threads: {e}")))?;
    let options = MixOptions { check: Some(check.clone()), ..options(args)? };
    let outcome = pool.install(|| mix::make_plan(&args.out, &manifest, &mixture, &options, &watch));
    check.finish();
    watch.finish();
    report(args, &manifest, &mixture, printer, &outcome?)
}

fn options(args: &MixArgs) -> Result<MixOptions> {
    let mut options = MixOptions {
        force: args.force,
        dry_run: args.dry_run,
        proxy: args.proxy,
        parameters: args.params.map(|count| count.0),
        extend: None,
        check: None,
    };
    if let Some(from) = args.first_changed() {
        // An extension of a proxy keeps its size.
        options.proxy = args.proxy.or(PlanLock::read(&args.out)?.proxy);
        let mut takedown = Vec::new();
        if let Some(file) = &args.takedown {
            let text = std::fs::read_to_string(file).map_err(Error::io(file, "read"))?;
            takedown =
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
            if takedown.is_empty() {
                return Err(Error::Usage(format!("{}: names no document, one a line", file.display())));
            }
        }
        let new_phases = takedown.is_empty() || args.mixture.is_some() || args.epochs.is_some();
        options.extend = Some(Extension { from, takedown, new_phases });
    }
    Ok(options)
}

/// The mixture and its file. An extension without one keeps that of its plan.
fn read_mixture(args: &MixArgs) -> Result<(Mixture, Option<PathBuf>)> {
    let default = match args.first_changed() {
        Some(_) => args.out.join(mix::MIXTURE_FILE),
        None => PathBuf::from(DEFAULT_MIXTURE),
    };
    let file = args.mixture.clone().or_else(|| default.exists().then_some(default));
    let mut mixture = match &file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(Error::io(file, "read"))?;
            Mixture::decode(&text, file)?
        }
        None => Mixture::default(),
    };
    mixture.override_with(args.epochs, args.seq_len, args.seed)?;
    Ok((mixture, file))
}

fn report(
    args: &MixArgs,
    manifest: &Manifest,
    mixture: &Mixture,
    printer: &Printer,
    outcome: &MixOutcome,
) -> Result<()> {
    let lock = &outcome.lock;
    let remains = takedown::remains(&args.out, manifest, lock)?;
    if args.json {
        let phases = lock.phases.iter().map(|phase| {
            json!({ "name": phase.name, "t_start": phase.t_start, "t_end": phase.t_end(), "seq_len": phase.seq_len, "quotas": phase.quotas })
        });
        let summary = json!({
            "plan": lock.id,
            "samples": lock.n_samples(),
            "seq_len": lock.phases[0].seq_len,
            "written": outcome.written,
            "proxy": lock.proxy.map(|[num, den]| format!("{num}/{den}")),
            "phases": phases.collect::<Vec<_>>(),
            "total": outcome.plan,
            "clipped": outcome.clips,
            "taken_down": remains,
            "pools": outcome.worth,
        });
        printer.data(&format!("{summary}\n"));
    } else {
        printer.data(&table::table(&outcome.worth));
        printer.data(&table::phases(lock));
    }
    for clip in &outcome.clips {
        printer.warn(&format!(
            "{}: clipped in phase `{}`: {} trained tokens instead of {} ({})",
            clip.pool,
            clip.phase,
            table::group_digits(clip.given),
            table::group_digits(clip.asked),
            clip.cap
        ));
    }
    let holdout = mixture.mix.holdout;
    let ratio = outcome.plan.parameters_per_token();
    let warnings = outcome.worth.iter().flat_map(|worth| PoolTokens::warnings(worth, holdout, ratio));
    for warning in warnings.chain(outcome.plan.warnings(mixture)) {
        printer.warn(&warning);
    }
    let path = args.out.join(PlanLock::FILE);
    if args.dry_run {
        printer.note("nothing was written: this was a dry run");
        return Ok(());
    }
    if !outcome.written {
        printer.note(&format!("nothing changed: {} is this plan already", path.display()));
    }
    let (n, seq_len) = (lock.n_samples(), table::seq_lens(lock));
    let held_out: u64 = lock.pools.iter().map(|pool| pool.validation.n_bins).sum();
    let kind =
        lock.proxy.map_or_else(String::new, |[num, den]| format!(" (a proxy, {num}/{den} of the families)"));
    printer.note(&format!(
        "plan {}{kind}: {n} samples of {seq_len} tokens, {held_out} held out, in {}",
        lock.id.short(),
        path.display()
    ));
    if let Some(remains) = remains {
        let group = table::group_digits;
        printer.note(&format!(
            "taken down: {} documents of {} families; {} of these keep {} other texts, {} have none left",
            group(remains.documents),
            group(remains.families),
            group(remains.families_with_texts),
            group(remains.texts),
            group(remains.families - remains.families_with_texts)
        ));
    }
    for earlier in &lock.extends {
        printer.note(&format!(
            "runs of plan {} can go on with it if they have read at most {} samples",
            earlier.plan.short(),
            lock.agrees_with(earlier.plan).unwrap_or(0)
        ));
    }
    if held_out == 0 {
        printer.note("nothing is held out, so training will measure no validation loss");
    }
    printer.note(&format!("next: moe-train --shards {}/", args.out.display()));
    Ok(())
}
