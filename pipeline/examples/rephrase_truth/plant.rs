//! Faults that are planted into faithful texts, each a function of the text and a seed.

use moe_data::rephrase::text::Text;

use crate::passages::Passage;

/// The kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// One number has another value.
    Number,
    /// One name is replaced by another of the same corpus.
    ForeignName,
    /// Two names of the text are swapped.
    SwappedNames,
    /// A sentence is left out.
    Dropped,
    /// A sentence of another text is inserted.
    Added,
    /// The text ends early: its last third is missing.
    Cut,
}

impl Fault {
    pub const ALL: [Fault; 6] =
        [Fault::Number, Fault::ForeignName, Fault::SwappedNames, Fault::Dropped, Fault::Added, Fault::Cut];

    pub fn name(self) -> &'static str {
        match self {
            Fault::Number => "number_changed",
            Fault::ForeignName => "name_replaced",
            Fault::SwappedNames => "names_swapped",
            Fault::Dropped => "sentence_dropped",
            Fault::Added => "sentence_added",
            Fault::Cut => "end_cut",
        }
    }
}

/// Minimum content words of a sentence that counts as left out or added.
const LEAST_WORDS: usize = 5;

/// The text with a fault, or `None` if it has no place for it.
pub fn plant(fault: Fault, passage: &Passage, donor: &str, seed: u64) -> Option<String> {
    let answer = Text::new(&passage.answer);
    let draw = |n: usize| (n > 0).then(|| (mix(seed ^ (fault as u64) << 32) % n.max(1) as u64) as usize);
    match fault {
        Fault::Number => number(&answer, draw),
        Fault::ForeignName => {
            let donor = Text::new(donor);
            let known = format!("{} {}", passage.source, passage.answer).to_lowercase();
            let foreign: Vec<&str> = donor
                .names
                .iter()
                .map(|&i| &donor.text[donor.words[i].bytes.clone()])
                .filter(|name| !known.contains(&name.to_lowercase()))
                .collect();
            let name = foreign.get(draw(foreign.len())?)?;
            let place = answer.words.get(*answer.names.get(draw(answer.names.len())?)?)?;
            Some(replace(answer.text, place.bytes.clone(), name))
        }
        Fault::SwappedNames => {
            let first = answer.words.get(*answer.names.get(draw(answer.names.len())?)?)?;
            let others: Vec<&str> = answer
                .names
                .iter()
                .map(|&i| &answer.words[i])
                .filter(|word| word.stem != first.stem)
                .map(|word| &answer.text[word.bytes.clone()])
                .collect();
            let name = others.get(draw(others.len())?)?;
            Some(replace(answer.text, first.bytes.clone(), name))
        }
        Fault::Dropped => {
            let full = full_sentences(&answer);
            let gone = *full.get(draw(full.len())?).filter(|_| answer.sentences.len() > 1)?;
            let kept = (0..answer.sentences.len()).filter(|i| *i != gone).map(|i| answer.sentence(i));
            Some(kept.collect::<Vec<_>>().join(". "))
        }
        Fault::Added => {
            let donor = Text::new(donor);
            let full = full_sentences(&donor);
            let new = donor.sentence(*full.get(draw(full.len())?)?);
            let place = draw(answer.sentences.len())?;
            let all = (0..answer.sentences.len()).flat_map(|i| {
                let added = (i == place).then_some(new);
                std::iter::once(answer.sentence(i)).chain(added)
            });
            Some(all.collect::<Vec<_>>().join(". "))
        }
        Fault::Cut => {
            let end = answer.words.len() * 2 / 3;
            let last = answer.words.get(end.checked_sub(1)?)?;
            Some(answer.text[..last.bytes.end].to_owned())
        }
    }
}

fn full_sentences(text: &Text<'_>) -> Vec<usize> {
    let content =
        |i: usize| text.words[text.sentences[i].clone()].iter().filter(|word| word.is_content).count();
    (0..text.sentences.len()).filter(|&i| content(i) >= LEAST_WORDS).collect()
}

/// Changes a digit, or a word that is a number.
fn number(answer: &Text<'_>, draw: impl Fn(usize) -> Option<usize>) -> Option<String> {
    const WORDS: [&str; 14] = [
        "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty", "thirty",
        "forty", "fifty",
    ];
    let is_number = |lower: &str| lower.as_bytes()[0].is_ascii_digit() || WORDS.contains(&lower);
    let places: Vec<usize> = (0..answer.words.len()).filter(|&i| is_number(&answer.words[i].lower)).collect();
    let word = &answer.words[*places.get(draw(places.len())?)?];
    let new = match WORDS.iter().position(|known| *known == word.lower) {
        // Units stay units and tens stay tens, so that the result is a number.
        Some(i) if i < 9 => WORDS[(i + 1 + draw(8)?) % 9].to_owned(),
        Some(i) => WORDS[9 + (i - 9 + 1 + draw(4)?) % 5].to_owned(),
        None => {
            let digit = word.lower.as_bytes()[0] - b'0';
            let changed = (digit + 1 + draw(8)? as u8) % 10;
            format!("{}{}", changed.max(1 + u8::from(digit == 1)), &word.lower[1..])
        }
    };
    Some(replace(answer.text, word.bytes.clone(), &new))
        .filter(|text| Text::new(text).numbers != answer.numbers)
}

fn replace(text: &str, place: std::ops::Range<usize>, by: &str) -> String {
    format!("{}{by}{}", &text[..place.start], &text[place.end..])
}

/// splitmix64.
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
