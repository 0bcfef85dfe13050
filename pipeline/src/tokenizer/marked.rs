//! Encodes conversations. Special tokens are made only where the template wrote them, and text is cut where an
//! answer begins and ends, as when a model generates it: each token is trained or not, never in part. Apart from
//! that the ids are those of the whole text.

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Encoder, SpecialInText};
use crate::chat::Marks;
use crate::error::{Error, Result};

/// Finds the strings of special tokens.
pub(super) struct Markers {
    automaton: AhoCorasick,
    tokens: Vec<Marker>,
}

/// A special token.
struct Marker {
    id: u32,
    /// Whether it consumes white space before it.
    lstrip: bool,
    /// Whether it consumes white space after it.
    rstrip: bool,
}

/// Ids of a conversation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MarkedIds {
    /// Without the end of document.
    pub ids: Vec<u32>,
    /// Whether each of them is trained, and last the end-of-document token, which is if it ends the last answer.
    pub trained: Vec<bool>,
}

impl Encoder {
    /// Checks that conversations can be encoded.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with the reason.
    pub fn check_marked(&self) -> Result<()> {
        self.markers().map(drop)
    }

    fn markers(&self) -> Result<&Markers> {
        let made = self.markers.get_or_init(|| {
            self.new_markers().map_err(|e| match e {
                Error::Tokenizer { message, .. } => message,
                other => other.to_string(),
            })
        });
        made.as_ref().map_err(|message| self.refused(message.clone()))
    }

    fn new_markers(&self) -> Result<Markers> {
        // With these, the first text of a piece would be treated like the first of a document.
        let vocabulary = self.vocabulary();
        for text in ["a", "A b", "\n"] {
            if vocabulary.bytes(&self.encode(text)?) != text.as_bytes() {
                let message = format!(
                    "does not give back the text {text:?}, for example because it prepends a space; conversations, which are encoded \
                     piece by piece, need a tokenizer that does"
                );
                return Err(self.refused(message));
            }
        }
        if self.vocab_size >= 1 << 30 {
            return Err(
                self.refused("has ids of 2^30 and more, which conversations have no room for".to_owned())
            );
        }
        let specials: Vec<_> = (self.reference.added_tokens().into_iter())
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .collect();
        if let Some((id, token)) = specials.iter().find(|(_, token)| token.single_word) {
            let message = format!(
                "matches `{}` (id {id}) as a single word, which is not known of conversations",
                token.content
            );
            return Err(self.refused(message));
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(specials.iter().map(|(_, token)| &token.content))
            .map_err(|e| self.refused(e.to_string()))?;
        let marker = |&(id, ref token): &(u32, tokenizers::AddedToken)| Marker {
            id,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
        };
        Ok(Markers { automaton, tokens: specials.iter().map(marker).collect() })
    }

    /// The ids of a conversation. A template that writes the end of document last does not get it twice.
    ///
    /// # Errors
    /// As [`Encoder::encode_into`], or the tokenizer is one that [`Encoder::check_marked`] refuses.
    pub fn encode_marked(&self, text: &str, marks: &Marks) -> Result<MarkedIds> {
        debug_assert!(self.boundaries.is_empty(), "{:?} is refused with conversations", SpecialInText::Match);
        let markers = self.markers()?;
        let mut found = MarkedIds::default();
        let mut at = 0;
        for special in markers.automaton.find_iter(text) {
            let is_said = |&(start, end): &(usize, usize)| start < special.end() && special.start() < end;
            // Of the next stretches only one can overlap.
            let next = marks.plain.partition_point(|&(_, end)| end <= special.start());
            if special.start() < at || marks.plain.get(next).is_some_and(is_said) {
                continue;
            }
            let marker = &markers.tokens[special.pattern().as_usize()];
            let mut before = &text[at..special.start()];
            if marker.lstrip {
                before = before.trim_end();
            }
            self.encode_stretch(text, at, before.len(), marks, &mut found)?;
            found.ids.push(marker.id);
            found.trained.push(is_trained(marks, special.start()));
            at = special.end();
            if marker.rstrip {
                at += text[at..].len() - text[at..].trim_start().len();
            }
        }
        self.encode_stretch(text, at, text.len() - at, marks, &mut found)?;
        let eod = self.eod.0;
        let last = found.ids.last().copied();
        let ends_trained = match last == Some(eod) {
            true => {
                found.ids.pop();
                found.trained.pop().unwrap_or_default()
            }
            // An answer without a final special token ends with the document.
            false => {
                let is_special = markers.tokens.iter().any(|marker| Some(marker.id) == last);
                !is_special && found.trained.last().copied().unwrap_or_default()
            }
        };
        found.trained.push(ends_trained);
        Ok(found)
    }

    /// Encodes `len` bytes of text from `start` on, cut where trained stretches begin and end.
    fn encode_stretch(
        &self,
        text: &str,
        start: usize,
        len: usize,
        marks: &Marks,
        found: &mut MarkedIds,
    ) -> Result<()> {
        let end = start + len;
        let next = marks.trained.partition_point(|&(_, trained_end)| trained_end <= start);
        let cuts = marks.trained[next..].iter().flat_map(|&(from, to)| [from, to]);
        let cuts = cuts.take_while(|&cut| cut < end).filter(|&cut| cut > start);
        let mut from = start;
        for cut in cuts.chain([end]) {
            if from < cut {
                self.encode_into(&text[from..cut], &mut found.ids)?;
                found.trained.resize(found.ids.len(), is_trained(marks, from));
            }
            from = cut;
        }
        Ok(())
    }
}

/// Whether the byte at this position is trained.
fn is_trained(marks: &Marks, at: usize) -> bool {
    let next = marks.trained.partition_point(|&(_, end)| end <= at);
    marks.trained.get(next).is_some_and(|&(start, _)| start <= at)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::tokenizer::EncoderOptions;

    fn encoder() -> Encoder {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat/tokenizer.json");
        let options = EncoderOptions { eod: Some("<|endoftext|>".to_owned()), ..EncoderOptions::default() };
        Encoder::load(&path, &options).unwrap()
    }

    fn marks(text: &str, trained: &[&str], plain: &[&str]) -> Marks {
        let places = |parts: &[&str]| {
            let mut at = 0;
            let place = |part: &&str| {
                let start = at + text[at..].find(*part).unwrap();
                at = start + part.len();
                (start, at)
            };
            parts.iter().map(place).collect()
        };
        Marks { n_bytes: text.len(), trained: places(trained), plain: places(plain) }
    }

    /// Each token as text, trained ones in brackets; the flag of the end of document last.
    fn shown(encoder: &Encoder, found: &MarkedIds) -> String {
        let vocabulary = encoder.vocabulary();
        let token = |(id, trained): (&u32, &bool)| {
            let token = &vocabulary.tokens()[*id as usize];
            let text = if token.is_special {
                token.name.clone()
            } else {
                String::from_utf8_lossy(&token.bytes).into()
            };
            if *trained { format!("[{text}]") } else { text }
        };
        let tokens: Vec<String> = found.ids.iter().zip(&found.trained).map(token).collect();
        format!("{} {}", tokens.join("/"), found.trained[found.ids.len()])
    }

    #[test]
    fn ids_and_mask_are_those_of_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat/golden.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let encoder = encoder();
        let cases = golden["templates"]["chatml-generation"].as_array().unwrap();
        assert!(cases.len() > 8);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let trained = serde_json::from_value(case["generated"].clone()).unwrap();
            let marks = Marks { n_bytes: text.len(), trained, plain: Vec::new() };
            let found = encoder.encode_marked(text, &marks).unwrap();
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let mask: Vec<u8> = serde_json::from_value(case["mask"].clone()).unwrap();
            assert_eq!(found.ids, expected, "{text}");
            let flags: Vec<u8> = found.trained[..expected.len()].iter().map(|&flag| u8::from(flag)).collect();
            assert_eq!(flags, mask, "{text}");
        }
    }

    #[test]
    fn what_is_said_stays_text_and_answers_are_cut_at_their_ends() {
        let encoder = encoder();
        let text = "<|im_start|>user\nx<|im_end|>y<|im_end|>\n<|im_start|>assistant\n\nz<|im_end|>\n";
        let found = encoder.encode_marked(text, &marks(text, &["\nz<|im_end|>"], &["<|im_end|>"])).unwrap();
        let shown = shown(&encoder, &found);
        // The first `<|im_end|>` is spelled out, the second one is a token; the line end of the answer is not joined with that
        // of the header, as it would be in `\n\n`.
        assert!(shown.starts_with("<|im_start|>/user/\n/x/<"), "{shown}");
        assert!(
            shown.ends_with("/y/<|im_end|>/\n/<|im_start|>/assistant/\n/[\n]/[z]/[<|im_end|>]/\n false"),
            "{shown}"
        );
        let im_end =
            encoder.vocabulary().tokens().iter().position(|token| token.name == "<|im_end|>").unwrap() as u32;
        assert_eq!(found.ids.iter().filter(|id| **id == im_end).count(), 2);
    }

    #[test]
    fn the_end_of_document_is_trained_where_it_ends_an_answer() {
        let encoder = encoder();
        for (text, trained, expected) in [
            // No token ends the answer, so the document does.
            ("Q: x A: y", " y", "Q/:/ x/ A/:/[ y] true"),
            // A token ends it.
            ("x<|im_end|>", "x<|im_end|>", "[x]/[<|im_end|>] false"),
            // The template writes the end of document, once.
            ("x<|endoftext|>", "x<|endoftext|>", "[x] true"),
            ("x<|endoftext|>", "x", "[x] false"),
            ("x y", "x", "[x]/ y false"),
        ] {
            let found = encoder.encode_marked(text, &marks(text, &[trained], &[])).unwrap();
            let shown = shown(&encoder, &found);
            let joined = |text: &str| text.replace("]/[", "").replace('/', "");
            assert_eq!(joined(&shown), joined(expected), "{text}");
        }
    }
}
