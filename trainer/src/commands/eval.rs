//! `moe-train eval`: loss of a checkpoint on held-out documents.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use moe_report::progress::Unit;
use moe_shards::Hash;
use serde_json::{Map, Value, json};

use super::{logits, per_token, tasks};
use crate::checkpoint::{self, Loaded};
use crate::cli::EvalArgs;
use crate::data::Corpus;
use crate::device;
use crate::error::{Error, Result};
use crate::metrics::{Mean, ValidatedRouter, information, shares};
use crate::model::Model;
use crate::model::moe::{CapacitySettings, RouterStats};
use crate::printer::{Printer, describe_validation};
use crate::report::log::{SWEEPS, Sweep, SweepPoint};
use crate::run::Validator;

pub(super) fn run(args: EvalArgs, printer: &mut Printer) -> Result<u8> {
    let loaded = checkpoint::load(&checkpoint::resolve(&args.path, None)?)?;
    if !args.tasks.tasks.is_empty() {
        return tasks::run(&args, &loaded, printer);
    }
    let shards = args.shards.as_deref().ok_or_else(|| {
        Error::Usage(
            "--shards DIR is missing: the folder of the plan with held-out documents; or give --tasks".into(),
        )
    })?;
    let corpus = Corpus::open(shards)?;
    let (trained, found) = (Hash::of(&loaded.tokenizer), Hash::of(&corpus.tokenizer));
    if trained != found {
        return Err(Error::Data(format!(
            "{}: expected tokenizer {}, found {}; losses on another tokenizer's tokens are meaningless",
            shards.display(),
            trained.short(),
            found.short()
        )));
    }
    if corpus.samples.seq_len() > loaded.state.seq_len {
        return Err(Error::Data(format!(
            "{}: sequences of {} tokens, but the model was trained on {}; mix with --seq-len {1} or less",
            shards.display(),
            corpus.samples.seq_len(),
            loaded.state.seq_len
        )));
    }
    if let Some(path) = args.per_token.as_ref().filter(|path| path.exists()) {
        return Err(Error::Usage(format!("--per-token {}: exists; name a new file", path.display())));
    }
    let chosen = device::open(args.device)?;
    printer.say(format!("device {}", chosen.reason));
    let model = checkpoint::load_weights(&loaded, args.ema, &chosen.device)?;
    let n_samples = args.samples.unwrap_or(u64::MAX);
    let validator = Validator::new(&corpus, n_samples, loaded.config.data.samples_per_pass())?.ok_or_else(|| {
        Error::Data(format!(
            "{}: the plan has no held-out documents to evaluate on; make one with `moe-data mix` and a holdout",
            shards.display()
        ))
    })?;
    if !args.capacity.is_empty() {
        return sweep(&args, &loaded, model, &validator, &corpus, printer);
    }
    let bar = printer.work("evaluate", validator.batches().len() as u64, Unit::Things("batches"));
    let validation = validator.run_watched(&model, &corpus, &mut || bar.inc(1))?;
    bar.finish_and_clear();
    if let Some(path) = &args.per_token {
        per_token::write(path, &validator.scores(&model)?)?;
        printer.say(format!("loss and rank of each target: {}", path.display()));
    }
    if let Some(path) = &args.logits {
        logits::write(path, &validator, &model)?;
        printer.say(format!("logits: {}", path.display()));
    }

    let sources: Vec<(String, Mean)> =
        validation.losses.sources.iter().map(|(pool, mean)| (corpus.pool_name(*pool), *mean)).collect();
    if args.json {
        let by_source: Map<String, Value> =
            sources.iter().map(|(name, mean)| (name.clone(), describe(mean))).collect();
        let record = json!({
            "checkpoint": loaded.path,
            "step": loaded.state.step,
            "ema": args.ema,
            "all": describe(&validation.losses.all),
            "unigram_ce": validation.unigram,
            "sources": by_source,
            "routers": validation.routers.iter().map(|r| describe_router(r, &corpus)).collect::<Vec<_>>(),
        });
        printer.data(format!("{record:#}"))?;
    } else {
        printer.data(format!("step {}: {}", loaded.state.step, describe_validation(&validation)))?;
        for (name, mean) in &sources {
            let bits = mean.bits_per_byte().map_or_else(|| "?".to_string(), |bits| format!("{bits:.3}"));
            let nats = mean.nats().unwrap_or(f64::NAN);
            printer.data(format!(
                "  {name}: loss {nats:.4}  {bits} bits per byte  {} targets",
                mean.n_targets
            ))?;
        }
        for router in &validation.routers {
            print_router(router, &corpus, printer)?;
        }
    }
    Ok(0)
}

/// How even the load of a router is, and where the tokens of each source go.
fn print_router(router: &ValidatedRouter, corpus: &Corpus, printer: &Printer) -> Result<()> {
    let (summary, sources) = (router.stats.summary(), &router.groups.sources);
    let mut line = format!(
        "  layer {}: MaxVio {:.2}  {:.1} of {} experts effective",
        router.layer,
        summary.max_violation,
        summary.effective_experts,
        router.stats.load.len()
    );
    if sources.len() > 1 {
        line += &format!("  source information {:.3} nats", information(sources.values()));
    }
    printer.data(line)?;
    for (pool, load) in sources.iter().filter(|_| sources.len() > 1) {
        let percent: Vec<String> = shares(load).iter().map(|share| format!("{:.1}", 100.0 * share)).collect();
        printer.data(format!("    {}: {} % of choices", corpus.pool_name(*pool), percent.join(" ")))?;
    }
    Ok(())
}

fn describe_router(router: &ValidatedRouter, corpus: &Corpus) -> Value {
    let summary = router.stats.summary();
    let sources = &router.groups.sources;
    let loads: Map<String, Value> =
        sources.iter().map(|(pool, load)| (corpus.pool_name(*pool), shares(load).into())).collect();
    json!({
        "layer": router.layer,
        "maxvio": summary.max_violation,
        "e_eff": summary.effective_experts,
        "dead": summary.n_dead,
        "sources": loads,
        "source_information": information(sources.values()),
    })
}

/// The loss at several capacities, and the share of choices that found their expert full.
fn sweep(
    args: &EvalArgs,
    loaded: &Loaded,
    mut model: Model,
    validator: &Validator,
    corpus: &Corpus,
    printer: &Printer,
) -> Result<u8> {
    if model.mixtures().next().is_none() {
        return Err(Error::Usage("--capacity: the model has no mixture of experts".into()));
    }
    let geometry = loaded.config.model(loaded.state.vocab_size, loaded.state.seq_len);
    let (mut records, mut points) = (Vec::new(), Vec::new());
    for &eval_factor in &args.capacity {
        // Exactly as requested, however few tokens there are.
        let capacity = CapacitySettings { eval_factor, min: 0, ..geometry.moe.capacity.clone() };
        model = model.with_capacity(&capacity);
        let bar = printer.work("evaluate", validator.batches().len() as u64, Unit::Things("batches"));
        let validation = validator.run_watched(&model, corpus, &mut || bar.inc(1))?;
        bar.finish_and_clear();
        let sum =
            |count: fn(&RouterStats) -> u64| validation.routers.iter().map(|r| count(&r.stats)).sum::<u64>();
        let (sent, dropped) = (sum(|r| r.load.iter().sum()), sum(|r| r.n_dropped));
        let share = dropped as f64 / (sent + dropped).max(1) as f64;
        let factor = if eval_factor == 0.0 { "inf".to_string() } else { eval_factor.to_string() };
        let mean = &validation.losses.all;
        points.push(SweepPoint {
            capacity: (eval_factor > 0.0).then_some(eval_factor),
            loss: mean.nats().unwrap_or(f64::NAN),
            dropped: share,
        });
        if args.json {
            records.push(json!({ "capacity": factor, "ce": mean.nats(), "bpb": mean.bits_per_byte(), "dropped": share }));
        } else {
            let nats = mean.nats().unwrap_or(f64::NAN);
            printer
                .data(format!("capacity {factor:>6}: loss {nats:.4}  {:>6.2} % dropped", 100.0 * share))?;
        }
    }
    if args.json {
        let record = json!({ "checkpoint": loaded.path, "step": loaded.state.step, "capacities": records });
        printer.data(format!("{record:#}"))?;
    }
    if args.record {
        let run = checkpoint::run_of(&loaded.path).unwrap_or(&loaded.path);
        let path = run.join(SWEEPS);
        append(&path, &Sweep { schema: 1, step: loaded.state.step, points })?;
        printer.say(format!("recorded {}, for moe-train report {}", path.display(), run.display()));
    }
    Ok(0)
}

/// Adds a line to the sweeps of a run, after checking the existing lines.
fn append(path: &Path, sweep: &Sweep) -> Result<()> {
    Sweep::read(path)?;
    let line = serde_json::to_string(sweep).map_err(|error| Error::Data(error.to_string()))?;
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.map_err(Error::io(path, "write"))
}

fn describe(mean: &Mean) -> Value {
    json!({ "ce": mean.nats(), "bpb": mean.bits_per_byte(), "targets": mean.n_targets, "bytes": mean.n_bytes })
}
