//! One request over HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use url::Url;

use super::failure::Failure;
use super::secret::ApiKey;
use super::wait;
use crate::completion::{Completion, Unreadable, error_message};
use crate::error::{Error, Result};

/// Longest answer that is read; models write far less.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Where requests go, and how.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    url: Url,
    key: Option<ApiKey>,
    deadline: Duration,
}

impl Http {
    pub(crate) fn new(base_url: &str, key: Option<ApiKey>, deadline: Duration, max: u32) -> Result<Http> {
        let url = chat_url(base_url)?;
        // Fails if another provider is already installed, which is fine.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("moe-data/", env!("CARGO_PKG_VERSION"))));
        if let Some(header) = key.as_ref().and_then(ApiKey::header) {
            headers.insert(AUTHORIZATION, header);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(10).min(deadline))
            .timeout(deadline)
            .pool_max_idle_per_host(max as usize)
            // The key goes to the address that was given, and nowhere else.
            .redirect(reqwest::redirect::Policy::none());
        if url.scheme() == "http" {
            // The system's certificates are not needed here, and a small container may have none.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|e| {
            let hint = "hint: for https install the system's certificates (package ca-certificates), or name a file of them in SSL_CERT_FILE";
            Error::Usage(format!("cannot set up the HTTP client: {}\n  {hint}", causes(&e)))
        })?;
        Ok(Http { client, url, key, deadline })
    }

    /// Where requests go; has no secrets.
    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }

    pub(crate) fn key(&self) -> Option<&ApiKey> {
        self.key.as_ref()
    }

    /// Sends one request and reads the answer.
    pub(crate) async fn ask(&self, body: Bytes) -> std::result::Result<Completion, Failure> {
        let failure = |e: reqwest::Error| self.failure(e);
        let mut response = self.client.post(self.url.clone()).body(body).send().await.map_err(failure)?;
        let status = response.status();
        let now = SystemTime::now();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| wait::retry_after(value, now));
        let mut answer = BytesMut::new();
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                // It began, and would be just as slow the next time.
                Err(e) if e.is_timeout() && !answer.is_empty() => {
                    let (seconds, n) = (self.deadline.as_secs_f64(), answer.len());
                    return Err(Failure::Unusable(format!("no end within {seconds} s, after {n} bytes")));
                }
                Err(e) => return Err(failure(e)),
            };
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Failure::Unusable(format!("longer than {MAX_ANSWER_BYTES} bytes")));
            }
            answer.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let message = self.words(&answer, status.canonical_reason().unwrap_or("no reason given"));
            return Err(Failure::Status { status: status.as_u16(), message, retry_after });
        }
        if self.key.as_ref().is_some_and(|key| key.is_in(&answer)) {
            return Err(Failure::Malformed("it repeats the API key".into()));
        }
        let time = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Completion::from_body(&answer, time).map_err(|unreadable| match unreadable {
            Unreadable::Malformed(message) => Failure::Malformed(self.clean(&message)),
            Unreadable::Unusable(message) => Failure::Unusable(self.clean(&message)),
            Unreadable::Error { status, message } => {
                let status = status.filter(|status| (400..600).contains(status)).unwrap_or(502);
                Failure::Status { status, message: self.clean(&message), retry_after }
            }
        })
    }

    /// What a server says about an error.
    fn words(&self, answer: &[u8], otherwise: &str) -> String {
        let words = match serde_json::from_slice(answer) {
            Ok(value) => error_message(&value),
            Err(_) => String::from_utf8_lossy(&answer[..answer.len().min(64 << 10)]).trim().to_owned(),
        };
        self.clean(if words.is_empty() { otherwise } else { &words })
    }

    /// Without the key, on one line, at most 300 characters: shortened last, so that no part of the key
    /// stays.
    fn clean(&self, words: &str) -> String {
        let words = self.key.as_ref().map_or(words.to_owned(), |key| key.removed_from(words));
        words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
    }

    fn failure(&self, error: reqwest::Error) -> Failure {
        let (is_connect, is_timeout) = (error.is_connect(), error.is_timeout());
        let why = self.clean(&causes(&error.without_url()));
        match (is_connect, is_timeout) {
            (true, _) => Failure::Connect(why),
            (false, true) => Failure::Deadline(self.deadline),
            (false, false) => Failure::Broken(why),
        }
    }
}

/// `BASE/chat/completions`.
fn chat_url(base: &str) -> Result<Url> {
    let wrong = |what: &str| {
        Error::Usage(format!("base URL `{base}`: {what}; expected something like http://127.0.0.1:8000/v1"))
    };
    let mut url = Url::parse(base).map_err(|e| wrong(&e.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        // The message must not repeat it.
        let message = "the base URL contains a password; put the API key into an environment variable and give its name";
        return Err(Error::Usage(message.into()));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("it must begin with http:// or https:// and name a host"));
    }
    if url.path().ends_with("/chat/completions") {
        return Err(wrong("leave out `/chat/completions`, which is added"));
    }
    let mut path = url.path_segments_mut().map_err(|()| wrong("it has no path"))?;
    path.pop_if_empty().push("chat").push("completions");
    drop(path);
    Ok(url)
}

/// An error with its causes, which say what happened; reqwest's own message only says when.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_joined_with_or_without_a_slash() {
        for base in ["http://h:1/v1", "http://h:1/v1/"] {
            assert_eq!(chat_url(base).unwrap().as_str(), "http://h:1/v1/chat/completions");
        }
        assert_eq!(chat_url("https://h").unwrap().as_str(), "https://h/chat/completions");
        assert_eq!(chat_url("https://h/v1?v=2").unwrap().as_str(), "https://h/v1/chat/completions?v=2");
    }

    #[test]
    fn wrong_addresses_are_refused_without_repeating_passwords() {
        for base in ["", "h:1", "127.0.0.1:8000/v1", "ftp://h/v1", "http://h/v1/chat/completions"] {
            assert!(chat_url(base).unwrap_err().to_string().contains("expected something like"), "{base}");
        }
        let error = chat_url("http://me:secret@h/v1").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
