//! `moe-train config`: the configuration as it would be used, or what a key means.

use super::source;
use crate::cli::ConfigArgs;
use crate::config::RunConfig;
use crate::config::keys;
use crate::error::{Error, Result};
use crate::printer::Printer;

pub(super) fn run(args: ConfigArgs, printer: &mut Printer) -> Result<u8> {
    let source = source::read(&args.source)?;
    let config = RunConfig::new(source.values, source.problems)?;
    let Some(name) = &args.explain else {
        printer.say(source.origin);
        printer.data(config.values.to_toml(true).trim_end())?;
        return Ok(0);
    };
    let Some(key) = keys::find(name) else {
        return Err(Error::Usage(match keys::nearest(name) {
            Some(near) => format!("unknown key `{name}`; did you mean `{}`?", near.name),
            None => format!("unknown key `{name}`; `moe-train config` lists all keys"),
        }));
    };
    let absent = || "none".to_string();
    printer.data(format!("{}: {}", key.name, key.doc))?;
    printer.data(format!("  type     {}", key.kind))?;
    printer.data(format!(
        "  default  {}",
        key.default.as_ref().map_or_else(absent, |value| value.to_string())
    ))?;
    printer.data(format!(
        "  value    {} in {}",
        config.values.get(key.name).map_or_else(absent, |v| v.to_string()),
        source.name
    ))?;
    printer.data(match key.identity {
        true => "  identity: part of the fingerprint; a resumed run cannot change it",
        false => "  free: a resumed run may change it",
    })?;
    Ok(0)
}
