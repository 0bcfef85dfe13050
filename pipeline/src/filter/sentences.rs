//! Counts sentences as spaCy's rule-based `sentencizer` does after its blank English tokenizer, as
//! datatrove's C4 rules do: a sentence ends with a token that is a single terminal mark, and the next one starts at
//! the first token that is not punctuation.
//!
//! The words are those of [`crate::spacy`]; chunks without a terminal mark, nearly all of them, are only checked for punctuation.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::spacy::{self, is_space};

/// Number of sentences of a text; an empty text counts as one, as in spaCy.
pub fn count(text: &str) -> usize {
    let mut counter = Counter { n: 1, ended: false };
    let mut rest = text;
    let mut at_start = true;
    while let Some(first) = rest.chars().next() {
        let space = is_space(first);
        let end = rest.find(|c| is_space(c) != space).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        match space {
            // One blank belongs to the word before it; any other white space is a token.
            true if run == " " && !at_start => {}
            true => counter.token(Kind::Other),
            false => chunk(run, &mut counter),
        }
        (rest, at_start) = (after, false);
    }
    counter.n
}

#[derive(Clone, Copy)]
enum Kind {
    /// A terminal mark by itself.
    Stop,
    /// Punctuation only.
    Punctuation,
    /// Anything else.
    Other,
}

struct Counter {
    n: usize,
    ended: bool,
}

impl Counter {
    fn token(&mut self, kind: Kind) {
        match kind {
            Kind::Stop => self.ended = true,
            Kind::Other if self.ended => {
                self.n += 1;
                self.ended = false;
            }
            _ => {}
        }
    }

    /// A token that is not split further.
    fn word(&mut self, word: &str) {
        let mut chars = word.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) if is_terminal(c) => self.token(Kind::Stop),
            (None, _) => {}
            _ if word.chars().all(is_punctuation) => self.token(Kind::Punctuation),
            _ => self.token(Kind::Other),
        }
    }
}

fn is_punctuation(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_punctuation() && !matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~'),
        false => c.general_category_group() == GeneralCategoryGroup::Punctuation,
    }
}

/// The default `punct_chars` of spaCy 3.8's sentencizer, in the order of their code points.
const TERMINAL: &str = "!.?։؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡𐩖𐩗𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑩂𑩃𑪛𑪜𑱁𑱂𖩮𖩯𖫵𖬷𖬸𖭄𛲟𝪈";

fn is_terminal(c: char) -> bool {
    match c.is_ascii() {
        true => matches!(c, '!' | '.' | '?'),
        // Only punctuation can be one, and letters are most common.
        false => !c.is_alphanumeric() && TERMINAL.contains(c),
    }
}

/// Feeds the tokens of a run without white space to the counter.
fn chunk(chunk: &str, counter: &mut Counter) {
    if !chunk.contains(is_terminal) {
        let all = chunk.chars().all(is_punctuation);
        counter.token(if all { Kind::Punctuation } else { Kind::Other });
        return;
    }
    spacy::english().split(chunk, &mut |word| counter.word(word));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results of spaCy 3.8, `spacy.blank("en")` with `sentencizer`.
    #[test]
    fn sentences_are_counted_as_in_spacy() {
        for (text, expected) in [
            ("", 1),
            ("No end", 1),
            ("One. Two! Three? Four", 4),
            ("Mr. Smith met Dr. Jones at 3 p.m. in St. Louis.", 1),
            ("He left... and came back.", 1),
            ("Plan B. Then we go.", 1),
            ("In the USA. Then we go.", 2),
            ("It costs 3.14 dollars, i.e. little. Really?", 2),
            ("the end.Next one starts", 2),
            ("see www.Example.com for more", 1),
            ("\"Stop!\" he said. \"Why?\" she asked.", 4),
            ("a.b.c. Yes", 2),
            ("What?! No way", 2),
            ("What?!No way", 1),
            ("one.  two", 2),
            ("end of 2019. Begin", 2),
            ("wait...what", 1),
            ("「終わり。」次", 1),
            ("x-Mr. Smith", 1),
            ("it is 20 °C. Warm", 2),
        ] {
            assert_eq!(count(text), expected, "{text}");
        }
    }
}
