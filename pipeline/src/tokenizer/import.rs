//! Converts `.tiktoken` files to `tokenizer.json`. Such a file holds one token per line, its bytes in base64 and
//! its rank; the regular expression and the special tokens are not in it.
//!
//! tiktoken joins any two neighbors whose bytes together are a token, the lowest rank first, where a
//! `tokenizer.json` lists the pairs that may be joined. So every way to cut a token into two tokens
//! becomes a pair, in the order of the ranks of what they make, and `ignore_merges` gives a whole word
//! that is a token its id at once, as tiktoken does.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer};

use super::family::Family;
use super::probe;
use super::vocabulary::symbols_of_bytes;

/// Tokens by their bytes.
struct Ranks {
    by_bytes: HashMap<Vec<u8>, u32>,
}

/// Converts the content of a `.tiktoken` file. `specials` are names with ids; if an id is absent, the
/// next free one is used. Returns the `tokenizer.json`.
///
/// # Errors
/// The first bad line, ids that are taken twice, a vocabulary without some byte, or a string of the probe
/// that the result would encode with other ids than tiktoken's rule.
pub fn import(text: &str, family: Family, specials: &[(String, Option<u32>)]) -> Result<String, String> {
    let ranks = Ranks::parse(text)?;
    let specials = assign_ids(&ranks, specials)?;
    let file = ranks.to_json(family, &specials);
    ranks.check(&file, &specials)?;
    let mut json = serde_json::to_string(&file).map_err(|e| e.to_string())?;
    json.push('\n');
    Ok(json)
}

fn assign_ids(ranks: &Ranks, specials: &[(String, Option<u32>)]) -> Result<Vec<(String, u32)>, String> {
    let mut owners: HashMap<u32, String> =
        ranks.by_bytes.iter().map(|(bytes, id)| (*id, String::from_utf8_lossy(bytes).into_owned())).collect();
    let named = specials.iter().filter_map(|(_, id)| *id);
    let mut next = owners.keys().copied().chain(named).max().map_or(0, |last| last + 1);
    let mut assigned: Vec<(String, u32)> = Vec::new();
    for (name, id) in specials {
        let id = id.unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        if name.is_empty() {
            return Err("a special token has no name".to_owned());
        }
        if assigned.iter().any(|(other, _)| other == name) {
            return Err(format!("the special token `{name}` is named twice"));
        }
        if let Some(owner) = owners.insert(id, name.clone()) {
            return Err(format!("the special token `{name}` has id {id}, which is that of `{owner}`"));
        }
        assigned.push((name.clone(), id));
    }
    Ok(assigned)
}

impl Ranks {
    fn parse(text: &str) -> Result<Ranks, String> {
        let mut by_bytes = HashMap::new();
        let mut seen = HashMap::new();
        for (i, line) in text.lines().enumerate() {
            let line_number = i + 1;
            if line.trim().is_empty() {
                continue;
            }
            let wrong =
                |what: &str| format!("line {line_number}: {what}; expected base64, a space and a rank");
            let (bytes, rank) = line.trim_end().split_once(' ').ok_or_else(|| wrong("has no space"))?;
            let bytes = decode_base64(bytes).ok_or_else(|| wrong("the first word is not base64"))?;
            let rank: u32 = rank.parse().map_err(|_| wrong("the second word is not a number"))?;
            if bytes.is_empty() {
                return Err(wrong("the token is empty"));
            }
            if let Some(other) = seen.insert(rank, line_number) {
                return Err(format!("line {line_number}: rank {rank} is already that of line {other}"));
            }
            if by_bytes.insert(bytes, rank).is_some() {
                return Err(format!("line {line_number}: the token is already in the file"));
            }
        }
        if let Some(byte) = (0..=u8::MAX).find(|byte| !by_bytes.contains_key(&[*byte][..])) {
            return Err(format!("byte 0x{byte:02x} has no token; all 256 are needed"));
        }
        Ok(Ranks { by_bytes })
    }

    fn to_json(&self, family: Family, specials: &[(String, u32)]) -> Value {
        let symbols = symbols_of_bytes();
        let name =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| symbols[usize::from(*byte)]).collect() };
        let mut vocab = Map::new();
        // The rank of what a pair makes, then the ranks of its parts: a total order.
        let mut merges: Vec<([u32; 3], &[u8], usize)> = Vec::new();
        for (bytes, rank) in &self.by_bytes {
            vocab.insert(name(bytes), Value::from(*rank));
            for at in 1..bytes.len() {
                let (left, right) = bytes.split_at(at);
                if let (Some(l), Some(r)) = (self.by_bytes.get(left), self.by_bytes.get(right)) {
                    merges.push(([*rank, *l, *r], bytes, at));
                }
            }
        }
        // The library gives an added token missing here the next free id, regardless of the file.
        vocab.extend(specials.iter().map(|(special, id)| (special.clone(), Value::from(*id))));
        merges.sort_unstable();
        let merges: Vec<Value> = merges
            .into_iter()
            .map(|(_, bytes, at)| json!([name(&bytes[..at]), name(&bytes[at..])]))
            .collect();
        let added: Vec<Value> = specials
            .iter()
            .map(|(content, id)| {
                json!({
                    "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true
                })
            })
            .collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": family.pre_tokenizer(),
            "post_processor": null,
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
                "vocab": vocab, "merges": merges
            }
        })
    }

    /// Encodes the probe, word by word, with tiktoken's own rule.
    fn check(&self, file: &Value, specials: &[(String, u32)]) -> Result<(), String> {
        let mut tokenizer: Tokenizer = serde_json::from_value(file.clone()).map_err(|e| e.to_string())?;
        tokenizer.set_encode_special_tokens(true);
        for (special, id) in specials {
            let found = tokenizer.token_to_id(special);
            if found != Some(*id) {
                return Err(format!("the special token `{special}` would get id {found:?} in place of {id}"));
            }
        }
        let names: Vec<&str> = specials.iter().map(|(special, _)| special.as_str()).collect();
        for text in probe::strings(&names) {
            let mut expected = Vec::new();
            for word in words(&tokenizer, &text)? {
                self.merge(word.as_bytes(), &mut expected);
            }
            let found = tokenizer.encode_fast(text.as_str(), false).map_err(|e| e.to_string())?;
            if found.get_ids() != expected {
                return Err(format!(
                    "{text:?} would be encoded as {:?}, by tiktoken's rule it is {expected:?}",
                    found.get_ids()
                ));
            }
        }
        Ok(())
    }

    /// Appends the ids of a word: neighbors are joined, the lowest rank first, the leftmost in case of ties.
    fn merge(&self, word: &[u8], ids: &mut Vec<u32>) {
        if let Some(id) = self.by_bytes.get(word) {
            ids.push(*id);
            return;
        }
        let mut ends: Vec<usize> = (0..=word.len()).collect();
        loop {
            let pairs = ends.windows(3).enumerate();
            let ranked =
                pairs.filter_map(|(i, e)| self.by_bytes.get(&word[e[0]..e[2]]).map(|rank| (*rank, i)));
            let Some((_, i)) = ranked.min() else { break };
            ends.remove(i + 1);
        }
        // Every byte has a token, and only tokens were made.
        ids.extend(ends.windows(2).filter_map(|e| self.by_bytes.get(&word[e[0]..e[1]])));
    }
}

/// The words that the file's splits make of a text, verbatim.
fn words<'t>(tokenizer: &Tokenizer, text: &'t str) -> Result<Vec<&'t str>, String> {
    let mut pieces = PreTokenizedString::from(text);
    if let Some(splits) = tokenizer.get_pre_tokenizer() {
        splits.pre_tokenize(&mut pieces).map_err(|e| e.to_string())?;
    }
    let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    pieces
        .into_iter()
        .map(|(_, (start, end), _)| text.get(start..end).ok_or_else(|| "splits a character".to_owned()))
        .collect()
}

/// Standard base64 with or without padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut n_bits) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
            bits &= (1 << n_bits) - 1;
        }
    }
    // What is left over is padding of zero bits, fewer than a digit.
    (n_bits < 6 && bits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode_base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let bits =
                chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for i in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
                text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
            }
        }
        text
    }

    fn file(more: &[&str]) -> String {
        let bytes =
            (0..=u8::MAX).map(|byte| vec![byte]).chain(more.iter().map(|token| token.as_bytes().to_vec()));
        bytes.enumerate().map(|(rank, bytes)| format!("{} {rank}\n", encode_base64(&bytes))).collect()
    }

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for (text, bytes) in
            [("IQ==", &b"!"[..]), ("IQ", b"!"), ("aGVsbG8=", b"hello"), ("", b""), ("/+8=", b"\xff\xef")]
        {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["I", "I!", "IR==", "A===A"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }

    #[test]
    fn tokens_are_joined_by_rank_whatever_the_pair() {
        // In `xabc` the `a` goes to `xa`, whose rank is lower, so `abc` is never made.
        let ranks = file(&["xa", "ab", "bc", "abc", " the", "the", " th", "he", "th"]);
        let json = import(
            &ranks,
            Family::Cl100k,
            &[("<|end|>".to_owned(), None), ("<|pad|>".to_owned(), Some(300))],
        )
        .unwrap();
        let tokenizer: Tokenizer = json.parse().unwrap();
        let ids = |text: &str| tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
        assert_eq!(ids("abc"), [259]);
        assert_eq!(ids("xabc"), [256, 258]);
        assert_eq!(ids("the the"), [261, 260]);
        assert_eq!(
            (tokenizer.token_to_id("<|end|>"), tokenizer.token_to_id("<|pad|>")),
            (Some(301), Some(300))
        );
    }

    #[test]
    fn bad_files_are_named_by_line() {
        let check = |text: String, said: &str| {
            let error = import(&text, Family::Gpt2, &[]).unwrap_err();
            assert!(error.contains(said), "{error}");
        };
        check("IQ== x\n".to_owned(), "line 1: the second word is not a number");
        check("IQ==\n".to_owned(), "line 1: has no space");
        check("I? 3\n".to_owned(), "line 1: the first word is not base64");
        check("IQ== 3\nIg== 3\n".to_owned(), "line 2: rank 3 is already that of line 1");
        check("IQ== 3\nIQ== 4\n".to_owned(), "line 2: the token is already in the file");
        check("IQ== 3\n".to_owned(), "byte 0x00 has no token");
        // It is one word, so text would become the special token.
        let word = import(&file(&[]), Family::Gpt2, &[("end".to_owned(), None)]).unwrap_err();
        assert!(word.contains("\"end\" would be encoded as [256]"), "{word}");
        let taken = import(&file(&[]), Family::Gpt2, &[("<e>".to_owned(), Some(65))]).unwrap_err();
        assert!(taken.contains("id 65, which is that of `A`"), "{taken}");
    }
}
