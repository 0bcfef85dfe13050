//! Values of configuration keys, their types and ranges.

use std::borrow::Cow;
use std::fmt;

use moe_cli::nearest::near;

use crate::device::DeviceChoice;

/// A value of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A Boolean.
    Bool(bool),
    /// A word.
    Text(Cow<'static, str>),
    /// Words.
    Words(Vec<String>),
}

impl Value {
    /// The value of a TOML value; none for a mixed list, a table or a date.
    pub fn of_toml(value: &toml::Value) -> Option<Self> {
        match value {
            toml::Value::Integer(n) => Some(Self::Int(*n)),
            toml::Value::Float(x) => Some(Self::Float(*x)),
            toml::Value::Boolean(b) => Some(Self::Bool(*b)),
            toml::Value::String(text) => Some(Self::Text(text.clone().into())),
            toml::Value::Array(values) if values.iter().all(toml::Value::is_str) => {
                Some(Self::Words(values.iter().filter_map(|word| Some(word.as_str()?.to_string())).collect()))
            }
            toml::Value::Array(_) | toml::Value::Table(_) | toml::Value::Datetime(_) => None,
        }
    }
}

impl From<Value> for toml::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Int(n) => Self::Integer(n),
            Value::Float(x) => Self::Float(x),
            Value::Bool(b) => Self::Boolean(b),
            Value::Text(text) => Self::String(text.into_owned()),
            Value::Words(words) => Self::Array(words.into_iter().map(Self::String).collect()),
        }
    }
}

/// Type and range of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A whole number from `min` to `max`.
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A finite number from `min` to `max`.
    Float {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// true or false.
    Bool,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A list of such words, at least one.
    Words(&'static [&'static str]),
    /// A list of texts, at least one, such as this; checked by the code that reads them.
    Texts(&'static str),
    /// The same or an empty list, which turns off what the key turns on.
    TextsOrNone(&'static str),
    /// The name of a device.
    Device,
    /// A folder.
    Path,
}

impl Kind {
    /// The value, with whole numbers converted to numbers where those are expected.
    ///
    /// # Errors
    /// What was expected, when type or range do not fit.
    pub fn check(&self, value: &Value) -> Result<Value, String> {
        let expected = || Err(format!("expected {self}, found {value}"));
        match (self, value) {
            (Self::Int { min, max }, Value::Int(n)) if (min..=max).contains(&n) => Ok(value.clone()),
            (Self::Float { min, max }, Value::Float(x)) if (min..=max).contains(&x) => Ok(value.clone()),
            (Self::Float { .. }, Value::Int(n)) => self.check(&Value::Float(*n as f64)),
            (Self::Bool, Value::Bool(_)) | (Self::Path, Value::Text(_)) => Ok(value.clone()),
            (Self::Choice(words), Value::Text(word)) => match words.contains(&word.as_ref()) {
                true => Ok(value.clone()),
                false => match near(word, words) {
                    Some(near) => Err(format!("expected {self}, found {value}; did you mean \"{near}\"?")),
                    None => expected(),
                },
            },
            (Self::Words(of), Value::Words(words)) if !words.is_empty() => {
                let check = |word: &String| Self::Choice(of).check(&Value::Text(word.clone().into()));
                words.iter().try_for_each(|word| check(word).map(|_| ()))?;
                Ok(value.clone())
            }
            (Self::Texts(_), Value::Words(texts)) if !texts.is_empty() => Ok(value.clone()),
            (Self::TextsOrNone(_), Value::Words(_)) => Ok(value.clone()),
            (Self::Device, Value::Text(name)) => name.parse::<DeviceChoice>().map(|_| value.clone()),
            _ => expected(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int { min, max } if *max == i64::MAX => write!(f, "a whole number of at least {min}"),
            Self::Int { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Float { min, max } => write!(f, "a number from {min:?} to {max:?}"),
            Self::Bool => f.write_str("true or false"),
            Self::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                f.write_str(&words.join(" or "))
            }
            Self::Words(words) => write!(f, "a list of words, each {}", Self::Choice(words)),
            Self::Texts(such) => write!(f, "a list such as {such}"),
            Self::TextsOrNone(such) => write!(f, "a list such as {such}, or [] for none"),
            Self::Path => f.write_str("a folder"),
            Self::Device => f.write_str("\"auto\", \"cpu\", \"cuda\" or \"cuda:N\""),
        }
    }
}

impl fmt::Display for Value {
    /// As in TOML; a number has enough digits to read back exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => write!(f, "{n}"),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Words(words) => write!(f, "{words:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_types() {
        let kind = Kind::Float { min: 0.0, max: 1.0 };
        assert_eq!(kind.check(&Value::Int(1)), Ok(Value::Float(1.0)));
        assert!(kind.check(&Value::Float(f64::NAN)).is_err());
        assert!(Kind::Int { min: 1, max: 2 }.check(&Value::Float(1.0)).is_err());
        let error = Kind::Choice(&["softmax", "sigmoid"]).check(&Value::Text("softmx".into()));
        assert!(error.is_err_and(|e| e.contains("did you mean \"softmax\"?")));
        let words = |words: &[&str]| Value::Words(words.iter().map(|word| word.to_string()).collect());
        let kind = Kind::Words(&["swa", "full"]);
        assert_eq!(kind.check(&words(&["swa", "full", "swa"])), Ok(words(&["swa", "full", "swa"])));
        assert!(kind.check(&words(&[])).is_err() && kind.check(&words(&["swa", "ful"])).is_err());
        let is_taken = |kind: Kind| kind.check(&words(&[])).is_ok();
        assert!(is_taken(Kind::TextsOrNone("[\"a\"]")) && !is_taken(Kind::Texts("[\"a\"]")));
        assert_eq!(words(&["swa", "full"]).to_string(), "[\"swa\", \"full\"]");
    }
}
