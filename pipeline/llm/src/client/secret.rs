//! The API key, which appears only in the header of a request.

use std::fmt;

use reqwest::header::HeaderValue;

use crate::error::{Error, Result};

/// An API key from an environment variable.
#[derive(Clone)]
pub(crate) struct ApiKey {
    variable: String,
    value: String,
}

impl ApiKey {
    /// Reads the variable.
    ///
    /// # Errors
    /// It is not set, empty, or has bytes that a header cannot contain.
    pub(crate) fn from_env(variable: &str) -> Result<ApiKey> {
        let value = std::env::var(variable).map_err(|_| {
            Error::Usage(format!(
                "the environment variable `{variable}` is not set; it must contain the API key"
            ))
        })?;
        ApiKey::new(variable, value.trim())
    }

    fn new(variable: &str, value: &str) -> Result<ApiKey> {
        let key = ApiKey { variable: variable.to_owned(), value: value.to_owned() };
        match !value.is_empty() && HeaderValue::from_str(value).is_ok() {
            true => Ok(key),
            false => Err(Error::Usage(format!(
                "the environment variable `{variable}` does not contain an API key"
            ))),
        }
    }

    /// Name of the variable.
    pub(crate) fn variable(&self) -> &str {
        &self.variable
    }

    /// `Bearer KEY`, marked so that no library prints it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", self.value)).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// Whether bytes from a server contain the key.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        bytes.windows(self.value.len()).any(|window| window == self.value.as_bytes())
    }

    /// A text without the key.
    pub(crate) fn removed_from(&self, text: &str) -> String {
        text.replace(&self.value, "[API key]")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey(from {})", self.variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_the_key() {
        let key = ApiKey::new("NAME", "sk-secret").unwrap();
        let shown = format!("{key:?} {:?}", key.header().unwrap());
        assert!(!shown.contains("secret") && shown.contains("NAME"), "{shown}");
        assert_eq!(key.removed_from("bad key sk-secret!"), "bad key [API key]!");
        assert!(key.is_in(b"xxsk-secretx") && !key.is_in(b"sk-secre"));
    }

    #[test]
    fn a_variable_that_is_missing_or_unusable_is_named() {
        for error in [ApiKey::from_env("MOE_LLM_NOT_SET"), ApiKey::new("N", ""), ApiKey::new("N", "a\nb")] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("environment variable") && !error.contains("a\nb"), "{error}");
        }
    }
}
