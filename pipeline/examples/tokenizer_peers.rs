//! Compares the encoder with the library `tokenizers`, in speed and ids. Run by
//! `scripts/bench/tokenize-speed.py` and `scripts/compare/tokenizer-ids.py`.
//!
//! ```text
//! tokenizer_peers speed --engine ours|tokenizers --threads N --passes N VOCAB DATA...
//! tokenizer_peers ids [--nasty N] VOCAB DATA...
//! ```
//!
//! `DATA` are files of JSON lines with a field `text`, plain or gzip. Both print one JSON object.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use moe_data::tokenizer::{Encoder, EncoderOptions};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
enum Args {
    /// Time passes over all documents in memory; ids are computed for each and dropped.
    Speed {
        #[arg(long)]
        engine: Engine,
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// The first pass is cold: all caches of the engine are empty.
        #[arg(long, default_value_t = 1)]
        passes: usize,
        #[arg(long)]
        eod: Option<String>,
        vocab: PathBuf,
        data: Vec<PathBuf>,
    },
    /// Compare the ids of every document with the library's.
    Ids {
        /// Strings made to be difficult, in addition to the documents.
        #[arg(long, default_value_t = 0)]
        nasty: usize,
        #[arg(long)]
        eod: Option<String>,
        vocab: PathBuf,
        data: Vec<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Ours,
    Tokenizers,
}

fn main() -> Result<(), Failure> {
    match Args::parse() {
        Args::Speed { engine, threads, passes, eod, vocab, data } => {
            speed(engine, threads, passes, eod, &vocab, &documents(&data)?)
        }
        Args::Ids { nasty, eod, vocab, data } => ids(nasty, eod, &vocab, documents(&data)?),
    }
}

fn documents(paths: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
        let reader: Box<dyn Read> =
            if is_gzip { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
        for line in BufReader::new(reader).lines() {
            let record: Value = serde_json::from_str(&line?)?;
            let text = record["text"].as_str().ok_or_else(|| format!("{}: no text", path.display()))?;
            documents.push(text.to_owned());
        }
    }
    Ok(documents)
}

fn library(vocab: &Path) -> Result<tokenizers::Tokenizer, Failure> {
    let mut library = tokenizers::Tokenizer::from_file(vocab)?;
    library.with_padding(None);
    library.with_truncation(None)?;
    // Special strings in a text are text, as in a build.
    library.set_encode_special_tokens(true);
    Ok(library)
}

fn ours(vocab: &Path, eod: Option<String>) -> Result<Encoder, Failure> {
    Ok(Encoder::load(vocab, &EncoderOptions { eod, ..EncoderOptions::default() })?)
}

fn speed(
    engine: Engine,
    threads: usize,
    passes: usize,
    eod: Option<String>,
    vocab: &Path,
    documents: &[String],
) -> Result<(), Failure> {
    let start = Instant::now();
    let pass: Box<dyn Fn() -> Result<u64, Failure>> = match engine {
        Engine::Ours => {
            let encoder = ours(vocab, eod)?;
            if let Some(reason) = &encoder.verdict().reason {
                eprintln!("not the fast engine: {reason}");
            }
            Box::new(move || by_threads(threads, documents, |text, ids| Ok(encoder.encode_into(text, ids)?)))
        }
        Engine::Tokenizers => {
            // Its own threads; the variable is set by the caller.
            let library = library(vocab)?;
            Box::new(move || {
                let mut n_tokens = 0;
                for batch in documents.chunks(1024) {
                    let texts: Vec<&str> = batch.iter().map(String::as_str).collect();
                    let encodings = library.encode_batch_fast(texts, false)?;
                    n_tokens += encodings.iter().map(|encoding| encoding.get_ids().len() as u64).sum::<u64>();
                }
                Ok(n_tokens)
            })
        }
    };
    let load_secs = start.elapsed().as_secs_f64();
    let mut seconds = Vec::new();
    let mut n_tokens = 0;
    for _ in 0..passes {
        let start = Instant::now();
        n_tokens = pass()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let n_bytes: usize = documents.iter().map(String::len).sum();
    println!(
        "{}",
        json!({ "bytes": n_bytes, "tokens": n_tokens, "load_secs": load_secs, "pass_secs": seconds })
    );
    Ok(())
}

/// Threads take 64 documents at a time.
fn by_threads(
    threads: usize,
    documents: &[String],
    encode: impl Fn(&str, &mut Vec<u32>) -> Result<(), Failure> + Sync,
) -> Result<u64, Failure> {
    const BATCH: usize = 64;
    let (next, n_tokens) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> Result<(), Failure> {
        let mut ids = Vec::new();
        loop {
            let start = next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(batch) = documents.get(start..documents.len().min(start + BATCH)) else { break };
            if batch.is_empty() {
                break;
            }
            for text in batch {
                ids.clear();
                encode(text, &mut ids)?;
                n_tokens.fetch_add(ids.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().try_for_each(|handle| handle.join().map_err(|_| "a thread panicked")?)
    })?;
    Ok(n_tokens.into_inner())
}

fn ids(n_nasty: usize, eod: Option<String>, vocab: &Path, mut documents: Vec<String>) -> Result<(), Failure> {
    let (encoder, library) = (ours(vocab, eod)?, library(vocab)?);
    let n_documents = documents.len();
    documents.extend(nasty(n_nasty));
    let (n_ids, n_different) = (AtomicU64::new(0), AtomicU64::new(0));
    let first = std::sync::Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    by_threads(threads, &documents, |text, ids| {
        encoder.encode_into(text, ids)?;
        let expected = library.encode_fast(text, false)?;
        n_ids.fetch_add(ids.len() as u64, Ordering::Relaxed);
        if ids[..] != *expected.get_ids() {
            n_different.fetch_add(1, Ordering::Relaxed);
            let start: String = text.chars().take(80).collect();
            first.lock().map_err(|_| "poisoned")?.get_or_insert(start);
        }
        Ok(())
    })?;
    let verdict = encoder.verdict();
    println!(
        "{}",
        json!({
            "engine": verdict.engine, "reason": verdict.reason, "documents": n_documents, "nasty": n_nasty,
            "bytes": documents.iter().map(String::len).sum::<usize>(), "ids": n_ids.into_inner(),
            "different": n_different.into_inner(), "first": first.into_inner().ok().flatten(),
        })
    );
    Ok(())
}

/// Strings on which encoders disagree, of other kinds and lengths than the probe at loading: random bytes,
/// code points of all planes, of the basic plane and of one block, emoji, long white space, contractions,
/// digits, ASCII noise, and runs of one character of up to 20,000.
fn nasty(n: usize) -> impl Iterator<Item = String> {
    const SPACES: [char; 14] = [
        ' ', ' ', '\n', '\r', '\t', '\u{a0}', '\u{2028}', '\u{3000}', '\u{85}', '\u{b}', '\u{180e}',
        '\u{200b}', '\u{feff}', 'x',
    ];
    const SHORTS: [&str; 16] =
        ["'s", "'S", "'T", "'re", "'RE", "'ve", "'m", "'ll", "'LL", "'d", "’s", "'ſ", "''", "don", "I", " "];
    const DIGITS: [char; 12] = ['0', '1', '9', '٣', '४', '〇', '²', '½', 'Ⅷ', '𝟙', ' ', ','];
    const EMOJI: [&str; 10] = ["😀", "👩", "\u{200d}", "👧", "🇩", "🇪", "\u{fe0f}", "❤", "🏽", " "];
    let mut counter = 0u64;
    let mut below = move |n: usize| {
        counter += 1;
        (xxh3_64(&counter.to_be_bytes()) % n as u64) as usize
    };
    (0..n).map(move |kind| {
        let length = 1 + below(400);
        match kind % 11 {
            0 => {
                let bytes: Vec<u8> = (0..length).map(|_| below(256) as u8).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            1 => (0..length).filter_map(|_| char::from_u32(below(0x11_0000) as u32)).collect(),
            2 => (0..length).filter_map(|_| char::from_u32(below(0x1_0000) as u32)).collect(),
            3 => {
                let block = below(0x3200) as u32 * 16;
                (0..length).filter_map(|_| char::from_u32(block + below(64) as u32)).collect()
            }
            4 => (0..length).map(|_| EMOJI[below(EMOJI.len())]).collect(),
            5 => (0..length).map(|_| SPACES[below(SPACES.len())]).collect(),
            6 => (0..length).map(|_| SHORTS[below(SHORTS.len())]).collect(),
            7 => (0..length).map(|_| DIGITS[below(DIGITS.len())]).collect(),
            8 => (0..length).map(|_| (b' ' + below(95) as u8) as char).collect(),
            9 => {
                let one = ["a", " ", "\n", "=", "1", "漢", "é", "\u{301}", "A", "'s"][below(10)];
                one.repeat(1 + below(20_000))
            }
            _ => (0..length * 5).map(|_| (b'a' + below(26) as u8) as char).collect(),
        }
    })
}
