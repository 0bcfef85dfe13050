//! The words in which two texts differ.

use moe_report::words::changes;

/// Words of each text to compare; the time grows with the differences.
const MAX_WORDS: usize = 20_000;
/// Words of a stretch to show.
const MAX_SHOWN: usize = 12;
/// Words around a difference.
const CONTEXT: usize = 3;
/// Differences that are shown.
const MAX_CHANGES: usize = 12;

/// How two texts differ, from word to word.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// Words only in the removed text.
    pub only_removed: usize,
    /// Words only in the kept text.
    pub only_kept: usize,
    /// Words of both.
    pub common: usize,
    /// `[-removed-]` and `{+kept+}` with a few words around, shortened.
    pub text: String,
    /// Whether the texts were too long to be compared to their ends.
    pub is_cut: bool,
}

/// Compares a removed text with the kept one.
pub fn difference(removed: &str, kept: &str) -> Difference {
    let old: Vec<&str> = removed.split_whitespace().take(MAX_WORDS).collect();
    let new: Vec<&str> = kept.split_whitespace().take(MAX_WORDS).collect();
    let is_cut = old.len() == MAX_WORDS || new.len() == MAX_WORDS;
    let mut found = Difference { only_removed: 0, only_kept: 0, common: 0, text: String::new(), is_cut };
    let mut shown: Vec<String> = Vec::new();
    let mut n_changes = 0;
    let changes = changes(&old, &new);
    let n_stretches = changes.len();
    for (i, change) in changes.into_iter().enumerate() {
        let (mine, theirs) = (&old[change.old], &new[change.new]);
        if change.is_equal {
            found.common += mine.len();
            if n_changes < MAX_CHANGES {
                shown.push(around(mine, i > 0, i + 1 < n_stretches));
            }
            continue;
        }
        found.only_removed += mine.len();
        found.only_kept += theirs.len();
        n_changes += 1;
        if n_changes <= MAX_CHANGES {
            if !mine.is_empty() {
                shown.push(format!("[-{}-]", shorten(mine)));
            }
            if !theirs.is_empty() {
                shown.push(format!("{{+{}+}}", shorten(theirs)));
            }
        }
    }
    if n_changes > MAX_CHANGES {
        shown.push(format!("... and {} more differences", n_changes - MAX_CHANGES));
    }
    found.text = shown.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
    found
}

/// The ends of a common stretch that touch a difference.
fn around(words: &[&str], after: bool, before: bool) -> String {
    if words.len() <= 2 * CONTEXT && after && before {
        return words.join(" ");
    }
    let n = CONTEXT.min(words.len());
    let head = if after { words[..n].join(" ") } else { String::new() };
    let tail = if before { words[words.len() - n..].join(" ") } else { String::new() };
    [head.as_str(), "...", tail.as_str()]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn shorten(words: &[&str]) -> String {
    if words.len() <= MAX_SHOWN {
        return words.join(" ");
    }
    let half = MAX_SHOWN / 2;
    let (head, tail) = (words[..half].join(" "), words[words.len() - half..].join(" "));
    format!("{head} ...{}... {tail}", words.len() - 2 * half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_words_are_shown_with_a_few_around() {
        let found = difference("one two three four five six", "one two three four 5 six seven");
        assert_eq!((found.only_removed, found.only_kept, found.common), (1, 2, 5));
        assert_eq!(found.text, "... two three four [-five-] {+5+} six {+seven+}");
        assert!(!found.is_cut);
    }

    #[test]
    fn equal_and_disjoint_texts() {
        let same = difference("a b", " a\nb ");
        assert_eq!((same.only_removed, same.only_kept, same.common, same.text.as_str()), (0, 0, 2, "..."));
        assert_eq!(difference("a", "b").text, "[-a-] {+b+}");
        let long = "x ".repeat(40);
        assert_eq!(difference(&long, "").text, "[-x x x x x x ...28... x x x x x x-]");
    }
}
