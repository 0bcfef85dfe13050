//! Trains a byte-level BPE.

use tokenizers::AddedToken;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::EOD;

/// Checks the names of special tokens to train with, beside [`EOD`].
///
/// # Errors
/// What is wrong with the first bad one.
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
        // It could not be told from a byte.
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

/// Trains a byte-level BPE with the splits of GPT-2 and returns its `tokenizer.json`.
///
/// Id 0 is [`EOD`], then come `specials`, the 256 bytes and the merges. The result depends on how often
/// each word occurs and not on the order of the texts.
///
/// # Errors
/// The library's message.
pub fn train<I>(texts: I, vocab_size: u32, specials: &[String]) -> std::result::Result<String, String>
where
    I: Iterator<Item = String> + Send,
{
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    let byte_level = ByteLevel::new(false, false, true);
    tokenizer.with_pre_tokenizer(Some(byte_level));
    tokenizer.with_decoder(Some(byte_level));
    let specials = std::iter::once(EOD).chain(specials.iter().map(String::as_str));
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size as usize)
        // A pair that occurs once teaches nothing.
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(specials.map(|special| AddedToken::from(special, true)).collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = TrainerWrapper::from(trainer);
    tokenizer.train(&mut trainer, texts).map_err(|e| e.to_string())?;
    let mut json = tokenizer.to_string(true).map_err(|e| e.to_string())?;
    json.push('\n');
    Ok(json)
}

#[cfg(test)]
mod tests {
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
        // Hash maps of the library are seeded anew on every call, so repeats would show an
        // order that comes from one of them.
        let expected = train(texts().into_iter(), 300, &[]).unwrap();
        for threads in [1, 2, 3, 1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let reversed = pool.install(|| train(texts().into_iter().rev(), 300, &[]).unwrap());
            assert!(reversed == expected, "{threads} threads gave another tokenizer");
        }
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
