//! One run: conversations in, completions into the cache.
//!
//! The calling thread decides everything: it takes conversations, looks into the cache, hands requests to the
//! runtime's threads, and takes their results from a channel. So no state is shared, and everything that a
//! result leads to happens in one place.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::task::AbortHandle;

use super::failure::{Failure, Verdict};
use super::wait::backoff;
use super::window::Window;
use super::{Client, Conversation, Progress, Step, Summary};
use crate::cache::{Cache, Poisoned};
use crate::completion::Completion;
use crate::error::{Error, Result};
use crate::request::{Key, Request};

/// Time between two checks of the stop flag and two calls of the observer.
const TICK: Duration = Duration::from_millis(200);
/// How long to wait for answers in flight when the user asks to stop.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// Minimum number of requests given up on in a row before the server is considered at fault.
const GIVEN_UP_IN_A_ROW: usize = 20;
/// Members of a body that are ours.
const RESERVED: [&str; 4] = ["model", "messages", "stream", "n"];

/// A request without an answer yet.
struct Question {
    body: Bytes,
    model: String,
    /// Conversations that wait for the answer.
    waiting: Vec<usize>,
    tries: u32,
    postponed: u32,
}

/// A request on its way.
struct InFlight {
    epoch: u64,
    task: AbortHandle,
}

type Outcome = (Key, std::result::Result<Completion, Failure>);

pub(crate) struct Run<'a, C, I> {
    client: &'a Client,
    cache: &'a mut Cache,
    stop: &'a AtomicBool,
    source: Option<I>,
    /// Conversations that wait for an answer; places of ended ones are used again.
    conversations: Vec<Option<C>>,
    free: Vec<usize>,
    questions: HashMap<Key, Question>,
    /// Requests to be sent as soon as the window allows.
    ready: VecDeque<Key>,
    /// Requests to be sent at a time.
    later: BinaryHeap<Reverse<(Instant, Key)>>,
    in_flight: HashMap<Key, InFlight>,
    window: Window,
    /// The server asked us not to send anything before this.
    pause_until: Option<Instant>,
    /// Given up since the last answer. Not written before another answer shows that the server works.
    given_up: Vec<Poisoned>,
    /// The last time that the server said anything, if it did.
    heard_at: Option<Instant>,
    progress: Progress,
    started: Instant,
    sender: Sender<Outcome>,
    receiver: Receiver<Outcome>,
}

impl<'a, C: Conversation, I: Iterator<Item = C>> Run<'a, C, I> {
    pub(crate) fn new(client: &'a Client, source: I, cache: &'a mut Cache, stop: &'a AtomicBool) -> Self {
        let (sender, receiver) = channel();
        Run {
            client,
            cache,
            stop,
            source: Some(source),
            conversations: Vec::new(),
            free: Vec::new(),
            questions: HashMap::new(),
            ready: VecDeque::new(),
            later: BinaryHeap::new(),
            in_flight: HashMap::new(),
            window: Window::new(client.config.concurrency, client.config.max_concurrency),
            pause_until: None,
            given_up: Vec::new(),
            heard_at: None,
            progress: Progress::default(),
            started: Instant::now(),
            sender,
            receiver,
        }
    }

    pub(crate) fn finish(mut self, observe: &mut dyn FnMut(&Progress)) -> Result<Summary> {
        let result = self.work(observe);
        for (_, request) in self.in_flight.drain() {
            request.task.abort();
        }
        self.report(observe);
        // The first error is the one to report.
        let flushed = self.cache.flush();
        result.and(flushed).map(|()| self.progress)
    }

    fn work(&mut self, observe: &mut dyn FnMut(&Progress)) -> Result<()> {
        let mut reported = Instant::now();
        let mut stop_by = None;
        loop {
            let stopping = self.stop.load(Ordering::Relaxed);
            if stopping && Instant::now() > *stop_by.get_or_insert_with(|| Instant::now() + STOP_GRACE) {
                return Err(Error::Interrupted);
            }
            if !stopping {
                self.fill()?;
            }
            if self.in_flight.is_empty() && (stopping || self.questions.is_empty() && self.source.is_none()) {
                return if stopping { Err(Error::Interrupted) } else { self.judge_given_up(true) };
            }
            // After `fill`: between an answer and the next request nothing may be in flight.
            if reported.elapsed() >= TICK {
                self.report(observe);
                reported = Instant::now();
            }
            match self.receiver.recv_timeout(self.until_next(stopping)) {
                Ok(outcome) => {
                    self.take(outcome)?;
                    // Handle what has arrived before making new requests.
                    while let Ok(outcome) = self.receiver.try_recv() {
                        self.take(outcome)?;
                    }
                }
                // `Disconnected` cannot happen: we hold a sender.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.cache.flush_if_due()?;
        }
    }

    fn report(&mut self, observe: &mut dyn FnMut(&Progress)) {
        self.progress.in_flight = self.in_flight.len() as u64;
        self.progress.window = self.window.size() as u64;
        self.progress.seconds = self.started.elapsed().as_secs_f64();
        observe(&self.progress);
    }

    /// Time until something must be done without an answer.
    fn until_next(&self, stopping: bool) -> Duration {
        let now = Instant::now();
        let due = self.later.peek().map(|Reverse((at, _))| *at).filter(|_| !stopping);
        let due = due.map(|at| self.pause_until.map_or(at, |until| until.max(at)));
        let has_room = self.in_flight.len() < self.window.size();
        // With room and something to read the loop continues at once, to read the next conversations.
        let more =
            self.source.is_some() && has_room && self.may_take() && !stopping && self.pause(now).is_none();
        match more {
            true => Duration::ZERO,
            false => due.map_or(TICK, |at| at.saturating_duration_since(now).min(TICK)),
        }
    }

    fn pause(&self, now: Instant) -> Option<Instant> {
        self.pause_until.filter(|&until| until > now)
    }

    /// Whether another conversation may begin: those that wait for a second try must not grow without bound.
    fn may_take(&self) -> bool {
        let active = self.conversations.len() - self.free.len();
        self.ready.is_empty() && active < 64.max(4 * self.client.config.max_concurrency as usize)
    }

    /// Sends what may be sent, and takes new conversations while there is room.
    fn fill(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(Reverse((at, key))) = self.later.peek().copied() {
            if at > now {
                break;
            }
            self.later.pop();
            self.ready.push_back(key);
        }
        // Conversations that the cache answers take no room; after some of them the channel gets its turn.
        for _ in 0..256 {
            if self.in_flight.len() >= self.window.size() || self.pause(now).is_some() {
                return Ok(());
            }
            if let Some(key) = self.ready.pop_front() {
                self.send(key);
                continue;
            }
            if !self.may_take() {
                return Ok(());
            }
            let Some(conversation) = self.source.as_mut().and_then(Iterator::next) else {
                self.source = None;
                return Ok(());
            };
            let id = self.free.pop().unwrap_or_else(|| {
                self.conversations.push(None);
                self.conversations.len() - 1
            });
            self.conversations[id] = Some(conversation);
            self.advance(id, None)?;
        }
        Ok(())
    }

    fn send(&mut self, key: Key) {
        let Some(question) = self.questions.get(&key) else { return };
        let (http, body, sender) = (self.client.http.clone(), question.body.clone(), self.sender.clone());
        let task = self.client.runtime.spawn(async move {
            // Nobody is listening once the run has ended.
            sender.send((key, http.ask(body).await)).ok();
        });
        if question.tries + question.postponed > 0 {
            self.progress.resent += 1;
        }
        let request = InFlight { epoch: self.window.epoch(), task: task.abort_handle() };
        self.in_flight.insert(key, request);
    }

    /// Lets a conversation continue until it waits or ends.
    fn advance(&mut self, id: usize, answer: Option<&Completion>) -> Result<()> {
        let Some(mut conversation) = self.conversations[id].take() else { return Ok(()) };
        let mut step = conversation.next(answer);
        loop {
            let Step::Ask(request) = step else {
                self.progress.conversations_done += 1;
                self.free.push(id);
                return Ok(());
            };
            check(&request)?;
            let key = request.key();
            if let Some(completion) = self.cache.get(&key)? {
                self.progress.cached += 1;
                step = conversation.next(Some(&completion));
                continue;
            }
            if let Some(question) = self.questions.get_mut(&key) {
                self.progress.shared += 1;
                question.waiting.push(id);
            } else {
                let poisoned = self.cache.poisoned(&key).filter(|_| !self.client.config.retry_poisoned);
                let reason = poisoned.or_else(|| self.given_up.iter().find(|poisoned| poisoned.key == key));
                if let Some(poisoned) = reason {
                    conversation.failed(&Failure::Poisoned(poisoned.reason.clone()));
                    self.progress.poisoned += 1;
                    self.progress.conversations_failed += 1;
                    self.free.push(id);
                    return Ok(());
                }
                let body = Bytes::from(request.body());
                let question =
                    Question { body, model: request.model, waiting: vec![id], tries: 0, postponed: 0 };
                self.questions.insert(key, question);
                self.ready.push_back(key);
            }
            self.conversations[id] = Some(conversation);
            return Ok(());
        }
    }

    fn take(&mut self, (key, outcome): Outcome) -> Result<()> {
        let full = self.in_flight.len() >= self.window.size();
        let epoch = self.in_flight.remove(&key).map_or(0, |request| request.epoch);
        match outcome {
            Ok(completion) => {
                self.heard_at = Some(Instant::now());
                if full {
                    self.window.answer();
                }
                self.answer(key, &completion)
            }
            Err(failure) => {
                if failure.is_overload() {
                    self.window.complaint(epoch);
                }
                self.fail(key, failure)
            }
        }
    }

    fn answer(&mut self, key: Key, completion: &Completion) -> Result<()> {
        self.cache.append(&key, completion)?;
        self.progress.answered += 1;
        self.progress.prompt_tokens += completion.usage.prompt_tokens;
        self.progress.completion_tokens += completion.usage.completion_tokens;
        // The server works, so what was given up before was at fault itself.
        for poisoned in std::mem::take(&mut self.given_up) {
            self.cache.poison(poisoned)?;
        }
        self.progress.unfinished +=
            u64::from(completion.finish_reason != "stop" || completion.text.trim().is_empty());
        let Some(question) = self.questions.remove(&key) else { return Ok(()) };
        let is_other = !completion.model.is_empty() && completion.model != question.model;
        self.progress.other_model += u64::from(is_other);
        let waiting = question.waiting;
        waiting.into_iter().try_for_each(|id| self.advance(id, Some(completion)))
    }

    fn fail(&mut self, key: Key, failure: Failure) -> Result<()> {
        let config = &self.client.config;
        let now = Instant::now();
        match (&failure, self.heard_at) {
            (Failure::Connect(message), None) => {
                let hint = match message.contains("certificate") {
                    true => "for your own server, name a file with its certificate in SSL_CERT_FILE",
                    false => "start the server, or give its address with --base-url",
                };
                let (url, message) = (self.client.http.url().to_owned(), message.clone());
                return Err(Error::Connect { url, message, hint });
            }
            (Failure::Connect(message), Some(heard_at)) => {
                let away = now.saturating_duration_since(heard_at);
                if away > config.patience {
                    return Err(
                        self.server(format!("unreachable for {:.0} s: {message}", away.as_secs_f64()))
                    );
                }
            }
            // A missed deadline does not mean that the server is gone.
            (Failure::Deadline(_), _) => {}
            _ => self.heard_at = Some(now),
        }
        let Some(question) = self.questions.get_mut(&key) else { return Ok(()) };
        match failure.verdict() {
            Verdict::Stop => return Err(self.unauthorized(&failure)),
            Verdict::GiveUp => {
                question.tries += 1;
                return self.give_up(key, &failure);
            }
            Verdict::TryAgain => {
                question.tries += 1;
                if question.tries >= config.max_tries {
                    return self.give_up(key, &failure);
                }
            }
            Verdict::Postpone => {
                question.postponed += 1;
                let counts = !matches!(failure, Failure::Connect(_));
                if counts && question.postponed > config.max_postponed {
                    return self.give_up(key, &failure);
                }
            }
        }
        let n = question.tries + question.postponed - 1;
        let mut wait = backoff(&key, n, config.backoff, config.max_backoff);
        if let Failure::Status { retry_after: Some(asked), .. } = failure {
            if asked > config.patience {
                let (asked, patience) = (asked.as_secs(), config.patience.as_secs());
                let what =
                    format!("asks for a wait of {asked} s, which is more than the limit of {patience} s");
                return Err(self.server(what));
            }
            // The others have to wait as well; the jitter then keeps them from coming back all at once.
            self.pause_until = self.pause_until.max(Some(now + asked));
            wait += asked;
        }
        self.later.push(Reverse((now + wait, key)));
        Ok(())
    }

    fn give_up(&mut self, key: Key, failure: &Failure) -> Result<()> {
        let Some(question) = self.questions.remove(&key) else { return Ok(()) };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let tries = question.tries + question.postponed;
        self.given_up.push(Poisoned { key, reason: failure.to_string(), tries, time });
        self.progress.given_up += 1;
        for id in question.waiting {
            if let Some(mut conversation) = self.conversations[id].take() {
                conversation.failed(failure);
                self.progress.conversations_failed += 1;
                self.free.push(id);
            }
        }
        self.judge_given_up(false)
    }

    /// Distinguishes a server that answers nothing from requests that cannot be answered.
    fn judge_given_up(&mut self, at_end: bool) -> Result<()> {
        let n = self.given_up.len();
        let too_many = n >= GIVEN_UP_IN_A_ROW.max(2 * self.window.size());
        let nothing_else = at_end && self.progress.answered == 0;
        if let Some(last) = self.given_up.last().filter(|_| too_many || nothing_else) {
            let what = format!("answered none of {n} requests in a row; the last: {}", last.reason);
            return Err(self.server(what));
        }
        if at_end {
            for poisoned in std::mem::take(&mut self.given_up) {
                self.cache.poison(poisoned)?;
            }
        }
        Ok(())
    }

    fn server(&self, message: String) -> Error {
        Error::Server { url: self.client.http.url().to_owned(), message }
    }

    fn unauthorized(&self, failure: &Failure) -> Error {
        let (status, message) = match failure {
            Failure::Status { status, message, .. } => (*status, message.clone()),
            other => (0, other.to_string()),
        };
        let hint = match self.client.http.key() {
            Some(key) => format!("the API key came from the environment variable `{}`", key.variable()),
            None => "put an API key into an environment variable and give its name with --api-key-env".into(),
        };
        Error::Unauthorized { url: self.client.http.url().to_owned(), status, message, hint }
    }
}

fn check(request: &Request) -> Result<()> {
    match RESERVED.iter().find(|name| request.extra.contains_key(**name)) {
        Some(name) => {
            Err(Error::Usage(format!("`{name}` is not allowed among the extra members of a request")))
        }
        None => Ok(()),
    }
}
