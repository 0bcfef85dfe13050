//! The line rules of C4 (Raffel et al. 2020, section 2.2), with the order, the marks and the reasons of datatrove
//! 0.10.1's `C4QualityFilter`: lines that are not prose are taken out, and a document with too few sentences left, with
//! `lorem ipsum` or with a curly bracket is dropped.
//!
//! Also its `C4ParagraphFilter`, the rule of mC4 (Xue et al. 2021, section 3.1): some lines must be long.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

use super::super::sentences;
use super::super::{Action, Filter, Limit, Reason, Rewrite, Rewriting, Text};
use super::pieces::{Pieces, python_lines};
use crate::spacy::is_space;
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// Settings of `c4_quality`; the keys are datatrove's.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct C4Quality {
        /// Takes `[1]`, `[edit]` and `[citation needed]` out of the lines.
        pub remove_citations: bool,
        /// Takes out lines that do not end in `.`, `?`, `!`, `"` or `'`, or that end in `...`.
        pub filter_no_terminal_punct: bool,
        /// Fewest sentences of a document after lines were taken out.
        pub min_num_sentences: u64,
        /// Takes out lines with fewer words between white space.
        pub min_words_per_line: u64,
        /// Takes out lines with a longer word, in characters.
        pub max_word_length: u64,
        /// Drops documents with the words `lorem ipsum`.
        pub filter_lorem_ipsum: bool,
        /// Takes out lines with the word `javascript`.
        pub filter_javascript: bool,
        /// Drops documents with `{`.
        pub filter_curly_bracket: bool,
        /// Takes out lines about terms of use, privacy and cookies.
        pub filter_policy: bool,
    }
}

/// Keys of `c4_quality` that are thresholds.
pub const QUALITY_THRESHOLDS: &[&str] = &["min_num_sentences"];

impl Default for C4Quality {
    fn default() -> C4Quality {
        C4Quality {
            remove_citations: true,
            filter_no_terminal_punct: true,
            min_num_sentences: 5,
            min_words_per_line: 3,
            max_word_length: 1000,
            filter_lorem_ipsum: true,
            filter_javascript: true,
            filter_curly_bracket: true,
            filter_policy: true,
        }
    }
}

impl Section for C4Quality {
    fn docs() -> Docs {
        C4Quality::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        match self.max_word_length {
            0 => vec![("max_word_length", "is 0, so that no line would be left; expected 1 or more".into())],
            _ => Vec::new(),
        }
    }
}

/// Reasons to take out a line, in the order of [`METHODS`].
#[derive(Clone, Copy)]
enum Method {
    TooLongWord,
    Citations,
    NoTerminalPunct,
    TooFewWords,
    Javascript,
    Policy,
    WhiteSpace,
}

/// Names in the ledger, as datatrove counts them.
const METHODS: [&str; 7] = [
    "c4_too_long_word",
    "c4_citations",
    "c4_no_terminal_punct",
    "c4_too_few_words",
    "c4_javascript",
    "c4_policy",
    "c4_white_space",
];

/// Phrases found in a line, in the order of [`PHRASES`].
const JAVASCRIPT: usize = 1;
const PHRASES: [&str; 8] = [
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
];

static PHRASE_FINDER: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(PHRASES).ok());

/// Which phrases a line has.
#[derive(Default)]
struct Phrases {
    lorem_ipsum: bool,
    javascript: bool,
    policy: bool,
}

impl Phrases {
    fn of(line: &str) -> Phrases {
        let mut found = Phrases::default();
        let Some(finder) = PHRASE_FINDER.as_ref() else { return found };
        for hit in finder.find_overlapping_iter(line) {
            match hit.pattern().as_usize() {
                0 => found.lorem_ipsum = true,
                JAVASCRIPT => found.javascript = true,
                _ => found.policy = true,
            }
        }
        found
    }
}

/// Why a whole document is dropped.
#[derive(Clone, Copy, PartialEq)]
enum Whole {
    LoremIpsum,
    CurlyBracket,
}

impl C4Quality {
    /// Sorts the lines of a text into pieces; returns the remaining sentences, or why the document is dropped.
    fn sort<'t>(&self, text: &'t str, pieces: &mut Pieces<'t>) -> Result<u64, Whole> {
        let mut n_sentences = 0;
        let mut pending: Option<&'t str> = None;
        let mut cleaned = String::new();
        let mut whole = None;
        for (line, end) in python_lines(text) {
            let fate = match whole {
                None => self.look(line, &mut cleaned),
                // The document is dropped; its lines stay.
                Some(_) => Ok(()),
            };
            if let Err(Stop::Document(reason)) = fate {
                whole = Some(reason);
            }
            if let Err(Stop::Line(method)) = fate {
                pieces.take(method as usize, line);
                pieces.take(method as usize, end);
                continue;
            }
            if let Some(end) = pending.replace(end) {
                pieces.newline(end);
            }
            if whole.is_some() {
                pieces.keep(line);
                continue;
            }
            n_sentences += sentences::count(&cleaned) as u64;
            self.keep(line, pieces);
        }
        if let Some(end) = pending {
            pieces.take(Method::WhiteSpace as usize, end);
        }
        pieces.trim(Method::WhiteSpace as usize);
        whole.map_or(Ok(n_sentences), Err)
    }

    /// Examines a line; `cleaned` becomes the part to keep.
    fn look(&self, line: &str, cleaned: &mut String) -> Result<(), Stop> {
        let line = line.trim_matches(is_space);
        let mut n_words = 0;
        for word in line.split(is_space).filter(|word| !word.is_empty()) {
            n_words += 1;
            // A word has at most as many characters as bytes.
            if word.len() as u64 > self.max_word_length && word.chars().count() as u64 > self.max_word_length
            {
                return Err(Stop::Line(Method::TooLongWord));
            }
        }
        cleaned.clear();
        match self.remove_citations {
            true => without_citations(line, |piece, is_citation| {
                if !is_citation {
                    cleaned.push_str(piece);
                }
            }),
            false => cleaned.push_str(line),
        }
        let is_open = !cleaned.ends_with(['.', '?', '!', '"', '\'']) || cleaned.ends_with("...");
        if self.filter_no_terminal_punct && is_open {
            return Err(Stop::Line(Method::NoTerminalPunct));
        }
        if n_words < self.min_words_per_line {
            return Err(Stop::Line(Method::TooFewWords));
        }
        let phrases = Phrases::of(cleaned);
        if self.filter_lorem_ipsum && phrases.lorem_ipsum {
            return Err(Stop::Document(Whole::LoremIpsum));
        }
        if self.filter_javascript && phrases.javascript {
            return Err(Stop::Line(Method::Javascript));
        }
        if self.filter_curly_bracket && cleaned.contains('{') {
            return Err(Stop::Document(Whole::CurlyBracket));
        }
        if self.filter_policy && phrases.policy {
            return Err(Stop::Line(Method::Policy));
        }
        Ok(())
    }

    /// Keeps a line without the white space around it and without its citations.
    fn keep<'t>(&self, line: &'t str, pieces: &mut Pieces<'t>) {
        let start = line.trim_start_matches(is_space);
        let middle = start.trim_end_matches(is_space);
        pieces.take(Method::WhiteSpace as usize, &line[..line.len() - start.len()]);
        match self.remove_citations {
            true => without_citations(middle, |piece, is_citation| match is_citation {
                true => pieces.take(Method::Citations as usize, piece),
                false => pieces.keep(piece),
            }),
            false => pieces.keep(middle),
        }
        pieces.take(Method::WhiteSpace as usize, &start[middle.len()..]);
    }
}

enum Stop {
    Line(Method),
    Document(Whole),
}

/// Passes on a line in pieces, each with whether it is a citation: `[12]`, `[]`, `[edit]`, `[citation needed]`.
fn without_citations<'t>(line: &'t str, mut each: impl FnMut(&'t str, bool)) {
    let mut rest = line;
    let mut from = 0;
    while let Some(at) = memchr::memchr(b'[', &rest.as_bytes()[from..]).map(|at| from + at) {
        let inside = &rest[at + 1..];
        let digits = inside.trim_start_matches(is_digit);
        let after =
            [digits.strip_prefix(']'), inside.strip_prefix("edit]"), inside.strip_prefix("citation needed]")];
        match after.into_iter().flatten().next() {
            Some(after) => {
                each(&rest[..at], false);
                each(&rest[at..rest.len() - after.len()], true);
                (rest, from) = (after, 0);
            }
            None => from = at + 1,
        }
    }
    each(rest, false);
}

/// Decimal digits of any script, as `\d` in Python.
fn is_digit(c: char) -> bool {
    use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
    c.is_ascii_digit() || (!c.is_ascii() && c.general_category() == GeneralCategory::DecimalNumber)
}

impl Rewrite for C4Quality {
    fn methods(&self) -> Vec<Reason> {
        METHODS.iter().map(|method| Reason::Borrowed(*method)).collect()
    }

    fn limits(&self, _action: Action) -> Vec<Limit> {
        vec![
            Limit::most("lorem_ipsum", 0.0),
            Limit::most("curly_bracket", 0.0),
            Limit::least("too_few_sentences", self.min_num_sentences as f64),
        ]
    }

    /// A document dropped as a whole has no sentence count; this exceeds any threshold.
    fn rewrite(&self, text: &Text<'_>, out: &mut Rewriting) {
        let mut pieces = Pieces::default();
        let found = self.sort(text.as_str(), &mut pieces);
        pieces.write(Method::WhiteSpace as usize, out);
        out.value(f64::from(u8::from(found == Err(Whole::LoremIpsum))));
        out.value(f64::from(u8::from(found == Err(Whole::CurlyBracket))));
        out.value(found.map_or(f64::from(u32::MAX), |n| n as f64));
    }
}

documented! {
    /// Settings of `c4_paragraphs`.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct C4Paragraphs {
        /// Fewest long lines.
        pub min_paragraphs: u64,
        /// Fewest characters of a long line.
        pub min_paragraph_len: u64,
    }
}

/// Keys of `c4_paragraphs` that are thresholds.
pub const PARAGRAPHS_THRESHOLDS: &[&str] = &["min_paragraphs"];

impl Default for C4Paragraphs {
    fn default() -> C4Paragraphs {
        C4Paragraphs { min_paragraphs: 3, min_paragraph_len: 200 }
    }
}

impl Section for C4Paragraphs {
    fn docs() -> Docs {
        C4Paragraphs::DOCS
    }
}

impl Filter for C4Paragraphs {
    fn limits(&self) -> Vec<Limit> {
        vec![Limit::least("too_few_paragraphs", self.min_paragraphs as f64)]
    }

    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        let least = self.min_paragraph_len;
        // A line has at most as many characters as bytes.
        let is_long = |line: &&str| line.len() as u64 >= least && line.chars().count() as u64 >= least;
        values.push(text.as_str().split('\n').filter(is_long).count() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::rewritten;

    const PROSE: &str =
        "One two three. Four five six.\nSeven eight nine! Ten eleven twelve? Thirteen and more.";

    fn check(settings: C4Quality, text: &str, expected: Result<&str, &str>) {
        let (new, found) = rewritten(&settings, text);
        let reason = found.as_ref().map(|rejection| rejection.reason.as_ref());
        match expected {
            Ok(expected) => assert_eq!((new.as_str(), reason), (expected, None), "{text:?}"),
            Err(expected) => assert_eq!(reason, Some(expected), "{text:?}"),
        }
    }

    fn check_line(line: &str, is_kept: bool) {
        let text = format!("{PROSE}\n{line}\n");
        let expected = if is_kept { text.trim_end() } else { PROSE };
        check(C4Quality::default(), &text, Ok(expected));
    }

    #[test]
    fn lines_that_are_no_prose_are_taken_out() {
        check_line("This line has no end", false);
        check_line("This line goes on...", false);
        check_line("He said \"so it is\"", true);
        check_line("Two words.", false);
        check_line("Please enable JavaScript now.", false);
        check_line("Read our Privacy Policy here.", false);
        check_line("This site uses Cookies.", false);
        check_line(&format!("One {} word.", "x".repeat(1000)), true);
        check_line(&format!("One {} word.", "x".repeat(1001)), false);
        // Characters, not bytes.
        check_line(&format!("One {} word.", "é".repeat(1000)), true);
    }

    #[test]
    fn documents_are_dropped_for_one_line() {
        check(C4Quality::default(), &format!("{PROSE}\nLorem ipsum dolor sit."), Err("lorem_ipsum"));
        check(C4Quality::default(), &format!("{PROSE}\nif (x) {{ y; }} and so on."), Err("curly_bracket"));
        // A line already taken out is not examined.
        check(C4Quality::default(), &format!("{PROSE}\nif (x) {{"), Ok(PROSE));
        check(C4Quality::default(), "One two three. Four five six.", Err("too_few_sentences"));
        check(
            C4Quality { min_num_sentences: 2, ..C4Quality::default() },
            "One two three. Four five six.",
            Ok("One two three. Four five six."),
        );
    }

    #[test]
    fn citations_go_and_words_are_counted_before() {
        check(
            C4Quality::default(),
            &format!("  {PROSE}[12]\n\nA b [citation needed][edit][].\u{2028}It is[x] so.\t\n\n"),
            Ok(&format!("{PROSE}\nA b .\nIt is[x] so.")),
        );
        check(C4Quality { min_num_sentences: 0, ..C4Quality::default() }, "a b [1].[2]", Ok("a b ."));
        check(
            C4Quality { min_num_sentences: 0, filter_no_terminal_punct: false, ..C4Quality::default() },
            "[1] [2] [3]\na b c [4]\n[1] [2] [3]",
            Ok("a b c"),
        );
    }

    #[test]
    fn options_switch_rules_off() {
        let off = C4Quality {
            remove_citations: false,
            filter_no_terminal_punct: false,
            min_num_sentences: 0,
            min_words_per_line: 0,
            max_word_length: u64::MAX,
            filter_lorem_ipsum: false,
            filter_javascript: false,
            filter_curly_bracket: false,
            filter_policy: false,
        };
        let text = "Lorem ipsum [1]\n\n{javascript}\nprivacy policy";
        check(off, text, Ok(text));
    }

    #[test]
    fn paragraphs_are_long_lines() {
        let rule = C4Paragraphs { min_paragraphs: 2, min_paragraph_len: 4 };
        let n = |text: &str| {
            let mut values = Vec::new();
            rule.measure(&Text::new(text), &mut values);
            values
        };
        assert_eq!(n("éé\nabcd\n\nabcde"), [2.0]);
        assert_eq!(n(""), [0.0]);
    }
}
