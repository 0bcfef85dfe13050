//! Where sentences end. A line end alone does not end one, since prose is often wrapped; an empty line, a list item or a
//! heading does.

use std::ops::Range;

use super::Word;

/// Abbreviations whose period does not end a sentence.
const ABBREVIATIONS: &[&str] =
    &["mr", "mrs", "ms", "dr", "st", "e.g", "i.e", "vs", "no", "fig", "prof", "gen", "cf", "jr", "sr"];

/// Sentences as ranges of words that cover them all.
pub fn sentences(text: &str, words: &[Word]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for (i, pair) in words.windows(2).enumerate() {
        if is_end(&text[pair[0].bytes.end..pair[1].bytes.start], &pair[0], &pair[1]) {
            found.push(start..i + 1);
            start = i + 1;
        }
    }
    if start < words.len() {
        found.push(start..words.len());
    }
    found
}

fn is_end(between: &str, before: &Word, after: &Word) -> bool {
    let mut line_ends = 0;
    for c in between.chars() {
        match c {
            '。' | '！' | '？' | '।' | '؟' => return true,
            '\n' => line_ends += 1,
            c if c.is_whitespace() => {}
            // A bullet or a heading after a line end starts something new.
            '-' | '*' | '#' | '•' | '|' if line_ends > 0 => return true,
            _ => {}
        }
        if line_ends > 1 {
            return true;
        }
    }
    let has_space = between.contains(char::is_whitespace);
    if !has_space {
        return false;
    }
    if between.contains(['!', '?']) || (line_ends > 0 && between.contains('.')) {
        return true;
    }
    // A period ends a sentence unless a lower-case letter follows.
    between.contains('.')
        && !ABBREVIATIONS.contains(&before.lower.as_str())
        && !(before.is_capital && before.lower.chars().count() == 1)
        && (after.is_capital || after.lower.starts_with(|c: char| !c.is_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::super::Text;

    fn check(text: &str, expected: &[&str]) {
        let text = Text::new(text);
        let found: Vec<&str> = (0..text.sentences.len()).map(|i| text.sentence(i)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn full_stops_end_sentences_and_abbreviations_do_not() {
        check(
            "Mr. Smith met J. Doe. It was 3.5 miles, e.g. far. \"Go!\" he said.",
            &["Mr. Smith met J. Doe", "It was 3.5 miles, e.g. far", "Go", "he said"],
        );
    }

    #[test]
    fn wrapped_lines_go_on_and_items_do_not() {
        check(
            "One line\nof wrapped text.\nNext\n\n- item a\n- item b",
            &["One line\nof wrapped text", "Next", "item a", "item b"],
        );
        check("第一句。第二句", &["第一句", "第二句"]);
    }
}
