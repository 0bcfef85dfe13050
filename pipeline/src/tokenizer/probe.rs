//! Short strings on which encoders disagree, made from tables and a fixed seed: contractions, digits
//! of many scripts, every kind of white space, combining marks, scripts without spaces, emoji, random
//! code points, long runs, and the special strings of the tokenizer at hand.

use xxhash_rust::xxh3::xxh3_64;

/// Building blocks of a probe.
const ATOMS: [&str; 117] = [
    "the",
    "a",
    "I",
    "Hello",
    "WORLD",
    "camelCase",
    "x",
    "naïve",
    "Straße",
    "don",
    "we",
    "HTTPServer2",
    "'s",
    "'S",
    "'t",
    "'re",
    "'VE",
    "'ll",
    "'Ll",
    "'d",
    "'m",
    "'ſ",
    "’s",
    "''",
    "'",
    "\"",
    "'x",
    "s'",
    "0",
    "7",
    "42",
    "123",
    "1234",
    "00000000",
    "3.14",
    "1,000",
    "²",
    "½",
    "Ⅷ",
    "٣٤٥",
    "१२३",
    "〇",
    "𝟙𝟚",
    "໑",
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    " \n",
    "\n ",
    "\t\t ",
    "\u{a0}",
    "\u{3000}",
    "\u{180e}",
    "\u{85}",
    "\u{2028}",
    "\u{200b}",
    "\u{feff}",
    "\u{b}",
    "\u{c}",
    "\u{1c}",
    "\u{1f}",
    "\u{202f}",
    ".",
    ",",
    "!",
    "?!",
    "...",
    "--",
    "=>",
    "_",
    "/",
    "//",
    "\\",
    "(",
    ")]}",
    "#",
    "$",
    "%",
    "@",
    "&amp;",
    "<|",
    "|>",
    "`",
    "€",
    "—",
    "«",
    "°",
    "+",
    "©",
    "漢字",
    "日本語",
    "かな",
    "カナ",
    "ー",
    "한국어",
    "ไทย",
    "العربية",
    "עברית",
    "हिन्दी",
    "Ελλάδα",
    "Ünïcödé",
    "e\u{301}",
    "a\u{323}\u{302}",
    "\u{301}",
    "ﬁ",
    "İ",
    "ǅ",
    "ʰ",
    "\u{1100}\u{1161}\u{11a8}",
    "😀",
    "👩‍👩‍👧",
    "🇩🇪",
];

/// Number of strings made by [`strings`], not counting those for the specials.
pub(super) const N_STRINGS: usize = 2_000;

/// The probe. `specials` are the contents of the added tokens.
pub(super) fn strings(specials: &[&str]) -> Vec<String> {
    let mut random = Random { counter: 0 };
    let mut strings: Vec<String> = vec![String::new()];
    strings.extend(ATOMS.iter().map(|atom| (*atom).to_owned()));
    for atom in ATOMS {
        strings.push(format!("a{atom}b"));
        strings.push(format!(" {atom} {atom}1"));
        strings.push(atom.repeat(1 + random.below(70)));
    }
    while strings.len() < N_STRINGS {
        strings.push(match strings.len() % 4 {
            0 => random_characters(&mut random),
            1 => random_bytes(&mut random),
            _ => (0..2 + random.below(14)).map(|_| ATOMS[random.below(ATOMS.len())]).collect(),
        });
    }
    strings.extend(specials.iter().map(|special| (*special).to_owned()));
    // Enough to see how special strings are treated, whatever their number.
    for special in specials.iter().take(64) {
        strings.push(format!("a{special}{special} b {special}\n{}", ATOMS[random.below(ATOMS.len())]));
        let middle = special.char_indices().nth(special.chars().count() / 2).map_or(0, |(at, _)| at);
        strings.push(format!(" {}{special}", &special[..middle]));
    }
    strings
}

/// Code points of one block or of all planes, assigned or not.
fn random_characters(random: &mut Random) -> String {
    let n = 1 + random.below(24);
    let block = random.below(0x3400) as u32 * 16;
    let widths = [0x80, 0x800, 0x3000, 0x11_0000];
    let width = widths[random.below(widths.len())];
    let mut character = || match random.below(3) {
        0 => char::from_u32(block + random.below(128) as u32),
        1 => char::from_u32(random.below(width) as u32),
        _ => char::from_u32(0x20 + random.below(0x60) as u32),
    };
    (0..n).filter_map(|_| character()).collect()
}

fn random_bytes(random: &mut Random) -> String {
    let bytes: Vec<u8> = (0..1 + random.below(40)).map(|_| random.below(256) as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A fixed sequence: the digests of a counter.
struct Random {
    counter: u64,
}

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.counter += 1;
        (xxh3_64(&self.counter.to_le_bytes()) % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_fixed_and_holds_what_it_says() {
        let probe = strings(&["<|endoftext|>"]);
        assert_eq!(probe, strings(&["<|endoftext|>"]));
        assert_eq!(probe.len(), N_STRINGS + 3);
        assert!(probe.iter().any(|s| s.contains("\u{180e}")) && probe.iter().any(|s| s.contains("'ſ")));
        assert_eq!(probe[N_STRINGS + 2], " <|endo<|endoftext|>");
        let longest = probe.iter().map(String::len).max().unwrap();
        assert!((200..2_000).contains(&longest), "{longest}");
    }
}
