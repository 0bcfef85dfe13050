//! `moe-train train`, and `moe-train` without a verb.

use std::path::PathBuf;

use super::begin::{Start, begin};
use super::{from, source};
use crate::cli::TrainArgs;
use crate::config::RunConfig;
use crate::error::Result;
use crate::model::Model;
use crate::printer::Printer;

pub(super) fn run(args: TrainArgs, printer: &mut Printer) -> Result<u8> {
    if let Some(parent) = &args.from {
        return from::run(&args, parent, printer);
    }
    let mut source = source::read(&args.source)?;
    source.apply(args.shards.as_deref(), args.steps, args.device);
    let dir = args.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(&source.name));
    let config = RunConfig::new(source.values, source.problems)?;
    let seed = config.run.seed;
    let start = Start { config, origin: source.origin, dir: &dir, end: args.end, parent: None };
    begin(start, printer, |geometry, _, device, _| Ok(Model::new(geometry, seed, device)))
}
