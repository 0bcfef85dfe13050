//! Numbers of tokens or parameters, written by people: `"8B"`, `"500M"`, `"1.5T"` or a plain number.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::numbers;

/// A count of tokens or parameters. `K`, `M`, `B` or `G`, and `T` are powers of 1000; small and capital letters are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Count(pub u64);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Count, String> {
        numbers::with_unit(text, &numbers::COUNTS).map(Count).ok_or_else(|| {
            format!("`{text}` is not a count; write a number with an optional K, M, B (or G) or T, such as \"8B\" or \"1.5T\"")
        })
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a count such as \"8B\" or a whole number")]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(n) => Ok(Count(n)),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// A count that fits into 32 bits, for flags.
///
/// # Errors
/// It is none, or larger.
pub fn parse_u32(text: &str) -> Result<u32, String> {
    let Count(n) = text.parse()?;
    u32::try_from(n).map_err(|_| format!("{n} is more than {}", u32::MAX))
}

/// The same of 64 bits.
///
/// # Errors
/// It is none.
pub fn parse_u64(text: &str) -> Result<u64, String> {
    text.parse().map(|Count(n)| n)
}

/// A share such as `1/16`, as numerator and denominator.
///
/// # Errors
/// Not two whole numbers with `0 < numerator < denominator`.
pub fn parse_fraction(text: &str) -> Result<[u64; 2], String> {
    let parts =
        text.split_once('/').and_then(|(a, b)| Some([a.trim().parse().ok()?, b.trim().parse().ok()?]));
    parts
        .filter(|&[a, b]: &[u64; 2]| 0 < a && a < b)
        .ok_or_else(|| format!("`{text}` is not a fraction between 0 and 1; write one such as 1/16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, count) in [
            ("0", 0),
            ("500M", 500_000_000),
            ("8B", 8_000_000_000),
            ("1.5T", 1_500_000_000_000),
            ("2.25 K", 2_250),
            ("7", 7),
            ("8b", 8_000_000_000),
            ("8G", 8_000_000_000),
            ("20_000", 20_000),
        ] {
            assert_eq!(text.parse(), Ok(Count(count)), "{text}");
        }
        for text in ["", "M", "-1", "1.5", "1.2345K", "1.K", "8 GB", "99999999T", ".5M"] {
            assert!(text.parse::<Count>().is_err(), "{text}");
        }
    }

    #[test]
    fn fractions_are_proper() {
        assert_eq!(parse_fraction("1/16"), Ok([1, 16]));
        for text in ["1", "0/4", "4/4", "5/4", "a/b", "1/0", "0.5"] {
            assert!(parse_fraction(text).is_err(), "{text}");
        }
    }
}
