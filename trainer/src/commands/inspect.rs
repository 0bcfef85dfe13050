//! `moe-train inspect`: the contents of a checkpoint; every file is verified along the way.

use burn::tensor::Device;
use serde_json::{Value, json};

use crate::checkpoint::{self, parameter_hash};
use crate::cli::InspectArgs;
use crate::error::{Error, Result};
use crate::model::parameters::parameters;
use crate::model::size;
use crate::printer::Printer;

pub(super) fn run(args: InspectArgs, printer: &mut Printer) -> Result<u8> {
    let loaded = checkpoint::load(&checkpoint::resolve(&args.path, None)?)?;
    let model = checkpoint::load_model(&loaded, &Device::flex())?;
    let parameters = parameters(&model);
    let hash = parameter_hash(&parameters);
    let state = &loaded.state;
    if hash != state.parameter_hash {
        return Err(Error::checkpoint(
            &loaded.path,
            format!("expected parameter hash {}, found {}", state.parameter_hash.short(), hash.short()),
        ));
    }
    let size = size::size(&loaded.config.model(state.vocab_size, state.seq_len));
    if args.json {
        let tensors: Vec<Value> =
            parameters.iter().map(|p| json!({ "name": p.name, "shape": p.shape })).collect();
        let record = json!({
            "checkpoint": loaded.path,
            "state": state,
            "parameters": size.total,
            "active_parameters": size.active,
            "flops_per_token": size.flops_per_token,
            "tensors": tensors,
        });
        printer.data(format!("{record:#}"))?;
        return Ok(0);
    }
    printer.data(format!("checkpoint  {}", loaded.path.display()))?;
    printer.data(format!(
        "step        {} (next sample {}, {} targets seen)",
        state.step, state.t, state.tokens_seen
    ))?;
    printer.data(format!("plan        {}", state.plan_id))?;
    printer.data(format!("data        {}", state.data_hash))?;
    printer.data(format!("parameters  {hash}"))?;
    printer.data(format!("config      {}", state.config_fingerprint))?;
    printer.data(format!("size        {} parameters, {} active per token", size.total, size.active))?;
    for parameter in &parameters {
        printer.data(format!("  {:<48} {:?}", parameter.name, parameter.shape))?;
    }
    Ok(0)
}
