//! `moe-data tokenizer train`: a byte-level BPE from files, or from the documents that a build has kept.

use std::path::PathBuf;

use moe_shards::atomic;

use super::TextArgs;
use super::import::refuse_existing;
use super::sample::{Sample, Sampled};
use crate::error::{Error, Result};
use crate::printer::{Printer, StageLine};
use crate::recipe::{ByteSize, TrainConfig};
use crate::strict_toml::Section;
use crate::tokenizer::train;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct TrainArgs {
    /// Texts; if there are no paths, those of `out`.
    pub data: TextArgs,
    /// Folder of a build, whose kept documents are read back from their tokens.
    pub out: Option<PathBuf>,
    /// Vocabulary size, sample size, special tokens.
    pub config: TrainConfig,
    /// Which sample.
    pub seed: u64,
    /// The `tokenizer.json` to write.
    pub output: PathBuf,
    /// Replace a file that is there.
    pub force: bool,
}

/// Runs the command.
///
/// # Errors
/// Settings out of range, texts that cannot be read, or a build whose tokens do not give its texts back.
pub fn run(args: &TrainArgs, printer: &Printer) -> Result<()> {
    let wrong: Vec<String> = args
        .config
        .check()
        .into_iter()
        .map(|(key, message)| format!("--{} {message}", key.replace('_', "-")))
        .collect();
    if !wrong.is_empty() {
        return Err(Error::Usage(wrong.join("\n")));
    }
    refuse_existing(&args.output, args.force)?;
    let sampled = match (&args.out, args.data.paths.is_empty()) {
        (None, false) => Sampled::Files(&args.data),
        (Some(out), true) => Sampled::Build(out),
        _ => return Err(Error::Usage("give either files or --out with the folder of a build".to_owned())),
    };
    let line = StageLine::start("sample");
    let sample = Sample::draw(&sampled, args.seed, args.config.sample_bytes.0, &printer.bar("sample", 0))?;
    line.done(printer, &format!("{} documents, {}", sample.texts.len(), ByteSize(sample.n_bytes)));
    let line = StageLine::start("train");
    let bar = printer.wait("train");
    let trained = train::train(sample.texts.into_iter(), args.config.vocab_size, &args.config.special_tokens);
    bar.finish_and_clear();
    let json = trained.map_err(|message| Error::Tokenizer { path: args.output.clone(), message })?;
    atomic::write_file(&args.output, json.as_bytes())?;
    line.done(printer, &format!("wrote {}", args.output.display()));
    printer.note(&format!("next: moe-data tokenizer stats --tokenizer {} FILES", args.output.display()));
    Ok(())
}
