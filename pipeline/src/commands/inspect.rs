//! `moe-data inspect PATH`: what is in an output folder, a shard or a ledger.

use std::path::{Path, PathBuf};

use clap::Args;
use moe_shards::terminal::escape_line;
use moe_shards::{Manifest, Shard, ShardInfo};
use serde_json::{Value, json};

use super::profile::Profile;
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::printer::Printer;
use crate::publish;
use crate::recipe::ByteSize;

/// Flags of verbs that inspect something.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// Output folder, shard (.mdx) or ledger.json
    #[arg(value_name = "PATH", default_value = "out")]
    pub path: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the command: a tree for people, or one JSON object.
///
/// # Errors
/// The path is none of the three, or cannot be read.
pub fn run(args: &InspectArgs, printer: &Printer) -> Result<()> {
    let path = args.path.as_path();
    let (text, value) = if path.is_dir() {
        folder(path)?
    } else if path.extension().is_some_and(|extension| extension == "mdx" || extension == "bin") {
        shard(&path.with_extension("mdx"))?
    } else if path.extension().is_some_and(|extension| extension == "json") {
        let ledger = Ledger::read_file(path)?;
        (ledger.full_table(path), json!(ledger))
    } else if path.exists() {
        let message = "is not something to inspect; name an output folder, a shard (.mdx) or ledger.json";
        return Err(Error::Usage(format!("{} {message}", path.display())));
    } else {
        return Err(Error::Usage(format!("{} does not exist", path.display())));
    };
    printer.data(&if args.json { format!("{value}\n") } else { format!("{text}\n") });
    Ok(())
}

fn bytes_per_token(n_text_bytes: u64, n_tokens: u64) -> f64 {
    n_text_bytes as f64 / n_tokens.max(1) as f64
}

fn folder(path: &Path) -> Result<(String, Value)> {
    if publish::is_text(path) {
        let ledger = Ledger::read(path)?;
        return Ok((ledger.full_table(path), json!(ledger)));
    }
    let manifest = Manifest::read(path)?;
    let total = totals(manifest.shards.iter());
    let mut lines = vec![
        format!(
            "{}  manifest {}  recipe {}",
            path.display(),
            manifest.hash()?.short(),
            manifest.build.short()
        ),
        format!(
            "├─ tokenizer {}  {} tokens, end of document {}",
            manifest.tokenizer.blake3.short(),
            manifest.tokenizer.vocab_size,
            manifest.tokenizer.eod_id
        ),
    ];
    let mut sources = Vec::new();
    for (i, source) in manifest.sources.iter().enumerate() {
        let of_source = || manifest.shards.iter().filter(move |shard| usize::from(shard.source) == i);
        let sum = totals(of_source());
        lines.push(format!("├─ {}  {}", source.name, describe(&sum)));
        let mut variants = Vec::new();
        for (v, name) in source.variants.iter().enumerate() {
            let of_variant = || of_source().filter(move |shard| usize::from(shard.variant) == v);
            let sum = totals(of_variant());
            lines.push(format!("│  ├─ v{v} {name}  {}", describe(&sum)));
            for shard in of_variant() {
                lines.push(format!(
                    "│  │  ├─ {}  {} documents, {}",
                    shard.name,
                    shard.n_docs,
                    shard.mdx_blake3.short()
                ));
            }
            variants.push(json!({ "name": name, "total": sum }));
        }
        sources.push(json!({ "name": source.name, "total": sum, "variants": variants }));
    }
    let mut profile = Profile::default();
    for shard in &manifest.shards {
        profile.add(&Shard::open(&Manifest::mdx_path(path, &shard.name))?)?;
    }
    lines.extend(profile.lines().into_iter().map(|line| format!("├─ {line}")));
    lines.push(format!("└─ total  {}", describe(&total)));
    let value = json!({
        "manifest": manifest.hash()?,
        "build": manifest.build,
        "tokenizer": manifest.tokenizer,
        "total": total,
        "sources": sources,
        "metadata": profile.json(),
        "shards": manifest.shards,
    });
    Ok((lines.join("\n"), value))
}

/// Sums over shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
struct Totals {
    shards: u64,
    docs: u64,
    tokens: u64,
    /// Those that are trained, where a shard says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_tokens: Option<u64>,
    text_bytes: u64,
}

fn totals<'a>(shards: impl Iterator<Item = &'a ShardInfo>) -> Totals {
    let shards: Vec<&ShardInfo> = shards.collect();
    let is_masked = shards.iter().any(|shard| shard.n_trained_tokens.is_some());
    let trained = || shards.iter().map(|shard| shard.n_trained_tokens.unwrap_or(shard.n_tokens)).sum();
    let start = Totals { trained_tokens: is_masked.then(trained), ..Totals::default() };
    shards.iter().fold(start, |sum, shard| Totals {
        shards: sum.shards + 1,
        docs: sum.docs + shard.n_docs,
        tokens: sum.tokens + shard.n_tokens,
        text_bytes: sum.text_bytes + shard.n_text_bytes,
        ..sum
    })
}

fn describe(sum: &Totals) -> String {
    format!(
        "{} documents, {} tokens{}, {}, {:.2} bytes a token",
        sum.docs,
        sum.tokens,
        of_which_trained(sum.trained_tokens),
        ByteSize(sum.text_bytes),
        bytes_per_token(sum.text_bytes, sum.tokens)
    )
}

fn of_which_trained(trained: Option<u64>) -> String {
    trained.map_or_else(String::new, |trained| format!(" ({trained} trained)"))
}

fn shard(path: &Path) -> Result<(String, Value)> {
    let shard = Shard::open(path)?;
    let n_docs = shard.n_docs();
    let first = if n_docs > 0 { Some((shard.meta(0)?, shard.id(0)?)) } else { None };
    let mut profile = Profile::default();
    profile.add(&shard)?;
    let trained = shard.has_mask().then(|| shard.n_trained_tokens());
    let mut lines = vec![
        format!("{}  source's recipe {}", path.display(), shard.build().short()),
        format!(
            "├─ tokenizer {}  {} tokens, end of document {}",
            shard.tokenizer().short(),
            shard.vocab_size(),
            shard.eod().0
        ),
        format!(
            "├─ {n_docs} documents, {} tokens{}, {}",
            shard.n_tokens(),
            of_which_trained(trained),
            ByteSize(shard.n_text_bytes())
        ),
    ];
    lines.extend(profile.lines().into_iter().map(|line| format!("├─ {line}")));
    lines.push(match first {
        Some((meta, id)) => {
            let id = escape_line(id);
            format!("└─ variant {}, first document {id}", meta.variant)
        }
        None => "└─ empty".to_owned(),
    });
    let value = json!({
        "docs": n_docs,
        "tokens": shard.n_tokens(),
        "trained_tokens": trained,
        "text_bytes": shard.n_text_bytes(),
        "build": shard.build(),
        "tokenizer": shard.tokenizer(),
        "vocab_size": shard.vocab_size(),
        "eod": shard.eod(),
        "variant": first.map(|(meta, _)| meta.variant),
        "metadata": profile.json(),
    });
    Ok((lines.join("\n"), value))
}
