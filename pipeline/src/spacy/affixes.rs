//! spaCy's regular expressions for prefixes, suffixes, infixes and URLs, written out.

use std::sync::LazyLock;

use regex::Regex;

use super::characters::{BEFORE_STOP, LETTER, LOWER, PREFIX, QUOTE, SUFFIX, SYMBOL, UPPER, is};

/// Units that split off after a digit at the end of a chunk. The joined `тбكم` is spaCy's.
const UNITS: &str = "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa \
    Pa mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч кПа Па \
    мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тбكم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ كم غرام جرام جم كغ ملغ كوب اكواب";
/// Characters of the longest unit.
const LONGEST_UNIT: usize = 5;

/// Bytes of the prefix that splits off; 0 without one.
pub fn prefix_len(chunk: &str) -> usize {
    let mut chars = chunk.chars();
    let Some(first) = chars.next() else { return 0 };
    match first {
        '.' => dots_at_start(chunk),
        '+' => usize::from(!chars.next().is_some_and(|c| c.is_ascii_digit())),
        'U' if chunk.starts_with("US$") => 3,
        'A' | 'C' if chunk[1..].starts_with('$') => 2,
        c if is(c, PREFIX) => c.len_utf8(),
        _ => 0,
    }
}

/// Bytes of a run of dots, at least two.
fn dots_at_start(text: &str) -> usize {
    match text.len() - text.trim_start_matches('.').len() {
        1 => 0,
        n => n,
    }
}

/// Bytes of the longest suffix that splits off; 0 without one.
pub fn suffix_len(chunk: &str) -> usize {
    let mut chars = chunk.chars().rev();
    let Some(last) = chars.next() else { return 0 };
    let before = chars.next();
    let by_mark = match last {
        '.' => match chunk.len() - chunk.trim_end_matches('.').len() {
            1 => {
                let next = chars.next();
                let is_degree =
                    matches!(before, Some('F' | 'f' | 'C' | 'c' | 'K' | 'k')) && next == Some('°');
                let upper = |c: Option<char>| c.is_some_and(|c| is(c, UPPER));
                let stands = before.is_some_and(|c| is(c, BEFORE_STOP)) || (upper(before) && upper(next));
                usize::from(stands || is_degree)
            }
            n => n,
        },
        '…' if before == Some('…') => 2 * last.len_utf8(),
        's' | 'S' => before.filter(|c| matches!(c, '\'' | '’')).map_or(0, |c| 1 + c.len_utf8()),
        '+' => usize::from(before.is_some_and(|c| c.is_ascii_digit())),
        c if is(c, SUFFIX) => c.len_utf8(),
        _ => 0,
    };
    by_mark.max(unit_len(chunk))
}

/// Bytes after the last digit, if they are a unit or a currency.
fn unit_len(chunk: &str) -> usize {
    let mut len = 0;
    for c in chunk.chars().rev().take(LONGEST_UNIT + 1) {
        if c.is_ascii_digit() && len == 0 {
            return 0;
        }
        if c.is_ascii_digit() {
            let unit = &chunk[chunk.len() - len..];
            let known = UNITS.split(' ').any(|known| known == unit) || is_currency(unit);
            return if known { len } else { 0 };
        }
        len += c.len_utf8();
    }
    0
}

fn is_currency(text: &str) -> bool {
    matches!(text, "US$" | "A$" | "C$" | "$" | "£" | "€" | "¥" | "฿" | "₽" | "﷼")
        || (text.chars().count() == 1 && text.starts_with(|c| ('\u{20a0}'..='\u{20bf}').contains(&c)))
}

/// Places and lengths of the infixes, in order.
pub fn infixes(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut before: Option<char> = None;
    let mut until = 0;
    text.char_indices().filter_map(move |(at, c)| {
        let left = before.replace(c);
        if at < until {
            return None;
        }
        let len = infix_len(left, c, &text[at..]);
        until = at + len;
        (len > 0).then_some((at, len))
    })
}

/// Bytes of the infix at the start of `rest`, whose first character is `c`, after the character `left`.
fn infix_len(left: Option<char>, c: char, rest: &str) -> usize {
    if c.is_ascii_alphanumeric() {
        return 0;
    }
    let after = &rest[c.len_utf8()..];
    let next = |wanted: &dyn Fn(char) -> bool| after.starts_with(wanted);
    let left_is = |wanted: u8| left.is_some_and(|c| is(c, wanted));
    let left_digit = left.is_some_and(|c| c.is_ascii_digit());
    match c {
        '.' => match dots_at_start(rest) {
            0 => usize::from(left_is(LOWER | QUOTE) && next(&|c| is(c, UPPER | QUOTE))),
            n => n,
        },
        '…' => c.len_utf8(),
        '+' | '*' | '^' => usize::from(left_digit && next(&|c| c.is_ascii_digit() || c == '-')),
        '-' if left_digit && next(&|c| c.is_ascii_digit() || c == '-') => 1,
        ',' => usize::from(left_is(LETTER) && next(&|c| is(c, LETTER))),
        '-' | '–' | '—' | '~' if left_digit || left_is(LETTER) => {
            let longest = match c {
                '-' => 3,
                '—' => 2,
                _ => 1,
            };
            let run = rest.chars().take_while(|mark| *mark == c).count();
            let end = run * c.len_utf8();
            if run <= longest && rest[end..].starts_with(|c| is(c, LETTER)) { end } else { 0 }
        }
        ':' | '<' | '>' | '=' | '/' => {
            usize::from((left_digit || left_is(LETTER)) && next(&|c| is(c, LETTER)))
        }
        c if is(c, SYMBOL) => c.len_utf8(),
        _ => 0,
    }
}

/// spaCy's `URL_MATCH` for names, except for the characters of the last label, and for IPv4 addresses.
static URLS: LazyLock<Option<(Regex, Regex)>> = LazyLock::new(|| {
    const START: &str = r"^(?:[\w+\-.]{2,}://)?(?:\S+@)?";
    const END: &str = r"(?::\d{2,5})?(?:[/?#]\S*)?$";
    let label = r"[A-Za-z0-9\u{a1}-\u{ffff}]";
    let names = format!(
        r"{START}(?:(?:{label}[A-Za-z0-9\u{{a1}}-\u{{ffff}}_-]{{0,62}})?{label}\.)+([^\s:/?#.]{{2,63}}){END}"
    );
    let addresses = format!(
        r"{START}([1-9]\d?|1\d\d|2[01]\d|22[0-3])\.(1?\d{{1,2}}|2[0-4]\d|25[0-5])\.(?:1?\d{{1,2}}|2[0-4]\d|25[0-5])\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4]){END}"
    );
    Some((Regex::new(&names).ok()?, Regex::new(&addresses).ok()?))
});

/// Whether a chunk is a web address, which is one word.
pub fn is_url(text: &str) -> bool {
    // Nearly all chunks with an infix have no period before a letter or a digit.
    let Some((names, addresses)) = URLS.as_ref().filter(|_| text.contains('.')) else { return false };
    let is_name = names.captures(text).is_some_and(|found| found[1].chars().all(|c| is(c, LOWER)));
    is_name
        || addresses.captures(text).is_some_and(|found| {
            let second = found[2].parse().unwrap_or(0);
            !matches!((&found[1], second), ("10" | "127", _) | ("169", 254) | ("192", 168) | ("172", 16..=31))
        })
}
