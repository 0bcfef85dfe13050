//! `moe-data dups`: what was removed as a duplicate, by cluster.

use std::path::PathBuf;

use clap::Args;
use moe_shards::terminal::escape_line;
use serde_json::json;

use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::provenance::Build;
use crate::provenance::clusters::{Cluster, Member, clusters};
use crate::provenance::words::difference;

/// Flags of `dups`.
#[derive(Clone, Debug, Args)]
pub struct DupsArgs {
    /// One cluster, as the list names it, with the texts of its documents
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// How many to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Width and number of lines of each of two texts shown side by side.
const WIDTH: usize = 56;
const LINES: usize = 8;

/// Runs the command.
///
/// # Errors
/// There is no such cluster, or a file is missing or damaged.
pub fn run(args: &DupsArgs, printer: &Printer) -> Result<()> {
    let build = Build::open(&args.out)?;
    let all = clusters(&build)?;
    let Some(wanted) = &args.cluster else {
        printer.data(&if args.json { json_of(&all, args.top) } else { table(&all, args.top) });
        return Ok(());
    };
    let Some(cluster) = all.iter().find(|c| c.cluster == *wanted || c.kept == *wanted) else {
        let message =
            format!("no cluster of {} is called `{wanted}`; moe-data dups lists them", args.out.display());
        return Err(Error::Usage(message));
    };
    if args.json {
        printer.data(&json_of(std::slice::from_ref(cluster), 1));
        return Ok(());
    }
    printer.data(&show(&build, cluster, args.top)?);
    Ok(())
}

fn json_of(clusters: &[Cluster], top: usize) -> String {
    let removed: usize = clusters.iter().map(|cluster| cluster.removed.len()).sum();
    let shown = &clusters[..top.min(clusters.len())];
    format!("{}\n", json!({ "clusters": clusters.len(), "removed": removed, "top": shown }))
}

fn table(clusters: &[Cluster], top: usize) -> String {
    let removed: usize = clusters.iter().map(|cluster| cluster.removed.len()).sum();
    let mut lines = vec![format!("{} clusters, {removed} documents removed", clusters.len())];
    for cluster in clusters.iter().take(top) {
        let scores = || cluster.removed.iter().filter_map(|member| member.jaccard);
        let (least, most) = scores().fold((f64::MAX, f64::MIN), |(a, b), j| (a.min(j), b.max(j)));
        let range = if least > most { "not compared".to_owned() } else { format!("{least:.3} to {most:.3}") };
        let kept = if cluster.kept.is_empty() { "nothing kept".into() } else { escape_line(&cluster.kept) };
        lines.push(format!(
            "{:>8} removed   Jaccard {range:<16} {kept}   --cluster {}",
            cluster.removed.len(),
            cluster.cluster
        ));
    }
    if clusters.len() > top {
        lines.push(format!("... and {} more; --top N shows more", clusters.len() - top));
    }
    lines.join("\n") + "\n"
}

fn show(build: &Build, cluster: &Cluster, top: usize) -> Result<String> {
    let mut lines = vec![format!(
        "cluster {}: {} removed, kept {}",
        cluster.cluster,
        cluster.removed.len(),
        escape_line(&cluster.kept)
    )];
    let kept = match cluster.kept.split_once('/') {
        Some((source, id)) => build.text(source, id)?.unwrap_or_default(),
        None => String::new(),
    };
    for member in cluster.removed.iter().take(top) {
        let Member { source, id, method, jaccard } = member;
        let score = jaccard.map_or_else(String::new, |j| format!(", Jaccard {j:.3}"));
        lines.push(format!("\n{source}/{} ({method}{score})", escape_line(id)));
        let text = build.text(source, id)?.unwrap_or_default();
        let found = difference(&text, &kept);
        lines.push(format!("  {}", found.text));
        lines.extend(beside(&text, &kept));
    }
    if cluster.removed.len() > top {
        lines.push(format!("\n... and {} more; --top N shows more", cluster.removed.len() - top));
    }
    Ok(lines.join("\n") + "\n")
}

/// The beginnings of two texts, the removed one on the left.
fn beside(removed: &str, kept: &str) -> Vec<String> {
    let rows = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.take(LINES).map(|line| line.chars().take(WIDTH).collect()).collect()
    };
    let (left, right) = (rows(removed), rows(kept));
    let at = |rows: &[String], i: usize| rows.get(i).cloned().unwrap_or_default();
    let n = left.len().max(right.len());
    (0..n).map(|i| format!("  {:<WIDTH$} | {}", at(&left, i), at(&right, i)).trim_end().to_owned()).collect()
}
