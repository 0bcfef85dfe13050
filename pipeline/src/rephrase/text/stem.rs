//! Word forms of English: endings that are dropped so that two forms of a word compare equal, and the words that
//! carry no content. Both only serve to compare two texts, so they are short and rough: a wrong stem is the
//! same wrong stem on both sides.

/// Words without content, in modern and older English, sorted.
#[rustfmt::skip]
const STOP_WORDS: &[&str] = &[
    "a", "about", "above", "after", "again", "against", "all", "also", "although", "am", "among", "an",
    "and", "any", "are", "art", "as", "at", "be", "because", "been", "before", "behold", "being",
    "between", "both", "but", "by", "came", "can", "cannot", "come", "could", "did", "do", "does",
    "doth", "down", "during", "each", "even", "every", "for", "from", "further", "get", "go", "had",
    "has", "hast", "hath", "have", "having", "he", "her", "here", "hers", "herself", "him", "himself",
    "his", "how", "however", "i", "if", "in", "into", "is", "it", "its", "itself", "just", "let",
    "like", "made", "make", "many", "may", "me", "might", "more", "most", "much", "must", "my",
    "myself", "no", "nor", "not", "now", "o", "of", "off", "on", "one", "only", "or", "other", "our",
    "out", "over", "own", "said", "same", "say", "says", "shall", "shalt", "she", "should", "so",
    "some", "such", "than", "that", "the", "thee", "their", "them", "themselves", "then", "there",
    "therefore", "these", "they", "thine", "this", "those", "thou", "though", "through", "thus", "thy",
    "to", "too", "under", "until", "unto", "up", "upon", "us", "use", "used", "very", "was", "we",
    "went", "were", "what", "when", "where", "which", "while", "who", "whom", "whose", "why", "will",
    "with", "would", "ye", "yet", "you", "your",
];

/// Endings, longest first; what is left must have three letters.
const ENDINGS: &[&str] =
    &["ings", "eth", "est", "ing", "ies", "ied", "ers", "ed", "es", "er", "ly", "s", "e", "y"];

/// Whether a lower-case word has no content.
pub fn is_stop_word(lower: &str) -> bool {
    STOP_WORDS.binary_search(&lower).is_ok()
}

/// A lower-case word without its ending.
pub fn stem(lower: &str) -> String {
    let word = lower.strip_suffix("'s").or_else(|| lower.strip_suffix('\'')).unwrap_or(lower);
    if !word.is_ascii() {
        return word.to_owned();
    }
    let cut = |word: &str| {
        let left = ENDINGS.iter().find_map(|ending| word.strip_suffix(ending).filter(|left| left.len() >= 3));
        left.map(str::to_owned)
    };
    let Some(first) = cut(word) else { return word.to_owned() };
    // `walkers` and `walk`, `seemingly` and `seem`: a second round, but never a third.
    let twice = if first.len() > 5 { cut(&first).unwrap_or(first) } else { first };
    let mut letters = twice.into_bytes();
    // `running` and `run`: a doubled consonant at the end is one.
    if let [.., a, b] = letters[..]
        && a == b
        && letters.len() > 3
        && !b"aeioulsz".contains(&a)
    {
        letters.pop();
    }
    String::from_utf8(letters).unwrap_or_else(|_| word.to_owned())
}

/// Whether two stems may be forms of one word: equal, or a common beginning of at least four letters that is three
/// quarters of the longer one.
pub fn are_alike(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let common = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    let longer = a.chars().count().max(b.chars().count());
    common >= 4 && common * 4 >= longer * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_in_order() {
        assert!(STOP_WORDS.is_sorted());
        assert!(is_stop_word("the") && is_stop_word("unto") && !is_stop_word("king"));
    }

    #[test]
    fn forms_of_a_word_have_one_stem() {
        for forms in [
            &["walk", "walks", "walked", "walking", "walketh", "walker", "walkers"][..],
            &["run", "running", "runneth"],
            &["city", "cities", "city's"],
            &["serve", "served", "serving"],
        ] {
            let stems: Vec<String> = forms.iter().map(|form| stem(form)).collect();
            assert!(stems.iter().all(|s| *s == stems[0]), "{stems:?}");
        }
        assert_eq!(stem("is"), "is");
        assert_eq!(stem("häuser"), "häuser");
    }

    #[test]
    fn alike_needs_a_long_common_beginning() {
        assert!(are_alike("govern", "governor"));
        assert!(!are_alike("gate", "gather"));
        assert!(!are_alike("stand", "stone"));
    }
}
