//! Token ids of conversations between tokenizing and sharding: two high bits of each, which no id has, say which are trained.

use moe_shards::TokenId;

/// The token is trained.
const TRAINED: u32 = 1 << 31;
/// On the last token of a document: its end-of-document token is trained.
const EOD_TRAINED: u32 = 1 << 30;

/// Puts a document's flags into its ids, which are below 2^30; one more flag is for the end of the document.
pub fn pack(ids: &mut [u32], trained: &[bool]) {
    for (id, _) in ids.iter_mut().zip(trained).filter(|(_, trained)| **trained) {
        *id |= TRAINED;
    }
    if let (Some(last), Some(true)) = (ids.last_mut(), trained.last()) {
        *last |= EOD_TRAINED;
    }
}

/// The ids and the flags of a document.
pub fn unpack(tokens: &[TokenId]) -> (Vec<TokenId>, Vec<bool>) {
    let eod = tokens.last().is_some_and(|last| last.0 & EOD_TRAINED != 0);
    let ids = tokens.iter().map(|token| TokenId(token.0 & !(TRAINED | EOD_TRAINED))).collect();
    (ids, tokens.iter().map(|token| token.0 & TRAINED != 0).chain([eod]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_survive_between_the_ids() {
        for flags in [[false, true, true], [true, false, false], [false, false, true], [true, true, false]] {
            let mut ids = [7, (1 << 30) - 1];
            pack(&mut ids, &flags);
            let (found, trained) = unpack(&ids.map(TokenId));
            assert_eq!((found, trained), (vec![TokenId(7), TokenId((1 << 30) - 1)], flags.to_vec()));
        }
    }
}
