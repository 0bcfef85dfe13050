//! `moe-train export`: a checkpoint for other programs.

use std::path::Path;

use moe_report::progress::Unit;

use crate::checkpoint::{self, Loaded, Number};
use crate::cli::{ExportArgs, ExportNumber, Format};
use crate::error::{Error, Result};
use crate::export::{self, Difference, Exported, SHARD_BYTES, gguf};
use crate::printer::Printer;

/// Largest allowed difference between logits of models with the same parameters.
const CLOSE: f32 = 1e-4;

/// Exit code of a check that failed.
const FAILED: u8 = 1;

pub(super) fn run(args: ExportArgs, printer: &mut Printer) -> Result<u8> {
    let (format, path) = args.to()?;
    let loaded = checkpoint::load(&checkpoint::resolve(&args.path, None)?)?;
    let capacity = loaded.config.model(loaded.state.vocab_size, loaded.state.seq_len).moe.capacity;
    if capacity.eval_factor > 0.0 {
        printer.warn(format!(
            "moe.capacity.eval_factor = {}: other programs do not drop choices of full experts",
            capacity.eval_factor
        ));
    }
    match format {
        Format::Hf => {
            let number = match args.number {
                None | Some(ExportNumber::F32) => Number::F32,
                Some(ExportNumber::Bf16) => Number::Bf16,
                Some(_) => return Err(Error::Usage("--type: --to hf supports f32 and bf16".into())),
            };
            let bar = printer.work("export", 0, Unit::Unknown);
            let exported = export::export(&loaded, &path, number, SHARD_BYTES)?;
            bar.finish_and_clear();
            say(&exported, printer)?;
            if args.verify { verify(&loaded, &path, number, printer) } else { Ok(0) }
        }
        Format::Gguf => {
            if args.verify {
                return Err(Error::Usage("--verify: only works with --to hf".into()));
            }
            let kind = match args.number {
                None | Some(ExportNumber::F32) => gguf::Type::F32,
                Some(ExportNumber::F16) => gguf::Type::F16,
                Some(ExportNumber::Q8_0) => gguf::Type::Q8_0,
                Some(_) => return Err(Error::Usage("--type: --to gguf supports f32, f16 and q8_0".into())),
            };
            let bar = printer.work("export", 0, Unit::Unknown);
            let exported = gguf::export(&loaded, &path, kind)?;
            bar.finish_and_clear();
            say(&exported, printer)?;
            Ok(0)
        }
    }
}

fn say(exported: &Exported, printer: &Printer) -> Result<()> {
    let Exported { class, n_tensors, n_bytes, n_files, warnings } = exported;
    warnings.iter().for_each(|warning| printer.warn(warning));
    let files = if *n_files == 1 { "file" } else { "files" };
    let megabytes = *n_bytes as f64 / 1e6;
    printer
        .data(format!("{}: {n_tensors} tensors, {megabytes:.2} MB in {n_files} {files}", class.architecture))
}

fn verify(loaded: &Loaded, path: &Path, number: Number, printer: &Printer) -> Result<u8> {
    let Difference { max, same, n } = export::verify(loaded, path)?;
    printer.data(format!(
        "verified: logits differ by at most {max:.1e}; most likely token the same at {same} of {n} positions"
    ))?;
    // A difference that is not a number is not small.
    let is_close = max <= CLOSE;
    if number == Number::F32 && !is_close {
        printer.error(format!("{}: logits differ by more than {CLOSE:e}", path.display()));
        return Ok(FAILED);
    }
    Ok(0)
}
