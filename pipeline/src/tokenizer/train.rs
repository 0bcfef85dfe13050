//! Trains a byte-level BPE.

use ahash::AHashMap;
use compact_str::CompactString;
use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::EOD;

/// Checks the names of special tokens to train with, besides [`EOD`].
///
/// # Errors
/// Problem of the first bad one.
pub fn check_specials(specials: &[String]) -> std::result::Result<(), String> {
    for (i, special) in specials.iter().enumerate() {
        if special.is_empty() {
            return Err("holds an empty token".to_owned());
        }
        if special == EOD {
            return Err(format!("`{EOD}` is there by itself, with id 0"));
        }
        if specials[..i].contains(special) {
            return Err(format!("names `{special}` twice"));
        }
        // It would be indistinguishable from a byte.
        if special.chars().count() == 1
            && ByteLevel::alphabet().contains(&special.chars().next().unwrap_or(' '))
        {
            return Err(format!(
                "`{special}` is the symbol of a byte; write it longer, such as `<|{special}|>`"
            ));
        }
    }
    Ok(())
}

/// Longest word to train on, in bytes: longer ones are cut into pieces of this length. Text has no words of this length;
/// longer ones (runs of one character, numbers, encoded data) would make training quadratic and teach nothing.
pub const MAX_WORD_BYTES: usize = 1024;

/// The words of some texts and how often they occur, to train on.
pub struct Words {
    counts: AHashMap<CompactString, u64>,
    splits: ByteLevel,
}

/// Stretches of text and how often they occur.
type Stretches = AHashMap<Box<str>, u64>;

impl Words {
    /// Counts the words of texts by the splits of GPT-2; those over [`MAX_WORD_BYTES`] are cut. All threads count, and text
    /// between spaces is split into words once, however often it occurs.
    ///
    /// # Errors
    /// The library's message.
    pub fn count<I>(texts: I) -> std::result::Result<Words, String>
    where
        I: Iterator<Item = String> + Send,
    {
        let splits = ByteLevel::new(false, false, true);
        let stretches = texts
            .par_bridge()
            .fold(Stretches::new, |mut counts, text| {
                for stretch in stretches(&text) {
                    match counts.get_mut(stretch) {
                        Some(n) => *n += 1,
                        None => {
                            counts.insert(stretch.into(), 1);
                        }
                    }
                }
                counts
            })
            .reduce(Stretches::new, |a, b| {
                let (mut into, from) = if a.len() < b.len() { (b, a) } else { (a, b) };
                from.into_iter().for_each(|(stretch, n)| *into.entry(stretch).or_default() += n);
                into
            });
        let stretches: Vec<(Box<str>, u64)> = stretches.into_iter().collect();
        let words = |(stretch, n): &(Box<str>, u64)| {
            let mut text = PreTokenizedString::from(&**stretch);
            splits.pre_tokenize(&mut text).map_err(|e| e.to_string())?;
            let words = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let words = words.into_iter().flat_map(|(word, ..)| pieces(word));
            Ok(words.map(|word| (CompactString::from(word), *n)).collect())
        };
        let words = stretches.par_iter().map(words).collect::<std::result::Result<Vec<Vec<_>>, String>>()?;
        let mut counts = AHashMap::new();
        words.into_iter().flatten().for_each(|(word, n)| *counts.entry(word).or_default() += n);
        Ok(Words { counts, splits })
    }

    /// Trains a byte-level BPE and returns its `tokenizer.json`.
    ///
    /// Id 0 is [`EOD`], then come `specials`, the 256 bytes and the merges. The result depends on how often
    /// each word occurs and not on the order of the texts.
    ///
    /// # Errors
    /// The library's message.
    pub fn train(self, vocab_size: u32, specials: &[String]) -> std::result::Result<String, String> {
        let specials = std::iter::once(EOD).chain(specials.iter().map(String::as_str));
        let trainer = BpeTrainer::builder()
            // A pair that occurs once teaches nothing.
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .vocab_size(vocab_size as usize)
            .special_tokens(specials.map(|special| AddedToken::from(special, true)).collect())
            .build();
        let mut model = BPE::default();
        let specials = trainer.do_train(&self.counts, &mut model).map_err(|e| e.to_string())?;
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(self.splits));
        tokenizer.with_decoder(Some(self.splits));
        tokenizer.add_special_tokens(specials).map_err(|e| e.to_string())?;
        let mut json = tokenizer.to_string(true).map_err(|e| e.to_string())?;
        json.push('\n');
        Ok(json)
    }
}

/// A text cut before each space between two characters that are not white space. No word of GPT-2's splits spans such a position,
/// and none depends on the text after it, so the words of the stretches are those of the text.
fn stretches(text: &str) -> impl Iterator<Item = &str> {
    let cuts = memchr::memchr_iter(b' ', text.as_bytes()).filter(|&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + 1..].chars().next();
        before.is_some_and(|c| !c.is_whitespace()) && after.is_some_and(|c| !c.is_whitespace())
    });
    let mut start = 0;
    cuts.chain([text.len()]).filter_map(move |end| {
        let stretch = &text[start..end];
        start = end;
        (!stretch.is_empty()).then_some(stretch)
    })
}

/// A word in the symbols of bytes, in pieces of at most [`MAX_WORD_BYTES`].
fn pieces(word: &str) -> Vec<String> {
    // A symbol has at least one byte, and most words are short.
    if word.len() <= MAX_WORD_BYTES {
        return vec![word.to_owned()];
    }
    let symbols: Vec<char> = word.chars().collect();
    symbols.chunks(MAX_WORD_BYTES).map(|piece| piece.iter().collect()).collect()
}

/// Trains on texts: [`Words::count`], then [`Words::train`].
///
/// # Errors
/// The library's message.
pub fn train<I>(texts: I, vocab_size: u32, specials: &[String]) -> std::result::Result<String, String>
where
    I: Iterator<Item = String> + Send,
{
    Words::count(texts)?.train(vocab_size, specials)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts() -> Vec<String> {
        (0..200u64)
            .map(|i| {
                let word = |n: u64| format!("w{}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
                format!("{} {} über {}\n{}", word(i), word(i + 1), word(i * 3), word(i ^ 5))
            })
            .collect()
    }

    #[test]
    fn training_ignores_order_and_threads() {
        // The library's hash maps are reseeded on every call, so repeats would reveal an
        // order that comes from one of them.
        let expected = train(texts().into_iter(), 300, &[]).unwrap();
        for threads in [1, 2, 3, 1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let reversed = pool.install(|| train(texts().into_iter().rev(), 300, &[]).unwrap());
            assert!(reversed == expected, "{threads} threads gave another tokenizer");
        }
    }

    /// The words as the library finds them in whole texts.
    fn counted_by_the_library(texts: &[String]) -> AHashMap<CompactString, u64> {
        let mut counts = AHashMap::new();
        for text in texts {
            let mut text = PreTokenizedString::from(text.as_str());
            ByteLevel::new(false, false, true).pre_tokenize(&mut text).unwrap();
            for (word, ..) in text.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                pieces(word).into_iter().for_each(|word| *counts.entry(word.into()).or_default() += 1);
            }
        }
        counts
    }

    proptest! {
        #[test]
        fn words_of_stretches_are_the_words_of_the_text(
            texts in prop::collection::vec("[ab1'st .\n\u{a0}é語\u{3000}]{0,30}", 0..5),
        ) {
            let words = Words::count(texts.iter().cloned()).unwrap();
            prop_assert_eq!(words.counts, counted_by_the_library(&texts));
        }
    }

    #[test]
    fn one_long_word_does_not_make_training_endless() {
        let start = std::time::Instant::now();
        let long = || vec!["a".repeat(300_000), "some other words, other words".to_owned()].into_iter();
        let json = train(long(), 300, &[]).unwrap();
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
        assert!(json.contains("\"aaaaaaaa\""), "{json}");
        assert_eq!(train(long(), 300, &[]).unwrap(), json);
    }

    #[test]
    fn only_words_over_the_limit_are_cut() {
        let whole = "é".repeat(MAX_WORD_BYTES);
        assert_eq!(pieces(&whole), [whole.as_str()]);
        let lengths: Vec<usize> =
            pieces(&"x".repeat(2 * MAX_WORD_BYTES + 1)).iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_WORD_BYTES, MAX_WORD_BYTES, 1]);
    }

    #[test]
    fn special_tokens_come_first_and_are_checked() {
        let json = train(texts().into_iter(), 300, &["<a>".to_owned(), "<b>".to_owned()]).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let ids = ["<|endoftext|>", "<a>", "<b>"].map(|name| json["model"]["vocab"][name].as_u64());
        assert_eq!(ids, [Some(0), Some(1), Some(2)]);
        for (specials, said) in [("", "empty"), (EOD, "by itself"), ("!", "symbol of a byte")] {
            assert!(check_specials(&[specials.to_owned()]).unwrap_err().contains(said));
        }
        assert!(check_specials(&["<a>".to_owned(), "<a>".to_owned()]).unwrap_err().contains("twice"));
    }
}
