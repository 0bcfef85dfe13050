//! Sends a server the requests that the cache cannot answer.

mod failure;
mod http;
mod run;
mod secret;
mod wait;
mod window;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

pub use self::failure::Failure;
pub(crate) use self::failure::Verdict;
use self::http::Http;
use self::secret::ApiKey;
use crate::cache::Cache;
use crate::completion::Completion;
use crate::error::{Error, Result};
use crate::request::Request;

/// Requests that depend on each other's answers. They are asked one after another; different conversations
/// are independent and continue in parallel.
///
/// A conversation must be a function of the answers: its next request may depend only on itself and on
/// earlier answers. Then the set of its requests is the same in every run.
pub trait Conversation {
    /// What comes next. `previous` is the answer to the request that was asked last, `None` at the beginning.
    fn next(&mut self, previous: Option<&Completion>) -> Step;

    /// The request that was asked last was given up, and the conversation ends.
    fn failed(&mut self, _why: &Failure) {}
}

impl<C: Conversation + ?Sized> Conversation for Box<C> {
    fn next(&mut self, previous: Option<&Completion>) -> Step {
        (**self).next(previous)
    }

    fn failed(&mut self, why: &Failure) {
        (**self).failed(why);
    }
}

/// What a conversation does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It sends a request.
    Ask(Request),
    /// It has all its answers.
    Done,
}

/// How to talk to a server. None of this affects what is asked, so it may change between runs.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Address up to and without `/chat/completions`, such as `http://127.0.0.1:8000/v1`.
    pub base_url: String,
    /// Name of the environment variable with the API key; `None` for servers that need none.
    pub api_key_env: Option<String>,
    /// Initial number of requests in flight.
    pub concurrency: u32,
    /// Maximum number of requests in flight.
    pub max_concurrency: u32,
    /// Time for one request, from sending it to the last byte of its answer.
    pub deadline: Duration,
    /// How often a request is sent before it is given up, not counting the times when the server was busy or
    /// unreachable.
    pub max_tries: u32,
    /// How often a request is sent again because the server was busy (429, 503 with Retry-After).
    pub max_postponed: u32,
    /// Backoff before the second try is drawn from zero to this; it doubles with each try.
    pub backoff: Duration,
    /// Maximum backoff.
    pub max_backoff: Duration,
    /// How long to wait for a server that has become unreachable, or that asks to come back later, before the
    /// run stops.
    pub patience: Duration,
    /// Sends the requests on the poison list again.
    pub retry_poisoned: bool,
}

impl ClientConfig {
    /// The defaults for your own server.
    pub fn new(base_url: impl Into<String>) -> ClientConfig {
        ClientConfig {
            base_url: base_url.into(),
            api_key_env: None,
            concurrency: 8,
            max_concurrency: 256,
            deadline: Duration::from_secs(600),
            max_tries: 5,
            max_postponed: 50,
            backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(60),
            patience: Duration::from_secs(600),
            retry_poisoned: false,
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Conversations that have all their answers.
    pub conversations_done: u64,
    /// Conversations that ended because a request was given up.
    pub conversations_failed: u64,
    /// Requests answered by the cache.
    pub cached: u64,
    /// Requests answered by the server.
    pub answered: u64,
    /// Of these, answers that the model did not end by itself: cut off, refused, without text, too long.
    pub unfinished: u64,
    /// Of these, answers that name another model than the request.
    pub other_model: u64,
    /// Requests that were equal to one in flight and got its answer.
    pub shared: u64,
    /// Requests that were given up in this run.
    pub given_up: u64,
    /// Requests that were given up in an earlier run and not asked again.
    pub poisoned: u64,
    /// Times that a request was sent again.
    pub resent: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests that may be in flight.
    pub window: u64,
    /// Tokens of requests answered by the server, as it counts them.
    pub prompt_tokens: u64,
    /// Tokens of answers from the server, as it counts them.
    pub completion_tokens: u64,
    /// Seconds since the run began.
    pub seconds: f64,
}

impl Progress {
    /// Answer tokens per second, over the whole run.
    pub fn tokens_per_second(&self) -> f64 {
        self.completion_tokens as f64 / self.seconds.max(1e-3)
    }
}

/// The result of a finished run: its last progress, with nothing in flight.
pub type Summary = Progress;

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    http: Http,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Sets up a client; nothing is sent yet.
    ///
    /// # Errors
    /// The address or a setting cannot be used, the variable of the API key is not set, or TLS is not
    /// available.
    pub fn new(config: ClientConfig) -> Result<Client> {
        let positive = [
            ("concurrency", config.concurrency),
            ("max_concurrency", config.max_concurrency),
            ("max_tries", config.max_tries),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::Usage(format!("`{name}` is 0, expected at least 1")));
        }
        if config.concurrency > config.max_concurrency {
            let (start, max) = (config.concurrency, config.max_concurrency);
            return Err(Error::Usage(format!(
                "`concurrency` is {start}, more than `max_concurrency`, {max}"
            )));
        }
        let key = config.api_key_env.as_deref().map(ApiKey::from_env).transpose()?;
        let http = Http::new(&config.base_url, key, config.deadline, config.max_concurrency)?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_name("moe-llm").enable_all().build();
        let runtime = runtime.map_err(|e| Error::Usage(format!("cannot start threads for requests: {e}")))?;
        Ok(Client { config, http, runtime })
    }

    /// Runs conversations to their ends. Answers come from the cache if it has them; the others are asked
    /// for, appended to the cache, and flushed when the run ends, however it ends. `observe` is called about
    /// five times a second and once at the end. When `stop` is set, no new requests are sent, and those in
    /// flight are waited for half a second.
    ///
    /// Conversations are taken from the iterator as the server has room for them, so it may be long.
    ///
    /// # Errors
    /// - [`Error::Connect`]: the address could not be reached at the start.
    /// - [`Error::Unauthorized`]: the server answered 401 or 403.
    /// - [`Error::Server`]: the server answered none of many requests in a row, or was unreachable for longer than
    ///   [`ClientConfig::patience`].
    /// - [`Error::Interrupted`]: `stop` was set.
    /// - [`Error::Usage`]: a request has an `extra` member that this client decides (`model`, `messages`, `stream`, `n`).
    /// - The cache cannot be read or written.
    pub fn run<C: Conversation>(
        &self,
        conversations: impl IntoIterator<Item = C>,
        cache: &mut Cache,
        observe: &mut dyn FnMut(&Progress),
        stop: &AtomicBool,
    ) -> Result<Summary> {
        run::Run::new(self, conversations.into_iter(), cache, stop).finish(observe)
    }
}
