//! Bytes of a vocabulary's tokens, and their number.

use std::collections::{BTreeMap, HashMap};

use tokenizers::AddedToken;

/// The character that represents each byte in a byte-level vocabulary: itself where it is printable, else the next
/// character from U+0100 on (`bytes_to_unicode` of GPT-2).
pub(super) fn symbols_of_bytes() -> [char; 256] {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut symbols = ['\0'; 256];
    for byte in 0..=u8::MAX {
        symbols[usize::from(byte)] = if is_printable(byte) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        };
    }
    symbols
}

/// How the tokens of a model are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Writing {
    /// In the symbols of bytes.
    pub byte_level: bool,
    /// Prefix of the pieces of a word other than the first, such as `##`.
    pub prefix: Option<String>,
    /// Suffix of the last piece of a word.
    pub suffix: Option<String>,
}

impl Writing {
    fn bytes(&self, name: &str, bytes_of: &HashMap<char, u8>) -> Vec<u8> {
        let cut = |affix: &Option<String>| affix.clone().filter(|affix| !affix.is_empty());
        let name = cut(&self.prefix).and_then(|prefix| name.strip_prefix(&*prefix)).unwrap_or(name);
        let name = cut(&self.suffix).and_then(|suffix| name.strip_suffix(&*suffix)).unwrap_or(name);
        if !self.byte_level {
            return sentence_piece(name);
        }
        // One character of a byte-level vocabulary is one byte.
        let known = name.chars().map(|symbol| bytes_of.get(&symbol).copied());
        known.collect::<Option<Vec<u8>>>().unwrap_or_else(|| name.as_bytes().to_owned())
    }
}

/// A vocabulary by id.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// For each id its token; empty for ids without one.
    tokens: Vec<Token>,
    /// For each id how its bytes begin.
    heads: Vec<Head>,
}

/// How the bytes of a token begin, in one place with those of all others: most tokens of a text are shorter.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// Its first eight bytes, little-endian; zeros after its end.
    first: u64,
    n_bytes: u32,
}

/// For each number of bytes, which bits of eight bytes they are.
const MASKS: [u64; 9] = [
    0,
    0xff,
    0xffff,
    0xff_ffff,
    0xffff_ffff,
    0xff_ffff_ffff,
    0xffff_ffff_ffff,
    0xff_ffff_ffff_ffff,
    u64::MAX,
];

impl Head {
    fn of(bytes: &[u8]) -> Head {
        let mut first = [0; 8];
        first.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        Head { first: u64::from_le_bytes(first), n_bytes: bytes.len() as u32 }
    }
}

/// One entry of a vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Its bytes of text; none for a special token.
    pub bytes: Vec<u8>,
    /// Its name in the file.
    pub name: String,
    /// Whether it is special.
    pub is_special: bool,
}

impl Vocabulary {
    pub(super) fn new(
        vocab: HashMap<String, u32>,
        added: &BTreeMap<u32, AddedToken>,
        vocab_size: u32,
        writing: &Writing,
    ) -> Vocabulary {
        let bytes_of: HashMap<char, u8> = symbols_of_bytes().into_iter().zip(0..=u8::MAX).collect();
        let mut tokens = vec![Token::default(); vocab_size as usize];
        for (name, id) in vocab {
            let added = added.get(&id);
            let is_special = added.is_some_and(|token| token.special);
            let bytes = match added {
                Some(_) if is_special => Vec::new(),
                Some(_) => name.clone().into_bytes(),
                None => writing.bytes(&name, &bytes_of),
            };
            if let Some(place) = tokens.get_mut(id as usize) {
                *place = Token { bytes, name, is_special };
            }
        }
        let heads = tokens.iter().map(|token| Head::of(&token.bytes)).collect();
        Vocabulary { tokens, heads }
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// UTF-8 bytes of text per token, by id, from which bits per byte are computed.
    /// Special tokens and unused ids are 0, tokens of 65,535 bytes and more are 65,535.
    pub fn token_bytes(&self) -> Vec<u16> {
        self.tokens.iter().map(|token| u16::try_from(token.bytes.len()).unwrap_or(u16::MAX)).collect()
    }

    /// The bytes of ids; special tokens and ids outside the vocabulary leave nothing.
    pub fn bytes(&self, ids: &[u32]) -> Vec<u8> {
        let tokens = ids.iter().filter_map(|id| self.tokens.get(*id as usize));
        tokens.flat_map(|token| token.bytes.iter().copied()).collect()
    }

    /// Whether ids stand for exactly these bytes: that [`Vocabulary::bytes`] are these, and no id is outside the vocabulary.
    pub fn spells(&self, ids: &[u32], bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for id in ids {
            let Some(head) = self.heads.get(*id as usize) else { return false };
            let n_bytes = head.n_bytes as usize;
            let fits = match (MASKS.get(n_bytes), rest.first_chunk()) {
                (Some(mask), Some(word)) => u64::from_le_bytes(*word) & mask == head.first,
                _ => rest.starts_with(&self.tokens[*id as usize].bytes),
            };
            if !fits {
                return false;
            }
            rest = &rest[n_bytes..];
        }
        rest.is_empty()
    }

    /// The text of ids; special tokens leave nothing. `None` if the bytes are not UTF-8 or an id is
    /// outside the vocabulary.
    pub fn text(&self, ids: &[u32]) -> Option<String> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for id in ids {
            bytes.extend_from_slice(&self.tokens.get(*id as usize)?.bytes);
        }
        String::from_utf8(bytes).ok()
    }
}

/// SentencePiece: `<0x0A>` is a byte, `▁` a space.
fn sentence_piece(name: &str) -> Vec<u8> {
    let byte = name.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => name.replace('▁', " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn the_symbols_are_those_of_the_library() {
        let symbols = symbols_of_bytes();
        let known: std::collections::BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
        assert_eq!(symbols.into_iter().collect::<std::collections::BTreeSet<_>>(), known);
        assert_eq!((symbols[b' ' as usize], symbols[b'\n' as usize], symbols[0xad]), ('Ġ', 'Ċ', 'Ń'));
    }

    #[test]
    fn tokens_stand_for_bytes() {
        let vocab: HashMap<String, u32> =
            [("Ġthe", 0), ("Ã", 1), ("<s>", 2), ("ab", 4)].map(|(t, id)| (t.to_owned(), id)).into();
        let added = BTreeMap::from([(2, AddedToken::from("<s>", true))]);
        let vocabulary =
            Vocabulary::new(vocab.clone(), &added, 5, &Writing { byte_level: true, ..Writing::default() });
        assert_eq!(vocabulary.token_bytes(), [4, 1, 0, 0, 2]);
        assert_eq!(vocabulary.tokens()[1].bytes, [0xc3]);
        assert_eq!(vocabulary.text(&[0, 2, 4]).as_deref(), Some(" theab"));
        assert_eq!((vocabulary.text(&[1]), vocabulary.text(&[5])), (None, None));
        let long =
            HashMap::from([("abcdefgh".to_owned(), 0), ("abcdefghi".to_owned(), 1), ("a".to_owned(), 2)]);
        let long = Vocabulary::new(long, &BTreeMap::new(), 4, &Writing::default());
        let spelled: [(&[u32], &str); 5] = [
            (&[0, 2], "abcdefgha"),
            (&[2, 1, 2], "aabcdefghia"),
            (&[2, 2, 2, 0], "aaaabcdefgh"),
            // An id without a token stands for nothing.
            (&[3, 2], "a"),
            (&[], ""),
        ];
        for (ids, text) in spelled {
            assert!(long.spells(ids, text.as_bytes()), "{text}");
            assert_eq!(long.bytes(ids), text.as_bytes());
        }
        let others: [(&[u32], &str); 5] =
            [(&[0], "abcdefgi"), (&[1], "abcdefgh"), (&[2], "aa"), (&[2, 2], "a"), (&[4], "")];
        for (ids, text) in others {
            assert!(!long.spells(ids, text.as_bytes()), "{text}");
        }
        let words = HashMap::from([("##ing".to_owned(), 0), ("go</w>".to_owned(), 1)]);
        let writing =
            Writing { prefix: Some("##".into()), suffix: Some("</w>".into()), ..Writing::default() };
        assert_eq!(Vocabulary::new(words, &BTreeMap::new(), 2, &writing).token_bytes(), [3, 2]);
        let pieces = Vocabulary::new(vocab, &added, 5, &Writing::default());
        assert_eq!(pieces.token_bytes()[0], "Ġthe".len() as u16);
        assert_eq!((sentence_piece("<0x0A>"), sentence_piece("▁a")), (vec![10], b" a".to_vec()));
    }
}
