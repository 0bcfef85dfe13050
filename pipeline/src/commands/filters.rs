//! `moe-data filters`: the rules, and the profiles with all their limits.

use clap::Args;
use moe_cli::nearest;
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::filter::{Action, Chain, FilterConfig, Limit, REGISTRY, Settings};
use crate::printer::Printer;
use crate::recipe::profile::{self, Profile, ProfileFilter};

/// Flags of `filters`.
#[derive(Clone, Debug, Args)]
pub struct FiltersArgs {
    /// The filters of a profile, with their sources
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// A filter with its limits.
#[derive(Debug, Serialize)]
struct Shown {
    rule: String,
    action: Action,
    source: String,
    settings: Settings,
    limits: Vec<ShownLimit>,
    cuts: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ShownLimit {
    reason: String,
    threshold: Option<f64>,
    is_least: bool,
}

/// Runs the command.
///
/// # Errors
/// There is no such profile.
pub fn run(args: &FiltersArgs, printer: &Printer) -> Result<()> {
    let profiles = profile::all()?;
    match &args.profile {
        None => show_all(&profiles, args.json, printer),
        Some(name) => match profiles.iter().find(|profile| profile.name == *name) {
            Some(profile) => show_profile(profile, args.json, printer),
            None => {
                let hint = nearest::hint(name, profiles.iter().map(|profile| profile.name.as_str()));
                Err(Error::Usage(format!("--profile: unknown profile `{name}`; {hint}")))
            }
        },
    }
}

fn show_profile(profile: &Profile, as_json: bool, printer: &Printer) -> Result<()> {
    let shown = profile.filters.iter().map(shown).collect::<Result<Vec<Shown>>>()?;
    if as_json {
        let value = json!({ "profile": profile.name, "summary": profile.summary, "filters": shown });
        printer.data(&format!("{value}\n"));
        return Ok(());
    }
    let mut lines = vec![format!("{}: {}", profile.name, profile.summary)];
    lines.extend(shown.iter().flat_map(table));
    printer.data(&format!("{}\n", lines.join("\n")));
    Ok(())
}

fn show_all(profiles: &[Profile], as_json: bool, printer: &Printer) -> Result<()> {
    // A rule that reads a file has no limits until the file is given.
    let shown = REGISTRY.iter().map(|entry| {
        let config = FilterConfig::with_defaults(entry);
        let filter = ProfileFilter { config, source: entry.summary.to_owned() };
        match shown(&filter) {
            Err(_) if !entry.files.is_empty() => Ok(Shown::bare(&filter)),
            built => built,
        }
    });
    let shown = shown.collect::<Result<Vec<Shown>>>()?;
    if as_json {
        let names: Vec<_> =
            profiles.iter().map(|p| json!({ "profile": p.name, "summary": p.summary })).collect();
        printer.data(&format!("{}\n", json!({ "filters": shown, "profiles": names })));
        return Ok(());
    }
    let mut lines = vec!["rules with their defaults:".to_owned()];
    lines.extend(shown.iter().flat_map(table));
    lines.push(
        "profiles (moe-data filters --profile NAME; in a recipe: [filters] profile = \"NAME\"):".to_owned(),
    );
    lines.extend(profiles.iter().map(|profile| format!("  {:<14} {}", profile.name, profile.summary)));
    printer.data(&format!("{}\n", lines.join("\n")));
    Ok(())
}

impl Shown {
    fn bare(filter: &ProfileFilter) -> Shown {
        let ProfileFilter { config, source } = filter;
        Shown {
            rule: config.name.clone(),
            action: config.action,
            source: source.clone(),
            settings: config.settings.clone(),
            limits: Vec::new(),
            cuts: Vec::new(),
        }
    }
}

fn shown(filter: &ProfileFilter) -> Result<Shown> {
    let chain = Chain::new([&filter.config]).map_err(Error::Usage)?;
    let mut shown = Shown::bare(filter);
    for (limits, methods) in chain.limits() {
        shown.limits.extend(limits.iter().map(|limit| {
            let Limit { reason, threshold, is_least } = limit.clone();
            ShownLimit { reason: reason.into_owned(), threshold, is_least }
        }));
        shown.cuts.extend(methods.iter().map(|method| method.to_string()));
    }
    Ok(shown)
}

fn table(shown: &Shown) -> Vec<String> {
    let thresholds =
        REGISTRY.iter().find(|entry| entry.name == shown.rule).map_or(&[][..], |entry| entry.thresholds);
    let mut lines = vec![format!("  {} ({}): {}", shown.rule, shown.action.name(), shown.source)];
    for limit in &shown.limits {
        let threshold = match (limit.threshold, limit.is_least) {
            (None, _) => "no limit".to_owned(),
            (Some(least), true) => format!("at least {least}"),
            (Some(most), false) => format!("at most {most}"),
        };
        lines.push(format!("    {:<30} {threshold}", limit.reason));
    }
    lines.extend(shown.cuts.iter().map(|method| format!("    {method:<30} cut out")));
    let others =
        shown.settings.iter().filter(|(key, value)| !thresholds.contains(&key.as_str()) && !value.is_null());
    lines.extend(others.map(|(key, value)| format!("    {key} = {value}")));
    lines
}
