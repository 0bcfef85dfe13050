//! `moe-train import`: a run that begins with a published model.

use std::path::PathBuf;

use super::begin::{Start, begin};
use super::source;
use crate::cli::{EndArgs, ImportArgs};
use crate::error::{Error, Result};
use crate::export::{Folder, same_tokens};
use crate::printer::Printer;

pub(super) fn run(args: ImportArgs, printer: &mut Printer) -> Result<u8> {
    let dir = args.from()?;
    let mut folder = Folder::open(&dir)?;
    let mut source = source::read(&args.source)?;
    source.apply(args.shards.as_deref(), args.steps, args.device);
    let name = dir.file_name().map_or_else(|| "imported".into(), |name| name.to_os_string());
    let run = args.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(name));
    let config = folder.config(source.values, source.problems)?;
    let values = config.values.clone();
    let origin = format!("{} of {}; training: {}", folder.class.architecture, dir.display(), source.origin);
    // Saved before its first step, which `resume` makes.
    let end = EndArgs { stop_after: Some(0), json: args.json, ..EndArgs::default() };
    let start = Start { config, origin, dir: &run, end, parent: None };
    begin(start, printer, |geometry, corpus, device, printer| {
        same_tokens(&corpus.tokenizer, &folder.tokenizer()?).map_err(|problem| {
            Error::Data(format!(
                "{}: {problem}: does not match the tokenizer of the shards; build the data with this file",
                dir.join("tokenizer.json").display()
            ))
        })?;
        let (rows, vocab) = (folder.vocab_size, geometry.vocab_size);
        if rows < vocab {
            return Err(Error::Data(format!(
                "{}: its embedding has {rows} rows, but the shards have a vocabulary of {vocab}",
                dir.display()
            )));
        }
        if rows > vocab {
            printer
                .say(format!("rows {vocab} to {rows} of the embedding belong to no token and are left out"));
        }
        if geometry.seq_len > folder.max_positions {
            printer.warn(format!(
                "sequences of {} tokens are longer than the {} positions that the model supports",
                geometry.seq_len, folder.max_positions
            ));
        }
        folder.model(&values, geometry, device)
    })
}
