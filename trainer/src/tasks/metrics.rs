//! From likelihoods to the numbers of a task, with standard errors. Names and definitions are those of
//! lm-eval where it has them.

use std::collections::BTreeMap;
use std::f64::consts::LN_2;

use super::definition::Kind;

/// The result of one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Logarithm of the probability of each answer, in nats.
    pub log_likelihoods: Vec<f64>,
    /// Length of each answer.
    pub sizes: Vec<Size>,
    /// Number of the right answer, from 0.
    pub right: usize,
    /// Whether each token of the right answer was the most likely.
    pub is_greedy: bool,
    /// The group of the question.
    pub group: Option<String>,
}

/// The length of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Unicode characters.
    pub chars: usize,
    /// Bytes of UTF-8.
    pub bytes: usize,
    /// Pieces between white space; white space at either end makes an empty piece.
    pub words: usize,
}

impl Size {
    /// The size of a text.
    pub fn of(text: &str) -> Self {
        let edge = |is_edge: bool| usize::from(is_edge);
        let inner = text.split_whitespace().count();
        let is_space = |c: Option<char>| c.is_some_and(char::is_whitespace);
        let words = match inner {
            0 => 1 + edge(!text.is_empty()),
            n => n + edge(is_space(text.chars().next())) + edge(is_space(text.chars().next_back())),
        };
        Self { chars: text.chars().count(), bytes: text.len(), words }
    }
}

/// A number with its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Standard error over questions; none for a single one.
    pub stderr: Option<f64>,
}

/// The numbers of some questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// How many questions.
    pub n: usize,
    /// Their numbers.
    pub metrics: Vec<Metric>,
}

impl Metric {
    /// The number with four decimals; from a million on, as for perplexities of long texts, with an exponent.
    pub fn digits(number: f64) -> String {
        if number.abs() < 1e6 { format!("{number:.4}") } else { format!("{number:.3e}") }
    }
}

impl Outcome {
    /// The answer with the highest value, the first of equals.
    fn best(&self, value: impl Fn(usize) -> f64) -> usize {
        (1..self.log_likelihoods.len()).fold(0, |best, i| if value(i) > value(best) { i } else { best })
    }

    /// The most likely answer.
    pub fn chosen(&self) -> usize {
        self.best(|i| self.log_likelihoods[i])
    }

    /// Rank of the right answer by likelihood, from 1; the first of equals comes first, so that the right
    /// answer is chosen if its rank is 1.
    pub fn rank(&self) -> usize {
        let right = self.log_likelihoods[self.right];
        let is_before = |(i, &value): (usize, &f64)| value > right || (value == right && i < self.right);
        1 + self.log_likelihoods.iter().enumerate().filter(|&(i, value)| is_before((i, value))).count()
    }
}

/// The numbers of questions of one kind; none without questions.
pub fn summary<'a>(kind: Kind, outcomes: impl IntoIterator<Item = &'a Outcome>) -> Summary {
    let outcomes: Vec<&Outcome> = outcomes.into_iter().collect();
    if outcomes.is_empty() {
        return Summary { n: 0, metrics: Vec::new() };
    }
    let is_right = |outcome: &Outcome, chosen: usize| f64::from(u8::from(chosen == outcome.right));
    let per = |outcome: &Outcome, length: fn(&Size) -> usize| {
        let sizes = &outcome.sizes;
        outcome.best(|i| outcome.log_likelihoods[i] / length(&sizes[i]) as f64)
    };
    let mean = |name, value: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = outcomes.iter().map(|outcome| value(outcome)).collect();
        let (value, stderr) = mean(&values);
        Metric { name, value, stderr }
    };
    // Nats of the right answers divided by their length.
    let rate = |length: fn(&Size) -> usize| {
        let pairs: Vec<(f64, f64)> = outcomes
            .iter()
            .map(|outcome| {
                (-outcome.log_likelihoods[outcome.right], length(&outcome.sizes[outcome.right]) as f64)
            })
            .collect();
        ratio(&pairs)
    };
    let bits_per_byte = || {
        let (nats, stderr) = rate(|size| size.bytes);
        Metric { name: "bits_per_byte", value: nats / LN_2, stderr: stderr.map(|stderr| stderr / LN_2) }
    };
    // The exponential multiplies an error by its own value.
    let exponential = |name, (nats, stderr): (f64, Option<f64>)| Metric {
        name,
        value: nats.exp(),
        stderr: stderr.map(|stderr| stderr * nats.exp()),
    };
    let metrics = match kind {
        Kind::Choice => vec![
            mean("acc", &|outcome| is_right(outcome, outcome.chosen())),
            mean("acc_norm", &|outcome| is_right(outcome, per(outcome, |size| size.chars))),
            mean("acc_bytes", &|outcome| is_right(outcome, per(outcome, |size| size.bytes))),
            mean("rank", &|outcome| outcome.rank() as f64),
            mean("mrr", &|outcome| 1.0 / outcome.rank() as f64),
            bits_per_byte(),
        ],
        Kind::Cloze => vec![
            mean("acc", &|outcome| f64::from(u8::from(outcome.is_greedy))),
            exponential("perplexity", rate(|_| 1)),
            bits_per_byte(),
        ],
        Kind::Perplexity => vec![
            exponential("word_perplexity", rate(|size| size.words)),
            exponential("byte_perplexity", rate(|size| size.bytes)),
            bits_per_byte(),
        ],
    };
    Summary { n: outcomes.len(), metrics }
}

/// The numbers of each group.
pub fn by_group(kind: Kind, outcomes: &[Outcome]) -> BTreeMap<String, Summary> {
    let mut groups: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(group) = &outcome.group {
            groups.entry(group).or_default().push(outcome);
        }
    }
    groups.into_iter().map(|(group, outcomes)| (group.to_string(), summary(kind, outcomes))).collect()
}

/// Mean, and the sample standard deviation divided by the root of the size.
fn mean(values: &[f64]) -> (f64, Option<f64>) {
    ratio(&values.iter().map(|&value| (value, 1.0)).collect::<Vec<_>>())
}

/// Ratio of sums, and its standard error by linearization: that of the mean of `y - r x` divided by the mean
/// of x.
fn ratio(pairs: &[(f64, f64)]) -> (f64, Option<f64>) {
    let n = pairs.len() as f64;
    let sums = pairs.iter().fold((0.0, 0.0), |sums, pair| (sums.0 + pair.0, sums.1 + pair.1));
    let ratio = sums.0 / sums.1;
    let squares: f64 = pairs.iter().map(|(y, x)| (y - ratio * x).powi(2)).sum();
    let stderr = (pairs.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt() / (sums.1 / n));
    (ratio, stderr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(log_likelihoods: &[f64], texts: &[&str], right: usize) -> Outcome {
        Outcome {
            log_likelihoods: log_likelihoods.to_vec(),
            sizes: texts.iter().map(|text| Size::of(text)).collect(),
            right,
            is_greedy: right == 0,
            group: Some(texts[0].to_string()),
        }
    }

    fn check(summary: &Summary, expected: &[(&str, f64, f64)]) {
        assert_eq!(summary.metrics.len(), expected.len(), "{summary:?}");
        for (metric, (name, value, stderr)) in summary.metrics.iter().zip(expected) {
            assert_eq!(metric.name, *name);
            assert!((metric.value - value).abs() < 1e-12, "{metric:?}: {value}");
            assert!((metric.stderr.expect("several") - stderr).abs() < 1e-12, "{metric:?}: {stderr}");
        }
    }

    #[test]
    fn choices_by_hand() {
        // Chosen: 0 (right), 1 of equals the first (wrong). Per character -1, -0.75: 1; -2/2, -2/1: 0. Per
        // byte the last question is -2/2, -2/2, since é has two: 0, the first of equals.
        let outcomes = [outcome(&[-2.0, -3.0], &["ab", "abcd"], 0), outcome(&[-2.0, -2.0], &["ab", "é"], 1)];
        let bits = 4.0 / 4.0 / LN_2;
        check(
            &summary(Kind::Choice, &outcomes),
            &[
                ("acc", 0.5, 0.5),
                ("acc_norm", 0.0, 0.0),
                ("acc_bytes", 0.0, 0.0),
                ("rank", 1.5, 0.5),
                ("mrr", 0.75, 0.25),
                ("bits_per_byte", bits, 0.0),
            ],
        );
        assert_eq!(summary(Kind::Choice, &outcomes[..1]).metrics[0].stderr, None);
        assert_eq!(summary(Kind::Choice, []), Summary { n: 0, metrics: vec![] });
        let groups = by_group(Kind::Choice, &outcomes);
        assert_eq!(groups.keys().collect::<Vec<_>>(), ["ab"]);
        assert_eq!(outcome(&[-5.0, -1.0, -3.0], &["a", "b", "c"], 2).rank(), 2);
    }

    #[test]
    fn perplexities_by_hand() {
        // Nats 2 and 6, mean 4, sample deviation 2 sqrt 2, standard error 2. Bytes 2 and 4: 8 / 6 nats a
        // byte; residues 2 - 8/3 and 6 - 16/3, so squares of 4/9 twice, and the standard error sqrt(8/9 / 2)
        // / 3.
        let outcomes = [outcome(&[-2.0], &["ab"], 0), outcome(&[-6.0], &["a cd"], 0)];
        let (e, rate, error) = (4f64.exp(), 8.0 / 6.0, (4.0f64 / 9.0).sqrt() / 3.0);
        let bits = ("bits_per_byte", rate / LN_2, error / LN_2);
        check(&summary(Kind::Cloze, &outcomes), &[("acc", 1.0, 0.0), ("perplexity", e, 2.0 * e), bits]);
        // Words 1 and 2: 8 / 3 nats a word; residues 2 - 8/3 and 6 - 16/3.
        let (word, word_error) = ((8f64 / 3.0).exp(), (4.0f64 / 9.0).sqrt() / 1.5);
        check(
            &summary(Kind::Perplexity, &outcomes),
            &[
                ("word_perplexity", word, word * word_error),
                ("byte_perplexity", rate.exp(), rate.exp() * error),
                bits,
            ],
        );
    }

    #[test]
    fn large_numbers_have_an_exponent() {
        assert_eq!(
            [0.25, 999_999.0, 1.25e6, f64::INFINITY].map(Metric::digits),
            ["0.2500", "999999.0000", "1.250e6", "inf"]
        );
    }

    #[test]
    fn words_are_what_white_space_separates() {
        // As Python's re.split(r"\s+", text) counts them.
        let words = |text: &str| Size::of(text).words;
        assert_eq!(["a", "a b", " a  b\n", "", "  ", "a\n\nb c"].map(words), [1, 2, 4, 1, 2, 3]);
    }
}
