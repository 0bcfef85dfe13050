//! `moe-data tokenizer import FILE.tiktoken`: makes a `tokenizer.json` from tiktoken's ranks.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use moe_shards::atomic;

use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::tokenizer::family::Family;
use crate::tokenizer::import::import;
use crate::tokenizer::{Encoder, EncoderOptions};

/// Flags of `import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// Ranks, one token a line in base64
    #[arg(value_name = "FILE.tiktoken")]
    pub file: PathBuf,
    /// How text is split: gpt2, cl100k, qwen2, o200k or deepseek
    #[arg(long, value_name = "NAME")]
    pub pattern: Family,
    /// Special token, with its id unless it is the next free one: NAME or NAME=ID; may be repeated
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
/// The file does not hold ranks, ids collide, or the result would not give tiktoken's ids.
pub fn run(args: &ImportArgs, printer: &Printer) -> Result<()> {
    refuse_existing(&args.output, args.force)?;
    let bytes = fs::read(&args.file).map_err(Error::io(&args.file, "read"))?;
    let wrong = |message: String| Error::Tokenizer { path: args.file.clone(), message };
    let text = String::from_utf8(bytes)
        .map_err(|_| wrong("is not text; expected lines of base64 and a rank".to_owned()))?;
    let specials: Vec<(String, Option<u32>)> = args.special.iter().map(|s| special(s)).collect();
    let json = import(&text, args.pattern, &specials).map_err(wrong)?;
    atomic::write_file(&args.output, json.as_bytes())?;
    let eod = specials.first().map(|(name, _)| name.clone());
    let engine = match Encoder::load(&args.output, &EncoderOptions { eod, ..EncoderOptions::default() }) {
        Ok(encoder) => format!("{} tokens; encoder: {}", encoder.vocab_size(), encoder.verdict()),
        // It may still get its special tokens elsewhere.
        Err(_) => "no special token ends a document; name one with --special".to_owned(),
    };
    printer.note(&format!("wrote {}: {engine}", args.output.display()));
    printer.note(&format!("next: moe-data tokenizer check {}", args.output.display()));
    Ok(())
}

/// `NAME=ID`, where `ID` is a number; everything else is a name.
fn special(text: &str) -> (String, Option<u32>) {
    match text.rsplit_once('=').and_then(|(name, id)| Some((name, id.parse().ok()?))) {
        Some((name, id)) => (name.to_owned(), Some(id)),
        None => (text.to_owned(), None),
    }
}

/// Refuses to replace a file unless asked to.
pub(super) fn refuse_existing(path: &std::path::Path, force: bool) -> Result<()> {
    if path.exists() && !force {
        return Err(Error::Usage(format!("{} already exists; give --force to replace it", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specials_may_have_an_id() {
        assert_eq!(special("<|end|>"), ("<|end|>".to_owned(), None));
        assert_eq!(special("<|end|>=7"), ("<|end|>".to_owned(), Some(7)));
        assert_eq!(special("<a=b>"), ("<a=b>".to_owned(), None));
    }
}
