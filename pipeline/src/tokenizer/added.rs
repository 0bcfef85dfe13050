//! Added tokens in text, as the reference finds them: first those in the original text,
//! then those in the normalized text; of several at one position, the longest. A match of a
//! token that stays text hides shorter tokens inside it but makes no token.

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::AddedToken;

use super::family::Refusal;

/// Finds added tokens.
pub(super) struct AddedTokens {
    /// In the order of the search.
    searches: Vec<Search>,
}

struct Search {
    automaton: AhoCorasick,
    /// For each pattern its id, or `None` if it stays text.
    ids: Vec<Option<u32>>,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// To be encoded.
    Text(&'t str),
    /// An added token.
    Token(u32),
}

impl AddedTokens {
    /// `tokens` in the order of their ids. `is_matched` says which of them become tokens.
    ///
    /// # Errors
    /// A token with matching rules other than those above.
    pub(super) fn new(
        tokens: &[(u32, AddedToken)],
        nfc: bool,
        is_matched: impl Fn(&AddedToken) -> bool,
    ) -> Result<AddedTokens, Refusal> {
        for (id, token) in tokens.iter().filter(|(_, token)| is_matched(token)) {
            let flags = [
                (token.single_word, "single_word"),
                (token.lstrip, "lstrip"),
                (token.rstrip, "rstrip"),
                (token.normalized && nfc, "normalized, and the file has a normalizer"),
            ];
            if let Some((_, flag)) = flags.into_iter().find(|(is_set, _)| *is_set) {
                let message = format!("(`{}`, id {id}) is {flag}", token.content);
                return Err(Refusal::new("added_tokens", message));
            }
        }
        let mut searches = Vec::new();
        for normalized in [false, true] {
            let group: Vec<_> =
                tokens.iter().filter(|(_, t)| t.normalized == normalized && !t.content.is_empty()).collect();
            let ids: Vec<Option<u32>> =
                group.iter().map(|(id, token)| is_matched(token).then_some(*id)).collect();
            if ids.iter().all(Option::is_none) {
                continue;
            }
            let automaton = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(group.iter().map(|(_, token)| token.content.as_str()))
                .map_err(|e| Refusal::new("added_tokens", e.to_string()))?;
            searches.push(Search { automaton, ids });
        }
        Ok(AddedTokens { searches })
    }

    /// Passes the pieces of a text to `take`, in order, as long as it returns true.
    pub(super) fn split<'t>(&self, text: &'t str, take: &mut dyn FnMut(Piece<'t>) -> bool) -> bool {
        split(&self.searches, text, take)
    }
}

fn split<'t>(searches: &[Search], text: &'t str, take: &mut dyn FnMut(Piece<'t>) -> bool) -> bool {
    let Some((search, rest)) = searches.split_first() else {
        return text.is_empty() || take(Piece::Text(text));
    };
    let mut start = 0;
    for found in search.automaton.find_iter(text) {
        if let Some(id) = search.ids[found.pattern().as_usize()] {
            if !split(rest, &text[start..found.start()], take) || !take(Piece::Token(id)) {
                return false;
            }
            start = found.end();
        }
    }
    split(rest, &text[start..], take)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<'t>(tokens: &[(&str, bool)], text: &'t str) -> Vec<Piece<'t>> {
        let tokens: Vec<(u32, AddedToken)> = (10..)
            .zip(tokens)
            .map(|(id, (content, special))| (id, AddedToken::from(*content, *special)))
            .collect();
        let added = AddedTokens::new(&tokens, false, |token| !token.special).unwrap();
        let mut pieces = Vec::new();
        added.split(text, &mut |piece| {
            pieces.push(piece);
            true
        });
        pieces
    }

    #[test]
    fn the_longest_wins_and_special_ones_stay_text() {
        use Piece::{Text, Token};
        assert_eq!(pieces(&[("<s>", true)], "a<s>b"), [Text("a<s>b")]);
        let tokens = [("  ", false), ("   ", false), ("<s>", true), ("<s><t>", false)];
        assert_eq!(pieces(&tokens, "a    b"), [Text("a"), Token(11), Text(" b")]);
        assert_eq!(pieces(&tokens, "<s>  <s><t>"), [Text("<s>"), Token(10), Token(13)]);
        assert_eq!(pieces(&tokens, ""), []);
    }
}
