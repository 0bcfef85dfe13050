//! Sizes in bytes, written by people: `"64MB"`, `"1GiB"` or a plain number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::numbers;

/// A number of bytes. `K`, `M`, `G`, `T` and `kB`, `MB`, `GB`, `TB` are powers of 1000, `KiB`, `MiB`, `GiB`, `TiB` of 1024; small and
/// capital letters are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 13] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        numbers::with_unit(text, &UNITS).map(ByteSize).ok_or_else(|| {
            format!("`{text}` is not a size; write a number of bytes with an optional unit, such as \"64MB\", \"1.5G\" or \"1GiB\"")
        })
    }
}

impl fmt::Display for ByteSize {
    /// Three significant digits in powers of 1000: `2.19 MB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        let mut unit = "B";
        for next in ["kB", "MB", "GB", "TB"] {
            // 999.5 would print as 1000 in this unit.
            if value < 999.5 {
                break;
            }
            value /= 1000.0;
            unit = next;
        }
        let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        write!(f, "{value:.decimals$} {unit}")
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a size such as \"64MB\" or a number of bytes")]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(n) => Ok(ByteSize(n)),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("64MB", 64_000_000),
            ("1GiB", 1 << 30),
            ("10 kB", 10_000),
            ("7B", 7),
            ("1.5GB", 1_500_000_000),
            ("64M", 64_000_000),
            ("2g", 2_000_000_000),
            ("0.5 GiB", 1 << 29),
            ("1_000K", 1_000_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MB", "-1", "1.0005kB", "1XB", "99999999999TB", "1.5", "G", "1e3"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn prints_three_digits() {
        for (bytes, text) in [
            (999, "999 B"),
            (1000, "1.00 kB"),
            (2_188_293, "2.19 MB"),
            (999_999, "1.00 MB"),
            (64_000_000, "64.0 MB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
