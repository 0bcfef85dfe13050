//! `moe-train upcycle`: a mixture of experts that begins as a dense model.

use std::path::PathBuf;

use super::begin::{Start, begin};
use super::fork;
use super::from::{provenance, same_tokenizer};
use super::source::Source;
use crate::checkpoint;
use crate::cli::{EndArgs, UpcycleArgs};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::export::apart;
use crate::printer::Printer;
use crate::upcycle::Upcycling;

pub(super) fn run(args: UpcycleArgs, printer: &mut Printer) -> Result<u8> {
    fork::refuse_inside("--run", &args.run, fork::folder_of(&args.path))?;
    let loaded = checkpoint::load(&checkpoint::resolve(&args.path, None)?)?;
    let dense_geometry = loaded.config.model(loaded.state.vocab_size, loaded.state.seq_len);
    let g = args.granularity;
    let mut source = Source::new(loaded.config.values.clone());
    let of_the_mixture = [
        format!("model.dense_layers={}", args.dense_layers),
        format!("moe.experts={}", args.experts),
        format!("moe.top_k={}", args.top_k.unwrap_or(2 * g)),
        format!("moe.expert_ffn={}", (dense_geometry.dense_ffn / g).max(1)),
        "moe.shared=0".to_string(),
    ];
    for assignment in of_the_mixture.iter().chain(&args.set) {
        source.values.read_assignment(assignment, &mut source.problems);
    }
    source.apply(args.shards.as_deref(), args.steps, args.device);
    let config = RunConfig::new(source.values, source.problems)?;
    let how = Upcycling { granularity: g, redraw: args.redraw };
    let problems =
        how.problems(&dense_geometry, &config.model(loaded.state.vocab_size, loaded.state.seq_len));
    if !problems.is_empty() {
        return Err(Error::Config(problems));
    }
    let seed = config.run.seed;
    let origin = format!("from {}, step {}", loaded.path.display(), loaded.state.step);
    let changes = loaded.config.values.identity_changes(&config.values);
    let parent = provenance(&loaded, "upcycled", changes.into_iter().map(|change| change.text).collect())?;
    // Saved before its first step, which `resume` makes.
    let end = EndArgs { stop_after: Some(0), json: args.json, ..EndArgs::default() };
    let run: PathBuf = args.run;
    let start = Start { config, origin, dir: &run, end, parent: Some(parent) };
    begin(start, printer, |geometry, corpus, device, printer| {
        same_tokenizer(&loaded, corpus)?;
        let dense = checkpoint::load_model(&loaded, &device.clone().without_autodiff())?;
        let model = how.apply((&dense_geometry, &dense), geometry, seed, device)?;
        let seq_len = geometry.seq_len.min(dense_geometry.seq_len);
        let gap = apart(&dense, &model, seq_len, geometry.vocab_size)?.max;
        printer.say(format!("logits differ from the dense model's by at most {gap:.1e}"));
        Ok(model)
    })
}
