//! Shares written by people: `0.3`, or `"1/3"` where no decimal is exact.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A share, kept as it was written so that a resolved mixture says the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// A number.
    Decimal(f64),
    /// A fraction: numerator and denominator.
    Fraction(u64, u64),
}

/// Largest denominator: the rule of variants multiplies it with passes and families in 128 bits.
const MAX_DENOMINATOR: u64 = 1_000_000_000_000;

impl Share {
    /// Its value.
    pub fn value(self) -> f64 {
        match self {
            Share::Decimal(value) => value,
            Share::Fraction(num, den) => num as f64 / den.max(1) as f64,
        }
    }

    /// Whether it is from 0 to 1.
    pub fn is_share(self) -> bool {
        (0.0..=1.0).contains(&self.value())
    }

    /// As a reduced fraction. For a decimal, the simplest fraction with the same 64-bit value: `0.3` is 3/10, and
    /// `0.3333333333333333` is 1/3.
    pub fn fraction(self) -> [u64; 2] {
        match self {
            Share::Fraction(num, den) => reduced(num, den),
            Share::Decimal(value) => simplest(value),
        }
    }

    /// What plans held in place of [`Share::fraction`] before it was exact: the fraction of a decimal rounded to a millionth.
    pub fn per_million(self) -> [u64; 2] {
        reduced((self.value() * 1e6).round() as u64, 1_000_000)
    }
}

fn reduced(num: u64, den: u64) -> [u64; 2] {
    let (mut a, mut b) = (num, den);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    [num / a.max(1), den / a.max(1)]
}

/// The first convergent of the continued fraction of `value` that gives the same number of 64 bits, or the last one with a
/// possible denominator.
fn simplest(value: f64) -> [u64; 2] {
    // `value` is exactly `rest[0] / rest[1]`; anything below 2^-60 counts as zero.
    let scale = (1u128 << 113) as f64;
    let mut rest = [(value * scale) as u128, 1u128 << 113];
    let (mut before, mut last) = ([0u128, 1], [1u128, 0]);
    while rest[1] != 0 {
        let whole = rest[0] / rest[1];
        let next = [whole * last[0] + before[0], whole * last[1] + before[1]];
        if next[1] > u128::from(MAX_DENOMINATOR) {
            break;
        }
        (before, last) = (last, next);
        if last[0] as f64 / last[1] as f64 == value {
            break;
        }
        rest = [rest[1], rest[0] % rest[1]];
    }
    // Both are at most `MAX_DENOMINATOR`, since a share is at most 1.
    last.map(|part| part as u64)
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Decimal(value) => value.fmt(f),
            Share::Fraction(num, den) => write!(f, "{num}/{den}"),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Share::Decimal(value) => serializer.serialize_f64(*value),
            Share::Fraction(..) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a number or a fraction such as \"1/3\"")]
        enum Written {
            Number(f64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(value) => Ok(Share::Decimal(value)),
            Written::Text(text) => {
                let parts = text.split_once('/').map(|(num, den)| (num.trim().parse(), den.trim().parse()));
                match parts {
                    Some((Ok(num), Ok(den))) if (1..=MAX_DENOMINATOR).contains(&den) => {
                        Ok(Share::Fraction(num, den))
                    }
                    _ => Err(de::Error::custom(format!(
                        "`{text}` is not a share; write a number such as 0.25 or a fraction such as \"1/3\", with a denominator from 1 to 10^12"
                    ))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_the_simplest_exact_fractions() {
        for (value, expected) in [
            (0.5, [1, 2]),
            (0.0, [0, 1]),
            (1.0, [1, 1]),
            (0.3, [3, 10]),
            (0.7, [7, 10]),
            (0.123456, [1929, 15625]),
            (0.333333, [333_333, 1_000_000]),
            (1.0 / 3.0, [1, 3]),
            (2.0 / 3.0, [2, 3]),
            (6.0 / 7.0, [6, 7]),
            (1e-9, [1, 1_000_000_000]),
            (1e-40, [0, 1]),
        ] {
            assert_eq!(Share::Decimal(value).fraction(), expected, "{value}");
        }
        assert_eq!(Share::Fraction(2, 6).fraction(), [1, 3]);
        assert_eq!(Share::Decimal(1.0 / 3.0).per_million(), [333_333, 1_000_000]);
        // As plans have always held them.
        for millionths in (0..=1_000_000).step_by(997) {
            let share = Share::Decimal(f64::from(millionths) / 1e6);
            assert_eq!(share.fraction(), share.per_million());
        }
    }

    #[test]
    fn fractions_are_read_and_written_back() {
        #[derive(Deserialize, Serialize)]
        struct Table {
            share: Share,
        }
        for text in ["share = 0.25\n", "share = \"1/3\"\n"] {
            let table: Table = toml::from_str(text).unwrap();
            assert_eq!(toml::to_string(&table).unwrap(), text);
        }
        assert_eq!(toml::from_str::<Table>("share = 1").unwrap().share, Share::Decimal(1.0));
        for text in ["'1/0'", "'a/3'", "'1/3/3'", "'0.3'", "'-1/3'", "true", "'1/9999999999999'"] {
            let error = toml::from_str::<Table>(&format!("share = {text}")).map(|t| t.share).unwrap_err();
            assert!(error.to_string().contains("fraction such as"), "{text}: {error}");
        }
    }
}
