//! The tokenizer: a Hugging Face `tokenizer.json`, given or trained here. Vocabulary size,
//! end-of-document token and bytes per token are derived from the file, never typed in.
//!
//! Text never becomes a special token: strings such as `<|endoftext|>` in a document are encoded
//! as the characters they are, and the end of a document is added by the shard writer alone.

use std::path::{Path, PathBuf};

use moe_shards::TokenId;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper};

use crate::error::{Error, Result};

/// End of document of a tokenizer that is trained here.
pub const EOD: &str = "<|endoftext|>";

/// Names under which published tokenizers hold their end of document, most specific first.
const KNOWN_EOD: [&str; 6] = [EOD, "<|end_of_text|>", "<|end▁of▁sentence|>", "</s>", "<eos>", "[EOS]"];

/// A loaded tokenizer.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    eod: TokenId,
    vocab_size: u32,
}

impl Tokenizer {
    /// Loads a file. `eod` names the end-of-document token where it cannot be derived.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the file is not a tokenizer, has no end-of-document token or more
    /// than one candidate, or lets text become that token.
    pub fn load(path: &Path, eod: Option<&str>) -> Result<Tokenizer> {
        let wrong = |message: String| Error::Tokenizer { path: path.to_owned(), message };
        let mut inner = tokenizers::Tokenizer::from_file(path).map_err(|e| wrong(e.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| wrong(e.to_string()))?;
        inner.set_encode_special_tokens(true);

        let mut specials: Vec<(u32, String)> = (inner.get_added_tokens_decoder().into_iter())
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (id, token.content))
            .collect();
        specials.sort();
        let names: Vec<&str> = specials.iter().map(|(_, name)| name.as_str()).collect();
        let name = choose_eod(eod, &names).map_err(wrong)?;
        let id = specials.iter().find(|(_, special)| special == name).map(|(id, _)| *id);
        let id = id.ok_or_else(|| wrong(format!("the token `{name}` has no id")))?;
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |largest| largest + 1);
        Ok(Tokenizer { path: path.to_owned(), inner, eod: TokenId(id), vocab_size })
    }

    /// End of document.
    pub fn eod(&self) -> TokenId {
        self.eod
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// Ids of a text, without special tokens.
    ///
    /// # Errors
    /// The tokenizer refuses the text, or gives the end of document for it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let wrong = |message: String| Error::Tokenizer { path: self.path.clone(), message };
        let encoding = self.inner.encode_fast(text, false).map_err(|e| wrong(e.to_string()))?;
        let ids = encoding.get_ids().to_vec();
        if ids.contains(&self.eod.0) {
            let message = "gives its end-of-document token for plain text, so documents would be cut; mark that token as special in the file";
            return Err(wrong(message.to_owned()));
        }
        Ok(ids)
    }

    /// UTF-8 bytes of text that each token stands for, by id: what bits per byte are computed
    /// with. Special tokens and unused ids are 0, tokens of 65,535 bytes and more are 65,535.
    pub fn token_bytes(&self) -> Vec<u16> {
        let added = self.inner.get_added_tokens_decoder();
        let byte_level = self.is_byte_level();
        let mut bytes = vec![0u16; self.vocab_size as usize];
        for (token, id) in self.inner.get_vocab(true) {
            let n = match added.get(&id) {
                Some(added) if added.special => 0,
                Some(_) => token.len(),
                // One character of a byte-level vocabulary is one byte.
                None if byte_level => token.chars().count(),
                // SentencePiece: `<0x0A>` is a byte, `▁` a space.
                None if token.starts_with("<0x") && token.ends_with('>') && token.len() == 6 => 1,
                None => token.replace('▁', " ").len(),
            };
            bytes[id as usize] = u16::try_from(n).unwrap_or(u16::MAX);
        }
        bytes
    }

    fn is_byte_level(&self) -> bool {
        let decodes = matches!(self.inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let splits = match self.inner.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::ByteLevel(_)) => true,
            Some(PreTokenizerWrapper::Sequence(steps)) => {
                steps.as_ref().iter().any(|step| matches!(step, PreTokenizerWrapper::ByteLevel(_)))
            }
            _ => false,
        };
        decodes || splits
    }
}

fn choose_eod<'a>(wanted: Option<&str>, specials: &[&'a str]) -> std::result::Result<&'a str, String> {
    let listed = || match specials.is_empty() {
        true => "it has no special tokens".to_owned(),
        false => format!("its special tokens are `{}`", specials.join("`, `")),
    };
    if let Some(wanted) = wanted {
        let found = specials.iter().find(|special| **special == wanted);
        return found.copied().ok_or_else(|| format!("`tokenizer.eod` names `{wanted}`, but {}", listed()));
    }
    let mut found = KNOWN_EOD.iter().filter_map(|known| specials.iter().find(|special| *special == known));
    match (found.next(), found.next()) {
        (Some(eod), None) => Ok(eod),
        (None, _) => Err(format!(
            "the end-of-document token cannot be derived ({}); name it with `tokenizer.eod`",
            listed()
        )),
        (Some(a), Some(b)) => {
            Err(format!("both `{a}` and `{b}` could end a document; choose one with `tokenizer.eod`"))
        }
    }
}

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

    fn load(json: &str, eod: Option<&str>) -> Result<Tokenizer> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        Tokenizer::load(file.path(), eod)
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

    #[test]
    fn everything_is_derived() {
        let tokenizer = load(&train(texts().into_iter(), 300).unwrap(), None).unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.eod()), (300, TokenId(0)));
        let bytes = tokenizer.token_bytes();
        assert_eq!(bytes.len(), 300);
        assert_eq!(bytes[0], 0);
        assert!(bytes[1..257].iter().all(|&n| n == 1));
        for text in ["über w1\nw2", "日本 \u{1F600}", " <|endoftext|> "] {
            let ids = tokenizer.encode(text).unwrap();
            assert!(!ids.contains(&0), "{text}");
            let sum: usize = ids.iter().map(|&id| usize::from(bytes[id as usize])).sum();
            assert_eq!(sum, text.len(), "{text}");
        }
    }

    #[test]
    fn the_end_of_document_is_found_or_asked_for() {
        assert_eq!(choose_eod(None, &["<s>", "</s>"]), Ok("</s>"));
        assert_eq!(choose_eod(Some("<s>"), &["<s>", "</s>"]), Ok("<s>"));
        assert!(choose_eod(Some("<x>"), &["<s>"]).unwrap_err().contains("`<s>`"));
        assert!(choose_eod(None, &["<s>"]).unwrap_err().contains("tokenizer.eod"));
        assert!(choose_eod(None, &["</s>", EOD]).unwrap_err().contains("choose one"));
        assert!(choose_eod(None, &[]).unwrap_err().contains("no special tokens"));
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_named() {
        let error = load("{}", None).err().unwrap();
        assert_eq!(error.exit_code(), 2);
    }
}
