//! The rules of FineWeb (Penedo et al. 2024, section 3.6), with the thresholds, the order and the reason names
//! of datatrove's `FineWebQualityFilter`. Lines of only white space do not count.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::text::Split;
use super::{Filter, Limit, Text};
use crate::strict_toml::{Docs, Fault, Section, documented};

/// The settings that values are compared with.
pub const THRESHOLDS: &[&str] =
    &["min_line_punct_ratio", "max_short_line_ratio", "max_char_dup_ratio", "max_list_ratio"];

documented! {
    /// Settings of `fineweb_quality`.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct FinewebQuality {
        /// How to split words: like spaCy, or by UAX #29, where each ideograph is a word.
        pub words: Split,
        /// Fewest lines that end in sentence-final punctuation, as a fraction.
        pub min_line_punct_ratio: f64,
        /// Most characters of a short line.
        pub short_line_chars: u64,
        /// Most of the lines that are short, as a fraction.
        pub max_short_line_ratio: f64,
        /// Most of the characters in copies of a line beyond the first, as a fraction of those that are not line ends.
        pub max_char_dup_ratio: f64,
        /// Most line ends per word.
        pub max_list_ratio: f64,
    }
}

impl Default for FinewebQuality {
    fn default() -> FinewebQuality {
        FinewebQuality {
            words: Split::Spacy,
            min_line_punct_ratio: 0.12,
            short_line_chars: 30,
            max_short_line_ratio: 0.67,
            max_char_dup_ratio: 0.01,
            max_list_ratio: 0.3,
        }
    }
}

impl Section for FinewebQuality {
    fn docs() -> Docs {
        FinewebQuality::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let fractions = [
            ("min_line_punct_ratio", self.min_line_punct_ratio),
            ("max_short_line_ratio", self.max_short_line_ratio),
            ("max_char_dup_ratio", self.max_char_dup_ratio),
        ];
        let mut wrong: Vec<Fault> = (fractions.into_iter())
            .filter(|(_, value)| !(0.0..=1.0).contains(value))
            .map(|(key, value)| (key, format!("is {value}; expected a fraction from 0 to 1")))
            .collect();
        if self.max_list_ratio < 0.0 {
            wrong.push(("max_list_ratio", format!("is {}; expected 0 or more", self.max_list_ratio)));
        }
        wrong
    }
}

impl Filter for FinewebQuality {
    fn limits(&self) -> Vec<Limit> {
        vec![
            Limit::least("line_punct_ratio", self.min_line_punct_ratio),
            Limit::most("short_line_ratio", self.max_short_line_ratio),
            Limit::most("char_dup_ratio", self.max_char_dup_ratio),
            Limit::most("list_ratio", self.max_list_ratio),
        ]
    }

    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        let whole = text.as_str();
        let is_ascii = text.n_chars() == whole.len() as u64;
        let n_line_ends = memchr::memchr_iter(b'\n', whole.as_bytes()).count() as u64;
        let (mut n, mut n_ended, mut n_short, mut dup_chars) = (0u64, 0u64, 0u64, 0u64);
        text.with_tables(|tables| {
            tables.counter.start(n_line_ends as usize + 1);
            for line in whole.split('\n').filter(|line| !line.trim().is_empty()) {
                let chars = if is_ascii { line.len() } else { line.chars().count() } as u64;
                n += 1;
                n_ended += u64::from(line.ends_with(ends_sentences));
                n_short += u64::from(chars <= self.short_line_chars);
                if tables.counter.add(xxh3_64(line.as_bytes()), 0) > 0 {
                    dup_chars += chars;
                }
            }
        });
        let per = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        values.extend([
            per(n_ended, n),
            per(n_short, n),
            per(dup_chars, text.n_chars() - n_line_ends),
            per(n_line_ends, text.words_by(self.words).len()),
        ]);
    }
}

/// Whether a character has the Unicode property `Sentence_Terminal`, which datatrove's `TERMINAL_PUNCTUATION` lists.
fn ends_sentences(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, '.' | '!' | '?');
    }
    let code = u32::from(c);
    let after = SENTENCE_TERMINAL.partition_point(|(_, last)| *last < code);
    SENTENCE_TERMINAL.get(after).is_some_and(|(first, _)| *first <= code)
}

/// First and last of each run, without ASCII.
const SENTENCE_TERMINAL: [(u32, u32); 79] = [
    (0x0589, 0x0589),
    (0x061d, 0x061f),
    (0x06d4, 0x06d4),
    (0x0700, 0x0702),
    (0x07f9, 0x07f9),
    (0x0837, 0x0837),
    (0x0839, 0x0839),
    (0x083d, 0x083e),
    (0x0964, 0x0965),
    (0x104a, 0x104b),
    (0x1362, 0x1362),
    (0x1367, 0x1368),
    (0x166e, 0x166e),
    (0x1735, 0x1736),
    (0x17d4, 0x17d6),
    (0x17d9, 0x17da),
    (0x1803, 0x1803),
    (0x1809, 0x1809),
    (0x1944, 0x1945),
    (0x1aa8, 0x1aab),
    (0x1b5a, 0x1b5b),
    (0x1b5e, 0x1b5f),
    (0x1b7d, 0x1b7e),
    (0x1c3b, 0x1c3c),
    (0x1c7e, 0x1c7f),
    (0x203c, 0x203d),
    (0x2047, 0x2049),
    (0x2e2e, 0x2e2e),
    (0x2e3c, 0x2e3c),
    (0x2e53, 0x2e54),
    (0x3002, 0x3002),
    (0xa4ff, 0xa4ff),
    (0xa60e, 0xa60f),
    (0xa6f3, 0xa6f3),
    (0xa6f7, 0xa6f7),
    (0xa876, 0xa877),
    (0xa8ce, 0xa8cf),
    (0xa92f, 0xa92f),
    (0xa9c8, 0xa9c9),
    (0xaa5d, 0xaa5f),
    (0xaaf0, 0xaaf1),
    (0xabeb, 0xabeb),
    (0xfe52, 0xfe52),
    (0xfe56, 0xfe57),
    (0xff01, 0xff01),
    (0xff0e, 0xff0e),
    (0xff1f, 0xff1f),
    (0xff61, 0xff61),
    (0x10a56, 0x10a57),
    (0x10f55, 0x10f59),
    (0x10f86, 0x10f89),
    (0x11047, 0x11048),
    (0x110be, 0x110c1),
    (0x11141, 0x11143),
    (0x111c5, 0x111c6),
    (0x111cd, 0x111cd),
    (0x111de, 0x111df),
    (0x11238, 0x11239),
    (0x1123b, 0x1123c),
    (0x112a9, 0x112a9),
    (0x1144b, 0x1144c),
    (0x115c2, 0x115c3),
    (0x115c9, 0x115d7),
    (0x11641, 0x11642),
    (0x1173c, 0x1173e),
    (0x11944, 0x11944),
    (0x11946, 0x11946),
    (0x11a42, 0x11a43),
    (0x11a9b, 0x11a9c),
    (0x11c41, 0x11c42),
    (0x11ef7, 0x11ef8),
    (0x11f43, 0x11f44),
    (0x16a6e, 0x16a6f),
    (0x16af5, 0x16af5),
    (0x16b37, 0x16b38),
    (0x16b44, 0x16b44),
    (0x16e98, 0x16e98),
    (0x1bc9f, 0x1bc9f),
    (0x1da88, 0x1da88),
];

#[cfg(test)]
mod tests {
    use super::super::judge;
    use super::*;

    fn measure(text: &str) -> Vec<f64> {
        let mut values = Vec::new();
        FinewebQuality::default().measure(&Text::new(text), &mut values);
        values.iter().map(|value| (value * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn values_by_hand() {
        // Three lines, two end in a mark; one has 30 characters or fewer; no copies; 2 line ends in 9 + 7 + 2 words.
        let text = "One line with many words that ends in.\nAnother line that does not end in\nOh!";
        assert_eq!(measure(text), [0.666667, 0.333333, 0.0, 0.111111]);
        // The last line is a copy of the first: 5 of 15 characters. Each line has 2 words and no mark.
        assert_eq!(measure("abc d\nefg h\n \nabc d"), [0.0, 1.0, 0.3125, 0.5]);
    }

    #[test]
    fn each_limit_drops() {
        let line = "This is a line of some length that ends in a mark, number";
        let page = |n: usize| (0..n).map(|i| format!("{line} {i}.\n")).collect::<String>();
        let check = |text: &str, expected: Option<&str>| {
            let found = judge(&FinewebQuality::default(), text).map(|rejection| rejection.reason);
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check(&page(10), None);
        // 1 of 9 lines = 0.111.
        check(&format!("{}{}", page(1), page(8).replace('.', "")), Some("line_punct_ratio"));
        check(&format!("{}{}", page(1), page(7).replace('.', "")), None);
        // 7 of 10 lines are short; 2 of 3 = 0.667 are not too many.
        let short: String = (0..7).map(|i| format!("Short line {i}.\n")).collect();
        check(&format!("{}{short}", page(3)), Some("short_line_ratio"));
        check(&format!("{}{}", page(1), &short[..28]), None);
        // One copy of 29 lines is 3 %, one short copy in 9 lines 0.9 %.
        check(&format!("{}{line} 3.\n", page(29)), Some("char_dup_ratio"));
        check(&format!("{}Yes!\nYes!\n", page(9)), None);
        // 10 line ends in 30 words = 0.33; in 40 words 0.25.
        let long = "incomprehensibilities incomprehensibilities";
        let list = |word: &str| (0..10).map(|i| format!("{long}{word}{i}.\n")).collect::<String>();
        check(&list(""), Some("list_ratio"));
        check(&list(" word"), None);
    }

    #[test]
    fn marks_of_any_script_end_a_sentence() {
        for c in ['.', '!', '?', '。', '।', '؟', '։', '‽', '\u{1da88}'] {
            assert!(ends_sentences(c), "{c:?}");
        }
        // `d` is what is left of the danda in one byte.
        for c in ['…', '"', ',', ':', 'a', 'd', '\u{10ffff}'] {
            assert!(!ends_sentences(c), "{c:?}");
        }
    }

    #[test]
    fn ranges_are_checked() {
        let wrong =
            FinewebQuality { max_short_line_ratio: 1.5, max_list_ratio: -1.0, ..FinewebQuality::default() };
        let keys: Vec<_> = wrong.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["max_short_line_ratio", "max_list_ratio"]);
    }
}
