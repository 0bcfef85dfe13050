//! How many bytes of text each token stands for.

use std::collections::{BTreeMap, HashMap};

use tokenizers::AddedToken;

/// UTF-8 bytes by id, for `vocab_size` ids. Special tokens and unused ids are 0, tokens of 65,535 bytes
/// and more are 65,535.
pub(super) fn token_bytes(
    vocab: HashMap<String, u32>,
    added: &BTreeMap<u32, AddedToken>,
    vocab_size: u32,
    byte_level: bool,
) -> Vec<u16> {
    let mut bytes = vec![0u16; vocab_size as usize];
    for (token, id) in vocab {
        let n = match added.get(&id) {
            Some(added) if added.special => 0,
            Some(_) => token.len(),
            // One character of a byte-level vocabulary is one byte.
            None if byte_level => token.chars().count(),
            // SentencePiece: `<0x0A>` is a byte, `▁` a space.
            None if token.starts_with("<0x") && token.ends_with('>') && token.len() == 6 => 1,
            None => token.replace('▁', " ").len(),
        };
        if let Some(place) = bytes.get_mut(id as usize) {
            *place = u16::try_from(n).unwrap_or(u16::MAX);
        }
    }
    bytes
}
