//! Numbers as text that brings back every bit, also of what is not finite. As JSON numbers they would
//! come back rounded, and infinity not at all.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// The text of a number.
///
/// # Errors
/// What the serializer refuses.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{value:?}"))
}

/// The number of a text.
///
/// # Errors
/// When it is none.
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
    /// What the serializer refuses.
    pub fn serialize<S: Serializer>(values: &VecDeque<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| format!("{value:?}")))
    }

    /// The numbers of the texts.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VecDeque<f64>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|text| super::parse(text)).collect()
    }
}
