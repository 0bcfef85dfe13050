//! What `moe-data` and `moe-train` must agree on: the shard format, the plan, and the function
//! that turns a sample number into tokens.
//!
//! ```text
//! documents --ShardWriter--> name.bin + name.mdx --Manifest--> MANIFEST.json
//!                                                      |
//!                            plan.lock (moe-data mix) --+--> Plan::sample(t) -> Sample
//! ```
//!
//! Nothing here prints, spawns threads or keeps state between calls: [`Plan::sample`] is a pure
//! function of the plan and `t`, and that is what makes training resumable from one integer.
//! Byte layouts are specified in `docs/shard-format.md` and `docs/plan-format.md`.
//!
//! # Example
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
mod hash;
mod ids;
mod mmap;

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

pub use error::{Error, Result};
pub use family::FamilyTable;
pub use format::{DocumentMeta, FORMAT_VERSION};
pub use hash::Hash;
pub use ids::{FamilyId, TokenId, TokenWidth};
pub use lock::{
    ContinuesLock, ExtendsLock, PLAN_VERSION, PackRef, Packing, PassLock, PhaseLock, PlanLock, PoolLock,
    ShardRef, TakedownLock, TakedownShard, ValidationLock,
};
pub use manifest::{Manifest, SourceInfo, TokenizerInfo};
pub use names::Names;
pub use plan::{Plan, Pool, proxy_families};
pub use reader::{Shard, ShardIndex, Tokens};
pub use sample::{IGNORED_SEGMENT, Piece, Sample, SampleId};
pub use selection::Selection;

pub use writer::{ShardInfo, ShardSpec, ShardWriter};
