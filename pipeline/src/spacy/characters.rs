//! Character classes of spaCy's punctuation rules.

use std::sync::LazyLock;

/// Lower case, or a letter of a script without case.
pub const LOWER: u8 = 1;
/// Upper case, or a letter of a script without case.
pub const UPPER: u8 = 2;
/// A letter.
pub const LETTER: u8 = 4;
/// A symbol that always splits off, such as a dingbat.
pub const SYMBOL: u8 = 8;
/// Splits off at the start of a chunk.
pub const PREFIX: u8 = 16;
/// Splits off at the end of a chunk.
pub const SUFFIX: u8 = 32;
/// A quotation mark, or the comma.
pub const QUOTE: u8 = 64;
/// A period after it splits off at the end of a chunk.
pub const BEFORE_STOP: u8 = 128;

/// Names of the bits in `characters.txt`, the first bit first.
const NAMES: &str = "luaipsqd";

/// Bits of the first 2^16 code points, and first and last code point and bits of runs beyond.
struct Table {
    near: Vec<u8>,
    far: Vec<(u32, u32, u8)>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { near: vec![0; 1 << 16], far: Vec::new() };
    for line in include_str!("characters.txt").lines() {
        let mut words = line.split(' ');
        let names = words.next().unwrap_or_default();
        let bits = NAMES.chars().enumerate().filter(|(_, name)| names.contains(*name));
        let bits = bits.fold(0, |bits, (bit, _)| bits | 1 << bit);
        for run in words {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let code = |hex: &str| u32::from_str_radix(hex, 16).unwrap_or(u32::MAX);
            let (first, last) = (code(first), code(last));
            match table.near.get_mut(first as usize..=last as usize) {
                Some(run) => run.fill(bits),
                None => table.far.push((first, last, bits)),
            }
        }
    }
    table.far.sort_unstable();
    table
});

/// The bits of a character.
pub fn bits(c: char) -> u8 {
    let code = u32::from(c);
    if let Some(bits) = TABLE.near.get(code as usize) {
        return *bits;
    }
    let after = TABLE.far.partition_point(|(_, last, _)| *last < code);
    TABLE.far.get(after).filter(|(first, ..)| *first <= code).map_or(0, |(.., bits)| *bits)
}

/// Whether a character has one of these bits.
pub fn is(c: char, wanted: u8) -> bool {
    bits(c) & wanted != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_the_bits_of_spacy() {
        assert_eq!(bits('a'), LOWER | LETTER | BEFORE_STOP);
        assert_eq!(bits('A'), UPPER | LETTER);
        assert_eq!(bits('語'), LOWER | UPPER | LETTER | BEFORE_STOP);
        assert_eq!(bits('.'), 0);
        assert_eq!(bits('+'), BEFORE_STOP);
        assert_eq!(bits('—'), PREFIX | SUFFIX);
        assert_eq!(bits('😀'), SYMBOL | PREFIX | SUFFIX);
        assert_eq!(bits('\u{10ffff}'), 0);
    }
}
