//! International bank account numbers (ISO 13616).

use super::{before, is_word};

/// Countries and the lengths of their numbers, in order (SWIFT's IBAN registry).
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// The number whose check digits are at `at`, as position and length in bytes: unbroken, or in groups of four between spaces.
pub(super) fn at(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let start = at.checked_sub(2)?;
    let country: &[u8; 2] = bytes.get(start..at)?.try_into().ok()?;
    let known = LENGTHS.binary_search_by(|(known, _)| (*known).cmp(country)).ok()?;
    let (_, n_chars) = LENGTHS[known];
    if !bytes.get(at + 1)?.is_ascii_digit() || before(bytes, start).is_some_and(|b| is_word(b) || b == b'-') {
        return None;
    }
    let grouped = bytes.get(start + 4) == Some(&b' ');
    let (mut end, mut rest) = (start, 0u32);
    // The first four characters count last (ISO 7064, mod 97-10).
    let mut head = [0u8; 4];
    for i in 0..n_chars {
        if grouped && i > 0 && i % 4 == 0 {
            bytes.get(end).filter(|b| **b == b' ')?;
            end += 1;
        }
        let byte = *bytes.get(end)?;
        match head.get_mut(i) {
            Some(first) => *first = byte,
            None => rest = add(rest, byte)?,
        }
        end += 1;
    }
    for byte in head {
        rest = add(rest, byte)?;
    }
    let ends = bytes.get(end).is_none_or(|b| !is_word(*b));
    (ends && rest == 1).then_some((start, end - start))
}

/// The remainder after one more character: digits are digits, `A` is 10, `Z` is 35.
fn add(rest: u32, byte: u8) -> Option<u32> {
    match byte {
        b'0'..=b'9' => Some((rest * 10 + u32::from(byte - b'0')) % 97),
        b'A'..=b'Z' => Some((rest * 100 + u32::from(byte - b'A') + 10) % 97),
        _ => None,
    }
}

/// Whether the table is sorted and its lengths plausible.
#[cfg(test)]
pub(super) fn is_sorted() -> bool {
    LENGTHS.windows(2).all(|pair| pair[0].0 < pair[1].0) && LENGTHS.iter().all(|(_, n)| (15..=34).contains(n))
}
