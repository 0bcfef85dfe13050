//! Phone numbers in national form: with the 0 that most countries dial first, or in any form after a
//! word such as `tel.`.

use super::{before, is_word};

/// Words that announce a phone number.
const CUES: [&str; 15] = [
    "tel",
    "tél",
    "telefon",
    "telefone",
    "telefono",
    "teléfono",
    "téléphone",
    "telephone",
    "phone",
    "mobile",
    "mobil",
    "cell",
    "fax",
    "whatsapp",
    "hotline",
];
/// Bytes before a number to search for a cue.
const CUE_BYTES: usize = 24;
const MAX_GROUPS: usize = 6;

/// The number whose first digit is at `at`, with the parenthesis around its area, as position and length in bytes.
pub(super) fn phone(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let in_parentheses = || (before(bytes, at) == Some(b'(')).then(|| from(bytes, at, at - 1)).flatten();
    // The parentheses may hold more than the area code.
    in_parentheses().or_else(|| from(bytes, at, at))
}

/// The same, from `start` on.
fn from(bytes: &[u8], at: usize, start: usize) -> Option<(usize, usize)> {
    let is_part = |b: u8| is_word(b) || matches!(b, b'.' | b'-' | b'/' | b'#' | b'=' | b'+' | b',' | b'$');
    let cue = has_cue(&bytes[..start]);
    // `Tel.:0301234` may have no space.
    if before(bytes, start).is_some_and(is_part) && !(cue && before(bytes, start) == Some(b'.')) {
        return None;
    }
    let mut groups = [0usize; MAX_GROUPS];
    let (mut n_groups, mut end) = (0, at);
    let mut separators = [0u8; MAX_GROUPS];
    loop {
        let n = bytes[end..].iter().take(16).take_while(|b| b.is_ascii_digit()).count();
        if n == 0 {
            return None;
        }
        *groups.get_mut(n_groups)? = n;
        end += n;
        let mut next = end;
        let mut separator = 0;
        if n_groups == 0 && start < at {
            if bytes.get(next) != Some(&b')') {
                return None;
            }
            next += 1;
            separator = b')';
        }
        if let Some(b @ (b' ' | b'-' | b'.' | b'/')) = bytes.get(next) {
            separator = *b;
            next += 1;
        }
        if separator == 0 || !bytes.get(next).is_some_and(u8::is_ascii_digit) {
            n_groups += 1;
            break;
        }
        separators[n_groups] = separator;
        n_groups += 1;
        end = next;
    }
    let ends = match (bytes.get(end), bytes.get(end + 1)) {
        (Some(b'.' | b'-' | b'/' | b',' | b':'), Some(b)) => !is_word(*b),
        (Some(b), _) => !is_word(*b),
        (None, _) => true,
    };
    let (groups, separators) = (&groups[..n_groups], &separators[..n_groups - 1]);
    let n_digits: usize = groups.iter().sum();
    // After the area code, one separator throughout; a single period is a decimal point.
    let is_even = separators.get(1..).is_none_or(|rest| rest.windows(2).all(|pair| pair[0] == pair[1]))
        && (!separators.contains(&b'.') || n_groups > 2 && separators.iter().all(|b| *b == b'.'));
    if !ends || !is_even {
        return None;
    }
    let fits = if cue {
        (7..=15).contains(&n_digits) && !is_date(groups, separators)
    } else {
        bytes[at] == b'0'
            && matches!(bytes.get(at + 1), Some(b'1'..=b'9'))
            && n_groups > 1
            && (2..=5).contains(&groups[0])
            && groups.iter().all(|n| *n >= 2)
            && (9..=11).contains(&n_digits)
            && !is_date(groups, separators)
            && !is_row(bytes, at, end, groups)
    };
    fits.then_some((start, end - start))
}

/// Whether the preceding words say what the number is.
fn has_cue(before: &[u8]) -> bool {
    let tail = &before[before.len().saturating_sub(CUE_BYTES)..];
    let tail = String::from_utf8_lossy(tail).to_lowercase();
    let tail =
        tail.trim_end_matches([' ', ':', '.', '(', '-']).trim_end_matches(" no").trim_end_matches(" number");
    let tail = tail.trim_end_matches([' ', ':', '.']);
    let word = tail.rsplit(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    CUES.contains(&word)
}

/// Three groups that look like day, month and year.
fn is_date(groups: &[usize], separators: &[u8]) -> bool {
    matches!(groups, [2, 2, 4] | [4, 2, 2] | [2, 2, 4, ..]) && separators.first() == separators.get(1)
}

/// Whether the groups are cells of a table or numbers that count up, rather than one number: another number or pair of
/// hexadecimal digits is next to them.
fn is_row(bytes: &[u8], start: usize, end: usize, groups: &[usize]) -> bool {
    let is_cell =
        |token: &[u8]| !token.is_empty() && token.len() <= 4 && token.iter().all(u8::is_ascii_hexdigit);
    let after = bytes.get(end..).and_then(|rest| rest.strip_prefix(b" ")).unwrap_or_default();
    let after = &after[..after.iter().take(8).take_while(|b| is_word(**b)).count()];
    let ahead = bytes[..start].strip_suffix(b" ").unwrap_or_default();
    let ahead = &ahead[ahead.len() - ahead.iter().rev().take(8).take_while(|b| is_word(**b)).count()..];
    // Words such as `be` are hexadecimal too, but no row has one next to pairs of digits only.
    let has_digit = |token: &[u8]| token.iter().any(u8::is_ascii_digit);
    if is_cell(after) && (has_digit(after) || after.len() == groups[0]) || is_cell(ahead) && has_digit(ahead)
    {
        return true;
    }
    let digits = String::from_utf8_lossy(&bytes[start..end]).into_owned();
    let numbers: Vec<u64> =
        digits.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    numbers.len() > 2 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}
