//! `moe-data rephrase import`: variants that another program wrote pass the same gates, and go into the same files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_shards::terminal::escape_line;

use super::say;
use crate::error::{Error, Result};
use crate::grade::documents::Files;
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::read::FieldPaths;
use crate::rephrase::import::{Candidates, Layout, plain_style};
use crate::rephrase::parents::Originals;
use crate::rephrase::style::Style;
use crate::watch::Watch;

/// Flags of `rephrase import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// Files of records: JSON Lines, Parquet, Arrow, CSV, also compressed; folders and patterns
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Folder for what passes [default: OUT/rephrase-import]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Which program wrote the records
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Layout::Plain)]
    pub layout: Layout,
    /// Style of records without one
    #[arg(long, value_name = "NAME")]
    pub style: Option<String>,
    /// Model of records without one
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Folder of the style files, whose limits apply; a style without a file has the default limits
    #[arg(long, value_name = "DIR", default_value = "configs/styles")]
    pub styles_dir: PathBuf,
    /// License of what the model wrote, stored with every variant
    #[arg(long = "license", alias = "licence", value_name = "TEXT")]
    pub licence: Option<String>,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// The build, a file or a style cannot be used; a record names no style.
pub(super) fn run(args: &ImportArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let originals = Originals::open(&args.out)?;
    let fields = FieldPaths {
        text: args.layout.text_field().to_owned(),
        id: Some("id".to_owned()),
        keep: args.layout.fields(),
        ..FieldPaths::default()
    };
    let files = Files::with_fields(&args.files, fields)?;
    let _lock = OutputLock::acquire(&args.out)?;
    let folder = args.to.clone().unwrap_or_else(|| args.out.join("rephrase-import"));
    let mut candidates = Candidates::create(&folder)?;
    let mut documents = files.documents();
    let (mut n_empty, mut first_empty) = (0, None);
    for document in documents.by_ref() {
        let document = document?;
        let wrong =
            |message: &str| Error::Usage(format!("record `{}`: {message}", escape_line(&document.id)));
        let variants = args.layout.variants(&document.text, &document.kept).map_err(|e| wrong(&e))?;
        if variants.is_empty() {
            n_empty += 1;
            first_empty.get_or_insert_with(|| format!("record `{}`", escape_line(&document.id)));
        }
        for mut variant in variants {
            let style = variant.style.clone().or_else(|| args.style.clone());
            let style = style.ok_or_else(|| wrong("names no style; give one with --style"))?;
            if style.is_empty()
                || !style.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            {
                return Err(wrong(&format!("style `{style}`: expected one or more of a-z, 0-9 and `-`")));
            }
            variant.model = variant.model.or_else(|| args.model.clone());
            if variant.model.is_none() {
                return Err(wrong("names no model; give one with --model"));
            }
            candidates.add(&document.id, &style, &variant)?;
        }
    }
    let unreadable = documents.n_bad + n_empty;
    if let Some(first) = documents.first_bad.as_ref().or(first_empty.as_ref()) {
        printer.warn(&format!("{unreadable} records have no text or cannot be read; the first: {first}"));
    }
    if candidates.is_empty() {
        return Err(Error::Usage("the files have no variants".to_owned()));
    }
    let styles = candidates.styles().iter().map(|name| style(&args.styles_dir, name, printer));
    let styles = styles.collect::<Result<Vec<Style>>>()?;
    let watch = Watch::new(stop, printer.work_bar("judge", candidates.len(), "variants"));
    let licence = args.licence.as_deref();
    let ledger = candidates.judge(&originals, &styles, licence, unreadable, &folder, &watch);
    watch.finish();
    say(printer, &folder, &ledger?, args.json);
    Ok(())
}

/// The style of a file, without its sentinel, which may not have been asked for; or one with the default limits.
fn style(folder: &Path, name: &str, printer: &Printer) -> Result<Style> {
    let path = folder.join(format!("{name}.toml"));
    let mut style = match path.exists() {
        true => Style::read(&path)?,
        false => {
            printer.note(&format!(
                "style `{name}`: {} does not exist, so the default limits count",
                path.display()
            ));
            plain_style(name)
        }
    };
    style.gates.off.insert("sentinel".to_owned());
    Ok(style)
}
