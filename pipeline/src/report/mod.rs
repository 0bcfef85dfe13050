//! `moe-data report`: a page about a build and its plan. Counts come from the ledger and the indexes of the shards, measured values from
//! a sample of the tables in the work folder, examples from the audit: no text is read except that of the examples, so the
//! time for a page grows with the number of documents and not with their length.

pub mod compare;
mod duplicates;
mod flow;
mod kept;
mod measured;
mod plan;
mod refused;
mod rephrased;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use maud::{Markup, html};
use moe_report::settings::{self, Settings};
use moe_report::{Figure, Page, Section, number};
use moe_shards::{Manifest, PlanLock};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::provenance::Build;
use crate::publish::RECIPE_LOCK;
use crate::tables::parts;
use crate::watch::Watch;

/// A page and the figures in it.
#[derive(Debug)]
pub struct Report {
    /// The page.
    pub page: Page,
    /// All of its figures.
    pub figures: Vec<Figure>,
}

/// A part of the page.
struct Part {
    id: &'static str,
    title: &'static str,
    /// The class of the figures' columns.
    columns: &'static str,
    figures: Vec<Figure>,
    more: Markup,
}

impl Part {
    fn new(id: &'static str, title: &'static str, columns: &'static str, figures: Vec<Figure>) -> Part {
        Part { id, title, columns, figures, more: html! {} }
    }
}

impl Report {
    /// The numbers of all figures.
    pub fn json(&self) -> Value {
        json!({
            "title": self.page.title,
            "facts": self.page.facts.iter().map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
        })
    }
}

/// Makes the page of an output folder.
///
/// # Errors
/// It is not a build, or one of its files is damaged; a request to stop.
pub fn report(out: &Path, generator: &str, watch: &Watch) -> Result<Report> {
    let ledger = Ledger::read(out)?;
    let mut facts = vec![
        ("documents read".to_owned(), number::count(ledger.sources.values().map(|s| s.read.docs).sum())),
        ("documents kept".to_owned(), number::count(ledger.sources.values().map(|s| s.kept.docs).sum())),
        ("text kept".to_owned(), number::bytes(ledger.sources.values().map(|s| s.kept.bytes).sum())),
    ];
    let recipe = recipe(out)?;
    let mut parts = vec![flow::part(&ledger), measured::part(out, watch)?];
    parts.push(duplicates::part(out, &ledger, &recipe, watch)?);
    parts.push(refused::part(out, watch)?);
    let from = recipe.get("rephrase.from").map(PathBuf::from);
    parts.push(rephrased::part(out, from, watch)?);
    if out.join(Manifest::FILE).exists() {
        let manifest = Manifest::read(out)?;
        facts.push((
            "tokens".to_owned(),
            number::short(manifest.shards.iter().map(|s| s.n_tokens).sum::<u64>() as f64),
        ));
        facts.push(("manifest".to_owned(), manifest.hash()?.short()));
        parts.insert(1, kept::part(out, &manifest, watch)?);
    }
    if out.join(PlanLock::FILE).exists() {
        let (lock, part) = plan::part(out, watch)?;
        facts.push(("samples planned".to_owned(), number::count(lock.n_samples())));
        facts.push(("plan".to_owned(), lock.id.short()));
        parts.push(part);
    }
    let (mut sections, mut figures) = (Vec::new(), Vec::new());
    for part in parts {
        let more = part.more.into_string();
        if part.figures.is_empty() && more.is_empty() {
            continue;
        }
        let body = html! {
            div class=(part.columns) { @for figure in &part.figures { (figure.html()) } }
            (maud::PreEscaped(more))
        };
        sections.push(Section::new(part.id, part.title, body));
        figures.extend(part.figures);
    }
    let page = Page {
        title: format!("Build {}", out.display()),
        subtitle: "What was read, what was kept, and why the rest was not.".to_owned(),
        facts,
        sections,
        generator: generator.to_owned(),
    };
    Ok(Report { page, figures })
}

/// The recipe of a build with all defaults filled in; imported data has none.
fn recipe(out: &Path) -> Result<Settings> {
    let path = out.join(RECIPE_LOCK);
    if !path.exists() {
        return Ok(Settings::new());
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    settings::flat(&text).map_err(|e| Error::data(&path, format!("is not valid TOML: {e}")))
}

/// Texts of documents by source and name; none if the work folder is gone.
fn texts(out: &Path, wanted: &BTreeSet<(String, String)>) -> Result<BTreeMap<(String, String), String>> {
    match out.join("work").join(parts::FILE).exists() {
        true => Build::open(out)?.texts(wanted),
        false => Ok(BTreeMap::new()),
    }
}
