//! The stages of a build. Each is a pure function of a [`Task`]: it reads the task's inputs,
//! writes the task's folder and reports counts. Running it twice, or on two machines, gives the
//! same bytes; a task whose report is on disk is not run again. This is all that an engine
//! needs to know, and no text ever passes through one.
//!
//! ```text
//! read(file) -> measure(part) -> filter(part) -> dedup (all parts) -> cuts (see [`crate::dedup::cuts`]) -> train -> tokenize(part) -> shard(source, variant, prefix)
//! ```

mod contract;
pub mod filter;
mod gather;
pub mod inputs;
pub mod measure;
pub mod read;
mod report;
pub mod shard;
mod task;
pub mod tokenize;
pub mod train;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::contract::Stage;
pub use self::inputs::Inputs;
pub use self::report::{Report, Tally};
pub use self::task::{Call, Task, run};
use crate::decontaminate::stage::DecontaminateParams;
use crate::dedup::cuts::{anchor, apply, paragraph, segment, substring};
use crate::dedup::earlier::stage::{EarlierCandidates, EarlierKeys};
use crate::dedup::exact::keys::ExactKeys;
use crate::dedup::minhash::band_keys::BandKeys;
use crate::dedup::minhash::estimate::stage::{CompareParams, SampleParams};
use crate::dedup::minhash::{candidate_shingles, sketch, verify};
use crate::error::Result;
use crate::rephrase::orphans::OrphansParams;
use crate::rephrase::stage::RephrasedParams;
use crate::watch::Watch;

/// Makes the enum of all stages from a line for each.
macro_rules! registry {
    ($($(#[$doc:meta])* $variant:ident($params:ty);)*) => {
        /// What a task does.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Job {
            $($(#[$doc])* $variant(Box<Call<$params>>),)*
        }

        impl Job {
            /// Name of the stage.
            pub fn stage(&self) -> &'static str {
                match self {
                    $(Job::$variant(_) => <$params as Stage>::NAME,)*
                }
            }

            fn run(&self, folder: &Path, watch: &Watch) -> Result<Report> {
                match self {
                    $(Job::$variant(call) => call.params.run(&call.inputs, folder, watch),)*
                }
            }
        }

        $(impl From<Call<$params>> for Job {
            fn from(call: Call<$params>) -> Job {
                Job::$variant(Box::new(call))
            }
        })*
    };
}

// All stages, in the order of the flow.
registry! {
    /// Input files to documents.
    Read(read::ReadParams);
    /// Accepted variants to documents.
    Rephrased(RephrasedParams);
    /// Documents to measurements, and to rewritten documents.
    Measure(measure::MeasureParams);
    /// Measurements to kept documents, and their keys for deduplication.
    Filter(filter::FilterParams);
    /// A shard of another build to lookup tables of its documents.
    AgainstKeys(EarlierKeys);
    /// Keys to a table for a distributed engine.
    ExactKeys(ExactKeys);
    /// Documents to band keys.
    Sketch(sketch::SketchParams);
    /// Band keys to a table for a distributed engine.
    BandKeys(BandKeys);
    /// Candidates to sets of shingles.
    Members(candidate_shingles::CandidateShinglesParams);
    /// Candidates among the documents of another build to sets of shingles.
    AgainstMembers(EarlierCandidates);
    /// Connected sets of candidates to verdicts.
    Verify(verify::VerifyParams);
    /// Sampled documents to their shingles.
    Sample(SampleParams);
    /// Documents to those similar to sampled ones.
    Compare(CompareParams);
    /// Kept documents to their paragraphs.
    Paragraphs(paragraph::ParagraphParams);
    /// Paragraphs of all parts to marks.
    ParagraphMatches(paragraph::ParagraphMatchParams);
    /// Kept documents to the anchors of their segments.
    Anchors(anchor::Anchors);
    /// Anchors of all parts to those that are shared.
    SharedAnchors(anchor::SharedAnchors);
    /// Kept documents to the segments with shared anchors.
    Segments(segment::SegmentParams);
    /// Segments of all parts to marks.
    SubstringMatches(substring::SubstringParams);
    /// Marks to cuts.
    ApplyCuts(apply::ApplyParams);
    /// Documents to those without evaluation text.
    Decontaminate(DecontaminateParams);
    /// Variants to those whose originals are unchanged.
    Parents(OrphansParams);
    /// Kept documents to a tokenizer.
    Train(train::TrainParams);
    /// Kept documents to tokens.
    Tokenize(tokenize::TokenizeParams);
    /// Tokens of all parts to one shard.
    Shard(shard::ShardParams);
}

#[cfg(test)]
mod tests;
