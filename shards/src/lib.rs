//! What `moe-data` and `moe-train` must agree on: the shard format, the plan, and the function
//! that turns a sample number into tokens.
//!
//! ```text
//! documents --ShardWriter--> name.bin + name.mdx --Manifest--> MANIFEST.json
//!                                                      |
//!                            plan.lock (moe-data mix) --+--> Plan::sample(t) -> Sample
//! ```
//!
//! Nothing here prints, spawns threads or keeps state between calls: [`Plan::sample`] is a pure function of
//! the plan and `t`, which makes training resumable from one integer. Byte layouts are specified in
//! `docs/shard-format.md` and `docs/plan-format.md`.
//!
//! # Reading a plan
//!
//! [`Plan::sample`] gives sample `t`, and [`Plan::batch`] the samples of a batch that belong to a rank: a
//! contiguous slice, `len * rank / world .. len * (rank + 1) / world` of it, so `world` need not divide the
//! batch. The only data state that a trainer saves is `t`, the number of samples seen; world size, batch
//! size, micro-batches, threads and read-ahead may change at any `t` and change nothing in the sequence. A
//! [`Plan`] is read through `&self` from any number of threads. An error in sample `t` is returned by the
//! call for `t`, also past the end: an epoch never ends silently, and nothing wraps around.
//!
//! ```
//! use moe_shards::{Error, IGNORED_SEGMENT, Plan};
//!
//! // A build of two small sources with its plan; elsewhere the folder that `moe-data mix` wrote to.
//! let plan = Plan::open("tests/compat/plan-v1-best-fit".as_ref())?;
//!
//! let sample = plan.sample(17)?;
//! println!("pool {}, pass {}", plan.pool_names()[usize::from(sample.id.pool)], sample.id.pass);
//! for i in 0..sample.tokens.len() {
//!     if sample.loss_mask[i] {
//!         // Predict `targets[i]` from the tokens up to `i` of the same segment.
//!         assert_ne!(sample.segments[i], IGNORED_SEGMENT);
//!     }
//! }
//!
//! // Batch 2 of 32 samples, on three ranks: together what one rank reads.
//! let t = 64;
//! let mut seen = Vec::new();
//! for rank in 0..3 {
//!     seen.extend(plan.batch(t..t + 32, rank, 3)?);
//! }
//! assert_eq!(seen, plan.batch(t..t + 32, 0, 1)?);
//!
//! assert!(matches!(plan.sample(plan.len()), Err(Error::PlanExhausted { .. })));
//! # Ok::<(), Error>(())
//! ```
//!
//! # Writing a shard
//!
//! ```
//! use moe_shards::{DocumentMeta, FamilyId, Hash, Shard, ShardSpec, ShardWriter, TokenId};
//!
//! let dir = tempfile::tempdir()?;
//! let spec = ShardSpec { vocab_size: 300, eod: TokenId(0), tokenizer: Hash::of(b"t"), build: Hash::of(b"b") };
//! let mut writer = ShardWriter::create(dir.path(), "wiki-v0-00000", spec)?;
//! let meta = DocumentMeta { family: FamilyId(7), n_bytes: 11, ..DocumentMeta::default() };
//! writer.append("page-1", &meta, &[TokenId(5), TokenId(299)])?;
//! writer.finish()?;
//!
//! let shard = Shard::open(&dir.path().join("wiki-v0-00000.mdx"))?;
//! assert_eq!(shard.tokens(0)?.to_vec(), [5, 299, 0]); // the writer closed the document with EOD
//! assert_eq!(shard.id(0)?, "page-1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Reading order: bytes, shards, sets of shards, then what a plan is made of.
pub mod atomic;
mod cache;
mod error;
pub mod file_names;
mod hash;
mod ids;
pub mod memory;
mod mmap;
pub mod terminal;

mod names;

mod format;
mod plan_file;
mod reader;
mod writer;

mod manifest;

mod selection;

pub mod concat;
pub mod family;
pub mod interleave;
pub mod pack;
pub mod permute;
pub mod variant;

mod lock;
mod plan;
mod sample;

pub use error::{Error, Result, exit_code_of};
pub use family::FamilyTable;
pub use format::{DocumentMeta, FORMAT_VERSION};
pub use hash::Hash;
pub use ids::{FamilyId, TokenId, TokenWidth};
pub use lock::{
    ContinuesLock, ExtendsLock, PLAN_VERSION, PackRef, Packing, PassLock, PhaseLock, PlanLock, PoolLock,
    ShardRef, TakedownLock, TakedownShard, ValidationLock,
};
pub use manifest::{Manifest, SourceInfo, TokenizerInfo};
pub use mmap::{ScratchNumbers, exit_when_maps_are_lost};
pub use names::Names;
pub use plan::{Plan, Pool, proxy_families};
pub use reader::{Mask, Shard, ShardIndex, Tokens};
pub use sample::{IGNORED_SEGMENT, Piece, Sample, SampleId};
pub use selection::Selection;

pub use writer::{ShardInfo, ShardSpec, ShardWriter};
