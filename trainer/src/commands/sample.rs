//! `moe-train sample`: text from a checkpoint.

use serde_json::json;
use tokenizers::Tokenizer;

use crate::checkpoint;
use crate::cli::SampleArgs;
use crate::device;
use crate::error::{Error, Result};
use crate::generate::{Sampling, generate};
use crate::printer::Printer;

pub(super) fn run(args: SampleArgs, printer: &mut Printer) -> Result<u8> {
    if !args.temperature.is_finite() || args.temperature < 0.0 {
        let found = args.temperature;
        return Err(Error::Usage(format!("--temperature: expected a number of at least 0, found {found}")));
    }
    let loaded = checkpoint::load(&checkpoint::resolve(&args.path, None)?)?;
    let refused = |problem: String| Error::checkpoint(&loaded.path.join("tokenizer.json"), problem);
    let tokenizer = Tokenizer::from_bytes(&loaded.tokenizer)
        .map_err(|error| refused(format!("is no tokenizer: {error}")))?;
    let prompt = tokenizer
        .encode(args.prompt.as_str(), false)
        .map_err(|error| refused(format!("cannot encode the prompt: {error}")))?;
    if prompt.get_ids().is_empty() {
        return Err(Error::Usage("--prompt: at least one token is needed to go on from".into()));
    }
    let chosen = device::open(args.device)?;
    printer.say(format!("device {}; step {}", chosen.reason, loaded.state.step));
    let model = checkpoint::load_model(&loaded, &chosen.device)?;
    let sampling = Sampling {
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        seed: args.seed,
    };
    let new = generate(&model, prompt.get_ids(), loaded.state.eod, loaded.state.seq_len, &sampling);
    // Decoded together: a character may be split over the seam.
    let all: Vec<u32> = prompt.get_ids().iter().chain(&new).copied().collect();
    let text = tokenizer
        .decode(&all, false)
        .map_err(|error| refused(format!("cannot decode the sample: {error}")))?;
    if args.json {
        let record = json!({ "prompt": args.prompt, "text": text, "tokens": all, "new_tokens": new.len() });
        printer.data(format!("{record:#}"))?;
    } else {
        printer.data(text)?;
    }
    Ok(0)
}
