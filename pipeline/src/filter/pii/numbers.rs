//! Phone numbers and the numbers of payment cards.

use super::{before, is_word, national};

/// The phone number whose first digits are at `at`, as position and length in bytes: `+` with 8 to 15 digits (ITU-T E.164), or a number
/// of the North American plan, `(212) 555-0123`, `212-555-0123` or `1.212.555.0123`, or as other countries write it. Digits
/// without separators do not count, except after a word that announces one.
pub(super) fn phone(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let found = match before(bytes, at) {
        Some(b'+') => return international(bytes, at),
        Some(b'(') => north_american(bytes, at, at - 1).or_else(|| north_american(bytes, at, at)),
        _ => north_american(bytes, at, at),
    };
    found.or_else(|| national::phone(bytes, at))
}

fn international(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let start = at - 1;
    let joins = |b: u8| is_word(b) || matches!(b, b'+' | b'.' | b')');
    if before(bytes, start).is_some_and(joins) || bytes[at] == b'0' {
        return None;
    }
    // Digits by group; no phone number has more groups.
    let (mut groups, mut n_groups) = ([0usize; 8], 0);
    let (mut end, mut last, mut open, mut dots) = (at, at, false, false);
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'0'..=b'9' => {
                n_groups += usize::from(end == at || !bytes[end - 1].is_ascii_digit());
                *groups.get_mut(n_groups - 1)? += 1;
                last = end;
            }
            b'(' if !open => open = true,
            b')' if open => open = false,
            b' ' | b'-' | b'.' | b'/' if bytes[end - 1].is_ascii_digit() || bytes[end - 1] == b')' => {
                dots |= *byte == b'.' && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
            }
            _ => break,
        }
        end += 1;
    }
    let end = last + 1;
    let groups = &groups[..n_groups];
    let n_digits: usize = groups.iter().sum();
    let ends = bytes.get(end).is_none_or(|b| !is_word(*b));
    let fits = match groups {
        // As many digits as a subscriber number with its country code.
        [_] => (10..=15).contains(&n_digits),
        // A country code, perhaps with an area code; `+10000-01-01` is a date.
        [first, rest @ ..] => {
            let decimal = dots && (rest.len() < 2 || rest.contains(&1));
            *first <= 4 && (8..=15).contains(&n_digits) && !decimal
        }
        [] => false,
    };
    (ends && fits).then_some((start, end - start))
}

/// `at` is the first digit; `start` is the same, or the parenthesis before it.
fn north_american(bytes: &[u8], at: usize, start: usize) -> Option<(usize, usize)> {
    // Digits that end at `from + n`, the first of them 2 to 9.
    let group = |from: usize, n: usize| {
        let digits = bytes.get(from..from + n)?;
        let whole =
            digits.iter().all(u8::is_ascii_digit) && !bytes.get(from + n).is_some_and(u8::is_ascii_digit);
        whole.then_some(from + n)
    };
    let parenthesis = start < at;
    let mut start = start;
    let is_part = |b: u8| is_word(b) || matches!(b, b'.' | b'-' | b'/' | b'#' | b'=' | b'+');
    let begins = |start| before(bytes, start).is_none_or(|b| !is_part(b));
    let first = |from: usize| matches!(bytes.get(from), Some(b'2'..=b'9'));
    if !first(at) || group(at, 3).is_none() {
        return None;
    }
    // The country before it.
    let country = start >= 2 && bytes[start - 2] == b'1' && matches!(bytes[start - 1], b'-' | b'.' | b' ');
    if country && begins(start - 2) {
        start -= 2;
    } else if country && bytes[start - 1] != b' ' || !begins(start) {
        return None;
    }
    let mut end = at + 3;
    let separator = match parenthesis {
        true => {
            if bytes.get(end) != Some(&b')') {
                return None;
            }
            end += 1 + usize::from(matches!(bytes.get(end + 1), Some(b' ' | b'-')));
            None
        }
        false => {
            let separator = *bytes.get(end).filter(|b| matches!(b, b'-' | b'.' | b' '))?;
            end += 1;
            Some(separator)
        }
    };
    if !first(end) {
        return None;
    }
    end = group(end, 3)?;
    let next = *bytes.get(end).filter(|b| matches!(b, b'-' | b'.' | b' '))?;
    // Only spaces separate columns of numbers.
    if separator.is_some_and(|separator| separator != next || next == b' ') {
        return None;
    }
    end = group(end + 1, 4)?;
    let ends = match (bytes.get(end), bytes.get(end + 1)) {
        (Some(b'-' | b'.'), Some(b)) => !is_word(*b),
        (Some(b), _) => !is_word(*b),
        (None, _) => true,
    };
    ends.then_some((start, end - start))
}

/// The card number whose first digits are at `at`, as position and length in bytes: unbroken or in groups between single
/// spaces or hyphens, of an issuer and its length (ISO/IEC 7812), with the right check digit (Luhn).
pub(super) fn card(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    if before(bytes, at).is_some_and(|b| is_word(b) || matches!(b, b'.' | b'-' | b'+' | b'/' | b'#')) {
        return None;
    }
    let mut digits = [0u8; 19];
    let (mut n, mut end) = (0, at);
    let mut groups = [0usize; 5];
    let mut n_groups = 0;
    let mut separator = None;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'0'..=b'9' => {
                *digits.get_mut(n)? = byte - b'0';
                n += 1;
                *groups.get_mut(n_groups)? += 1;
            }
            b' ' | b'-' if bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => {
                // Another separator ends the number: `4111 1111 1111 1111-2`.
                if separator.is_some_and(|separator| separator != *byte) {
                    return None;
                }
                separator = Some(*byte);
                n_groups += 1;
            }
            _ => break,
        }
        end += 1;
    }
    let ends = match (bytes.get(end), bytes.get(end + 1)) {
        (Some(b'.' | b'-' | b'/'), Some(b)) => !is_word(*b),
        (Some(b), _) => !is_word(*b),
        (None, _) => true,
    };
    let grouped = matches!(&groups[..=n_groups], [_] | [4, 6, 4 | 5] | [4, 4, 4, 4]);
    let fits = ends && grouped && is_issued(&digits[..n]) && luhn(&digits[..n]);
    (fits && !is_in_table(bytes, at, end)).then_some((at, end - at))
}

/// Whether a number like this one is next to it: then both are entries of a table, unless both are cards. Next to
/// groups that means one of four digits or more on the same line, next to unbroken digits one of ten.
fn is_in_table(bytes: &[u8], start: usize, end: usize) -> bool {
    let in_groups = bytes[start..end].iter().any(|b| !b.is_ascii_digit());
    let is_space = |b: &u8| matches!(b, b' ' | b'\t' | b',' | b';') || (!in_groups && *b == b'\n');
    let is_end = |b: &u8| b.is_ascii_whitespace() || matches!(b, b',' | b';');
    let is_number = |token: &[u8]| {
        let digits: Vec<u8> = token.iter().filter(|b| b.is_ascii_digit()).map(|b| b - b'0').collect();
        let is_card = digits.len() == token.len() && is_issued(&digits) && luhn(&digits);
        // The other number may be in hexadecimal digits.
        let is_number = token.len() >= if in_groups { 4 } else { 10 }
            && !digits.is_empty()
            && token.iter().all(u8::is_ascii_hexdigit);
        is_number && !is_card
    };
    // Longer numbers than these are numbers too.
    const LONG: usize = 40;
    let before = &bytes[..start - bytes[..start].iter().rev().take_while(|b| is_space(b)).count()];
    let before = &before
        [before.iter().rposition(is_end).map_or(0, |at| at + 1).max(before.len().saturating_sub(LONG))..];
    let after = &bytes[end + bytes[end..].iter().take_while(|b| is_space(b)).count()..];
    let after = &after[..after.iter().take(LONG).position(is_end).unwrap_or(after.len().min(LONG))];
    is_number(before) || is_number(after)
}

/// Whether digits have an issuer's prefix and length.
fn is_issued(digits: &[u8]) -> bool {
    let prefix = |n: usize| digits.iter().take(n).fold(0u32, |prefix, digit| prefix * 10 + u32::from(*digit));
    match digits.len() {
        14 => matches!(prefix(3), 300..=305 | 309) || matches!(prefix(2), 36 | 38 | 39),
        15 => matches!(prefix(2), 34 | 37),
        16 => {
            prefix(1) == 4
                || matches!(prefix(2), 51..=55 | 62 | 65)
                || matches!(prefix(3), 644..=649)
                || matches!(prefix(4), 2221..=2720 | 3528..=3589 | 6011)
        }
        _ => false,
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, digit)| {
            let digit = u32::from(*digit) << (i % 2);
            digit / 10 + digit % 10
        })
        .sum();
    // A repeated digit is a placeholder.
    sum.is_multiple_of(10) && digits.windows(2).any(|pair| pair[0] != pair[1])
}
