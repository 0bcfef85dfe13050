//! Newtypes for tokens and families.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A token's number in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub u32);

/// Identity of a family: 64 bits of a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FamilyId(pub u64);

impl fmt::Display for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Bytes per token in a `.bin` file, little-endian. The payload equals that of Megatron-LM's
/// `.bin` (`indexed_dataset.py`): u16 for small vocabularies, otherwise 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenWidth {
    /// 2 bytes.
    U16,
    /// 4 bytes.
    U32,
}

impl TokenWidth {
    /// Megatron-LM's rule, so that its readers guess the same: u16 below 65,500 tokens.
    pub fn for_vocab(vocab_size: u32) -> TokenWidth {
        if vocab_size < 65_500 { TokenWidth::U16 } else { TokenWidth::U32 }
    }

    /// Bytes per token.
    pub fn bytes(self) -> usize {
        match self {
            TokenWidth::U16 => 2,
            TokenWidth::U32 => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_changes_at_65_500() {
        assert_eq!(TokenWidth::for_vocab(65_499), TokenWidth::U16);
        assert_eq!(TokenWidth::for_vocab(65_500), TokenWidth::U32);
    }
}
