//! `moe-train sample`: text from a checkpoint.

use std::time::Instant;

use serde_json::json;

use crate::checkpoint;
use crate::cli::SampleArgs;
use crate::device;
use crate::error::{Error, Result};
use crate::generate::{Reading, Sampling, generate};
use crate::printer::Printer;
use crate::tasks::encode::tokenizer;

pub(super) fn run(args: SampleArgs, printer: &mut Printer) -> Result<u8> {
    if !args.temperature.is_finite() || args.temperature < 0.0 {
        let found = args.temperature;
        return Err(Error::Usage(format!("--temperature: expected a number of at least 0, found {found}")));
    }
    let loaded = checkpoint::load(&checkpoint::resolve(&args.path, None)?)?;
    let refused = |problem: String| Error::checkpoint(&loaded.path.join("tokenizer.json"), problem);
    let tokenizer = tokenizer(&loaded.tokenizer).map_err(refused)?;
    let encode = |prompt: &String| {
        let encoded = tokenizer
            .encode(prompt.as_str(), false)
            .map_err(|error| refused(format!("cannot encode the prompt: {error}")))?;
        match encoded.get_ids() {
            [] => Err(Error::Usage("--prompt: at least one token is needed to continue from".into())),
            ids => Ok(ids.to_vec()),
        }
    };
    let prompts = args.prompt.iter().map(encode).collect::<Result<Vec<_>>>()?;
    let chosen = device::open(args.device)?;
    printer.say(format!("device {}; step {}", chosen.reason, loaded.state.step));
    let model = checkpoint::load_weights(&loaded, args.ema, &chosen.device)?;
    let (eod, context) = (loaded.state.eod, loaded.state.seq_len);
    let reading = match loaded.config.model(loaded.state.vocab_size, context).sees_later_tokens() {
        None => Reading::Once,
        Some(reason) => {
            printer.say(format!("every new token takes a forward pass over the whole text: {reason}"));
            Reading::Whole
        }
    };
    let sampling = Sampling {
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
    };
    let (started, mut n_new) = (Instant::now(), 0);
    for (prompt, ids) in args.prompt.iter().zip(prompts) {
        let new = generate(&model, &ids, eod, context, reading, &sampling);
        n_new += new.len();
        // Decoded together: a character may be split between prompt and continuation.
        let all: Vec<u32> = ids.iter().chain(&new).copied().collect();
        let text = tokenizer
            .decode(&all, false)
            .map_err(|error| refused(format!("cannot decode the sample: {error}")))?;
        if args.json {
            let record = json!({ "prompt": prompt, "text": text, "tokens": all, "new_tokens": new.len() });
            printer.data(record.to_string())?;
        } else {
            printer.data(text)?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    printer.say(format!("{n_new} tokens in {seconds:.1} s"));
    Ok(0)
}
