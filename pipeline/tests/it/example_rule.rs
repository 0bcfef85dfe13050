//! The rule that CONTRIBUTING.md shows, word for word, at work.

// In the crate: `use super::{Filter, Limit, Text};` and `use crate::strict_toml::{Fault, Section};`.
use moe_data::filter::{Filter, Limit, Text};
use moe_data::strict_toml::{Fault, Section};
use serde::{Deserialize, Serialize};

/// The settings that measured values are compared with; changing any other one measures again.
pub const THRESHOLDS: &[&str] = &["max_digits"];

/// Settings of `digits`: the fields are recipe keys, `default` holds their default values.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Digits {
    /// The largest fraction of characters that may be digits.
    pub max_digits: f64,
}

impl Default for Digits {
    fn default() -> Digits {
        Digits { max_digits: 0.2 }
    }
}

impl Section for Digits {
    fn check(&self) -> Vec<Fault> {
        match (0.0..=1.0).contains(&self.max_digits) {
            true => Vec::new(),
            false => vec![("max_digits", format!("is {}; expected a fraction from 0 to 1", self.max_digits))],
        }
    }
}

impl Filter for Digits {
    fn limits(&self) -> Vec<Limit> {
        vec![Limit::most("too_many_digits", self.max_digits)]
    }

    // One value for each limit; none of them may depend on a threshold.
    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        let digits = text.as_str().chars().filter(|c| c.is_numeric()).count();
        values.push(digits as f64 / text.n_chars().max(1) as f64);
    }
}

// The registry line:
// Entry::filter::<digits::Digits>("digits", "share of digits", digits::THRESHOLDS),

#[test]
fn contributing_shows_this_rule_and_it_works() {
    let own = include_str!("example_rule.rs");
    let shown = own.split("\n\n").skip(1).take_while(|part| !part.contains("#[test]")).collect::<Vec<_>>();
    let page = include_str!("../../../CONTRIBUTING.md");
    assert!(page.contains(&shown.join("\n\n")), "CONTRIBUTING.md shows another rule than this file");

    let rule = Digits::default();
    let mut values = Vec::new();
    rule.measure(&Text::new("ab 12"), &mut values);
    assert_eq!(values, [0.4]);
    let missed = rule.limits()[0].measured(values[0]).rejection().unwrap();
    assert_eq!((missed.reason.as_ref(), missed.threshold), ("too_many_digits", 0.2));
    assert_eq!(Digits { max_digits: 2.0 }.check().len(), 1);
    let entry = moe_data::filter::Entry::filter::<Digits>("digits", "share of digits", THRESHOLDS);
    assert!((entry.build)(&(entry.defaults)()).is_ok());
}
