//! `moe-data build --text-only`: the stages up to the tokenizer, for exporting texts.

use std::path::Path;

use moe_shards::{Hash, Manifest};

use super::part::Part;
use super::run::Run;
use super::{BuildArgs, check_bad, say_result};
use crate::cluster;
use crate::document::Count;
use crate::error::{Error, Result};
use crate::export::text::Selection;
use crate::objects;
use crate::prepare::Prepared;
use crate::printer::{Printer, StageLine};
use crate::publish;
use crate::stage::shard::REASON;
use crate::tables::audit::{Drop, Drops};
use crate::tables::parts::{self, Parts};
use crate::tables::{self, clear_folder};
use crate::watch::Watch;

/// Stage of the audit, and folder in the work folder.
const STAGE: &str = "text";

/// Refuses, before any work, to remove shards.
pub(super) fn check_folder(args: &BuildArgs) -> Result<()> {
    if args.work.is_some() || objects::is_url(&args.out) {
        let message = "--text-only makes no files for an object store; build into a folder, export the texts and copy these";
        return Err(Error::Usage(message.to_owned()));
    }
    if args.out.join(Manifest::FILE).exists() && !args.fresh {
        return Err(Error::Usage(format!(
            "{} has shards, which a build of text alone would remove; choose another --out, or export the texts of this build",
            args.out.display()
        )));
    }
    Ok(())
}

impl Run<'_> {
    /// Counts the documents that are kept, and drops those whose family has another text of their variant.
    pub fn keep_texts(&mut self, parts: &[Part]) -> Result<()> {
        let line = StageLine::start(STAGE);
        let table = Parts::read(&self.work)?;
        let n_bytes = parts.iter().map(|part| part.left.bytes).sum();
        let watch = Watch::new(self.stop.clone(), self.printer.bar(STAGE, n_bytes));
        let selection = self.engine.install(|| Selection::of(&self.work, &table, &watch));
        watch.finish();
        let selection = selection?;
        for part in parts {
            let entry = self.entry(part);
            entry.kept.docs += part.left.docs;
            entry.kept.bytes += part.left.bytes;
        }
        let mut drops = Drops::default();
        for duplicate in &selection.duplicates {
            let part = &parts[duplicate.part];
            let count = Count::one(u64::from(duplicate.left_bytes));
            let entry = self.entry(part);
            entry.kept.docs -= count.docs;
            entry.kept.bytes -= count.bytes;
            *entry.dropped.entry(REASON.to_owned()).or_default() += count;
            drops.push(&Drop {
                id: &duplicate.id,
                document_id: duplicate.document_id,
                source: &self.source_name(part),
                stage: STAGE,
                reason: REASON,
                measured: f64::NAN,
                threshold: f64::NAN,
                raw_bytes: count.bytes,
            });
        }
        // The documents are a function of these tables.
        let digest = Hash::of_file(&self.work.join(parts::FILE))?;
        let folder = self.work.join(STAGE).join(&digest.to_string()[..24]);
        clear_folder(&folder)?;
        drops.write(&folder.join(tables::DROPS))?;
        self.results.add_audit(folder.join(tables::DROPS), format!("drops-{STAGE}.parquet"));
        self.results.used.push(folder);
        let n_docs: u64 = selection.n_docs.values().sum();
        line.done(self.printer, &format!("{n_docs} documents, {} dropped", selection.duplicates.len()));
        Ok(())
    }
}

/// Publishes the reports of the build.
pub(super) fn finish(
    args: &BuildArgs,
    prepared: &Prepared,
    mut run: Run<'_>,
    parts: &[Part],
    printer: &Printer,
) -> Result<()> {
    let out: &Path = &args.out;
    run.keep_texts(parts)?;
    prepared.check_unchanged()?;
    publish::write_reports(out, prepared, &run.results, &run.ledger)?;
    run.ledger.check()?;
    check_bad(args, prepared, &run.ledger, run.bad_causes().as_deref())?;
    cluster::remove(out)?;
    publish::write_text(out, prepared, &run.results)?;
    say_result(args, printer, &run.ledger, "built");
    Ok(())
}
