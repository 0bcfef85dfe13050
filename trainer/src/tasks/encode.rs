//! From texts to tokens, as lm-eval does it, so that the numbers agree.

use tokenizers::Tokenizer;

use crate::error::{Error, Result};

/// A question to a model: how likely `continuation` is after `context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// At least one token.
    pub context: Vec<u32>,
    /// At least one token.
    pub continuation: Vec<u32>,
}

/// A part of a request that a model can read in one pass: tokens, and how many of the last predictions count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What the model reads.
    pub tokens: Vec<u32>,
    /// The targets of the last of these tokens.
    pub targets: Vec<u32>,
}

/// A tokenizer from the contents of its file, without truncation and padding: the file's settings for these
/// are meant for batches of another program.
///
/// # Errors
/// When it is not a tokenizer.
pub fn tokenizer(file: &[u8]) -> Result<Tokenizer, String> {
    let mut tokenizer =
        Tokenizer::from_bytes(file).map_err(|error| format!("is not a tokenizer: {error}"))?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| format!("cannot stop truncating: {error}"))?;
    Ok(tokenizer)
}

/// Encodes texts as tokens.
pub struct Encoder {
    tokenizer: Tokenizer,
    eod: u32,
}

impl Encoder {
    /// An encoder from the contents of a tokenizer's file; a text without context follows the token `eod`.
    ///
    /// # Errors
    /// When it is not a tokenizer.
    pub fn new(file: &[u8], eod: u32) -> Result<Self> {
        let tokenizer =
            tokenizer(file).map_err(|problem| Error::Data(format!("the run's tokenizer {problem}")))?;
        Ok(Self { tokenizer, eod })
    }

    /// A continuation after a context. White space at the end of the context belongs to the continuation, and
    /// both are encoded together, so that the tokens at the boundary are those of the whole text.
    ///
    /// # Errors
    /// If there is nothing to predict, or a text cannot be encoded.
    pub fn request(&self, context: &str, continuation: &str) -> Result<Request, String> {
        if context.is_empty() {
            let continuation = self.tokens(continuation)?;
            return match continuation.split_first() {
                Some((first, rest)) if *first == self.eod => self.checked(vec![*first], rest.to_vec()),
                _ => self.checked(vec![self.eod], continuation),
            };
        }
        let bare = context.trim_end();
        let mut whole = self.tokens(&format!("{context}{continuation}"))?;
        let mut context = self.tokens(bare)?;
        let behind = whole.split_off(context.len().min(whole.len()));
        if context.is_empty() {
            // Only white space.
            context.push(self.eod);
        }
        self.checked(context, behind)
    }

    /// A whole text.
    ///
    /// # Errors
    /// As [`Encoder::request`].
    pub fn text(&self, text: &str) -> Result<Request, String> {
        self.checked(vec![self.eod], self.tokens(text)?)
    }

    fn checked(&self, context: Vec<u32>, continuation: Vec<u32>) -> Result<Request, String> {
        match continuation.is_empty() {
            true => Err("an answer has no token of its own after its context".into()),
            false => Ok(Request { context, continuation }),
        }
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding =
            self.tokenizer.encode(text, false).map_err(|error| format!("cannot be encoded: {error}"))?;
        Ok(encoding.get_ids().to_vec())
    }
}

impl Request {
    /// The windows of at most `longest` tokens in which the continuation is predicted. A context that is too
    /// long loses its beginning. A continuation that is too long is predicted piece by piece: the first piece
    /// after the last token of the context, every other one after as many preceding tokens as there is room
    /// for.
    pub fn windows(&self, longest: usize) -> Vec<Window> {
        let n = self.continuation.len();
        let whole = [&self.context[..], &self.continuation].concat();
        let end = whole.len() - n;
        let window = |from: usize, n: usize, to: usize| Window {
            tokens: whole[from..to - 1].to_vec(),
            targets: whole[to - n..to].to_vec(),
        };
        if n <= longest {
            return vec![window(whole.len().saturating_sub(longest + 1), n, whole.len())];
        }
        let mut windows = Vec::new();
        let mut done = 0;
        while done < n {
            let piece = longest.min(n - done);
            let to = end + done + piece;
            windows.push(window(to - longest - 1, piece, to));
            done += piece;
        }
        windows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Characters are tokens; `ab` and ` c` are one each.
    fn encoder() -> Encoder {
        encoder_with("null", "null")
    }

    fn encoder_with(truncation: &str, padding: &str) -> Encoder {
        let vocab = "{\"E\":0,\"a\":1,\"b\":2,\" \":3,\"c\":4,\"ab\":5,\" c\":6}";
        let model =
            format!("{{\"type\":\"BPE\",\"vocab\":{vocab},\"merges\":[[\"a\",\"b\"],[\" \",\"c\"]]}}");
        let file = format!(
            "{{\"version\":\"1.0\",\"truncation\":{truncation},\"padding\":{padding},\"added_tokens\":[],\"normalizer\":null,\
             \"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null,\"model\":{model}}}"
        );
        Encoder::new(file.as_bytes(), 0).expect("a tokenizer")
    }

    #[test]
    fn the_seam_is_that_of_the_whole_text() {
        let check = |context: &str, continuation: &str, expected: (&[u32], &[u32])| {
            let found = encoder().request(context, continuation).expect("a request");
            assert_eq!(
                (&found.context[..], &found.continuation[..]),
                expected,
                "{context:?} {continuation:?}"
            );
        };
        check("b", " c", (&[2], &[6]));
        check("b ", "c", (&[2], &[6]));
        // The context keeps its length although the whole text has other tokens.
        check("a", "bc", (&[1], &[4]));
        check("", " c", (&[0], &[6]));
        check("", "Ea", (&[0], &[1]));
        check("  ", "c", (&[0], &[3, 6]));
        assert!(encoder().request("a", "b").is_err() && encoder().request("a", "").is_err());
        assert_eq!(encoder().text("ab").expect("a text").continuation, [5]);
    }

    #[test]
    fn batch_settings_of_a_tokenizer_have_no_effect() {
        let truncation =
            "{\"direction\":\"Right\",\"max_length\":2,\"strategy\":\"LongestFirst\",\"stride\":0}";
        let padding = "{\"strategy\":{\"Fixed\":9},\"direction\":\"Right\",\"pad_to_multiple_of\":null,\
                       \"pad_id\":0,\"pad_type_id\":0,\"pad_token\":\"E\"}";
        for (truncation, padding) in [(truncation, "null"), ("null", padding)] {
            let text = encoder_with(truncation, padding).text("abba").expect("a text");
            assert_eq!(text.continuation, [5, 2, 1]);
        }
    }

    #[test]
    fn long_requests_lose_their_beginning_or_are_cut_into_windows() {
        let request = |context: &[u32], continuation: &[u32]| Request {
            context: context.to_vec(),
            continuation: continuation.to_vec(),
        };
        let windows = |request: Request, longest| -> Vec<(Vec<u32>, Vec<u32>)> {
            request.windows(longest).into_iter().map(|window| (window.tokens, window.targets)).collect()
        };
        assert_eq!(windows(request(&[1, 2], &[3, 4]), 9), [(vec![1, 2, 3], vec![3, 4])]);
        assert_eq!(windows(request(&[1, 2, 3], &[4, 5]), 2), [(vec![3, 4], vec![4, 5])]);
        assert_eq!(
            windows(request(&[0], &[1, 2, 3, 4, 5, 6, 7]), 3),
            [
                (vec![0, 1, 2], vec![1, 2, 3]),
                (vec![3, 4, 5], vec![4, 5, 6]),
                // As many tokens as there is room for precede the last piece.
                (vec![4, 5, 6], vec![7]),
            ]
        );
    }
}
