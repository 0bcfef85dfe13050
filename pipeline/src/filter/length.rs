//! Length of a document in characters: the cheapest rule, so it comes first in most recipes.

use serde::{Deserialize, Serialize};

use super::{Filter, Limit, Text};
use crate::strict_toml::{Docs, Fault, Section, documented};

/// The settings that values are compared with.
pub const THRESHOLDS: &[&str] = &["min_chars", "max_chars"];

documented! {
    /// Settings of `length`.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Length {
        /// Fewest Unicode characters.
        pub min_chars: u64,
        /// Most Unicode characters.
        pub max_chars: u64,
    }
}

impl Default for Length {
    fn default() -> Length {
        Length { min_chars: 50, max_chars: 1_000_000 }
    }
}

impl Section for Length {
    fn docs() -> Docs {
        Length::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        match self.min_chars > self.max_chars {
            true => {
                vec![("min_chars", format!("is {}, above max_chars = {}", self.min_chars, self.max_chars))]
            }
            false => Vec::new(),
        }
    }
}

impl Filter for Length {
    fn limits(&self) -> Vec<Limit> {
        vec![Limit::least("too_short", self.min_chars as f64), Limit::most("too_long", self.max_chars as f64)]
    }

    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        values.extend([text.n_chars() as f64; 2]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge;
    use super::*;

    #[test]
    fn both_limits_are_inclusive_and_count_characters() {
        let filter = Length { min_chars: 2, max_chars: 3 };
        let reason = |text: &str| judge(&filter, text).map(|r| (r.reason, r.measured));
        let of = |reason: &'static str, measured| Some((reason.into(), measured));
        assert_eq!(reason("é"), of("too_short", 1.0));
        assert_eq!(reason("éé"), None);
        assert_eq!(reason("ééé"), None);
        assert_eq!(reason("éééé"), of("too_long", 4.0));
    }

    #[test]
    fn crossed_limits_are_a_problem() {
        assert_eq!(Length { min_chars: 5, max_chars: 4 }.check().len(), 1);
    }
}
