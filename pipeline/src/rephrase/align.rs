//! Aligns the sentences of two texts by the words they share.
//!
//! A monotone alignment in the manner of Gale and Church (1993), with shared content words in addition to lengths: groups of up to
//! three sentences match, and a sentence may match nothing. A gate's question is then local: is the content of this sentence
//! found in the sentences aligned with it?

use std::collections::HashMap;
use std::ops::Range;

use super::text::{Text, stem};

/// Sizes of matching groups, source first. The order decides ties.
const GROUPS: [(usize, usize); 8] = [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (1, 0), (0, 1)];
/// Cost per content word of difference in length between two groups.
const LENGTH_PRICE: f64 = 0.1;
/// Cost of a content word in an unmatched sentence.
const SKIP_PRICE: f64 = 0.15;
/// Largest product of sentence counts to align; chunks are far smaller. Above it, any sentence may match any other.
const MAX_CELLS: usize = 1 << 20;
/// Prior for a sentence: this share of its words is found ...
const PRIOR_SHARE: f64 = 0.5;
/// ... and this many words is the weight of the prior.
const PRIOR_WORDS: f64 = 8.0;
/// Variance of the length of a passage in words, for each word of the other text: Gale and Church's 6.8 for characters, at five
/// characters a word.
const LENGTH_VARIANCE: f64 = 1.36;
/// Weight, in words, of the prior of equal lengths.
const PRIOR_LENGTH: f64 = 50.0;

/// Content words of a text by sentence, as numbers that both texts share.
struct Side {
    /// For each sentence its classes of words, sorted, each once.
    classes: Vec<Vec<u32>>,
    /// Words of each sentence.
    lengths: Vec<f64>,
    /// Number of sentences of this text with each class.
    frequency: HashMap<u32, u32>,
}

/// How well a sentence of one text is covered by the other text.
#[derive(Clone, Debug, PartialEq)]
pub struct Coverage {
    /// Number of the sentence.
    pub sentence: usize,
    /// Its content words, those that several sentences share counted in parts.
    pub words: f64,
    /// Those found at its place in the other text.
    pub found: f64,
    /// How surprising it is that so few are found, in nats: the Chernoff bound `words * KL(found / words || p)` on the
    /// probability of a binomial with the share `p` found of the text's other sentences. 0 where enough are found.
    pub surprise: f64,
    /// How surprising it is that the other text is so short here, in nats: with `d` standard deviations less than expected of the
    /// lengths of all else, `d^2 / 2`. The variance grows with the length, as in Gale and Church.
    pub shortage: f64,
}

/// An alignment of a source with its answer.
pub struct Alignment {
    /// For each sentence of the source how the answer covers it.
    pub source: Vec<Coverage>,
    /// For each sentence of the answer how the source covers it.
    pub answer: Vec<Coverage>,
    /// Matching groups of sentences, in order.
    pub groups: Vec<(Range<usize>, Range<usize>)>,
}

impl Alignment {
    /// Aligns two texts. Without `in_order` a sentence may match any of the other text, as in answers to questions.
    pub fn new(source: &Text<'_>, answer: &Text<'_>, in_order: bool) -> Alignment {
        let (source, answer) = sides(source, answer);
        let n_cells = source.classes.len().saturating_mul(answer.classes.len());
        let groups = match in_order && n_cells <= MAX_CELLS {
            true => groups(&source, &answer),
            false => vec![(0..source.classes.len(), 0..answer.classes.len())],
        };
        let of_source = coverage(&source, &answer, groups.iter().cloned());
        let of_answer = coverage(&answer, &source, groups.iter().map(|(s, a)| (a.clone(), s.clone())));
        Alignment { source: of_source, answer: of_answer, groups }
    }
}

/// Numbers the content words of both texts: forms of one word get one number.
fn sides(source: &Text<'_>, answer: &Text<'_>) -> (Side, Side) {
    let mut numbers: HashMap<String, u32> = HashMap::new();
    // Stems of the source by their first four letters, so that similar ones are found without comparing all.
    let mut by_start: HashMap<String, Vec<(String, u32)>> = HashMap::new();
    let start_of = |stem: &str| stem.chars().take(4).collect::<String>();
    let mut next = 0u32;
    let mut side = |text: &Text<'_>, is_answer: bool| {
        let mut class_of = |stem: &str| {
            if let Some(known) = numbers.get(stem) {
                return *known;
            }
            let start = start_of(stem);
            let alike = by_start.get(&start).filter(|_| is_answer);
            let alike = alike.and_then(|all| all.iter().find(|(other, _)| stem::are_alike(other, stem)));
            let class = alike.map_or(next, |(_, class)| *class);
            next = next.max(class + 1);
            numbers.insert(stem.to_owned(), class);
            if !is_answer {
                by_start.entry(start).or_default().push((stem.to_owned(), class));
            }
            class
        };
        let mut classes = Vec::with_capacity(text.sentences.len());
        let mut frequency = HashMap::new();
        for range in &text.sentences {
            let content = text.words[range.clone()].iter().filter(|word| word.is_content);
            let mut found: Vec<u32> = content.map(|word| class_of(&word.stem)).collect();
            found.sort_unstable();
            found.dedup();
            found.iter().for_each(|class| *frequency.entry(*class).or_insert(0) += 1);
            classes.push(found);
        }
        let lengths = text.sentences.iter().map(|range| range.len() as f64).collect();
        Side { classes, lengths, frequency }
    };
    let source = side(source, false);
    let answer = side(answer, true);
    (source, answer)
}

impl Side {
    /// A word in many sentences says little about any of them.
    fn weight(&self, class: u32) -> f64 {
        self.frequency.get(&class).map_or(1.0, |n| 1.0 / f64::from(*n))
    }

    fn union(&self, range: Range<usize>) -> Vec<u32> {
        let mut all: Vec<u32> = self.classes[range].iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The best monotone sequence of groups, by dynamic programming.
fn groups(source: &Side, answer: &Side) -> Vec<(Range<usize>, Range<usize>)> {
    let (n, m) = (source.classes.len(), answer.classes.len());
    let width = m + 1;
    let mut best = vec![f64::NEG_INFINITY; (n + 1) * width];
    let mut from = vec![0u8; (n + 1) * width];
    best[0] = 0.0;
    for i in 0..=n {
        for j in 0..=m {
            for (number, &(a, b)) in GROUPS.iter().enumerate() {
                if a > i || b > j {
                    continue;
                }
                let score = best[(i - a) * width + j - b] + gain(source, i - a..i, answer, j - b..j);
                if score > best[i * width + j] {
                    best[i * width + j] = score;
                    from[i * width + j] = number as u8;
                }
            }
        }
    }
    let (mut i, mut j) = (n, m);
    let mut found = Vec::new();
    while i > 0 || j > 0 {
        let (a, b) = GROUPS[usize::from(from[i * width + j])];
        found.push((i - a..i, j - b..j));
        (i, j) = (i - a, j - b);
    }
    found.reverse();
    found
}

/// Score of a group of sentences.
fn gain(source: &Side, s: Range<usize>, answer: &Side, a: Range<usize>) -> f64 {
    let lengths = |side: &Side, range: &Range<usize>| -> f64 {
        side.classes[range.clone()].iter().map(|classes| classes.len() as f64).sum()
    };
    let (n_source, n_answer) = (lengths(source, &s), lengths(answer, &a));
    if s.is_empty() || a.is_empty() {
        return -SKIP_PRICE * (n_source + n_answer);
    }
    let mut shared = 0.0;
    let other = answer.union(a);
    for class in source.union(s) {
        if other.binary_search(&class).is_ok() {
            shared += (source.weight(class) * answer.weight(class)).sqrt();
        }
    }
    shared - LENGTH_PRICE * (n_source - n_answer).abs()
}

/// Coverage of each sentence of `own` by the sentences of `other` in its group.
fn coverage(
    own: &Side,
    other: &Side,
    groups: impl Iterator<Item = (Range<usize>, Range<usize>)>,
) -> Vec<Coverage> {
    let mut all = Vec::with_capacity(own.classes.len());
    let total = |side: &Side| side.lengths.iter().sum::<f64>();
    let (own_total, other_total) = (total(own), total(other));
    for (mine, theirs) in groups {
        let length = |side: &Side, range: &Range<usize>| side.lengths[range.clone()].iter().sum::<f64>();
        let (own_length, other_length) = (length(own, &mine), length(other, &theirs));
        let ratio = (other_total - other_length + PRIOR_LENGTH) / (own_total - own_length + PRIOR_LENGTH);
        let shortage = shortage(own_length * ratio, other_length);
        let theirs = other.union(theirs);
        for sentence in mine {
            let (mut words, mut found) = (0.0, 0.0);
            for class in &own.classes[sentence] {
                let weight = own.weight(*class);
                words += weight;
                found += if theirs.binary_search(class).is_ok() { weight } else { 0.0 };
            }
            all.push(Coverage { sentence, words, found, surprise: 0.0, shortage });
        }
    }
    let (words, found) = all.iter().fold((0.0, 0.0), |sum, c| (sum.0 + c.words, sum.1 + c.found));
    for c in &mut all {
        let share = (found - c.found + PRIOR_SHARE * PRIOR_WORDS) / (words - c.words + PRIOR_WORDS);
        c.surprise = surprise(c.words, c.found, share.clamp(0.05, 0.95));
    }
    all
}

fn shortage(expected: f64, found: f64) -> f64 {
    let missing = (expected - found).max(0.0);
    if missing > 0.0 { missing * missing / (2.0 * LENGTH_VARIANCE * expected) } else { 0.0 }
}

/// `n * KL(k / n || p)` where `k / n` is below `p`, else 0.
fn surprise(n: f64, k: f64, p: f64) -> f64 {
    if n <= 0.0 || k / n >= p {
        return 0.0;
    }
    let q = k / n;
    let term = |x: f64, y: f64| if x > 0.0 { x * (x / y).ln() } else { 0.0 };
    n * (term(q, p) + term(1.0 - q, 1.0 - p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surprise_is_the_chernoff_bound() {
        // Nothing of 8 words where half were expected: 8 * ln 2.
        assert!((surprise(8.0, 0.0, 0.5) - 8.0 * 2f64.ln()).abs() < 1e-12);
        assert_eq!(surprise(8.0, 4.0, 0.5), 0.0);
        assert_eq!(surprise(0.0, 0.0, 0.5), 0.0);
        // KL(1/4 || 1/2) = 1/4 ln 1/2 + 3/4 ln 3/2 = 0.1308.
        assert!((surprise(4.0, 1.0, 0.5) - 0.5232).abs() < 1e-3);
    }

    const SOURCE: &str = "The walker crossed the river at dawn. A heavy storm destroyed the wooden bridge behind him. \
                          Villagers repaired the road with stones in summer.";

    fn check(answer: &str, in_order: bool) -> Alignment {
        Alignment::new(&Text::new(SOURCE), &Text::new(answer), in_order)
    }

    #[test]
    fn a_missing_sentence_surprises() {
        let all = check(
            "At dawn a walker crossed a river. Behind him the wooden bridge was destroyed by a heavy storm. In summer \
             the villagers used stones to repair the road.",
            true,
        );
        assert!(all.source.iter().chain(&all.answer).all(|c| c.surprise < 0.5), "{:?}", all.source);
        let less = check(
            "At dawn a walker crossed a river. In summer the villagers used stones to repair the road.",
            true,
        );
        assert!(less.source[1].surprise > 3.0, "{:?}", less.source);
        assert!(less.source[0].surprise < 0.5 && less.source[2].surprise < 0.5);
        let more =
            check(&format!("{SOURCE} Nobody knows whether elephants enjoy classical music concerts."), true);
        assert!(more.answer[3].surprise > 5.0, "{:?}", more.answer);
    }

    #[test]
    fn order_matters_only_where_it_is_asked_for() {
        let turned = "Villagers repaired the road with stones in summer. The walker crossed the river at dawn. A heavy storm \
                      destroyed the wooden bridge behind him.";
        assert!(check(turned, false).source.iter().all(|c| c.surprise == 0.0));
        assert!(check(turned, true).source.iter().any(|c| c.surprise > 1.0));
    }

    #[test]
    fn empty_texts_align() {
        let empty = check("", true);
        assert_eq!((empty.source.len(), empty.answer.len()), (3, 0));
        assert!(Alignment::new(&Text::new(""), &Text::new(""), true).source.is_empty());
    }
}
