//! Tests of the encoder as a whole.

use serde_json::{Value, json};

use super::*;

/// Text with much of what the families treat differently.
fn texts() -> Vec<String> {
    let mut texts = probe::strings(&[EOD]);
    texts.push("The quick brown fox jumps over the lazy dog; 1234567 times, it's said. ".repeat(20));
    texts
}

/// A small vocabulary trained with the splits of a family, with `<|endoftext|>` as id 0.
fn file(family: Family) -> Value {
    use tokenizers::models::TrainerWrapper;
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    let splits: tokenizers::PreTokenizerWrapper = serde_json::from_value(family.pre_tokenizer()).unwrap();
    tokenizer.with_pre_tokenizer(Some(splits));
    let trainer = BpeTrainer::builder()
        .vocab_size(900)
        .show_progress(false)
        .special_tokens(vec![tokenizers::AddedToken::from(EOD, true)])
        .initial_alphabet(tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), texts().into_iter()).unwrap();
    serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap()
}

fn load(file: &Value, options: &EncoderOptions) -> Result<Encoder> {
    let temporary = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(temporary.path(), file.to_string()).unwrap();
    Encoder::load(temporary.path(), options)
}

fn encoder(file: &Value) -> Encoder {
    load(file, &EncoderOptions::default()).unwrap()
}

#[test]
fn every_family_is_on_the_fast_path() {
    for family in Family::ALL {
        let encoder = encoder(&file(family));
        let verdict = encoder.verdict();
        assert_eq!((verdict.engine.as_str(), verdict.reason.as_deref()), ("fastokens", None), "{family}");
        assert_eq!((verdict.family, verdict.n_probes), (Some(family), probe::N_STRINGS + 3));
        for text in texts() {
            assert_eq!(encoder.difference(&text).unwrap(), None);
        }
    }
}

#[test]
fn everything_is_derived() {
    let json: Value = serde_json::from_str(&train::train(texts().into_iter(), 300).unwrap()).unwrap();
    let encoder = encoder(&json);
    assert_eq!(encoder.verdict().family, Some(Family::Gpt2), "{}", encoder.verdict());
    assert_eq!((encoder.vocab_size(), encoder.eod(), encoder.bos()), (300, TokenId(0), None));
    let bytes = encoder.token_bytes();
    assert_eq!(bytes.len(), 300);
    assert_eq!(bytes[0], 0);
    assert!(bytes[1..257].iter().all(|&n| n == 1));
    for text in ["über w1\nw2", "日本 \u{1F600}", " <|endoftext|> "] {
        let ids = encoder.encode(text).unwrap();
        assert!(!ids.contains(&0), "{text}");
        let sum: usize = ids.iter().map(|&id| usize::from(bytes[id as usize])).sum();
        assert_eq!(sum, text.len(), "{text}");
    }
}

#[test]
fn a_file_that_is_no_tokenizer_is_named() {
    let error = load(&json!({}), &EncoderOptions::default()).err().unwrap();
    assert_eq!(error.exit_code(), 2);
}
