//! `moe-data tokenizer train`: a byte-level BPE from files, or from the documents that a build has kept.

use std::path::PathBuf;

use clap::Args;
use moe_shards::atomic;

use super::TextArgs;
use super::import::refuse_existing;
use super::sample::{Sample, Sampled};
use crate::error::{Error, Result};
use crate::mix::count;
use crate::printer::{Printer, StageLine};
use crate::recipe::{ByteSize, TrainConfig};
use crate::strict_toml::Section;
use crate::tokenizer::train;

/// Flags of `train`.
#[derive(Clone, Debug, Args)]
pub struct TrainArgs {
    /// Files, folders or globs to train on
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Train on the documents that this build has kept
    #[arg(long, value_name = "DIR", conflicts_with = "paths")]
    pub out: Option<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Size of the vocabulary, including the 256 bytes and the special tokens
    #[arg(long, value_name = "N", default_value_t = 32_000, value_parser = count::parse_u32)]
    pub vocab_size: u32,
    /// Text to train on
    #[arg(long, value_name = "SIZE", default_value = "64MB")]
    pub sample_bytes: ByteSize,
    /// Seed of the sample of texts
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Special token beside `<|endoftext|>`; may be repeated
    #[arg(long, value_name = "TOKEN")]
    pub special: Vec<String>,
    /// tokenizer.json to write
    #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
    pub output: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

/// Runs the command.
///
/// # Errors
/// Settings out of range, texts that cannot be read, or a build whose tokens do not give its texts back.
pub fn run(args: &TrainArgs, printer: &Printer) -> Result<()> {
    let config = TrainConfig {
        vocab_size: args.vocab_size,
        sample_bytes: args.sample_bytes,
        special_tokens: args.special.clone(),
    };
    let texts = TextArgs { paths: args.paths.clone(), text: args.text.clone(), group: None };
    let wrong: Vec<String> = config
        .check()
        .into_iter()
        .map(|(key, message)| format!("--{} {message}", key.replace('_', "-")))
        .collect();
    if !wrong.is_empty() {
        return Err(Error::Usage(wrong.join("\n")));
    }
    refuse_existing(&args.output, args.force)?;
    let sampled = match (&args.out, args.paths.is_empty()) {
        (None, false) => Sampled::Files(&texts),
        (Some(out), true) => Sampled::Build(out),
        _ => return Err(Error::Usage("give either files or --out with the folder of a build".to_owned())),
    };
    let line = StageLine::start("sample");
    let sample = Sample::draw(&sampled, args.seed, config.sample_bytes.0, &printer.bar("sample", 0))?;
    line.done(printer, &format!("{} documents, {}", sample.texts.len(), ByteSize(sample.n_bytes)));
    let line = StageLine::start("train");
    let bar = printer.wait("train");
    let trained = train::train(sample.texts.into_iter(), config.vocab_size, &config.special_tokens);
    bar.finish_and_clear();
    let json = trained.map_err(|message| Error::Tokenizer { path: args.output.clone(), message })?;
    atomic::write_file(&args.output, json.as_bytes())?;
    line.done(printer, &format!("wrote {}", args.output.display()));
    printer.note(&format!("next: moe-data tokenizer stats --tokenizer {} FILES", args.output.display()));
    Ok(())
}
