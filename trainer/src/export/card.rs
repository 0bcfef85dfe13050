//! The model card: what the model is, which data, plan and run it comes from, and how to open it.

use super::class::{Class, Facts};
use crate::checkpoint::Loaded;
use crate::model::size;

/// `README.md` of an exported model.
pub fn card(loaded: &Loaded, class: &Class, facts: Facts) -> String {
    let state = &loaded.state;
    let size = size::size(facts.model);
    let millions = |n: u64| format!("{:.2} M", n as f64 / 1e6);
    // The location of the data is private.
    let toml = loaded.config.values.to_toml(false);
    let toml: Vec<&str> = toml.lines().filter(|line| !line.starts_with("shards = ")).collect();
    format!(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- moe-train\n---\n\n\
         # {architecture}\n\n\
         A language model trained with moe-train and exported by version {version}.\n\n\
         | | |\n| --- | --- |\n\
         | parameters | {total}, {active} active per token |\n\
         | vocabulary, longest sequence | {vocab}, {seq} tokens |\n\
         | trained | {step} steps, {tokens} targets |\n\
         | plan | `{plan}` |\n\
         | data, as read | `{data}` |\n\
         | parameters | `{parameters}` |\n\
         | configuration | `{config}` |\n\
         | written by | {program} |\n\n\
         The hashes are those of the checkpoint (BLAKE3): `moe-train inspect` shows them for a run, `moe-data inspect` the plan with its sources.\n\n\
         ```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         model = AutoModelForCausalLM.from_pretrained(\".\")\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n\n\
         Documents were trained with token {eod} after each and nothing before it.\n\n\
         ## Configuration\n\n```toml\n{toml}\n```\n",
        architecture = class.architecture,
        version = env!("CARGO_PKG_VERSION"),
        total = millions(size.total),
        active = millions(size.active),
        vocab = state.vocab_size,
        seq = state.seq_len,
        step = state.step,
        tokens = state.tokens_seen,
        plan = state.plan_id,
        data = state.data_hash,
        parameters = state.parameter_hash,
        config = state.config_fingerprint,
        program = state.program,
        eod = state.eod,
        toml = toml.join("\n"),
    )
}
