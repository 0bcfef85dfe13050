//! The self-test of decontamination: canaries made from the evaluation texts themselves go through the same code as
//! documents, and the share that is found is reported. A scan that finds nothing can
//! then be distinguished from a corpus that holds nothing.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::index::{Index, TextId};
use super::scan::Scanner;
use super::words::Words;

/// How a canary was planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Planting {
    /// As it is.
    Verbatim,
    /// In indented lines of eight words.
    Rewrapped,
    /// With one word replaced; of texts that need not be found whole.
    Changed,
    /// In the middle of forty times as many other words, in the same paragraph.
    Diluted,
}

impl Planting {
    /// All of them.
    pub const ALL: [Planting; 4] =
        [Planting::Verbatim, Planting::Rewrapped, Planting::Changed, Planting::Diluted];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Planting::Verbatim => "verbatim",
            Planting::Rewrapped => "rewrapped",
            Planting::Changed => "changed",
            Planting::Diluted => "diluted",
        }
    }
}

/// Canaries of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// How many were planted.
    pub planted: u64,
    /// How many of them were found.
    pub found: u64,
}

impl Recall {
    /// Found divided by planted; 1 if there is none to find.
    pub fn share(self) -> f64 {
        if self.planted == 0 { 1.0 } else { self.found as f64 / self.planted as f64 }
    }
}

/// Recall by planting, in the order of [`Planting::ALL`].
pub type Recalls = [Recall; 4];

/// Words of a line of a rewrapped canary.
const LINE_WORDS: usize = 8;
/// Other words on each side of a diluted canary, for each of its own.
const DILUTION: usize = 20;

/// Plants `canaries` (texts of the index with their wording) in every way and looks for each.
pub fn run(index: &Index, canaries: &[(TextId, &str)]) -> Recalls {
    let mut recalls = Recalls::default();
    let mut scanner = Scanner::default();
    let pool: Vec<&str> = canaries.iter().flat_map(|(_, text)| text.split_whitespace()).collect();
    for (id, text) in canaries {
        for (planting, recall) in Planting::ALL.into_iter().zip(&mut recalls) {
            let needs_all = index.words(*id).len() < index.settings().ngram as usize;
            if planting == Planting::Changed && needs_all {
                continue;
            }
            let document = plant(text, planting, &pool);
            recall.planted += 1;
            recall.found += u64::from(scanner.scan(index, &document).iter().any(|found| found.text == *id));
        }
    }
    recalls
}

/// A document that holds a text.
pub fn plant(text: &str, planting: Planting, pool: &[&str]) -> String {
    match planting {
        Planting::Verbatim => text.to_owned(),
        Planting::Rewrapped => {
            let words: Vec<&str> = text.split_whitespace().collect();
            let lines: Vec<String> =
                words.chunks(LINE_WORDS).map(|line| format!("    {}\n", line.join(" "))).collect();
            lines.concat()
        }
        Planting::Changed => {
            let mut words = Words::default();
            words.split(text);
            let n = words.places().len().max(1);
            let Some(&(start, end)) = words.places().get(draw(text, 0) as usize % n) else {
                return text.to_owned();
            };
            let (start, end) = (start as usize, end as usize);
            let other = if text[start..end].eq_ignore_ascii_case("zebra") { "giraffe" } else { "zebra" };
            format!("{}{other}{}", &text[..start], &text[end..])
        }
        Planting::Diluted => {
            let n = text.split_whitespace().count() * DILUTION;
            let other = |from: usize| {
                let words = (from..from + n).map(|i| pool[draw(text, i as u64) as usize % pool.len().max(1)]);
                words.collect::<Vec<_>>().join(" ")
            };
            if pool.is_empty() { text.to_owned() } else { format!("{} {text} {}", other(0), other(n)) }
        }
    }
}

/// A random number of the text and a counter.
fn draw(text: &str, i: u64) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), i)
}

#[cfg(test)]
mod tests {
    use super::super::{IndexBuilder, Settings};
    use super::*;

    const TEXT: &str = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?";

    #[test]
    fn plantings_keep_the_words_they_should() {
        let words = |text: &str| {
            let mut words = Words::default();
            words.split(text);
            words.hashes().to_vec()
        };
        let whole = words(TEXT);
        let planted = |planting| plant(TEXT, planting, &["other", "words"]);
        assert_eq!(words(&planted(Planting::Verbatim)), whole);
        let wrapped = planted(Planting::Rewrapped);
        assert_eq!(words(&wrapped), whole);
        assert_eq!(wrapped.lines().count(), 3);
        let changed = words(&planted(Planting::Changed));
        assert_eq!(changed.len(), whole.len());
        assert_eq!(changed.iter().zip(&whole).filter(|(a, b)| a != b).count(), 1);
        let diluted = words(&planted(Planting::Diluted));
        assert_eq!(diluted.len(), whole.len() * 41);
        assert_eq!(diluted[whole.len() * 20..whole.len() * 21], whole);
    }

    #[test]
    fn recall_is_whole_with_the_defaults_and_shows_what_is_off() {
        let recalls = |settings: Settings| {
            let mut builder = IndexBuilder::new(settings);
            let texts: Vec<String> =
                (0..50).map(|i| format!("{TEXT} It is number {i} of {}.", i * 7 + 1)).collect();
            let ids: Vec<TextId> =
                texts.iter().enumerate().filter_map(|(i, text)| builder.add(0, i as u64, 0, text)).collect();
            let canaries: Vec<(TextId, &str)> =
                ids.into_iter().zip(texts.iter().map(String::as_str)).collect();
            run(&builder.finish(), &canaries)
        };
        let all = Recall { planted: 50, found: 50 };
        assert_eq!(recalls(Settings::default()), [all; 4]);
        let strict = recalls(Settings { threshold: 1.0, ..Settings::default() });
        assert_eq!(strict[2], Recall { planted: 50, found: 0 });
        assert_eq!([strict[0], strict[1], strict[3]], [all; 3]);
        // Texts that must be whole have no such canary.
        assert_eq!(recalls(Settings { ngram: 60, ..Settings::default() })[2].planted, 0);
    }
}
