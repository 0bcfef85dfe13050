//! The line rules of RefinedWeb (Penedo et al. 2023, appendix G.2): lines that are mostly upper case, numbers, counters
//! such as `3 likes`, single words, or buttons of a page are taken out, and a document that loses too many of its words is
//! dropped.
//!
//! The paper has no code. The order and the marks are those of DCLM (`baselines/mappers/modifiers.py` with
//! `dclm_baseline_refinedweb.yaml`) or, with `tool = "datamap-rs"`, of Dolma 3 (`src/map_fxn.rs` with
//! `configs/all_dressed/all_dressed_config.yaml`).

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_segmentation::UnicodeSegmentation;

use super::super::{Action, Limit, Reason, Rewrite, Rewriting, Text};
use crate::spacy::is_space;
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// Settings of `refinedweb_lines`.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct RefinedwebLines {
        /// Whose counting is used.
        pub tool: Tool,
        /// Most of a line's characters that are upper case, as a fraction.
        pub max_uppercase: f64,
        /// Most of a line's characters that are digits, as a fraction.
        pub max_digits: f64,
        /// Takes out lines such as `3 likes` or `1.2K followers`.
        pub counters: bool,
        /// Fewest words of a line that is not empty.
        pub min_words_per_line: u64,
        /// Takes `items in cart`, `Read more...` at the end and `Sign-in` at the start out of short lines.
        pub buttons: bool,
        /// Most words of a line that `buttons` examines.
        pub max_button_line_words: u64,
        /// Most of a document's words that all this may take out, as a fraction.
        pub max_words_removed: f64,
    }
}

/// Keys of `refinedweb_lines` that are thresholds.
pub const THRESHOLDS: &[&str] = &["max_words_removed"];

/// Whose counting is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// Shares of characters, words between white space, buttons in any case, white space at the ends goes.
    #[default]
    Dclm,
    /// Shares of bytes, words of UAX #29, buttons as written.
    DatamapRs,
}

impl Default for RefinedwebLines {
    fn default() -> RefinedwebLines {
        RefinedwebLines {
            tool: Tool::Dclm,
            max_uppercase: 0.5,
            max_digits: 0.999999,
            counters: true,
            min_words_per_line: 2,
            buttons: true,
            max_button_line_words: 10,
            max_words_removed: 0.05,
        }
    }
}

impl Section for RefinedwebLines {
    fn docs() -> Docs {
        RefinedwebLines::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        [
            ("max_uppercase", self.max_uppercase),
            ("max_digits", self.max_digits),
            ("max_words_removed", self.max_words_removed),
        ]
        .into_iter()
        .filter(|(_, value)| !(0.0..=1.0).contains(value))
        .map(|(key, value)| (key, format!("is {value}; expected a fraction from 0 to 1")))
        .collect()
    }
}

/// Reasons to take out a line, in the order of [`METHODS`].
#[derive(Clone, Copy)]
enum Method {
    Uppercase,
    Digits,
    Counter,
    TooFewWords,
    Button,
    WhiteSpace,
}

const METHODS: [&str; 6] = [
    "refinedweb_uppercase_line",
    "refinedweb_numeric_line",
    "refinedweb_counter_line",
    "refinedweb_short_line",
    "refinedweb_button",
    "refinedweb_white_space",
];

/// A lower-case line that counts something.
static COUNTER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let things =
        "likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|downloads|views|followers";
    Regex::new(&format!(r"^\W*\d[,.\d]*[kmb]?\s+(?:{things})\W*$")).ok()
});

/// In both tools the dots of `Read more...` stand for any character.
const BUTTONS: [&str; 3] = [r"items in cart", r"Read more...", r"Sign-in"];

/// The buttons of a tool with their replacements.
struct Buttons {
    any: Regex,
    each: Vec<(Regex, &'static str)>,
}

impl Buttons {
    fn new(tool: Tool) -> Option<Buttons> {
        let [cart, more, sign_in] = BUTTONS;
        let (case, patterns) = match tool {
            Tool::Dclm => (
                "(?i)",
                [(format!(r"\s?{cart}"), ""), (format!(r"\s?{more}$"), ""), (format!(r"^{sign_in}\s?"), "")],
            ),
            Tool::DatamapRs => (
                "",
                [
                    (format!(r"\s?{cart}\s?"), " "),
                    (format!(r"\s?{more}$"), ""),
                    (format!(r"^{sign_in}\s?"), ""),
                ],
            ),
        };
        let each = patterns
            .into_iter()
            .map(|(pattern, by)| Some((Regex::new(&format!("{case}{pattern}")).ok()?, by)));
        Some(Buttons {
            any: Regex::new(&format!("{case}{}", BUTTONS.join("|"))).ok()?,
            each: each.collect::<Option<_>>()?,
        })
    }

    fn of(tool: Tool) -> Option<&'static Buttons> {
        static DCLM: LazyLock<Option<Buttons>> = LazyLock::new(|| Buttons::new(Tool::Dclm));
        static DATAMAP_RS: LazyLock<Option<Buttons>> = LazyLock::new(|| Buttons::new(Tool::DatamapRs));
        match tool {
            Tool::Dclm => DCLM.as_ref(),
            Tool::DatamapRs => DATAMAP_RS.as_ref(),
        }
    }
}

/// The lines of a text while rules apply.
struct Lines<'t, 'o> {
    lines: Vec<Cow<'t, str>>,
    out: &'o mut Rewriting,
}

impl<'t> Lines<'t, '_> {
    /// Takes out the lines that pass `test`.
    fn drop_lines(&mut self, method: Method, test: impl Fn(&str) -> bool) {
        let mut n_left = self.lines.len();
        let out = &mut *self.out;
        self.lines.retain(|line| {
            let goes = test(line);
            if goes {
                take_line(out, method, line, &mut n_left);
            }
            !goes
        });
    }

    /// Trims white space at both ends of the text.
    fn trim(&mut self) {
        let is_blank = |line: &Cow<'_, str>| line.chars().all(is_space);
        let from = self.lines.iter().position(|line| !is_blank(line)).unwrap_or(self.lines.len());
        let to = self.lines.iter().rposition(|line| !is_blank(line)).map_or(from, |last| last + 1);
        let mut n_left = self.lines.len();
        for line in self.lines[..from].iter().chain(&self.lines[to..]) {
            take_line(self.out, Method::WhiteSpace, line, &mut n_left);
        }
        self.lines.truncate(to);
        self.lines.drain(..from);
        if let Some(first) = self.lines.first_mut() {
            let n = first.len() - first.trim_start_matches(is_space).len();
            self.out.take(Method::WhiteSpace as usize, &first[..n]);
            *first = part(first, n, first.len());
        }
        if let Some(last) = self.lines.last_mut() {
            let n = last.trim_end_matches(is_space).len();
            self.out.take(Method::WhiteSpace as usize, &last[n..]);
            *last = part(last, 0, n);
        }
    }

    /// Takes a button out of short lines, and lines that become empty.
    fn drop_button(&mut self, button: &Regex, by: &str, is_short: impl Fn(&str) -> bool) {
        let mut n_left = self.lines.len();
        let out = &mut *self.out;
        self.lines.retain_mut(|line| {
            if line.is_empty() || !is_short(line) {
                return true;
            }
            let mut left = String::new();
            let mut end = 0;
            for found in button.find_iter(line) {
                left.push_str(&line[end..found.start()]);
                left.push_str(by);
                // An inserted space counts as one byte of the button, which is ASCII.
                let button = found.as_str();
                let at = button.find(|c: char| c.is_ascii()).unwrap_or_default();
                out.take(Method::Button as usize, &button[..at]);
                out.take(Method::Button as usize, &button[at + by.len()..]);
                end = found.end();
            }
            if end > 0 {
                left.push_str(&line[end..]);
                *line = Cow::Owned(left);
            }
            let goes = line.chars().all(is_space);
            if goes {
                take_line(out, Method::Button, line, &mut n_left);
            }
            !goes
        });
    }
}

fn part<'t>(line: &Cow<'t, str>, from: usize, to: usize) -> Cow<'t, str> {
    match line {
        Cow::Borrowed(line) => Cow::Borrowed(&line[from..to]),
        Cow::Owned(line) => Cow::Owned(line[from..to].to_owned()),
    }
}

/// Records a removed line with its line end, which all lines but one have.
fn take_line(out: &mut Rewriting, method: Method, line: &str, n_left: &mut usize) {
    out.take(method as usize, line);
    if *n_left > 1 {
        out.take(method as usize, "\n");
    }
    *n_left -= 1;
}

impl RefinedwebLines {
    fn is_too_uppercase(&self, line: &str) -> bool {
        let n = line.chars().filter(|c| c.is_uppercase()).count();
        self.share(n, line) > self.max_uppercase
    }

    fn is_numeric(&self, line: &str) -> bool {
        let n = match self.tool {
            Tool::Dclm => line.chars().filter(|c| is_digit(*c)).count(),
            Tool::DatamapRs => line.bytes().filter(u8::is_ascii_digit).count(),
        };
        self.share(n, line) > self.max_digits
    }

    /// An empty line has a share of zero.
    fn share(&self, n: usize, line: &str) -> f64 {
        let len = match self.tool {
            Tool::Dclm => line.chars().count(),
            Tool::DatamapRs => line.len(),
        };
        n as f64 / len.max(1) as f64
    }

    /// Whether a line has at least `least` words.
    fn has_words(&self, line: &str, least: u64) -> bool {
        let Some(last) = least.checked_sub(1) else { return true };
        match self.tool {
            Tool::Dclm => line.split(is_space).filter(|word| !word.is_empty()).nth(last as usize).is_some(),
            Tool::DatamapRs => line.unicode_words().nth(last as usize).is_some(),
        }
    }

    /// Words of a text, as counted for the share of removed ones.
    fn n_words<'l>(&self, lines: impl Iterator<Item = &'l str>) -> u64 {
        let n_words = |line: &'l str| match self.tool {
            // fastText's words, which end at ASCII white space, if they begin with a letter or digit.
            Tool::Dclm => line
                .split([' ', '\t', '\r', '\u{b}', '\u{c}', '\0'])
                .filter(|word| word.chars().next().is_some_and(char::is_alphanumeric))
                .count(),
            Tool::DatamapRs => line.unicode_words().count(),
        };
        lines.map(n_words).sum::<usize>() as u64
    }
}

/// Digits as Python's `str.isdigit` sees them, superscripts and subscripts included.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
        || (!c.is_ascii() && c.general_category() == GeneralCategory::DecimalNumber)
        || matches!(c, '²' | '³' | '¹' | '\u{2070}' | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}')
}

fn is_counter(line: &str) -> bool {
    // Nearly all lines begin with a letter.
    let first = line.chars().find(|c| c.is_alphanumeric() || *c == '_');
    first.is_some_and(char::is_numeric)
        && COUNTER.as_ref().is_some_and(|counter| counter.is_match(&line.to_lowercase()))
}

impl Rewrite for RefinedwebLines {
    fn methods(&self) -> Vec<Reason> {
        METHODS.iter().map(|method| Reason::Borrowed(*method)).collect()
    }

    fn limits(&self, _action: Action) -> Vec<Limit> {
        vec![Limit::most("refinedweb_words_removed", self.max_words_removed)]
    }

    fn rewrite(&self, text: &Text<'_>, out: &mut Rewriting) {
        let text = text.as_str();
        let trims = self.tool == Tool::Dclm;
        let before = self.n_words(text.split('\n'));
        let mut lines = Lines { lines: text.split('\n').map(Cow::Borrowed).collect(), out };
        let pass = |lines: &mut Lines<'_, '_>, method, test: &dyn Fn(&str) -> bool| {
            lines.drop_lines(method, |line| !line.is_empty() && test(line));
            if trims && !matches!(method, Method::TooFewWords) {
                lines.trim();
            }
        };
        pass(&mut lines, Method::Uppercase, &|line| self.is_too_uppercase(line));
        pass(&mut lines, Method::Digits, &|line| self.is_numeric(line));
        if self.counters {
            pass(&mut lines, Method::Counter, &is_counter);
        }
        pass(&mut lines, Method::TooFewWords, &|line| !self.has_words(line, self.min_words_per_line));
        if let Some(buttons) = Buttons::of(self.tool).filter(|_| self.buttons) {
            // Lines of white space go with the buttons, and are already gone if lines need words.
            if self.min_words_per_line == 0 || buttons.any.is_match(text) {
                for (button, by) in &buttons.each {
                    lines.drop_button(button, by, |line| {
                        !self.has_words(line, self.max_button_line_words + 1)
                    });
                }
            }
            if trims {
                lines.trim();
            }
        }
        let after = self.n_words(lines.lines.iter().map(AsRef::as_ref));
        for (i, line) in lines.lines.iter().enumerate() {
            if i > 0 {
                lines.out.keep("\n");
            }
            lines.out.keep(line);
        }
        // Without words there is nothing to keep, as in DCLM.
        lines.out.value(if before == 0 { 1.0 } else { (before - after.min(before)) as f64 / before as f64 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::rewritten;

    const DATAMAP: RefinedwebLines = RefinedwebLines {
        tool: Tool::DatamapRs,
        max_uppercase: 0.5,
        max_digits: 0.999999,
        counters: true,
        min_words_per_line: 2,
        buttons: true,
        max_button_line_words: 10,
        max_words_removed: 1.0,
    };

    fn check(settings: RefinedwebLines, text: &str, expected: &str) {
        let (new, _) = rewritten(&settings, text);
        assert_eq!(new, expected, "{text:?}");
    }

    fn dclm(text: &str, expected: &str) {
        check(RefinedwebLines::default(), text, expected);
    }

    #[test]
    fn lines_by_their_characters() {
        dclm("AB c\nABC d\nand so on", "AB c\nand so on");
        dclm("12345\n1234 5\na b", "1234 5\na b");
        dclm("١٢٣\na b", "a b");
        // Half of the characters is not more than half; in bytes the same line has a smaller share.
        dclm("ÉÀé à\nx y", "ÉÀé à\nx y");
        dclm("ÉÀÉ à\nx y", "x y");
        check(DATAMAP, "ÉÀÉ à\nx y", "ÉÀÉ à\nx y");
    }

    #[test]
    fn counters_and_single_words() {
        dclm(
            "3 likes\n1.2K Followers!\n* 12,345 views\nI have 3 likes\n3 likes it",
            "I have 3 likes\n3 likes it",
        );
        dclm("Home\n\nAbout us", "About us");
        dclm("a b\n\nHome\n\nc d", "a b\n\n\nc d");
        check(DATAMAP, "Home\n\nc d\n---\n", "\nc d\n");
    }

    #[test]
    fn buttons() {
        dclm("You have 3 items in cart now", "You have 3 now");
        dclm("A story. Read More...\nNext one", "A story.\nNext one");
        dclm("sign-in to go on\nNext one", "to go on\nNext one");
        dclm("0 items in cart\nNext one", "0\nNext one");
        dclm("Read more...\nNext one", "Next one");
        let long = "one two three four five six seven eight nine items in cart";
        dclm(long, long);
        check(
            DATAMAP,
            "my items in cart now\nREAD more than this\nNext one",
            "my now\nREAD more than this\nNext one",
        );
        check(DATAMAP, "x Items in cart y", "x Items in cart y");
    }

    #[test]
    fn a_document_that_loses_too_much_is_dropped() {
        let reason = |text: &str| {
            let (_, rejection) = rewritten(&RefinedwebLines::default(), text);
            rejection.map(|rejection| (rejection.reason.into_owned(), (rejection.measured * 100.0).round()))
        };
        let words = "these are ten words in one single line of text\n";
        // 1 of 21 words is 4.8 %, 1 of 11 is 9.1 %.
        assert_eq!(reason(&format!("{words}{words}Home")), None);
        assert_eq!(reason(&format!("{words}Home")), Some(("refinedweb_words_removed".into(), 9.0)));
        assert_eq!(reason(""), Some(("refinedweb_words_removed".into(), 100.0)));
    }
}
