//! `moe-train config`: the configuration as it would be used, or what a key means.

use super::source;
use crate::cli::ConfigArgs;
use crate::config::{GROUP, GROUP_DOC, Movement, RunConfig, keys};
use crate::error::{Error, Result};
use crate::printer::Printer;

pub(super) fn run(args: ConfigArgs, printer: &mut Printer) -> Result<u8> {
    let source = source::read(&args.source)?;
    let config = RunConfig::new(source.values, source.problems)?;
    if args.groups {
        printer.say(source.origin);
        return printer.data(movements(&config).trim_end()).map(|()| 0);
    }
    let Some(name) = &args.explain else {
        printer.say(source.origin);
        printer.data(config.values.to_toml(true).trim_end())?;
        return Ok(0);
    };
    if name == GROUP {
        return printer.data(format!("{GROUP}: {GROUP_DOC}")).map(|()| 0);
    }
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

/// A line for each parameter: its group and the pattern that matches, the rule that updates it, and its
/// learning rate.
fn movements(config: &RunConfig) -> String {
    let header = ["parameter", "group", "by", "rule", "lr", "decay"].map(String::from);
    let row = |movement: Movement| {
        let none = || "-".to_string();
        let (group, by) = movement.group.map_or_else(|| (none(), none()), |(n, by)| (n.to_string(), by));
        let (rule, rate) = match movement.rule {
            Some(rule) => (rule, format!("{:?}", movement.rate)),
            None if movement.is_frozen => ("frozen".to_string(), none()),
            None => ("balancing".to_string(), none()),
        };
        let decay = if movement.is_decayed { "yes" } else { "no" };
        [movement.parameter, group, by, rule, rate, decay.to_string()]
    };
    let rows: Vec<[String; 6]> =
        std::iter::once(header).chain(config.movements().into_iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}
