//! Filters decide whether a document is kept. A filter is one file here and one line of
//! [`REGISTRY`]: its settings are a serde struct whose defaults are its known keys, so the recipe
//! reader, the error messages and the lock file know it without further code.

mod gopher_quality;
mod length;
pub mod text;

use serde_json::{Map, Value};

pub use self::text::Text;
use crate::strict_toml::{Fault, Section};

/// Settings of a filter, by key.
pub type Settings = Map<String, Value>;

/// All filters, by name.
pub const REGISTRY: &[Entry] = &[
    Entry::of::<length::Length>("length", "characters per document"),
    Entry::of::<gopher_quality::GopherQuality>("gopher_quality", "document statistics of the Gopher paper"),
];

/// A rule about one document.
pub trait Filter: Send + Sync {
    /// The first reason to drop the document, or `None` to keep it.
    fn judge(&self, text: &Text<'_>) -> Option<Rejection>;

    /// All that the filter measures, in the order in which it decides: the first value that misses its threshold is
    /// the one that [`Filter::judge`] names.
    fn measure(&self, text: &Text<'_>) -> Vec<Measured>;
}

/// Why a document is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rejection {
    /// Name in the ledger and the audit.
    pub reason: &'static str,
    /// What was measured.
    pub measured: f64,
    /// The limit that it missed.
    pub threshold: f64,
}

/// One value beside its threshold.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Measured {
    /// Name of the reason to drop a document that misses the threshold.
    pub reason: &'static str,
    /// The value.
    pub measured: f64,
    /// The limit.
    pub threshold: f64,
    /// Whether the threshold is the least value that passes, or else the greatest.
    pub is_least: bool,
}

impl Measured {
    /// Whether the value is within the limit.
    pub fn passes(&self) -> bool {
        if self.is_least { self.measured >= self.threshold } else { self.measured <= self.threshold }
    }

    /// Why the document is dropped, if it is.
    pub fn rejection(&self) -> Option<Rejection> {
        let Measured { reason, measured, threshold, .. } = *self;
        (!self.passes()).then_some(Rejection { reason, measured, threshold })
    }
}

/// A filter, or what is wrong with its settings.
pub type Built = Result<Box<dyn Filter>, String>;

/// A line of the registry.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Name in recipes.
    pub name: &'static str,
    /// A few words on what it looks at.
    pub summary: &'static str,
    /// Settings with their defaults.
    pub defaults: fn() -> Settings,
    /// Whether settings have the right types.
    pub accepts: fn(&Value) -> Result<(), String>,
    /// What is wrong with the ranges of well-typed settings.
    pub check: fn(&Settings) -> Vec<Fault>,
    /// The filter itself.
    pub build: fn(&Settings) -> Built,
}

impl Entry {
    const fn of<T: Filter + Section + 'static>(name: &'static str, summary: &'static str) -> Entry {
        Entry {
            name,
            summary,
            defaults: defaults::<T>,
            accepts: accepts::<T>,
            check: check::<T>,
            build: build::<T>,
        }
    }
}

/// Finds a filter in the registry and builds it.
///
/// # Errors
/// An unknown name or settings of the wrong type; a decoded recipe has neither.
pub fn build_named(name: &str, settings: &Settings) -> Built {
    let entry = REGISTRY.iter().find(|entry| entry.name == name);
    entry.map_or_else(|| Err(format!("unknown filter `{name}`")), |entry| (entry.build)(settings))
}

fn decode<T: Section>(settings: &Settings) -> Result<T, String> {
    serde_json::from_value(Value::Object(settings.clone())).map_err(|e| e.to_string())
}

fn defaults<T: Section>() -> Settings {
    match serde_json::to_value(T::default()) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn accepts<T: Section>(value: &Value) -> Result<(), String> {
    serde_json::from_value::<T>(value.clone()).map(drop).map_err(|e| e.to_string())
}

fn check<T: Section>(settings: &Settings) -> Vec<Fault> {
    decode::<T>(settings).map_or_else(|_| Vec::new(), |config| config.check())
}

fn build<T: Filter + Section + 'static>(settings: &Settings) -> Built {
    Ok(Box::new(decode::<T>(settings)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_builds_from_its_defaults_and_refuses_unknown_keys() {
        for entry in REGISTRY {
            let mut settings = (entry.defaults)();
            assert!(!settings.is_empty(), "{} has no settings", entry.name);
            assert!((entry.build)(&settings).is_ok(), "{}", entry.name);
            assert_eq!((entry.check)(&settings), [], "{}", entry.name);
            settings.insert("no_such_key".into(), Value::from(1));
            assert!((entry.accepts)(&Value::Object(settings)).is_err(), "{}", entry.name);
        }
    }

    #[test]
    fn the_first_value_that_misses_its_threshold_is_the_verdict() {
        let long = "the and dogs ".repeat(30);
        let texts =
            ["", "word", "# # # #", &long, &"abcdefghijklmno the of ".repeat(40), &"- a ...\n".repeat(90)];
        for entry in REGISTRY {
            let filter = (entry.build)(&(entry.defaults)()).unwrap_or_else(|e| panic!("{e}"));
            for text in texts {
                let text = Text::new(text);
                let first = filter.measure(&text).iter().find_map(Measured::rejection);
                assert_eq!(filter.judge(&text), first, "{}: {:?}", entry.name, text.as_str());
            }
        }
    }

    #[test]
    fn names_are_unique() {
        for (i, entry) in REGISTRY.iter().enumerate() {
            assert!(REGISTRY[..i].iter().all(|other| other.name != entry.name), "{}", entry.name);
        }
    }
}
