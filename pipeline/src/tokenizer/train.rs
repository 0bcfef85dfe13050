//! Trains a byte-level BPE.

use tokenizers::AddedToken;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::EOD;

/// Trains a byte-level BPE with the splits of GPT-2 and returns its `tokenizer.json`.
///
/// Id 0 is [`EOD`], then come the 256 bytes, then the merges. The result depends on how often each
/// word occurs and not on the order of the texts.
///
/// # Errors
/// The library's message.
pub fn train<I>(texts: I, vocab_size: u32) -> std::result::Result<String, String>
where
    I: Iterator<Item = String> + Send,
{
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    let byte_level = ByteLevel::new(false, false, true);
    tokenizer.with_pre_tokenizer(Some(byte_level));
    tokenizer.with_decoder(Some(byte_level));
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size as usize)
        // A pair that occurs once teaches nothing.
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(EOD, true)])
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
        let expected = train(texts().into_iter(), 300).unwrap();
        for threads in [1, 2, 3, 1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let reversed = pool.install(|| train(texts().into_iter().rev(), 300).unwrap());
            assert!(reversed == expected, "{threads} threads gave another tokenizer");
        }
    }
}
