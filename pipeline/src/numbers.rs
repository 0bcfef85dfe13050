//! Numbers with a unit, written by people.

/// Units of counts, which are powers of 1000: `B` and `G` are the same.
pub const COUNTS: [(&str, u64); 5] =
    [("K", 1_000), ("M", 1_000_000), ("B", 1_000_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];

/// `1.5G` by the units, of which the first that ends the text counts; exact, so decimals are allowed as far as the unit makes
/// them whole. `None` when it is not such a number, or above what TOML can hold.
pub fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let ends_in = |unit: &str| {
        let at = text.len().checked_sub(unit.len()).filter(|at| text.is_char_boundary(*at))?;
        text[at..].eq_ignore_ascii_case(unit).then(|| text[..at].trim_end())
    };
    let found = units.iter().find_map(|&(name, unit)| Some((ends_in(name)?, unit)));
    let (digits, unit) = found.unwrap_or((text, 1));
    exact(&digits.replace('_', ""), unit)
}

fn exact(digits: &str, unit: u64) -> Option<u64> {
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || (digits.contains('.') && !is_number(decimals)) {
        return None;
    }
    let decimals = decimals.trim_end_matches('0');
    let value: u128 = format!("{whole}{decimals}").parse().ok()?;
    let scale = 10u128.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    let value = value.checked_mul(u128::from(unit))?;
    // The resolved file is TOML, which has no larger integers.
    (value % scale == 0).then(|| i64::try_from(value / scale).ok()).flatten().map(i64::unsigned_abs)
}
