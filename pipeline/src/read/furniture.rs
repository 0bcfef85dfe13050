//! Page furniture that extractors leave in a text: headings of link lists, buttons, everything below the last paragraph.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Lines that are nothing but one of these, marks around it aside, are not text: headings of link lists, and buttons. Words that a
/// text may well have on a line of its own, such as `next` in code, are not among them.
const PHRASES: &str = "share this|share this article|read more|related|related topics|related articles|related posts|related subjects|\
    related stories|related content|leave a comment|leave a reply|post a comment|comments are closed|advertisement|sponsored|\
    follow us|see also|you may also like|recommended|most read|trending|copy link|back to top|facebook|twitter|whatsapp|pinterest|linkedin|\
    weiterlesen|mehr lesen|mehr zum thema|schlagworte|schlagwörter|kommentare|kommentar schreiben|kommentare schreiben|\
    kommentare geschlossen|kommentar hinterlassen|artikel teilen|artikel drucken|anzeige|werbung|zum thema|weiterführender link|\
    weiterführende links|nach oben|ähnliche artikel|ähnliche beiträge|verwandte themen|en savoir plus|lire aussi|lire la suite|\
    à découvrir|à lire aussi|partager|commentaires|mots clés|mots-clés|publicité|leer más|compartir|comentarios|etiquetas|publicidad|\
    te puede interesar|leggi anche|condividi|commenti|pubblicità|lees meer|lees ook|reacties";
static KNOWN: LazyLock<BTreeSet<&str>> = LazyLock::new(|| PHRASES.split('|').collect());

/// A line of at least this many characters is a paragraph.
const PARAGRAPH_CHARS: usize = 80;
/// At most this share of the text, below the last sentence, is treated as furniture.
const MOST_OF_TEXT: f64 = 0.2;
/// A text with less than this share in paragraphs has short lines of its own: verses, lists, tables.
const LEAST_IN_PARAGRAPHS: f64 = 0.5;

/// The text without lines of furniture, and without the short lines after its last sentence. A text of nothing else is left unchanged.
pub(super) fn removed(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !is_known(line)).collect();
    let lines = &lines[..lines.len() - n_behind_the_last_sentence(&lines)];
    match lines.iter().all(|line| line.trim().is_empty()) {
        true => text.to_owned(),
        false => lines.join("\n"),
    }
}

fn is_known(line: &str) -> bool {
    let words = line.trim_matches(|c: char| !c.is_alphanumeric());
    !words.is_empty() && words.len() < 60 && KNOWN.contains(words.to_lowercase().as_str())
}

/// Short lines at the end that do not end a sentence: tags, links to other pages, notices. None if they belong to a list that
/// a colon announces, or make up much of the text.
fn n_behind_the_last_sentence(lines: &[&str]) -> usize {
    let chars = |line: &&str| line.trim().chars().count();
    let total: usize = lines.iter().map(chars).sum();
    let in_paragraphs: usize = lines.iter().map(chars).filter(|&n| n >= PARAGRAPH_CHARS).sum();
    if total == 0 || (in_paragraphs as f64) < LEAST_IN_PARAGRAPHS * total as f64 {
        return 0;
    }
    let ends_sentence = |line: &str| {
        let marks = ['.', '!', '?', '…', ':', '"', '”', '“', '»', ')', '。', '！', '？', '」', '।'];
        line.trim_end().ends_with(marks)
    };
    let (mut n, mut n_chars) = (0, 0);
    for line in lines.iter().rev() {
        if !line.trim().is_empty() && (chars(line) >= PARAGRAPH_CHARS || ends_sentence(line)) {
            let announces = line.trim_end().ends_with(':');
            let too_many = n_chars as f64 > MOST_OF_TEXT * total as f64;
            return if announces || too_many { 0 } else { n };
        }
        n += 1;
        n_chars += chars(line);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAGRAPH: &str =
        "A paragraph of a page is a line of more than eighty characters, and it ends as sentences do.";

    fn check(text: &str, expected: &str) {
        let page = |text: &str| text.replace('P', PARAGRAPH);
        assert_eq!(removed(&page(text)), page(expected));
    }

    #[test]
    fn lines_of_furniture_go_and_text_stays() {
        check("P\nRelated Topics:\nP\n> Weiterlesen …\nP", "P\nP\nP");
        check("P\nRelated topics are discussed below.\nP", "P\nRelated topics are discussed below.\nP");
        check("P\nP\n\nTags\nnews, mills\nHome", "P\nP");
        check("P\nP\nWhat you need:\nflour\nwater", "P\nP\nWhat you need:\nflour\nwater");
        check("P\nShe said so.\nJoe", "P\nShe said so.");
        // Verses, and pages with much text after the last sentence.
        check("Tiger tiger\nburning bright\nin the forests", "Tiger tiger\nburning bright\nin the forests");
        let names = (0..9).map(|i| format!("name of a person {i}")).collect::<Vec<_>>().join("\n");
        check(&format!("P\nP\n{names}"), &format!("P\nP\n{names}"));
        check("Facebook", "Facebook");
        check("", "");
    }
}
