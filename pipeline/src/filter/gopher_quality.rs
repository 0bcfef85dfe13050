//! The document statistics of Gopher (Rae et al. 2021, appendix A.1.1), with the thresholds, the
//! order and the reason names of datatrove's `GopherQualityFilter`. Existing programs count
//! differently, so `definition` selects one.

use serde::{Deserialize, Serialize};

use super::text::Split;
use super::words::Word;
use super::{Definition, Filter, Limit, Text};
use crate::strict_toml::{Docs, Fault, Section, documented};

/// The settings that values are compared with.
pub const THRESHOLDS: &[&str] = &[
    "min_words",
    "max_words",
    "min_mean_word_chars",
    "max_mean_word_chars",
    "max_symbol_word_ratio",
    "max_bullet_lines",
    "max_ellipsis_lines",
    "min_alphabetic_words",
    "min_stop_words",
];

documented! {
    /// Settings of `gopher_quality`. A fraction of 1 (or 0, for a lower limit) switches a limit off.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct GopherQuality {
        /// Whose definition of the values to use.
        ///
        /// `datatrove`: words by `words`, of which those that are not punctuation alone are counted and
        /// measured; `#` and ellipses count apart; lines start with `•` or `-` after white space; distinct stop words count, spelled as in the list.
        /// `dclm`: counted words start with a letter or digit, all else is about words between white space; `#`, `...`, `. . .` and `…` count together; blank lines do not count; bullets are `●`, `•`, `*` and `-`;
        /// every stop word counts, in any case. `dolma`: words between white space; the median of their lengths; words that hold
        /// `#` or `…` count; bullets are `*` and `-`, and ellipses `…`, right at the edge of a line; every stop word counts, spelled as in the list.
        pub definition: Definition,
        /// How `datatrove` splits words: like spaCy, or by UAX #29, where each ideograph is a word. The others have their own splits.
        pub words: Split,
        /// Fewest words.
        pub min_words: u64,
        /// Most words.
        pub max_words: u64,
        /// Lowest mean (`dolma`: median) length of words, in characters.
        pub min_mean_word_chars: f64,
        /// Highest mean (`dolma`: median) length of words, in characters.
        pub max_mean_word_chars: f64,
        /// Most `#` per word, and most ellipses per word; together for `dclm` and `dolma`.
        pub max_symbol_word_ratio: f64,
        /// Most of the lines that start with a bullet, as a fraction.
        pub max_bullet_lines: f64,
        /// Most of the lines that end in an ellipsis, as a fraction.
        pub max_ellipsis_lines: f64,
        /// Fewest words with a letter among all words, punctuation included, as a fraction.
        pub min_alphabetic_words: f64,
        /// Words that any text in a language has several of.
        pub stop_words: Vec<String>,
        /// Fewest of them.
        pub min_stop_words: u32,
    }
}

impl Default for GopherQuality {
    fn default() -> GopherQuality {
        GopherQuality {
            definition: Definition::Datatrove,
            words: Split::Spacy,
            min_words: 50,
            max_words: 100_000,
            min_mean_word_chars: 3.0,
            max_mean_word_chars: 10.0,
            max_symbol_word_ratio: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_alphabetic_words: 0.8,
            stop_words: ["the", "be", "to", "of", "and", "that", "have", "with"].map(str::to_owned).to_vec(),
            min_stop_words: 2,
        }
    }
}

impl Section for GopherQuality {
    fn docs() -> Docs {
        GopherQuality::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = self.definition.split_fault(self.words);
        if self.min_words > self.max_words {
            wrong.push(("min_words", format!("is {}, above max_words = {}", self.min_words, self.max_words)));
        }
        if self.min_mean_word_chars > self.max_mean_word_chars {
            let message = format!(
                "is {}, above max_mean_word_chars = {}",
                self.min_mean_word_chars, self.max_mean_word_chars
            );
            wrong.push(("min_mean_word_chars", message));
        }
        for (key, value) in [
            ("max_bullet_lines", self.max_bullet_lines),
            ("max_ellipsis_lines", self.max_ellipsis_lines),
            ("min_alphabetic_words", self.min_alphabetic_words),
        ] {
            if !(0.0..=1.0).contains(&value) {
                wrong.push((key, format!("is {value}; expected a fraction from 0 to 1")));
            }
        }
        if self.max_symbol_word_ratio < 0.0 {
            wrong.push((
                "max_symbol_word_ratio",
                format!("is {}; expected 0 or more", self.max_symbol_word_ratio),
            ));
        }
        if self.definition == Definition::Datatrove && self.min_stop_words as usize > self.stop_words.len() {
            let message =
                format!("is {}; there are {} stop words", self.min_stop_words, self.stop_words.len());
            wrong.push(("min_stop_words", message));
        }
        let is_word = |word: &String| !word.is_empty() && !word.contains(char::is_whitespace);
        if !self.stop_words.iter().all(is_word) {
            wrong.push(("stop_words", "expected words without white space".to_owned()));
        }
        wrong
    }
}

impl Filter for GopherQuality {
    fn limits(&self) -> Vec<Limit> {
        let mut limits = vec![
            Limit::least("gopher_short_doc", self.min_words as f64),
            Limit::most("gopher_long_doc", self.max_words as f64),
            Limit::least("gopher_below_avg_threshold", self.min_mean_word_chars),
            Limit::most("gopher_above_avg_threshold", self.max_mean_word_chars),
        ];
        let symbols = match self.definition {
            Definition::Datatrove => &["gopher_too_many_hashes", "gopher_too_many_ellipsis"][..],
            Definition::Dclm | Definition::Dolma => &["gopher_too_many_symbols"],
        };
        limits.extend(symbols.iter().map(|reason| Limit::most(reason, self.max_symbol_word_ratio)));
        limits.extend([
            Limit::most("gopher_too_many_bullets", self.max_bullet_lines),
            Limit::most("gopher_too_many_end_ellipsis", self.max_ellipsis_lines),
            Limit::least("gopher_below_alpha_threshold", self.min_alphabetic_words),
            Limit::least("gopher_enough_stop_words", f64::from(self.min_stop_words)),
        ]);
        limits
    }

    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        match self.definition {
            Definition::Datatrove => self.datatrove(text, values),
            Definition::Dclm => self.dclm(text, values),
            Definition::Dolma => self.dolma(text, values),
        }
    }
}

impl GopherQuality {
    fn datatrove(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        let (whole, words) = (text.as_str(), text.words_by(self.words));
        let counted = words.n_non_symbol() as f64;
        let mean_chars = words.chars_non_symbol() as f64 / counted.max(1.0);
        let per_word = |n: usize| n as f64 / words.len().max(1) as f64;
        let hashes = memchr::memchr_iter(b'#', whole.as_bytes()).count();
        let ellipses = count(whole, "...") + count(whole, "…");
        let lines = lines(whole);
        let bullets = share(lines.clone(), |line| line.trim_start().starts_with(['•', '-']));
        let open = share(lines, |line| ends_in(line.trim_end(), &["...", "…"]));
        values.extend([
            counted,
            counted,
            mean_chars,
            mean_chars,
            per_word(hashes),
            per_word(ellipses),
            bullets,
            open,
        ]);
        let mut seen = vec![false; self.stop_words.len()];
        self.each_stop_word(text, words.all(), |i| seen[i] = true);
        let n_seen = seen.iter().filter(|seen| **seen).count();
        values.extend([per_word(words.n_with_letter() as usize), n_seen as f64]);
    }

    fn dclm(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        let whole = text.as_str();
        let starts_well = |word: &&Word| word.of(whole).starts_with(char::is_alphanumeric);
        let counted = text.words_by(Split::Uax29).all().iter().filter(starts_well).count() as f64;
        let words = text.words_by(Split::Whitespace);
        let per_word = |n: u64| n as f64 / words.len().max(1) as f64;
        let mean_chars = per_word(words.n_chars());
        let symbols: usize = ["#", "...", ". . .", "…"].iter().map(|symbol| count(whole, symbol)).sum();
        let lines = whole.split('\n').map(str::trim).filter(|line| !line.is_empty());
        let bullets = share(lines.clone(), |line| line.starts_with(['●', '•', '*', '-']));
        let open = share(lines, |line| ends_in(line, &["...", ". . .", "…"]));
        values.extend([counted, counted, mean_chars, mean_chars, per_word(symbols as u64), bullets, open]);
        let lower = |word: &&Word| {
            let word = word.of(whole).to_lowercase();
            self.stop_words.contains(&word)
        };
        let short = words.all().iter().filter(|word| word.len as usize <= self.longest_stop_word());
        values.extend([per_word(words.n_with_letter()), short.filter(lower).count() as f64]);
    }

    fn dolma(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        let (whole, words) = (text.as_str(), text.words_by(Split::Whitespace));
        let n_words = words.len() as f64;
        let per_word = |n: u64| n as f64 / n_words.max(1.0);
        let symbols = words.all().iter().filter(|word| word.of(whole).contains(['#', '…'])).count();
        let lines = whole.split('\n');
        let bullets = share(lines.clone(), |line| line.starts_with(['*', '-']));
        let open = share(lines, |line| line.ends_with('…'));
        let median = median_chars(words.all());
        values.extend([n_words, n_words, median, median, per_word(symbols as u64), bullets, open]);
        let mut n_stop_words = 0;
        self.each_stop_word(text, words.all(), |_| n_stop_words += 1);
        values.extend([per_word(words.n_with_letter()), f64::from(n_stop_words)]);
    }

    fn longest_stop_word(&self) -> usize {
        self.stop_words.iter().map(String::len).max().unwrap_or(0)
    }

    /// Passes the numbers of the stop words in `words` to `each`.
    fn each_stop_word(&self, text: &Text<'_>, words: &[Word], mut each: impl FnMut(usize)) {
        let longest = self.longest_stop_word();
        for word in words.iter().filter(|word| word.len as usize <= longest) {
            let word = word.of(text.as_str());
            if let Some(i) = self.stop_words.iter().position(|stop| stop == word) {
                each(i);
            }
        }
    }
}

/// Occurrences that do not overlap.
fn count(text: &str, part: &str) -> usize {
    memchr::memmem::find_iter(text.as_bytes(), part.as_bytes()).count()
}

fn ends_in(line: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| line.ends_with(end))
}

/// Lines, blank ones included, as Python's `splitlines` finds them in a normalized text.
fn lines(text: &str) -> impl Iterator<Item = &str> + Clone {
    let separators = ['\n', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    text.split_terminator(separators)
}

/// Share of the lines that pass `test`.
fn share<'t>(lines: impl Iterator<Item = &'t str>, test: impl Fn(&str) -> bool) -> f64 {
    let (mut hits, mut n) = (0u64, 0u64);
    for line in lines {
        n += 1;
        hits += u64::from(test(line));
    }
    hits as f64 / n.max(1) as f64
}

/// Median of the words' lengths; the mean of the two middle ones of an even number.
fn median_chars(words: &[Word]) -> f64 {
    // Lengths are few and small, so they are counted instead of sorted.
    let mut by_length = vec![0u64; 64];
    for word in words {
        let length = word.n_chars as usize;
        if length >= by_length.len() {
            by_length.resize(length + 1, 0);
        }
        by_length[length] += 1;
    }
    let at = |rank: u64| {
        let mut sum = 0;
        by_length
            .iter()
            .position(|n| {
                sum += n;
                sum > rank
            })
            .unwrap_or(0) as f64
    };
    match words.len() as u64 {
        0 => 0.0,
        n if n % 2 == 1 => at(n / 2),
        n => (at(n / 2 - 1) + at(n / 2)) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge;
    use super::*;

    /// 50 words, two of them stop words: passes every rule.
    fn passing() -> String {
        format!("the and {}", "dogs ".repeat(48))
    }

    fn check(text: &str, expected: Option<(&str, f64)>) {
        let verdict = judge(&GopherQuality::default(), text);
        let found = verdict.map(|r| (r.reason, (r.measured * 1000.0).round() / 1000.0));
        let expected = expected.map(|(reason, measured)| (reason.to_owned().into(), measured));
        assert_eq!(found, expected, "{}", &text[..text.len().min(60)]);
    }

    #[test]
    fn word_count() {
        check(&passing(), None);
        check(&passing().replacen("dogs", "", 1), Some(("gopher_short_doc", 49.0)));
        // Symbols are words, but not counted ones.
        check(&format!("the and {} ; ; ;", "dog ".repeat(47)), Some(("gopher_short_doc", 49.0)));
        check(&"dogs ".repeat(100_000).replacen("dogs dogs", "the and", 1), None);
        check(&"dogs ".repeat(100_001), Some(("gopher_long_doc", 100_001.0)));
    }

    #[test]
    fn mean_word_length() {
        check(&format!("the and {}", "do ".repeat(48)), Some(("gopher_below_avg_threshold", 2.04)));
        // (2 * 3 + 48 * 10) / 50 = 9.72 passes, (2 * 3 + 48 * 11) / 50 = 10.68 does not.
        check(&format!("the and {}", "abcdefghij ".repeat(48)), None);
        check(&format!("the and {}", "abcdefghijk ".repeat(48)), Some(("gopher_above_avg_threshold", 10.68)));
    }

    #[test]
    fn symbols_per_word() {
        // 50 words and 5 separate hashes: 5 / 55; with 6: 6 / 56 = 0.107.
        check(&("# ".repeat(5) + &passing()), None);
        check(&("# ".repeat(6) + &passing()), Some(("gopher_too_many_hashes", 0.107)));
        check(&("... ".repeat(5) + &passing()), None);
        check(&("... ".repeat(6) + &passing()), Some(("gopher_too_many_ellipsis", 0.107)));
        check(&("… ".repeat(6) + &passing()), Some(("gopher_too_many_ellipsis", 0.107)));
    }

    #[test]
    fn lines() {
        let bullets = |n: usize| format!("{}\nthe and\n", "- dogs run far and wide now\n".repeat(n));
        // 19 of 21 lines = 0.905; 18 of 20 lines is exactly 0.9 and passes that rule.
        check(&bullets(19), Some(("gopher_too_many_bullets", 0.905)));
        check(&bullets(18), None);
        let open = |n: usize| {
            format!(
                "{}{}",
                "the dogs and cats run far…\n".repeat(n),
                "the dogs and cats run far.\n".repeat(20 - n)
            )
        };
        check(&open(6), None);
        check(&open(7), Some(("gopher_too_many_end_ellipsis", 0.35)));
    }

    #[test]
    fn letters_and_stop_words() {
        // 50 words with letters of 62 = 0.806 pass; of 63 = 0.794 do not.
        check(&(passing() + &"12 ".repeat(12)), None);
        check(&(passing() + &"12 ".repeat(13)), Some(("gopher_below_alpha_threshold", 0.794)));
        // Distinct and in lower case.
        check(&format!("the the The And {}", "dog ".repeat(48)), Some(("gopher_enough_stop_words", 1.0)));
    }

    #[test]
    fn definitions_differ_as_the_programs_do() {
        let measure = |definition, text: &str| {
            let mut values = Vec::new();
            GopherQuality { definition, ..GopherQuality::default() }.measure(&Text::new(text), &mut values);
            values.iter().map(|value| (value * 1000.0).round() / 1000.0).collect::<Vec<f64>>()
        };
        let text = "The dogs, the cats #1\n - of\n* a …\n\nand …";
        // Words: The dogs , the cats # 1 - of * a … and …; eight of 14 are not punctuation alone, with 21 characters.
        // Lines: five, one after white space with a bullet, two ending in an ellipsis; 7 words with a letter; the, of, and.
        let expected = [8.0, 8.0, 2.625, 2.625, 0.071, 0.143, 0.2, 0.4, 0.5, 3.0];
        assert_eq!(measure(Definition::Datatrove, text), expected);
        // Between white space: The dogs, the cats #1 - of * a … and …, 12 words with 27 characters; of four lines two are
        // bullets; The, the, of, and.
        let expected = [8.0, 8.0, 2.25, 2.25, 0.25, 0.5, 0.5, 0.583, 4.0];
        assert_eq!(measure(Definition::Dclm, text), expected);
        // The lengths are 1 1 1 1 1 2 2 3 3 3 4 5; `#1` and twice `…`; of five lines one starts with a bullet.
        let expected = [12.0, 12.0, 2.0, 2.0, 0.25, 0.2, 0.4, 0.583, 3.0];
        assert_eq!(measure(Definition::Dolma, text), expected);
    }

    #[test]
    fn medians() {
        let check = |text: &str, expected: f64| {
            assert_eq!(median_chars(Text::new(text).words_by(Split::Whitespace).all()), expected, "{text}");
        };
        check("", 0.0);
        check("a bbb", 2.0);
        check("a bb ccccccc", 2.0);
        check(&format!("{} b", "é".repeat(100)), 50.5);
    }

    #[test]
    fn stop_words_of_other_languages() {
        let filter =
            GopherQuality { stop_words: vec!["der".into(), "größer".into()], ..GopherQuality::default() };
        let text = format!("der größer {}", "wort ".repeat(48));
        assert_eq!(judge(&filter, &text), None);
        assert_eq!(judge(&filter, &text.replace("größer", "kleiner")).map(|r| r.measured), Some(1.0));
    }

    #[test]
    fn ranges_are_checked() {
        let wrong = GopherQuality {
            min_words: 9,
            max_words: 1,
            min_alphabetic_words: 1.5,
            min_stop_words: 9,
            ..GopherQuality::default()
        };
        let keys: Vec<_> = wrong.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["min_words", "min_alphabetic_words", "min_stop_words"]);
    }
}
