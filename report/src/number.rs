//! Numbers in human-readable form.

/// A count with commas: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A quantity in three or four digits with a decimal prefix: `1.23 M`. Plain below 10,000.
pub fn short(x: f64) -> String {
    let size = x.abs();
    let units = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")];
    match units.iter().find(|(unit, _)| size >= *unit) {
        Some((unit, name)) => {
            let unit = if *name == " k" { 1e3 } else { *unit };
            format!("{}{name}", digits(x / unit))
        }
        None => digits(x),
    }
}

/// Bytes with a decimal prefix: `1.23 MB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..10_000 => format!("{} kB", digits(n as f64 / 1e3)),
        _ => format!("{}B", short(n as f64)),
    }
}

/// A fraction in percent; small ones keep their first digit: `0.03 %`.
pub fn percent(part: f64, whole: f64) -> String {
    if whole == 0.0 {
        return "0 %".to_owned();
    }
    let share = 100.0 * part / whole;
    let decimals = match share.abs() {
        0.0 => 0,
        x if x < 0.01 => return format!("{} %", digits(share)),
        x if x < 1.0 => 2,
        x if x < 99.95 => 1,
        // Almost all is not shown as all.
        x if x < 100.0 => return format!("{} %", (share * 100.0).trunc() / 100.0),
        _ => 0,
    };
    format!("{share:.decimals$} %")
}

/// About four significant digits, without trailing zeros.
pub fn digits(x: f64) -> String {
    if !x.is_finite() {
        return x.to_string();
    }
    if x == 0.0 {
        return "0".to_owned();
    }
    let magnitude = x.abs().log10().floor() as i32;
    if !(-4..15).contains(&magnitude) {
        return format!("{x:.2e}");
    }
    let decimals = (3 - magnitude).clamp(0, 8) as usize;
    let text = format!("{x:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_lose_no_magnitude() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(short(9_999.0), "9999");
        assert_eq!(short(12_345.0), "12.35 k");
        assert_eq!(short(-2_500_000.0), "-2.5 M");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500), "1.5 kB");
        assert_eq!(bytes(2_000_000_000), "2 GB");
        assert_eq!(percent(1.0, 3.0), "33.3 %");
        assert_eq!(percent(1.0, 3000.0), "0.03 %");
        assert_eq!(percent(5.0, 5.0), "100 %");
        assert_eq!(percent(9999.0, 10000.0), "99.99 %");
        assert_eq!(percent(3.0, 1e6), "0.0003 %");
        assert_eq!(percent(0.0, 0.0), "0 %");
        assert_eq!(digits(0.001_234_56), "0.001235");
        assert_eq!(digits(4.314_7), "4.315");
        assert_eq!(digits(1e-9), "1.00e-9");
        assert_eq!(digits(f64::NAN), "NaN");
    }
}
