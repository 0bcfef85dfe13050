//! The stages of a build. Each is a pure function of a [`Task`]: it reads the task's inputs,
//! writes the task's folder and reports counts. Running it twice, or on two machines, gives the
//! same bytes; a task whose report lies on the disk is not run again. This is all that an engine
//! needs to know, and no text ever passes through one.
//!
//! ```text
//! read(file) -> measure(part) -> filter(part) -> dedup (all parts) -> cuts (see [`cuts`]) -> train -> tokenize(part) -> shard(source, variant, prefix)
//! ```

pub mod against;
pub mod cuts;
pub mod decontaminate;
pub mod estimate;
pub mod filter;
mod gather;
pub mod measure;
pub mod members;
pub mod parents;
pub mod read;
pub mod rephrased;
pub mod shard;
pub mod sketch;
pub mod tokenize;
pub mod train;
pub mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::{ShardInfo, atomic};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::document::Count;
use crate::error::{Error, Result};
use crate::json;
use crate::watch::Watch;
use crate::work::clear_folder;

/// One unit of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Position among the tasks of its stage; for names only.
    pub part: u32,
    /// Bytes of input, for the progress bar.
    pub weight: u64,
    /// Files of earlier stages, in an order that the stage defines.
    pub inputs: Vec<PathBuf>,
    /// Folder for the results; its name is the task's fingerprint.
    pub output: PathBuf,
    /// What to do.
    pub params: Params,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Params {
    /// Input files to documents.
    Read(Box<read::ReadParams>),
    /// Accepted variants to documents.
    Rephrased(Box<rephrased::RephrasedParams>),
    /// Variants to those whose originals are as they were.
    Parents(parents::ParentsParams),
    /// Documents to what rules measure of them, and to rewritten ones.
    Measure(measure::MeasureParams),
    /// What was measured to the documents kept, and their keys for deduplication.
    Filter(filter::FilterParams),
    /// Kept documents to their paragraphs.
    Paragraphs(cuts::paragraph::ParagraphParams),
    /// Paragraphs of all parts to marks.
    ParagraphMatches(cuts::paragraph::ParagraphMatchParams),
    /// Kept documents to the anchors of their segments.
    Anchors(cuts::anchor::AnchorParams),
    /// Anchors of all parts to those that are shared.
    SharedAnchors(cuts::anchor::AnchorParams),
    /// Kept documents to the segments with shared anchors.
    Segments(cuts::segment::SegmentParams),
    /// Segments of all parts to marks.
    SubstringMatches(cuts::substring::SubstringParams),
    /// Marks to marks by part.
    Marks(cuts::marks::MarksParams),
    /// Marks to cuts.
    ApplyCuts(cuts::apply::ApplyParams),
    /// Documents to those without evaluation text.
    Decontaminate(Box<decontaminate::DecontaminateParams>),
    /// Documents to band keys.
    Sketch(sketch::SketchParams),
    /// Candidates to sets of shingles.
    Members(members::MembersParams),
    /// Connected sets of candidates to verdicts.
    Verify(verify::VerifyParams),
    /// A shard of another build to the tables by which its documents are found.
    AgainstKeys(against::AgainstParams),
    /// Those of its documents that are candidates to sets of shingles.
    AgainstMembers(against::AgainstParams),
    /// Sampled documents to their shingles.
    Sample(estimate::EstimateParams),
    /// Documents to those that are like sampled ones.
    Compare(estimate::EstimateParams),
    /// Kept documents to a tokenizer.
    Train(train::TrainParams),
    /// Kept documents to tokens.
    Tokenize(tokenize::TokenizeParams),
    /// Tokens of all parts to one shard.
    Shard(shard::ShardParams),
}

/// What a task did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Records that came out of the reader.
    pub read: Count,
    /// Documents passed on to the next stage.
    pub kept: Count,
    /// Documents dropped, by reason.
    pub dropped: BTreeMap<String, Count>,
    /// Bytes cut from documents that were passed on, by method.
    pub cut: BTreeMap<String, Count>,
    /// Records in quarantine, by cause.
    pub quarantined: BTreeMap<String, Count>,
    /// The first record in quarantine of each cause, for messages.
    pub first_bad: BTreeMap<String, String>,
    /// Tags of the records or, from filters, of the documents passed on, while they are at most [`moe_shards::Names::MAX_TAGS`].
    pub tags: BTreeSet<String>,
    /// Documents whose encoding was guessed, by encoding.
    pub guessed: BTreeMap<String, Tally>,
    /// Files that hold no text, by what they are.
    pub unreadable: BTreeMap<String, Tally>,
    /// Which fields with metadata any record had, as `FieldPaths::present` of the reader says.
    pub fields_seen: u8,
    /// Tokens with one end of document each, by variant.
    pub tokens: BTreeMap<u8, u64>,
    /// Tokens that stand for text which the vocabulary has no token for.
    #[serde(skip_serializing_if = "is_zero")]
    pub unknown_tokens: u64,
    /// Documents whose tokens do not give their text back.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_given_back: u64,
    /// Documents of each file of a task that reads several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub documents_of_files: Vec<u64>,
    /// The shard that was made; absent when it would be empty.
    pub shard: Option<ShardInfo>,
}

/// How many, and one of them by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub n: u64,
    /// The first.
    pub example: String,
}

impl Tally {
    /// Counts one in a file, or in a member of it.
    pub fn add(&mut self, member: Option<&str>, file: &str) {
        if self.n == 0 {
            self.example = member.map_or_else(|| file.to_owned(), |member| format!("{file}/{member}"));
        }
        self.n += 1;
    }

    /// Adds those of a later part.
    pub fn merge(&mut self, later: &Tally) {
        if self.n == 0 {
            self.example.clone_from(&later.example);
        }
        self.n += later.n;
    }
}

const REPORT: &str = "report.json";

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Task {
    /// A task in `work`. Its fingerprint covers the program's build version, the parameters and
    /// the inputs; files inside `work` count by their place there, which holds the fingerprint of
    /// the task that made them.
    pub fn new(work: &Path, part: usize, weight: u64, inputs: Vec<PathBuf>, params: Params) -> Task {
        let version = (crate::BUILD_VERSION, crate::WORK_VERSION);
        let output = work.join(params.stage()).join(fingerprint(version, work, &inputs, &params));
        Task { part: part as u32, weight, inputs, output, params }
    }

    /// A file of the task's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    /// The report of an earlier run.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub fn finished(&self) -> Result<Option<Report>> {
        let path = self.file(REPORT);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| Error::data(&path, format!("{e}; delete this file and rerun"))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&path, "read")(e)),
        }
    }
}

fn fingerprint(version: (u32, u32), work: &Path, inputs: &[PathBuf], params: &Params) -> String {
    let places: Vec<&Path> = inputs.iter().map(|path| path.strip_prefix(work).unwrap_or(path)).collect();
    let identity = json!({ "version": version, "params": params, "inputs": places });
    json::digest(&identity).to_string()[..24].to_owned()
}

impl Params {
    /// Name of the stage, and of its folder in `work`.
    pub fn stage(&self) -> &'static str {
        match self {
            Params::Read(_) => "read",
            Params::Rephrased(_) => "rephrased",
            Params::Parents(_) => "parents",
            Params::Measure(_) => "measure",
            Params::Filter(_) => "filter",
            Params::Paragraphs(_) => "paragraphs",
            Params::ParagraphMatches(_) => "paragraph_matches",
            Params::Anchors(_) => "anchors",
            Params::SharedAnchors(_) => "shared_anchors",
            Params::Segments(_) => "segments",
            Params::SubstringMatches(_) => "substring_matches",
            Params::Marks(_) => "marks",
            Params::ApplyCuts(_) => "apply_cuts",
            Params::Decontaminate(_) => "decontaminate",
            Params::Sketch(_) => "sketch",
            Params::Members(_) => "members",
            Params::Verify(_) => "verify",
            Params::AgainstKeys(_) => "against_keys",
            Params::AgainstMembers(_) => "against_members",
            Params::Sample(_) => "sample",
            Params::Compare(_) => "compare",
            Params::Train(_) => "train",
            Params::Tokenize(_) => "tokenize",
            Params::Shard(_) => "shard",
        }
    }
}

/// Does a task, unless its report is there already.
///
/// The folder is emptied first, so what a killed run left behind cannot mix in; the report is
/// written last, so its presence means that all the rest is complete.
///
/// # Errors
/// [`Error::Interrupted`], or what the stage ran into.
pub fn run(task: &Task, watch: &Watch) -> Result<Report> {
    if let Some(report) = task.finished()? {
        watch.advance(task.weight)?;
        return Ok(report);
    }
    watch.advance(0)?;
    clear_folder(&task.output)?;
    let report = match &task.params {
        Params::Read(params) => read::run(task, params, watch)?,
        Params::Rephrased(params) => params.input.unchanged(|| rephrased::run(task, params, watch))?,
        Params::Parents(params) => parents::run(task, params, watch)?,
        Params::Measure(params) => measure::run(task, params, watch)?,
        Params::Filter(params) => filter::run(task, params, watch)?,
        Params::Paragraphs(params) => cuts::paragraph::collect(task, params, watch)?,
        Params::ParagraphMatches(params) => cuts::paragraph::matches(task, params, watch)?,
        Params::Anchors(params) => cuts::anchor::collect(task, params, watch)?,
        Params::SharedAnchors(params) => cuts::anchor::shared(task, params, watch)?,
        Params::Segments(params) => cuts::segment::run(task, params, watch)?,
        Params::SubstringMatches(params) => cuts::substring::run(task, params, watch)?,
        Params::Marks(params) => cuts::marks::run(task, params, watch)?,
        Params::ApplyCuts(params) => cuts::apply::run(task, params, watch)?,
        Params::Decontaminate(params) => decontaminate::run(task, params, watch)?,
        Params::Sketch(params) => sketch::run(task, params, watch)?,
        Params::Members(params) => members::run(task, params, watch)?,
        Params::Verify(params) => verify::run(task, params, watch)?,
        Params::AgainstKeys(params) => against::keys(task, params, watch)?,
        Params::AgainstMembers(params) => against::members(task, params, watch)?,
        Params::Sample(params) => estimate::sample(task, params, watch)?,
        Params::Compare(params) => estimate::compare(task, params, watch)?,
        Params::Train(params) => train::run(task, params, watch)?,
        Params::Tokenize(params) => tokenize::run(task, params, watch)?,
        Params::Shard(params) => shard::run(task, params, watch)?,
    };
    atomic::write_file(&task.file(REPORT), &json::canonical(&report))?;
    Ok(report)
}

#[cfg(test)]
mod tests;
