//! `moe-data tokenizer stats`: what a tokenizer does with texts: bytes per token by group, tokens that are
//! never used, the longest and the most frequent ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use moe_report::progress::Bar;
use moe_shards::{Manifest, Shard};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::sample::open_build;
use super::{TextArgs, Use};
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::recipe::ByteSize;
use crate::tokenizer::{Encoder, Token};

/// Flags of `stats`.
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// Files, folders or globs instead of the shards of a build
    #[arg(value_name = "PATH", requires = "tokenizer")]
    pub paths: Vec<PathBuf>,
    /// tokenizer.json for those texts
    #[arg(long, value_name = "FILE", requires = "paths")]
    pub tokenizer: Option<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Field that groups the texts, such as their language [default: by file]
    #[arg(long, value_name = "NAME", requires = "tokenizer")]
    pub group: Option<String>,
    /// How the file is used.
    #[command(flatten)]
    pub usage: Use,
    /// Folder of a build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Tokens in each list
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Counts over texts.
#[derive(Default)]
struct Stats {
    /// Documents, bytes and tokens by group; the first covers all.
    groups: BTreeMap<String, Group>,
    /// Uses by id.
    uses: Vec<u64>,
    n_bad: u64,
}

#[derive(Clone, Copy, Default)]
struct Group {
    n_docs: u64,
    n_bytes: u64,
    n_tokens: u64,
}

impl Group {
    fn add(&mut self, other: Group) {
        self.n_docs += other.n_docs;
        self.n_bytes += other.n_bytes;
        self.n_tokens += other.n_tokens;
    }

    fn bytes_per_token(&self) -> f64 {
        self.n_bytes as f64 / self.n_tokens.max(1) as f64
    }
}

impl Stats {
    fn new(n_tokens: usize) -> Stats {
        Stats { uses: vec![0; n_tokens], ..Stats::default() }
    }

    fn add(&mut self, group: String, n_bytes: u64, ids: &[u32]) {
        let added = Group { n_docs: 1, n_bytes, n_tokens: ids.len() as u64 };
        self.groups.entry(group).or_default().add(added);
        for id in ids {
            if let Some(uses) = self.uses.get_mut(*id as usize) {
                *uses += 1;
            }
        }
    }

    fn total(&self) -> Group {
        self.groups.values().fold(Group::default(), |mut sum, group| {
            sum.add(*group);
            sum
        })
    }
}

/// Runs the command.
///
/// # Errors
/// The texts, the tokenizer or the build cannot be read.
pub fn run(args: &StatsArgs, printer: &Printer) -> Result<()> {
    let (stats, tokens) = match &args.tokenizer {
        Some(file) => of_files(args, file, &printer.bar("encode", 0))?,
        None => of_build(&args.out)?,
    };
    let report = Report { stats: &stats, tokens: &tokens, top: args.top };
    printer.data(&if args.json { format!("{}\n", report.json()) } else { report.words() });
    Ok(())
}

fn of_files(args: &StatsArgs, file: &Path, bar: &Bar) -> Result<(Stats, Vec<Token>)> {
    let encoder = Encoder::load(file, &args.usage.options())?;
    let tokens = encoder.vocabulary().tokens().to_vec();
    let mut stats = Stats::new(tokens.len());
    let mut n_refused = 0;
    let texts = TextArgs { paths: args.paths.clone(), text: args.text.clone(), group: args.group.clone() };
    let n_bad = texts.for_each_batch(bar, |texts| {
        let encode = |text: &str| match encoder.encode(text) {
            Err(Error::Tokenizer { .. }) => Ok(None),
            ids => ids.map(Some),
        };
        let encoded = texts.par_iter().map(|text| encode(&text.text)).collect::<Result<Vec<_>>>()?;
        for (text, ids) in texts.into_iter().zip(encoded) {
            let Some(ids) = ids else {
                n_refused += 1;
                continue;
            };
            stats.add(text.group, text.text.len() as u64, &ids);
        }
        Ok(())
    })?;
    stats.n_bad = n_bad + n_refused;
    Ok((stats, tokens))
}

fn of_build(out: &Path) -> Result<(Stats, Vec<Token>)> {
    let (manifest, encoder) = open_build(out)?;
    let tokens = encoder.vocabulary().tokens().to_vec();
    let mut stats = Stats::new(tokens.len());
    let mut ids = Vec::new();
    for info in &manifest.shards {
        let shard = Shard::open(&Manifest::mdx_path(out, &info.name))?;
        let source = manifest.sources.get(usize::from(info.source));
        for doc in 0..shard.n_docs() {
            ids.clear();
            shard.tokens(doc)?.extend_into(&mut ids);
            // Ends and begins of documents stand for no text.
            ids.retain(|id| tokens.get(*id as usize).is_some_and(|token| !token.is_special));
            let n_bytes = ids.iter().map(|id| tokens[*id as usize].bytes.len() as u64).sum();
            let variant = source.and_then(|source| source.variants.get(usize::from(info.variant)));
            let group = match (source, variant) {
                (Some(source), Some(variant)) if source.variants.len() > 1 => {
                    format!("{}/{variant}", source.name)
                }
                (Some(source), _) => source.name.clone(),
                (None, _) => info.name.clone(),
            };
            stats.add(group, n_bytes, &ids);
        }
    }
    Ok((stats, tokens))
}

struct Report<'a> {
    stats: &'a Stats,
    tokens: &'a [Token],
    top: usize,
}

impl Report<'_> {
    /// Ids of tokens that stand for text, by length or by uses, largest first, ties by id.
    fn list(&self, rank: impl Fn(u32) -> u64) -> Vec<u32> {
        let mut ids: Vec<u32> =
            (0..self.tokens.len() as u32).filter(|id| !self.token(*id).bytes.is_empty()).collect();
        ids.sort_by_key(|id| (std::cmp::Reverse(rank(*id)), *id));
        ids.truncate(self.top);
        ids
    }

    fn token(&self, id: u32) -> &Token {
        &self.tokens[id as usize]
    }

    fn uses(&self, id: u32) -> u64 {
        self.stats.uses[id as usize]
    }

    fn longest(&self) -> Vec<u32> {
        self.list(|id| self.token(id).bytes.len() as u64)
    }

    fn most_used(&self) -> Vec<u32> {
        self.list(|id| self.uses(id))
    }

    /// Ids that stand for text and are never used.
    fn unused(&self) -> Vec<u32> {
        let ids = 0..self.tokens.len() as u32;
        ids.filter(|id| !self.token(*id).bytes.is_empty() && self.uses(*id) == 0).collect()
    }

    fn n_text_tokens(&self) -> usize {
        self.tokens.iter().filter(|token| !token.bytes.is_empty()).count()
    }

    fn json(&self) -> Value {
        let group = |group: &Group| {
            json!({
                "documents": group.n_docs, "bytes": group.n_bytes, "tokens": group.n_tokens,
                "bytes_per_token": group.bytes_per_token(),
            })
        };
        let list = |ids: Vec<u32>| -> Vec<Value> {
            let entry = |id: u32| {
                let token = self.token(id);
                json!({ "id": id, "token": token.name, "bytes": token.bytes.len(), "uses": self.uses(id) })
            };
            ids.into_iter().map(entry).collect()
        };
        json!({
            "groups": self.stats.groups.iter().map(|(name, g)| (name.clone(), group(g))).collect::<BTreeMap<_, _>>(),
            "total": group(&self.stats.total()),
            "bad_records": self.stats.n_bad,
            "vocabulary": self.tokens.len(),
            "text_tokens": self.n_text_tokens(),
            "unused": self.unused(),
            "longest": list(self.longest()),
            "most_used": list(self.most_used()),
        })
    }

    fn words(&self) -> String {
        let mut text = format!(
            "{:<40} {:>10} {:>10} {:>13} {:>15}\n",
            "", "documents", "text", "tokens", "bytes a token"
        );
        let total = ("total".to_owned(), self.stats.total());
        for (name, group) in self.stats.groups.iter().chain(std::iter::once((&total.0, &total.1))) {
            text.push_str(&format!(
                "{name:<40} {:>10} {:>10} {:>13} {:>15.3}\n",
                group.n_docs,
                ByteSize(group.n_bytes).to_string(),
                group.n_tokens,
                group.bytes_per_token()
            ));
        }
        if self.stats.n_bad > 0 {
            text.push_str(&format!("left out: {} records that are not documents\n", self.stats.n_bad));
        }
        let (unused, n_tokens) = (self.unused(), self.n_text_tokens());
        let percent = 100.0 * unused.len() as f64 / n_tokens.max(1) as f64;
        text.push_str(&format!("unused: {} of {n_tokens} tokens ({percent:.1} %)\n", unused.len()));
        for (title, ids) in [("longest", self.longest()), ("most used", self.most_used())] {
            text.push_str(&format!("{title}:\n"));
            for id in ids {
                let shown = String::from_utf8_lossy(&self.token(id).bytes).into_owned();
                let n_bytes = self.token(id).bytes.len();
                text.push_str(&format!(
                    "  {id:>8} {:>10} uses {n_bytes:>4} bytes  {shown:?}\n",
                    self.uses(id)
                ));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_ordered_and_unused_tokens_counted() {
        let token = |text: &str| Token { bytes: text.into(), name: text.to_owned(), is_special: false };
        let tokens = [Token::default(), token("a"), token("the"), token("of "), token("b")];
        let mut stats = Stats::new(tokens.len());
        stats.add("x".to_owned(), 5, &[1, 2, 1]);
        stats.add("y".to_owned(), 4, &[1, 2]);
        let report = Report { stats: &stats, tokens: &tokens, top: 2 };
        assert_eq!(report.longest(), [2, 3]);
        assert_eq!(report.most_used(), [1, 2]);
        assert_eq!(report.unused(), [3, 4]);
        let json = report.json();
        assert_eq!((&json["total"]["bytes_per_token"], &json["text_tokens"]), (&json!(1.8), &json!(4)));
        assert!(report.words().contains("unused: 2 of 4 tokens (50.0 %)"));
    }
}
