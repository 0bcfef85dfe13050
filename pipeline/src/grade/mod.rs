//! Grading: a language model judges texts by a rubric, with scores from 0 to 5. Grades are labels for training a classifier, and a check
//! of one.
//!
//! ```text
//! files -> choice of documents -> rubric -> requests -> completions (cache) -> grades -> JSONL, agreement with other scores
//! ```
//!
//! Like everything after the cache, grades are a pure function of the texts, the rubric and the completions.

pub mod agreement;
pub mod documents;
pub mod judge;
pub mod rubric;
