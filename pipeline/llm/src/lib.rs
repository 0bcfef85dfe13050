//! A client for OpenAI-compatible servers, and a cache of their completions, so that no request is sent
//! twice.
//!
//! ```text
//! conversations --Request--> Cache --miss--> Client --HTTP--> server
//!       ^                      |                 |
//!       +------ Completion ----+<----append------+
//! ```
//!
//! A server is slow, costs money and is not bit-for-bit reproducible; the cache is fast, free and
//! reproducible. So a data set is made from the cache, and the client only fills it: it knows nothing about
//! documents, about what a completion is for, or about whether it is any good. [`Client::run`] takes
//! [`Conversation`]s, answers what the cache knows and asks for the rest, many at a time. The set of
//! completions in the cache when it is finished does not depend on the order of answers, on interruptions, or
//! on how many requests were in flight. [`batch`] does the same through files.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use moe_llm::{Cache, Client, ClientConfig, Completion, Conversation, Message, Request, Step};
//!
//! /// One question, one answer.
//! struct Ask(Option<Request>);
//!
//! impl Conversation for Ask {
//!     fn next(&mut self, previous: Option<&Completion>) -> Step {
//!         if let Some(completion) = previous {
//!             println!("{}", completion.text);
//!         }
//!         self.0.take().map_or(Step::Done, Step::Ask)
//!     }
//! }
//!
//! let mut cache = Cache::open("out/rephrase/cache".as_ref())?;
//! let client = Client::new(ClientConfig::new("http://127.0.0.1:8000/v1"))?;
//! let request = Request::new("SmolLM2-1.7B-Instruct", vec![Message::user("Say hello.")]);
//! let summary = client.run([Ask(Some(request))], &mut cache, &mut |_| (), &AtomicBool::new(false))?;
//! println!("{} answered", summary.answered);
//! # Ok::<(), moe_llm::Error>(())
//! ```

// From the bottom up.
mod error;
mod json;

mod completion;
mod request;

mod cache;

mod client;

pub mod batch;

pub use cache::{Cache, CacheOptions, Opened, Poisoned, SetDigest, Taken, Verified};
pub use client::{Client, ClientConfig, Conversation, Failure, Progress, Step, Summary};
pub use completion::{Completion, MAX_TEXT_BYTES, TOO_LONG, Usage};
pub use error::{Error, Result};
pub use request::{Key, Message, Request, Role, Sampling};
