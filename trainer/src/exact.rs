//! Numbers as text that preserves every bit, also of infinities and NaN. JSON numbers would come back
//! rounded, and infinity not at all.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Number to text.
///
/// # Errors
/// If the serializer fails.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{value:?}"))
}

/// Text to number.
///
/// # Errors
/// If it is not a number.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    parse(&String::deserialize(deserializer)?)
}

fn parse<E: Error>(text: &str) -> Result<f64, E> {
    text.parse().map_err(|_| E::custom(format!("expected a number, found {text:?}")))
}

/// The same for a queue of numbers.
pub mod queue {
    use std::collections::VecDeque;

    use serde::{Deserialize, Deserializer, Serializer};

    /// The texts of the numbers.
    ///
    /// # Errors
    /// If the serializer fails.
    pub fn serialize<S: Serializer>(values: &VecDeque<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| format!("{value:?}")))
    }

    /// The numbers of the texts.
    ///
    /// # Errors
    /// If one of them is not a number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VecDeque<f64>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|text| super::parse(text)).collect()
    }
}
