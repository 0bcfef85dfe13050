//! Counts sentences as spaCy's rule-based `sentencizer` does behind its blank English tokenizer, which is what
//! datatrove's C4 rules count with: a sentence ends with a token that is a single terminal mark, and the next one starts at
//! the first token that is not punctuation.
//!
//! So all that has to be known of the tokens is which terminal marks stand alone: the full stop of `end.` does, that of
//! `Mr.`, `J.`, `U.S.` and `3.14` does not. The order of the steps is that of spaCy's `Tokenizer._split_affixes` and
//! `_attach_tokens`; chunks without a terminal mark, nearly all, are only looked at for punctuation.

use std::sync::LazyLock;

use regex::Regex;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Number of sentences of a text; an empty text is one, as it is there.
pub fn count(text: &str) -> usize {
    let mut counter = Counter { n: 1, ended: false };
    let mut rest = text;
    let mut at_start = true;
    while let Some(first) = rest.chars().next() {
        let space = is_space(first);
        let end = rest.find(|c| is_space(c) != space).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        match space {
            // One blank belongs to the word before it; any other white space is a token.
            true if run == " " && !at_start => {}
            true => counter.token(Kind::Other),
            false => chunk(run, &mut counter),
        }
        (rest, at_start) = (after, false);
    }
    counter.n
}

/// White space as Python's `str.isspace` sees it.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[derive(Clone, Copy)]
enum Kind {
    /// A terminal mark by itself.
    Stop,
    /// Punctuation only.
    Punctuation,
    /// Anything else.
    Other,
}

struct Counter {
    n: usize,
    ended: bool,
}

impl Counter {
    fn token(&mut self, kind: Kind) {
        match kind {
            Kind::Stop => self.ended = true,
            Kind::Other if self.ended => {
                self.n += 1;
                self.ended = false;
            }
            _ => {}
        }
    }

    /// A token that is not split further.
    fn word(&mut self, word: &str) {
        let mut chars = word.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) if is_terminal(c) => self.token(Kind::Stop),
            (None, _) => {}
            _ if word.chars().all(is_punctuation) => self.token(Kind::Punctuation),
            _ => self.token(Kind::Other),
        }
    }
}

fn is_punctuation(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_punctuation() && !matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~'),
        false => c.general_category_group() == GeneralCategoryGroup::Punctuation,
    }
}

/// The default `punct_chars` of spaCy 3.8's sentencizer, in the order of their code points.
const TERMINAL: &str = "!.?։؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡𐩖𐩗𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑩂𑩃𑪛𑪜𑱁𑱂𖩮𖩯𖫵𖬷𖬸𖭄𛲟𝪈";

fn is_terminal(c: char) -> bool {
    match c.is_ascii() {
        true => matches!(c, '!' | '.' | '?'),
        // Only punctuation can be one, and letters decide most often.
        false => !c.is_alphanumeric() && TERMINAL.contains(c),
    }
}

/// Feeds the tokens of a run without white space to the counter.
fn chunk(chunk: &str, counter: &mut Counter) {
    if !chunk.contains(is_terminal) {
        let all = chunk.chars().all(is_punctuation);
        counter.token(if all { Kind::Punctuation } else { Kind::Other });
        return;
    }
    let mut string = chunk;
    // Suffixes from the outside in; few chunks have more than two.
    let mut suffixes: Vec<&str> = Vec::new();
    while !string.is_empty() && !is_exception(string) {
        let prefix = prefix_len(string);
        let without_prefix = &string[prefix..];
        if prefix > 0 && is_exception(without_prefix) {
            counter.word(&string[..prefix]);
            string = without_prefix;
            break;
        }
        let suffix = suffix_len(without_prefix);
        let without_suffix = &string[..string.len() - suffix];
        if suffix > 0 && is_exception(without_suffix) {
            suffixes.push(&string[without_suffix.len()..]);
            string = without_suffix;
            break;
        }
        if prefix == 0 && suffix == 0 {
            break;
        }
        if prefix > 0 {
            counter.word(&string[..prefix]);
        }
        if suffix > 0 {
            suffixes.push(&string[without_suffix.len()..]);
        }
        string = &without_suffix[prefix.min(without_suffix.len())..];
    }
    middle(string, counter);
    let mut before = string;
    for suffix in suffixes.into_iter().rev() {
        // spaCy joins the two again when they are an exception together, as in `x-Mr.`.
        match suffix == "." && is_exception_with_stop(before) {
            true => counter.token(Kind::Other),
            false => counter.word(suffix),
        }
        before = suffix;
    }
}

/// What is left of a chunk between its affixes: an exception, a URL, or words around infixes.
fn middle(string: &str, counter: &mut Counter) {
    if string.is_empty() {
        return;
    }
    if is_exception(string) {
        // `°C.` is three tokens; of the others only the last matters, which is no full stop.
        counter.token(if string.chars().all(is_punctuation) { Kind::Punctuation } else { Kind::Other });
        if string.starts_with('°') {
            counter.token(Kind::Stop);
        }
        return;
    }
    let mut infixes = infixes(string).peekable();
    if infixes.peek().is_none() || is_url(string) {
        counter.word(string);
        return;
    }
    let mut start = 0;
    for (at, len) in infixes {
        if at > start {
            counter.word(&string[start..at]);
        }
        let infix = &string[at..at + len];
        match infix == "." && is_exception_with_stop(&string[..at]) {
            true => counter.token(Kind::Other),
            false => counter.word(infix),
        }
        start = at + len;
    }
    counter.word(&string[start..]);
}

/// Places and lengths of the infixes that are or surround terminal marks: runs of dots, symbols, and the full stop
/// between a lower and an upper case letter. The others (hyphens, commas) never leave a mark standing alone.
fn infixes(string: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut before: Option<char> = None;
    let mut until = 0;
    string.char_indices().filter_map(move |(at, c)| {
        let left = before.replace(c);
        if at < until {
            return None;
        }
        let rest = &string[at..];
        let dots = rest.len() - rest.trim_start_matches('.').len();
        let len = match c {
            '.' if dots > 1 => dots,
            '…' => c.len_utf8(),
            '.' => {
                let after = rest[1..].chars().next();
                let between = left.is_some_and(|c| is_lower(c) || is_quote(c))
                    && after.is_some_and(|c| is_upper(c) || is_quote(c));
                usize::from(between)
            }
            c if is_symbol(c) => c.len_utf8(),
            _ => 0,
        };
        until = at + len;
        // A match at the very start is skipped, as spaCy does.
        (len > 0 && at > 0).then_some((at, len))
    })
}

fn prefix_len(string: &str) -> usize {
    let mut chars = string.chars();
    let Some(first) = chars.next() else { return 0 };
    let dots = string.len() - string.trim_start_matches('.').len();
    match first {
        '.' => dots * usize::from(dots > 1),
        '…' if string.starts_with("……") => 2 * first.len_utf8(),
        '+' => usize::from(!chars.next().is_some_and(|c| c.is_ascii_digit())),
        '§' | '%' | '=' | '—' | '–' | '…' => first.len_utf8(),
        c if is_mark(c) || is_quote(c) || is_currency(c) || is_symbol(c) => c.len_utf8(),
        _ => 0,
    }
}

fn suffix_len(string: &str) -> usize {
    let mut chars = string.chars().rev();
    let Some(last) = chars.next() else { return 0 };
    let dots = string.len() - string.trim_end_matches('.').len();
    let before = chars.next();
    match last {
        '.' if dots > 1 => dots,
        '.' => {
            let upper = before.is_some_and(is_upper) && chars.next().is_some_and(is_upper);
            let stop = before.is_some_and(|c| {
                c.is_ascii_digit()
                    || is_lower(c)
                    || matches!(c, '%' | '²' | '-' | '+')
                    || is_mark(c)
                    || is_quote(c)
            });
            usize::from(stop || upper)
        }
        '…' if string.ends_with("……") => 2 * last.len_utf8(),
        's' | 'S' if matches!(before, Some('\'' | '’')) => 1 + before.map_or(0, char::len_utf8),
        '+' => usize::from(before.is_some_and(|c| c.is_ascii_digit())),
        '—' | '–' | '…' => last.len_utf8(),
        c if is_mark(c) || is_quote(c) || is_symbol(c) => c.len_utf8(),
        c if is_currency(c) && before.is_some_and(|c| c.is_ascii_digit()) => c.len_utf8(),
        _ => 0,
    }
}

/// spaCy's `LIST_PUNCT`.
fn is_mark(c: char) -> bool {
    matches!(
        c,
        ',' | ':'
            | ';'
            | '!'
            | '?'
            | '¿'
            | '؟'
            | '¡'
            | '('
            | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '<'
            | '>'
            | '_'
            | '#'
            | '*'
            | '&'
    ) || (!c.is_ascii() && "。？！，、；：～·।،۔؛٪…".contains(c))
}

/// spaCy's `LIST_QUOTES`.
fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '"' | '`')
        || (!c.is_ascii() && "”“‘´’‚„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧".contains(c))
}

/// One character of spaCy's `LIST_CURRENCY`.
fn is_currency(c: char) -> bool {
    matches!(c, '$' | '£' | '€' | '¥' | '฿' | '₽' | '﷼' | '\u{20a0}'..='\u{20bf}')
}

/// Other symbols, such as dingbats and emoji.
fn is_symbol(c: char) -> bool {
    !c.is_ascii() && !c.is_alphanumeric() && c.general_category() == GeneralCategory::OtherSymbol
}

/// Lower case letters, and letters of scripts without case.
fn is_lower(c: char) -> bool {
    c.is_ascii_lowercase() || (!c.is_ascii() && c.is_alphabetic() && !c.is_uppercase())
}

/// Upper case letters, and letters of scripts without case.
fn is_upper(c: char) -> bool {
    c.is_ascii_uppercase() || (!c.is_ascii() && c.is_alphabetic() && !c.is_lowercase())
}

/// Whether the last word of `before` and a full stop are an exception together.
fn is_exception_with_stop(before: &str) -> bool {
    let word = before.rsplit(|c: char| !c.is_alphanumeric() && c != '.').next().unwrap_or_default();
    !word.is_empty() && word.len() <= 7 && is_exception(&format!("{word}."))
}

/// Words with a full stop that spaCy's English tokenizer keeps whole.
const EXCEPTIONS: &[&str] = &[
    "(._.)", "._.", "0.0", "0.o", "<.<", ">.<", ">.>", "Adm.", "Ak.", "Ala.", "Apr.", "Ariz.", "Ark.",
    "Aug.", "Bros.", "Calif.", "Co.", "Colo.", "Conn.", "Corp.", "D.C.", "Dec.", "Del.", "Dr.", "E.G.",
    "E.g.", "Feb.", "Fla.", "Ga.", "Gen.", "Gov.", "I.E.", "I.e.", "Ia.", "Id.", "Ill.", "Inc.", "Ind.",
    "Jan.", "Jr.", "Jul.", "Jun.", "Kan.", "Kans.", "Ky.", "La.", "Ltd.", "Mar.", "Mass.", "Md.", "Messrs.",
    "Mich.", "Minn.", "Miss.", "Mo.", "Mont.", "Mr.", "Mrs.", "Ms.", "Mt.", "N.C.", "N.D.", "N.H.", "N.J.",
    "N.M.", "N.Y.", "Neb.", "Nebr.", "Nev.", "Nov.", "O.O", "O.o", "Oct.", "Okla.", "Ore.", "Pa.", "Ph.D.",
    "Prof.", "Rep.", "Rev.", "S.C.", "Sen.", "Sep.", "Sept.", "St.", "Tenn.", "V.V", "Va.", "Wash.", "Wis.",
    "a.m.", "co.", "e.g.", "i.e.", "o.0", "o.O", "o.o", "p.m.", "v.s.", "v.v", "vs.", "°C.", "°F.", "°K.",
    "°c.", "°f.", "°k.", "ä.", "ö.", "ü.",
];

fn is_exception(word: &str) -> bool {
    if word.len() < 2 || word.len() > 7 || !word.contains('.') {
        return false;
    }
    let bytes = word.as_bytes();
    match bytes {
        // Single letters: `a.` to `z.`.
        [letter, b'.'] => return letter.is_ascii_lowercase(),
        // Times of day: `1a.m.` to `12p.m.`.
        [b'1'..=b'9', b'a' | b'p', b'.', b'm', b'.'] | [b'1', b'0'..=b'2', b'a' | b'p', b'.', b'm', b'.'] => {
            return true;
        }
        _ => {}
    }
    EXCEPTIONS.contains(&word)
}

/// The same language as spaCy's `URL_MATCH`, less its ranges of addresses.
static URL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^(?:[\w+\-.]{2,}://)?(?:\S+@)?",
        r"(?:(?:[A-Za-z0-9\u{a1}-\u{ffff}][A-Za-z0-9\u{a1}-\u{ffff}_-]{0,62})?[A-Za-z0-9\u{a1}-\u{ffff}]\.)+",
        r"[\p{Ll}\p{Lo}]{2,63}(?::\d{2,5})?(?:[/?#]\S*)?$"
    ))
    .ok()
});

fn is_url(string: &str) -> bool {
    // Without a full stop that would be an infix nobody asks.
    string.contains('.') && URL.as_ref().is_some_and(|url| url.is_match(string))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of spaCy 3.8, `spacy.blank("en")` with `sentencizer`.
    #[test]
    fn sentences_are_counted_as_in_spacy() {
        for (text, expected) in [
            ("", 1),
            ("No end", 1),
            ("One. Two! Three? Four", 4),
            ("Mr. Smith met Dr. Jones at 3 p.m. in St. Louis.", 1),
            ("He left... and came back.", 1),
            ("Plan B. Then we go.", 1),
            ("In the USA. Then we go.", 2),
            ("It costs 3.14 dollars, i.e. little. Really?", 2),
            ("the end.Next one starts", 2),
            ("see www.Example.com for more", 1),
            ("\"Stop!\" he said. \"Why?\" she asked.", 4),
            ("a.b.c. Yes", 2),
            ("What?! No way", 2),
            ("What?!No way", 1),
            ("one.  two", 2),
            ("end of 2019. Begin", 2),
            ("wait...what", 1),
            ("「終わり。」次", 1),
            ("x-Mr. Smith", 1),
            ("it is 20 °C. Warm", 2),
        ] {
            assert_eq!(count(text), expected, "{text}");
        }
    }
}
