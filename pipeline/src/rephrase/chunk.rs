//! Cutting a document into chunks that a model rewrites one by one. Chunks are whole paragraphs where these are short
//! enough, else whole sentences, else words; they neither overlap nor leave gaps, so joined they are the document.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use crate::strict_toml::{Fault, Section};

/// `[chunk]` of a style.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChunkConfig {
    /// Most tokens of a chunk, estimated as [`tokens`] does.
    pub tokens: u64,
    /// What the model sees besides the chunk.
    pub context: Context,
    /// Tokens of the excerpt around a chunk, for `context = "rolling"`.
    pub excerpt_tokens: u64,
}

/// What the model sees besides a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Context {
    /// The excerpt around it and what was written for the chunk before (Kimi K2, arXiv 2507.20534, section 2.2).
    Rolling,
    /// Nothing: chunks are asked in any order.
    Independent,
}

impl Default for ChunkConfig {
    fn default() -> ChunkConfig {
        ChunkConfig { tokens: 384, context: Context::Rolling, excerpt_tokens: 4096 }
    }
}

impl Section for ChunkConfig {
    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if !(32..=8192).contains(&self.tokens) {
            wrong.push(("tokens", format!("is {}; expected 32 to 8192", self.tokens)));
        }
        if self.context == Context::Rolling && self.excerpt_tokens < self.tokens {
            let message = format!("is {}, below tokens = {}", self.excerpt_tokens, self.tokens);
            wrong.push(("excerpt_tokens", message));
        }
        wrong
    }
}

/// Tokens of a text, roughly, whatever the model: a third of its bytes beyond ASCII and a quarter of the others, rounded
/// up. It depends on the text alone, so that every model gets the same chunks.
pub fn tokens(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let others = text.len() as u64 - ascii;
    ascii.div_ceil(4) + others.div_ceil(3)
}

/// A piece of the document to rewrite, and the white space after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the text that is rewritten.
    pub body: Range<usize>,
    /// Bytes of white space after it.
    pub tail: Range<usize>,
}

/// Cuts a text. Bodies are not empty, except the only one of a text of nothing but white space; body and tail of all chunks, in
/// order, are the text.
pub fn chunks(text: &str, most_tokens: u64) -> Vec<Chunk> {
    let mut pieces = Vec::new();
    for paragraph in paragraphs(text) {
        split(text, paragraph, most_tokens, &mut pieces);
    }
    let mut joined: Vec<Range<usize>> = Vec::new();
    for piece in pieces {
        match joined.last_mut() {
            // Leading white space goes with the first words.
            Some(last)
                if tokens(text[last.start..piece.end].trim()) <= most_tokens
                    || text[last.clone()].trim().is_empty() =>
            {
                last.end = piece.end;
            }
            _ => joined.push(piece),
        }
    }
    joined
        .into_iter()
        .map(|range| {
            let body = text[range.clone()].trim_end().len();
            Chunk { body: range.start..range.start + body, tail: range.start + body..range.end }
        })
        .collect()
}

/// Paragraphs with the empty lines after them.
fn paragraphs(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut start, mut at, mut after_empty) = (0, 0, false);
    for line in text.split_inclusive('\n') {
        let is_empty = line.trim().is_empty();
        if after_empty && !is_empty {
            found.push(start..at);
            start = at;
        }
        after_empty = is_empty && at > 0;
        at += line.len();
    }
    if start < text.len() {
        found.push(start..text.len());
    }
    found
}

/// Cuts long pieces at sentences, then at words, then between characters.
fn split(text: &str, range: Range<usize>, most: u64, out: &mut Vec<Range<usize>>) {
    if tokens(text[range.clone()].trim()) <= most {
        out.push(range);
        return;
    }
    let whole = &text[range.clone()];
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let sentences: Vec<&str> = whole.split_sentence_bounds().collect();
    let words: Vec<&str> = whole.split_word_bounds().collect();
    // Wrapped lines are not sentences, but where sentences are too long, lines are better than words.
    for pieces in [sentences, lines, words] {
        if pieces.len() > 1 {
            let mut at = range.start;
            let mut group = at..at;
            for piece in pieces {
                let end = at + piece.len();
                if tokens(&text[group.start..end]) > most && group.start < at {
                    split(text, group.start..at, most, out);
                    group.start = at;
                }
                at = end;
                group.end = end;
            }
            split(text, group, most, out);
            return;
        }
    }
    let middle = (range.start + range.len() / 2..range.end).find(|&at| text.is_char_boundary(at));
    match middle.filter(|&at| at > range.start && at < range.end) {
        Some(at) => {
            split(text, range.start..at, most, out);
            split(text, at..range.end, most, out);
        }
        None => out.push(range),
    }
}

/// The excerpt around a chunk that a model sees: up to `most` tokens, as much after the chunk as before it, cut
/// at white space.
pub fn excerpt<'t>(text: &'t str, chunk: &Chunk, most: u64) -> &'t str {
    if tokens(text) <= most {
        return text;
    }
    // Four bytes a token at most, so this is at most `most` tokens of ASCII; of other scripts it is less than allowed.
    let spare = (most.saturating_sub(tokens(&text[chunk.body.clone()])) as usize).saturating_mul(3);
    let before = chunk.body.start.min(spare / 2 + (spare / 2).saturating_sub(text.len() - chunk.body.end));
    let after = (text.len() - chunk.body.end).min(spare - before);
    let is_space = |at: usize| text.is_char_boundary(at) && text[at..].starts_with(char::is_whitespace);
    let start = chunk.body.start - before;
    let start = if start == 0 {
        0
    } else {
        (start..chunk.body.start).find(|&at| is_space(at)).unwrap_or(chunk.body.start)
    };
    let end = chunk.body.end + after;
    let end = if end == text.len() {
        end
    } else {
        (chunk.body.end..=end).rev().find(|&at| is_space(at)).unwrap_or(chunk.body.end)
    };
    text[start..end].trim()
}

/// Joins the answers of all chunks, each with the white space after its chunk.
pub fn join(text: &str, chunks: &[Chunk], answers: &[String]) -> String {
    let mut joined = String::new();
    for (i, (chunk, answer)) in chunks.iter().zip(answers).enumerate() {
        joined.push_str(answer.trim());
        let tail = &text[chunk.tail.clone()];
        if i + 1 < chunks.len() {
            // Chunks that were cut inside a word or a line have nothing between them.
            joined.push_str(if tail.is_empty() { " " } else { tail });
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bodies(text: &str, most: u64) -> Vec<&str> {
        chunks(text, most).into_iter().map(|chunk| &text[chunk.body]).collect()
    }

    #[test]
    fn paragraphs_then_sentences_then_words() {
        let text = "First paragraph here.\n\nSecond one.\n\n\nA third. With two sentences.";
        assert_eq!(bodies(text, 100), [text]);
        assert_eq!(bodies(text, 9), ["First paragraph here.\n\nSecond one.", "A third. With two sentences."]);
        assert_eq!(bodies("x".repeat(100).as_str(), 10).concat(), "x".repeat(100));
        assert_eq!(bodies("", 10), [""; 0]);
        assert_eq!(bodies(" \n\n ", 10), [""]);
    }

    #[test]
    fn excerpts_hold_their_chunk() {
        let text: String = (0..400).map(|i| format!("word{i} ")).collect();
        let all = chunks(&text, 50);
        for chunk in &all {
            let excerpt = excerpt(&text, chunk, 200);
            assert!(excerpt.contains(&text[chunk.body.clone()]));
            assert!((100..=200).contains(&tokens(excerpt)), "{}", tokens(excerpt));
        }
        assert_eq!(excerpt(&text, &all[3], 10_000), text);
    }

    #[test]
    fn answers_are_joined_with_the_space_of_their_chunks() {
        let text = "One.\n\nTwo. Three.\n";
        let cut = chunks(text, 1);
        let answers: Vec<String> = (0..cut.len()).map(|i| format!(" a{i}\n")).collect();
        let joined = join(text, &cut, &answers);
        assert!(joined.starts_with("a0\n\na1"), "{joined}");
        assert!(!joined.ends_with('\n'));
    }

    proptest! {
        #[test]
        fn chunks_are_the_document(text in "([a-zé中]{1,12}[ .!?]{0,2}\n{0,3}){0,60}", most in 1u64..80) {
            let cut = chunks(&text, most);
            let joined: String = cut.iter().flat_map(|c| [&text[c.body.clone()], &text[c.tail.clone()]]).collect();
            prop_assert_eq!(&joined, &text);
            let mut at = 0;
            for (i, chunk) in cut.iter().enumerate() {
                prop_assert_eq!(chunk.body.start, at);
                prop_assert_eq!(chunk.body.end, chunk.tail.start);
                at = chunk.tail.end;
                prop_assert!(!text[chunk.body.clone()].trim().is_empty() || cut.len() == 1);
                prop_assert!(text[chunk.tail.clone()].trim().is_empty());
                let body = text[chunk.body.clone()].trim();
                // A single character may be more than a token.
                prop_assert!(tokens(body) <= most || body.chars().count() == 1, "{i}: {body:?}");
            }
            prop_assert_eq!(at, text.len());
        }
    }
}
