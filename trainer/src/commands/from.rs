//! `moe-train --from RUN`: a run that begins with the weights of another one, with its own plan and a new
//! optimizer and schedule. Its `parent.json` names the parent.

use std::path::Path;

use moe_shards::Hash;
use serde_json::{Value, json};

use super::begin::{Start, begin};
use super::fork;
use super::source::Source;
use crate::checkpoint::{self, Loaded};
use crate::cli::TrainArgs;
use crate::config::RunConfig;
use crate::data::Corpus;
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::optim::ScheduleSettings;
use crate::printer::Printer;

pub(super) fn run(args: &TrainArgs, parent: &Path, printer: &mut Printer) -> Result<u8> {
    let dir = args.run.clone().unwrap_or_default();
    fork::refuse_inside("--run", &dir, fork::folder_of(parent))?;
    let loaded = checkpoint::load(&checkpoint::resolve(parent, None)?)?;
    let mut source = Source::new(loaded.config.values.clone());
    // As many as the plan has samples for, unless given.
    source.values.unset("run.steps");
    // A saved run has in steps what may have been given as a fraction or in tokens.
    ScheduleSettings::LENGTHS.iter().for_each(|(_, steps)| source.values.unset(steps));
    if let Some(path) = &args.source.config {
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        source.values.read_toml(&text, &path.display().to_string(), &mut source.problems);
    }
    for assignment in &args.source.set {
        source.values.read_assignment(assignment, &mut source.problems);
    }
    source.apply(args.shards.as_deref(), args.steps, args.device);
    let config = RunConfig::new(source.values, source.problems)?;
    let changes = loaded.config.values.identity_changes(&config.values);
    let origin = format!(
        "weights of {}, step {} (parameters blake3 {})",
        loaded.path.display(),
        loaded.state.step,
        loaded.state.parameter_hash.short()
    );
    let differences = changes.iter().map(|change| change.text.clone()).collect();
    let record = provenance(&loaded, "weights", differences)?;
    let wanted = config.clone();
    let start = Start { config, origin, dir: &dir, end: args.end.clone(), parent: Some(record) };
    begin(start, printer, |geometry, corpus, device, printer| {
        same_tokenizer(&loaded, corpus)?;
        warn_of_length(&loaded, geometry, printer);
        let mut as_wanted = loaded.clone();
        as_wanted.state.seq_len = geometry.seq_len;
        as_wanted.config = wanted;
        checkpoint::load_model(&as_wanted, device).map_err(|error| {
            let rule = "the model is that of the run whose weights it uses";
            fork::explain(error, &changes, &["model.", "moe.", "attention."], rule)
        })
    })
}

/// The contents of `parent.json`: the checkpoint whose weights a run begins with, what was done with them,
/// and how it differs.
pub(super) fn provenance(loaded: &Loaded, kind: &str, differences: Vec<String>) -> Result<Value> {
    let state = &loaded.state;
    Ok(json!({
        "kind": kind,
        "checkpoint": std::path::absolute(&loaded.path).map_err(Error::io(&loaded.path, "find"))?,
        "step": state.step,
        "t": state.t,
        "plan_id": state.plan_id,
        "parameter_hash": state.parameter_hash,
        "data_hash": state.data_hash,
        "config_fingerprint": state.config_fingerprint,
        "differences": differences,
    }))
}

/// Refuses data tokenized with another tokenizer than that of the weights.
///
/// # Errors
/// If the tokenizers differ.
pub(super) fn same_tokenizer(loaded: &Loaded, corpus: &Corpus) -> Result<()> {
    let (trained, found) = (Hash::of(&loaded.tokenizer), Hash::of(&corpus.tokenizer));
    if trained == found {
        return Ok(());
    }
    Err(Error::Data(format!(
        "the shards have tokenizer {}, but the model of {} has {}; build the data with `tokenizer.file` = {}",
        found.short(),
        loaded.path.display(),
        trained.short(),
        loaded.path.join("tokenizer.json").display()
    )))
}

fn warn_of_length(loaded: &Loaded, geometry: &ModelConfig, printer: &Printer) {
    if geometry.seq_len > loaded.state.seq_len {
        printer.warn(format!(
            "sequences of {} tokens are longer than the {} that the weights were trained on",
            geometry.seq_len, loaded.state.seq_len
        ));
    }
}
