//! The repetition rules of Gopher (Rae et al. 2021, appendix A.1.1, table A1), with the thresholds and the
//! reason names of datatrove's `GopherRepetitionFilter`. What counts as repeated differs between
//! existing programs, so `definition` selects one.

use serde::{Deserialize, Serialize};

use super::ngrams::{Counter, Grams};
use super::text::Split;
use super::words::{Word, Words};
use super::{Definition, Filter, Limit, Text};
use crate::strict_toml::{Docs, Fault, Section, documented};

/// The settings that values are compared with.
pub const THRESHOLDS: &[&str] = &[
    "max_dup_lines",
    "max_dup_line_chars",
    "max_dup_paragraphs",
    "max_dup_paragraph_chars",
    "max_top_ngram_chars",
    "max_dup_ngram_chars",
];

/// Lengths of n-grams of which the most frequent counts.
const TOP: [usize; 3] = [2, 3, 4];
const TOP_REASONS: [&str; 3] = ["top_2_gram", "top_3_gram", "top_4_gram"];
/// Lengths of n-grams of which all repeated ones count.
const DUP: [usize; 6] = [5, 6, 7, 8, 9, 10];
const DUP_REASONS: [&str; 6] = [
    "duplicated_5_n_grams",
    "duplicated_6_n_grams",
    "duplicated_7_n_grams",
    "duplicated_8_n_grams",
    "duplicated_9_n_grams",
    "duplicated_10_n_grams",
];

documented! {
    /// Settings of `gopher_repetition`. A fraction of 1 or more switches a limit off.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct GopherRepetition {
        /// Whose definition of a repetition to use.
        ///
        /// `datatrove`: copies of a line, paragraph or n-gram beyond the first count, n-grams of five and more words
        /// do not overlap, and fractions are of all characters of the text. `dclm`: all copies count,
        /// including the first; only words that start with a letter or digit count, and fractions are of their
        /// characters; words inside any repeated n-gram count once. `dolma`: as `dclm`, with words between white space,
        /// n-grams that count as often as they occur, empty lines counted, and no paragraphs.
        pub definition: Definition,
        /// How `datatrove` splits words: like spaCy, or by UAX #29, where each ideograph is a word. The others have their own splits.
        pub words: Split,
        /// Most of the lines that are repeated, as a fraction.
        pub max_dup_lines: f64,
        /// Most of the characters in repeated lines, as a fraction.
        pub max_dup_line_chars: f64,
        /// Most of the paragraphs that are repeated, as a fraction.
        pub max_dup_paragraphs: f64,
        /// Most of the characters in repeated paragraphs, as a fraction.
        pub max_dup_paragraph_chars: f64,
        /// Most of the characters in the copies of the most frequent 2-, 3- and 4-gram of words, as fractions.
        pub max_top_ngram_chars: [f64; 3],
        /// Most of the characters in repeated 5- to 10-grams of words, as fractions.
        pub max_dup_ngram_chars: [f64; 6],
    }
}

impl Default for GopherRepetition {
    fn default() -> GopherRepetition {
        GopherRepetition {
            definition: Definition::Datatrove,
            words: Split::Spacy,
            max_dup_lines: 0.3,
            max_dup_line_chars: 0.2,
            max_dup_paragraphs: 0.3,
            max_dup_paragraph_chars: 0.2,
            max_top_ngram_chars: [0.2, 0.18, 0.16],
            max_dup_ngram_chars: [0.15, 0.14, 0.13, 0.12, 0.11, 0.1],
        }
    }
}

impl Section for GopherRepetition {
    fn docs() -> Docs {
        GopherRepetition::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let below = |values: &[f64]| values.iter().copied().find(|value| *value < 0.0);
        [
            ("max_dup_lines", below(&[self.max_dup_lines])),
            ("max_dup_line_chars", below(&[self.max_dup_line_chars])),
            ("max_dup_paragraphs", below(&[self.max_dup_paragraphs])),
            ("max_dup_paragraph_chars", below(&[self.max_dup_paragraph_chars])),
            ("max_top_ngram_chars", below(&self.max_top_ngram_chars)),
            ("max_dup_ngram_chars", below(&self.max_dup_ngram_chars)),
        ]
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| (key, format!("is {value}; expected 0 or more"))))
        .chain(self.definition.split_fault(self.words))
        .collect()
    }
}

impl Filter for GopherRepetition {
    fn limits(&self) -> Vec<Limit> {
        let lines = Limit::most("dup_line_frac", self.max_dup_lines);
        let line_chars = Limit::most("dup_line_char_frac", self.max_dup_line_chars);
        let paragraphs = Limit::most("dup_para_frac", self.max_dup_paragraphs);
        let paragraph_chars = Limit::most("dup_para_char_frac", self.max_dup_paragraph_chars);
        // In the order of the program's checks.
        let mut limits = match self.definition {
            Definition::Datatrove => vec![paragraphs, paragraph_chars, lines, line_chars],
            Definition::Dclm => vec![lines, paragraphs, line_chars, paragraph_chars],
            Definition::Dolma => vec![lines, line_chars],
        };
        limits.extend(
            TOP_REASONS.iter().zip(self.max_top_ngram_chars).map(|(reason, most)| Limit::most(reason, most)),
        );
        limits.extend(
            DUP_REASONS.iter().zip(self.max_dup_ngram_chars).map(|(reason, most)| Limit::most(reason, most)),
        );
        limits
    }

    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        text.with_tables(|tables| match self.definition {
            Definition::Datatrove => {
                datatrove(text, text.words_by(self.words), &mut tables.counter, &mut tables.grams, values)
            }
            Definition::Dclm => dclm(text, &mut tables.counter, &mut tables.grams, values),
            Definition::Dolma => dolma(text, &mut tables.counter, &mut tables.grams, values),
        });
    }
}

fn fraction(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn datatrove(
    text: &Text<'_>,
    words: &Words,
    counter: &mut Counter,
    grams: &mut Grams,
    values: &mut Vec<f64>,
) {
    let n_chars = text.n_chars();
    let trimmed = text.as_str().trim();
    for pieces in
        [&mut Pieces::new(trimmed, 2) as &mut dyn Iterator<Item = &str>, &mut Pieces::new(text.as_str(), 1)]
    {
        let extra = repeated(text, counter, pieces);
        values.extend([fraction(extra.n_extra, extra.n), fraction(extra.extra_chars, n_chars)]);
    }
    collect(text, words, |_| true, grams);
    for n in TOP {
        let top = top_gram(grams, counter, n).map_or(0, |top| {
            // With the spaces between the words.
            (grams.chars(top.first as usize, n) + n as u64 - 1) * u64::from(top.count)
        });
        values.push(fraction(top, n_chars));
    }
    for n in DUP {
        counter.start(grams.n_words());
        let (mut at, mut repeated) = (0, 0);
        while at + n <= grams.n_words() {
            if counter.add(grams.joined(at, n), at as u32) > 0 {
                repeated += grams.chars(at, n);
                at += n;
            } else {
                at += 1;
            }
        }
        values.push(fraction(repeated, n_chars));
    }
}

fn dclm(text: &Text<'_>, counter: &mut Counter, grams: &mut Grams, values: &mut Vec<f64>) {
    let whole = text.as_str();
    let stripped = |piece: &&str| !piece.is_empty();
    let lines = repeated(text, counter, &mut whole.split('\n').map(str::trim).filter(stripped));
    let paragraphs = repeated(text, counter, &mut whole.split("\n\n").map(str::trim).filter(stripped));
    values.extend([
        lines.all_share(),
        paragraphs.all_share(),
        lines.all_char_share(),
        paragraphs.all_char_share(),
    ]);
    let is_word = |word: &Word| word.of(whole).starts_with(char::is_alphanumeric);
    collect(text, text.words_by(Split::Uax29), is_word, grams);
    let total = grams.chars(0, grams.n_words());
    for n in TOP {
        top_gram(grams, counter, n);
        let most =
            counter.entries().iter().map(|entry| entry.count).max().filter(|most| *most > 1).unwrap_or(0);
        let frequent = counter.entries().iter().filter(|entry| entry.count == most);
        // Of several the longest.
        let chars = frequent.map(|entry| grams.chars(entry.first as usize, n)).max().unwrap_or(0);
        values.push(fraction(chars * u64::from(most), total));
    }
    for n in DUP {
        top_gram(grams, counter, n);
        let (mut covered, mut end) = (0, 0);
        for at in 0..(grams.n_words() + 1).saturating_sub(n) {
            if counter.count(grams.sequence(at, n)) > 1 {
                let start = at.max(end);
                covered += grams.chars(start, at + n - start);
                end = at + n;
            }
        }
        values.push(fraction(covered, total));
    }
}

fn dolma(text: &Text<'_>, counter: &mut Counter, grams: &mut Grams, values: &mut Vec<f64>) {
    let words = text.words_by(Split::Whitespace);
    collect(text, words, |_| true, grams);
    let total = grams.chars(0, grams.n_words());
    let lines = repeated(text, counter, &mut text.as_str().split('\n'));
    values.extend([lines.all_share(), fraction(lines.all_chars, total)]);
    for n in TOP {
        let top = top_gram(grams, counter, n);
        let chars = top.map_or(0, |top| grams.chars(top.first as usize, n) * u64::from(top.count));
        values.push(fraction(chars, total));
    }
    for n in DUP {
        top_gram(grams, counter, n);
        let of = |least: u32| -> u64 {
            let wanted = counter.entries().iter().filter(|entry| entry.count >= least);
            wanted.map(|entry| grams.chars(entry.first as usize, n) * u64::from(entry.count)).sum()
        };
        values.push(fraction(of(2), of(1)));
    }
}

/// Makes `grams` from the wanted words.
fn collect(text: &Text<'_>, words: &Words, wanted: impl Fn(&Word) -> bool, grams: &mut Grams) {
    grams.start();
    for (word, hash) in words.all().iter().zip(words.hashes(text.as_str())).filter(|(word, _)| wanted(word)) {
        grams.push(word.of(text.as_str()), word.n_chars, *hash);
    }
}

/// Counts all n-grams, and returns the most frequent one, the first in case of ties.
fn top_gram(grams: &Grams, counter: &mut Counter, n: usize) -> Option<super::ngrams::Entry> {
    counter.start(grams.n_words());
    for at in 0..(grams.n_words() + 1).saturating_sub(n) {
        counter.add(grams.sequence(at, n), at as u32);
    }
    counter.entries().iter().copied().reduce(|top, entry| if entry.count > top.count { entry } else { top })
}

/// Repetition among the lines or paragraphs of a text.
#[derive(Default)]
struct Repeated {
    /// Pieces, and their characters.
    n: u64,
    chars: u64,
    /// Copies beyond the first of each piece, and their characters.
    n_extra: u64,
    extra_chars: u64,
    /// All copies of repeated pieces, and their characters.
    n_all: u64,
    all_chars: u64,
}

impl Repeated {
    fn all_share(&self) -> f64 {
        fraction(self.n_all, self.n)
    }

    fn all_char_share(&self) -> f64 {
        fraction(self.all_chars, self.chars)
    }
}

fn repeated(text: &Text<'_>, counter: &mut Counter, pieces: &mut dyn Iterator<Item = &str>) -> Repeated {
    let is_ascii = text.n_chars() == text.as_str().len() as u64;
    let mut found = Repeated::default();
    counter.start(text.as_str().bytes().filter(|byte| *byte == b'\n').count() + 1);
    for piece in pieces {
        let chars = if is_ascii { piece.len() } else { piece.chars().count() } as u64;
        found.n += 1;
        found.chars += chars;
        let before = counter.add(xxhash_rust::xxh3::xxh3_64(piece.as_bytes()), 0);
        if before > 0 {
            found.n_extra += 1;
            found.extra_chars += chars;
            // The second copy makes the first one count as repeated.
            let n_new = if before == 1 { 2 } else { 1 };
            found.n_all += n_new;
            found.all_chars += chars * n_new;
        }
    }
    found
}

/// Pieces between runs of at least `least` line ends; the first and the last one may be empty.
struct Pieces<'t> {
    rest: Option<&'t str>,
    least: usize,
}

impl<'t> Pieces<'t> {
    fn new(text: &'t str, least: usize) -> Pieces<'t> {
        Pieces { rest: Some(text), least }
    }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let rest = self.rest?;
        let bytes = rest.as_bytes();
        let mut from = 0;
        while let Some(found) = memchr::memchr(b'\n', &bytes[from..]) {
            let start = from + found;
            let length = bytes[start..].iter().take_while(|byte| **byte == b'\n').count();
            if length >= self.least {
                self.rest = Some(&rest[start + length..]);
                return Some(&rest[..start]);
            }
            from = start + length;
        }
        self.rest = None;
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge;
    use super::*;

    fn measure(definition: Definition, text: &str) -> Vec<f64> {
        let mut values = Vec::new();
        GopherRepetition { definition, ..GopherRepetition::default() }.measure(&Text::new(text), &mut values);
        values.iter().map(|value| (value * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn pieces_are_split_at_runs_of_line_ends() {
        let check = |text: &str, least: usize, expected: &[&str]| {
            assert_eq!(Pieces::new(text, least).collect::<Vec<_>>(), expected, "{text:?}");
        };
        check("\na\n\nb\nc\n", 1, &["", "a", "b", "c", ""]);
        check("a\n\n\nb\nc\n\nd", 2, &["a", "b\nc", "d"]);
        check("a", 1, &["a"]);
        check("", 1, &[""]);
    }

    #[test]
    fn lines_and_paragraphs_by_hand() {
        // Three paragraphs, the third is a copy of the first: 3 of 13 characters. Five lines, of which one is a copy.
        let text = "a b\n\nc\nd e\n\na b";
        let found = measure(Definition::Datatrove, text);
        assert_eq!(found[..4], [0.3333, 0.2, 0.25, 0.2]);
        // All copies: 2 of 3 paragraphs with 6 of 11 characters, 2 of 4 lines with 6 of 10.
        assert_eq!(measure(Definition::Dclm, text)[..4], [0.5, 0.6667, 0.6, 0.5455]);
        // Two empty lines are copies as well: 4 of 6 lines; 6 of the 7 characters of words, with the space in the line.
        assert_eq!(measure(Definition::Dolma, text)[..2], [0.6667, 0.8571]);
        // Nothing is repeated; a line end at both ends makes two empty lines.
        assert_eq!(measure(Definition::Datatrove, "\na\nb\n")[..4], [0.0, 0.0, 0.25, 0.0]);
    }

    #[test]
    fn most_frequent_ngrams_by_hand() {
        // The 2-gram `x y` comes twice: 2 * 3 of 15 characters. Every 3-gram comes once: the first one counts.
        let text = "x y aa x y bbbb";
        assert_eq!(measure(Definition::Datatrove, text)[4..7], [0.4, 0.4, 0.5333]);
        // Without spaces: 4 of 10 characters; nothing where nothing comes twice.
        assert_eq!(measure(Definition::Dclm, text)[4..7], [0.4, 0.0, 0.0]);
        assert_eq!(measure(Definition::Dolma, text)[2..5], [0.4, 0.4, 0.5]);
        // Of two that occur twice, datatrove and dolma take the first, DCLM the longest.
        let text = "a b cc dd a b cc dd";
        assert_eq!(measure(Definition::Datatrove, text)[4], 0.3158);
        assert_eq!(measure(Definition::Dclm, text)[4], 0.6667);
        assert_eq!(measure(Definition::Dolma, text)[2], 0.3333);
    }

    #[test]
    fn repeated_ngrams_by_hand() {
        // Ten words of one character: the 5-gram at 5 is a copy of the first, 5 of 19 characters.
        let text = "a b c d e a b c d e";
        assert_eq!(measure(Definition::Datatrove, text)[7..9], [0.2632, 0.0]);
        // Both copies cover all words.
        assert_eq!(measure(Definition::Dclm, text)[7..9], [1.0, 0.0]);
        // Two of six 5-grams are the same, of 5 characters each.
        assert_eq!(measure(Definition::Dolma, text)[5..7], [0.3333, 0.0]);
        // Words that end elsewhere are the same characters for datatrove alone.
        let text = "ab c d e f a bc d e f";
        assert_eq!(measure(Definition::Datatrove, text)[7], 0.2857);
        assert_eq!(measure(Definition::Dclm, text)[7], 0.0);
    }

    #[test]
    fn each_limit_drops() {
        let check = |text: &str, expected: Option<&str>| {
            let found = judge(&GopherRepetition::default(), text).map(|rejection| rejection.reason);
            assert_eq!(found.as_deref(), expected, "{}", &text[..text.len().min(60)]);
        };
        // Words that never come twice.
        let words = |from: usize, n: usize| (from..from + n).map(|i| format!("w{i}q ")).collect::<String>();
        let lines = |n: usize| (0..n).map(|i| format!("{}\n", words(i * 8, 8))).collect::<String>();
        check(&lines(10), None);
        // 5 of 15 paragraphs, then 1 of 9 with a third of the characters.
        check(&format!("{}{}", lines(9).replace('\n', "\n\n"), "x\n\n".repeat(6)), Some("dup_para_frac"));
        let long = words(900, 40);
        let long = long.trim();
        check(&format!("{long}\n\n{}{long}", lines(8).replace('\n', "\n\n")), Some("dup_para_char_frac"));
        check(&format!("{}{}", lines(9), "x\n".repeat(7)), Some("dup_line_frac"));
        check(&format!("{long}\n{}{long}", lines(8)), Some("dup_line_char_frac"));
        // `aaaaaaaaa b` comes ten times among 40 others.
        let spread = |phrase: &str, n: usize| {
            (0..n).map(|i| format!("{phrase} {}", words(i * 4, 4))).collect::<String>()
        };
        check(&spread("aaaaaaa b", 10), Some("top_2_gram"));
        check(&spread("a b cccc", 10), Some("top_3_gram"));
        check(&spread("a b c dddd", 10), Some("top_4_gram"));
        // A phrase of n words, the last one long, twice, among as many others as datatrove still drops.
        for (n, others) in [(5, 41), (6, 45), (7, 51), (8, 58), (9, 66), (10, 76)] {
            let short = (0..n - 1).map(|i| format!("{} ", char::from(b'a' + i as u8))).collect::<String>();
            let phrase = format!("{short}{} ", "l".repeat(40));
            let reason = |others: usize| {
                let text = format!("{phrase}{}{phrase}", words(0, others));
                judge(&GopherRepetition::default(), &text).map(|rejection| rejection.reason.into_owned())
            };
            assert_eq!(reason(others).as_deref(), Some(DUP_REASONS[n - 5]), "{n}");
            assert_ne!(reason(others + 1).as_deref(), Some(DUP_REASONS[n - 5]), "{n}");
        }
    }

    #[test]
    fn ranges_are_checked() {
        let wrong = GopherRepetition {
            max_dup_lines: -1.0,
            max_dup_ngram_chars: [0.1, 0.1, -0.1, 0.1, 0.1, 0.1],
            ..GopherRepetition::default()
        };
        let keys: Vec<_> = wrong.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["max_dup_lines", "max_dup_ngram_chars"]);
    }
}
