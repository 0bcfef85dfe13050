//! Numbers as values, so that `1,200`, `twelve hundred` and `one thousand two hundred` are the same. Words are English,
//! older forms included (`threescore and ten`, `seven and twenty`). Written as words, one and two are mostly not numbers (`one of
//! them`, `the second time`, `the two` for `both`): they are kept apart and may stand for a digit, but need not be found.

use super::Word;

/// Numbers of a text in their order. Digits keep their fraction: `3.50` is not `3.5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Values that another text of the same content must have too.
    pub values: Vec<String>,
    /// Ones and twos written as words.
    pub small: Vec<String>,
}

/// Finds the numbers of a text.
pub fn numbers(text: &str, words: &[Word]) -> Numbers {
    let mut found = Numbers::default();
    let mut i = 0;
    while i < words.len() {
        if words[i].lower.starts_with(|c: char| c.is_ascii_digit()) {
            found.values.push(digits(&words[i].lower));
            i += 1;
            continue;
        }
        match spelled(text, &words[i..]) {
            Some((value, n_words)) => {
                let list = if value > 2 { &mut found.values } else { &mut found.small };
                list.push(value.to_string());
                i += n_words;
            }
            None => i += 1,
        }
    }
    found
}

/// A number in digits without separators of thousands, signs of order (`3rd`) and zeros in front.
fn digits(word: &str) -> String {
    let plain = word.replace([',', '_', '\''], "");
    let end = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
    let is_order = matches!(&plain[end..], "st" | "nd" | "rd" | "th" | "s");
    let kept = if is_order || end == plain.len() { &plain[..end] } else { plain.as_str() };
    let kept = kept.trim_end_matches('.');
    let short = kept.trim_start_matches('0');
    if short.is_empty() || short.starts_with('.') { format!("0{short}") } else { short.to_owned() }
}

/// What a word of a number does.
#[derive(Clone, Copy)]
enum Part {
    /// 1 to 19.
    Unit(u64),
    /// 20 to 90.
    Ten(u64),
    /// `threescore` and `fourscore`, followed by up to 19.
    Scores(u64),
    /// `score`, `hundred`, `thousand`, `million`: multiplies the number before it.
    Scale(u64),
}

fn part(lower: &str) -> Option<Part> {
    use Part::{Scale, Scores, Ten, Unit};
    Some(match lower {
        "one" => Unit(1),
        "two" | "twice" | "second" => Unit(2),
        "three" | "third" | "thrice" => Unit(3),
        "four" | "fourth" => Unit(4),
        "five" | "fifth" => Unit(5),
        "six" | "sixth" => Unit(6),
        "seven" | "seventh" => Unit(7),
        "eight" | "eighth" => Unit(8),
        "nine" | "ninth" => Unit(9),
        "ten" | "tenth" => Unit(10),
        "eleven" | "eleventh" => Unit(11),
        "twelve" | "twelfth" => Unit(12),
        "thirteen" | "thirteenth" => Unit(13),
        "fourteen" | "fourteenth" => Unit(14),
        "fifteen" | "fifteenth" => Unit(15),
        "sixteen" | "sixteenth" => Unit(16),
        "seventeen" | "seventeenth" => Unit(17),
        "eighteen" | "eighteenth" => Unit(18),
        "nineteen" | "nineteenth" => Unit(19),
        "twenty" | "twentieth" => Ten(20),
        "thirty" | "thirtieth" => Ten(30),
        "forty" | "fortieth" => Ten(40),
        "fifty" | "fiftieth" => Ten(50),
        "sixty" | "sixtieth" => Ten(60),
        "seventy" | "seventieth" => Ten(70),
        "eighty" | "eightieth" => Ten(80),
        "ninety" | "ninetieth" => Ten(90),
        "threescore" => Scores(60),
        "fourscore" => Scores(80),
        "score" => Scale(20),
        "hundred" | "hundredth" => Scale(100),
        "thousand" | "thousandth" => Scale(1000),
        "million" => Scale(1_000_000),
        "billion" => Scale(1_000_000_000),
        _ => return None,
    })
}

/// The number that starts with the first word, and how many words it has. `hundred` may follow `a` or `an`, which is
/// then one; a plain plural (`hundreds`) is not a number.
fn spelled(text: &str, words: &[Word]) -> Option<(u64, usize)> {
    let is_article = matches!(words[0].lower.as_str(), "a" | "an");
    let first = words.get(usize::from(is_article))?;
    let (mut total, mut group) = (0u64, 0u64);
    match (is_article, part(&first.lower)?) {
        (true, Part::Scale(scale)) if scale >= 100 => group = 1,
        (true, _) | (false, Part::Scale(20)) => return None,
        _ => {}
    }
    let mut used = usize::from(is_article);
    // The next smaller place: after `hundred` come tens and units, after a unit only a scale.
    let mut open = u64::MAX;
    while let Some(word) = words.get(used) {
        let joins = used == 0 || is_joined(text, &words[used - 1], word);
        let skip = usize::from(word.lower == "and" && used > 0);
        let Some(word) = words.get(used + skip).filter(|_| joins) else { break };
        if skip == 1 && !is_joined(text, &words[used], word) {
            break;
        }
        match part(&word.lower) {
            Some(Part::Unit(n)) if open >= 100 || (open >= 10 && n < open) => {
                group += n;
                open = 1;
            }
            Some(Part::Ten(n)) if open >= 100 => {
                group += n;
                open = 10;
            }
            Some(Part::Scores(n)) if open >= 100 => {
                group += n;
                open = 20;
            }
            // `seven and twenty`.
            Some(Part::Ten(n)) if skip == 1 && open == 1 && group % 100 < 10 => {
                group += n;
                open = 0;
            }
            Some(Part::Scale(scale)) if skip == 0 || group == 0 => {
                let times = group.max(1);
                if scale >= 1000 {
                    total = total.saturating_add(times.saturating_mul(scale));
                    group = 0;
                    open = scale;
                } else {
                    group = times.saturating_mul(scale);
                    open = scale.min(100);
                }
            }
            _ => break,
        }
        used += skip + 1;
    }
    Some((total.saturating_add(group), used)).filter(|(_, n_words)| *n_words > 0)
}

/// Whether only a space, a hyphen or a comma is between two words.
fn is_joined(text: &str, a: &Word, b: &Word) -> bool {
    matches!(text[a.bytes.end..b.bytes.start].trim(), "" | "-" | "\u{2010}" | "\u{2011}")
}

#[cfg(test)]
mod tests {
    use super::super::Text;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(Text::new(text).numbers.values, expected, "{text}");
    }

    #[test]
    fn digits_and_words_are_the_same_numbers() {
        check("1,200 and 3.50 and 007 and 3rd and the 1990s", &["1200", "3.50", "7", "3", "1990"]);
        check("twelve hundred; one thousand two hundred; 1200", &["1200", "1200", "1200"]);
        check("an hundred and twenty and seven provinces", &["127"]);
        check("a hundred and seven and twenty provinces", &["127"]);
        check("one hundred twenty-seven provinces", &["127"]);
        check("threescore and ten years, threescore years and ten", &["70", "60", "10"]);
        check("six hundred thousand and three thousand and five hundred and fifty", &["603550"]);
        check("603,550 men", &["603550"]);
        check("two and three, two, three; the third day", &["3", "3", "3"]);
        assert_eq!(Text::new("one or two, twice").numbers.small, ["1", "2", "2"]);
        check("no one came, the first and second time, thousands of them", &[]);
        check("twenty and four elders", &["24"]);
        check("version 5.2 on 2024-01-02", &["5.2", "2024", "1", "2"]);
    }
}
