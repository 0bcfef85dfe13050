//! What can go wrong with one request, and what follows from it.

use std::fmt;
use std::time::Duration;

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect(String),
    /// No whole answer within the deadline.
    Deadline(Duration),
    /// The connection broke before the answer was whole.
    Broken(String),
    /// The server refused.
    Status {
        /// HTTP status.
        status: u16,
        /// The server's message, shortened.
        message: String,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is cut off.
    Malformed(String),
    /// The answer is complete, or never ends, and is not a completion: another one would be the same.
    Unusable(String),
    /// The request was given up in an earlier run, for this reason.
    Poisoned(String),
}

/// The consequence of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No request will be answered: the run stops.
    Stop,
    /// This request will never be answered.
    GiveUp,
    /// The request may be at fault: it is tried again a few times.
    TryAgain,
    /// The server is busy or unreachable, which says nothing about the request: it is tried again later.
    Postpone,
}

impl Failure {
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Failure::Status { status: 401 | 403, .. } => Verdict::Stop,
            Failure::Status { status: 429, .. } | Failure::Connect(_) => Verdict::Postpone,
            // A server that says when to come back is busy, not broken.
            Failure::Status { status: 503, retry_after: Some(_), .. } => Verdict::Postpone,
            Failure::Status { status: 408 | 409 | 500.., .. } => Verdict::TryAgain,
            Failure::Deadline(_) | Failure::Broken(_) | Failure::Malformed(_) => Verdict::TryAgain,
            Failure::Status { .. } | Failure::Unusable(_) | Failure::Poisoned(_) => Verdict::GiveUp,
        }
    }

    /// Whether fewer requests at a time might have helped.
    pub(crate) fn is_overload(&self) -> bool {
        match self {
            Failure::Status { status, .. } => *status == 429 || *status >= 500,
            Failure::Deadline(_) | Failure::Connect(_) => true,
            Failure::Broken(_) | Failure::Malformed(_) | Failure::Unusable(_) | Failure::Poisoned(_) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect(why) => write!(f, "cannot connect: {why}"),
            Failure::Deadline(after) => write!(f, "no complete answer within {} s", after.as_secs_f64()),
            Failure::Broken(why) => write!(f, "the connection broke: {why}"),
            Failure::Status { status, message, .. } => write!(f, "status {status}: {message}"),
            Failure::Malformed(why) | Failure::Unusable(why) => {
                write!(f, "the answer is not a completion: {why}")
            }
            Failure::Poisoned(why) => write!(f, "given up on in an earlier run: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_consequence() {
        let check = |status, retry_after, verdict, overload| {
            let failure = Failure::Status { status, message: String::new(), retry_after };
            assert_eq!((failure.verdict(), failure.is_overload()), (verdict, overload), "{status}");
        };
        let wait = Some(Duration::from_secs(1));
        check(400, None, Verdict::GiveUp, false);
        check(401, None, Verdict::Stop, false);
        check(403, None, Verdict::Stop, false);
        check(404, None, Verdict::GiveUp, false);
        check(408, None, Verdict::TryAgain, false);
        check(409, None, Verdict::TryAgain, false);
        check(422, None, Verdict::GiveUp, false);
        check(429, None, Verdict::Postpone, true);
        check(429, wait, Verdict::Postpone, true);
        check(500, None, Verdict::TryAgain, true);
        check(503, None, Verdict::TryAgain, true);
        check(503, wait, Verdict::Postpone, true);
        check(307, None, Verdict::GiveUp, false);
    }
}
