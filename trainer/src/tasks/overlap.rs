//! Questions whose text is in training data: the same sequence of words as in a document of the shards.
//!
//! Words are runs of letters and digits, ignoring case. A text is found if a document has [`WORDS`]
//! consecutive words of it; a shorter text must be there whole, and texts below [`FEWEST_WORDS`] words are
//! not looked for.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use moe_shards::{Manifest, Shard};
use rayon::prelude::*;
use tokenizers::Tokenizer;

use super::Task;
use super::TaskResult;
use super::encode::tokenizer;
use super::metrics::{Summary, summary};
use crate::error::{Error, Result};

/// Consecutive words that make an overlap, as in GPT-3 (arXiv 2005.14165, appendix C).
pub const WORDS: usize = 13;

/// Texts of fewer words are not looked for: too many documents have them by chance.
pub const FEWEST_WORDS: usize = 5;

/// The overlaps of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Overlap {
    /// Questions of which something was found, by number, each with the first document that has it, as
    /// `shard/id`.
    pub found: BTreeMap<usize, String>,
    /// Number of questions whose texts are all too short to be looked for.
    pub n_too_short: usize,
    /// The numbers of the questions of which nothing was found.
    pub rest: Summary,
}

/// The documents of a build, to be searched.
#[derive(Debug)]
pub struct Documents<'a> {
    dir: &'a Path,
    manifest: Manifest,
    tokenizer: Tokenizer,
}

impl<'a> Documents<'a> {
    /// Those of a folder.
    ///
    /// # Errors
    /// When the folder has no shards, or their tokenizer is missing.
    pub fn open(dir: &'a Path) -> Result<Self> {
        let manifest = Manifest::read(dir)?;
        let path = dir.join(&manifest.tokenizer.file);
        let file = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        let tokenizer =
            tokenizer(&file).map_err(|problem| Error::Data(format!("{}: {problem}", path.display())))?;
        Ok(Self { dir, manifest, tokenizer })
    }
}

/// Looks for the questions of tasks in documents.
///
/// # Errors
/// When the shards are damaged.
pub fn overlaps(tasks: &[Task], results: &[TaskResult], documents: &Documents) -> Result<Vec<Overlap>> {
    let mut index = Index::default();
    let mut too_short = vec![0; tasks.len()];
    for (number, task) in tasks.iter().enumerate() {
        for (question, asked) in task.questions.all.iter().enumerate() {
            let is_long = asked.looked_for.iter().filter(|text| index.add(text, (number, question))).count();
            too_short[number] += usize::from(is_long == 0);
        }
    }
    let mut found: Vec<BTreeMap<usize, String>> = vec![BTreeMap::new(); tasks.len()];
    for (document, questions) in index.search(documents)? {
        for (task, question) in questions {
            found[task].entry(question).or_insert_with(|| document.clone());
        }
    }
    let overlap = |((found, result), n_too_short): ((BTreeMap<usize, String>, &TaskResult), usize)| {
        let rest = result.outcomes.iter().enumerate().filter(|(question, _)| !found.contains_key(question));
        Overlap { rest: summary(result.kind, rest.map(|(_, outcome)| outcome)), found, n_too_short }
    };
    Ok(found.into_iter().zip(results).zip(too_short).map(overlap).collect())
}

/// A question: the number of its task and its own.
type Place = (usize, usize);

/// Sequences of words to be looked for, by their number of words and hash.
#[derive(Debug, Default)]
struct Index {
    stretches: BTreeMap<usize, HashMap<u64, Vec<Place>>>,
}

impl Index {
    /// Adds a text; false if it is too short.
    fn add(&mut self, text: &str, place: Place) -> bool {
        let words = words(text);
        if words.len() < FEWEST_WORDS {
            return false;
        }
        let n = words.len().min(WORDS);
        let of_length = self.stretches.entry(n).or_default();
        for hash in rolled(&words, n) {
            let places = of_length.entry(hash).or_default();
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
        true
    }

    /// The questions of which a text has a sequence, in order.
    fn find(&self, text: &str) -> Vec<Place> {
        let words = words(text);
        let mut found: Vec<Place> = Vec::new();
        for (&n, of_length) in &self.stretches {
            found.extend(rolled(&words, n).filter_map(|hash| of_length.get(&hash)).flatten());
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The documents of a build with an overlap, in their order.
    fn search(&self, documents: &Documents) -> Result<Vec<(String, Vec<Place>)>> {
        let Documents { dir, manifest, tokenizer } = documents;
        let mut found = Vec::new();
        for info in &manifest.shards {
            let shard = Shard::open(&Manifest::mdx_path(dir, &info.name))?;
            let of_document = |doc: u32| -> Result<Option<(String, Vec<Place>)>> {
                let mut tokens = shard.checked_tokens(doc)?.to_vec();
                tokens.pop();
                let text = tokenizer.decode(&tokens, false).map_err(|error| {
                    Error::Data(format!("{}, document {doc}: cannot be decoded: {error}", info.name))
                })?;
                let places = self.find(&text);
                let name = || Ok(format!("{}/{}", info.name, shard.id(doc)?));
                if places.is_empty() { Ok(None) } else { name().map(|name| Some((name, places))) }
            };
            let of_shard: Vec<_> =
                (0..shard.n_docs()).into_par_iter().map(of_document).collect::<Result<_>>()?;
            found.extend(of_shard.into_iter().flatten());
        }
        Ok(found)
    }
}

/// Hashes of the words of a text.
fn words(text: &str) -> Vec<u64> {
    // FNV-1a, started again for each word.
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    let mut words = Vec::new();
    let mut word: Option<u64> = None;
    for c in text.chars() {
        if !c.is_alphanumeric() {
            words.extend(word.take());
            continue;
        }
        for lower in c.to_lowercase() {
            let hash = word.unwrap_or(START) ^ u64::from(lower);
            word = Some(hash.wrapping_mul(0x0000_0100_0000_01b3));
        }
    }
    words.extend(word);
    words
}

/// Hashes of all sequences of `n` words: polynomials of the words, each from the one before it.
fn rolled(words: &[u64], n: usize) -> impl Iterator<Item = u64> {
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    let last = (1..n).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut hash = 0u64;
    words.iter().enumerate().filter_map(move |(i, word)| {
        if i >= n {
            hash = hash.wrapping_sub(words[i - n].wrapping_mul(last));
        }
        hash = hash.wrapping_mul(BASE).wrapping_add(*word);
        (i + 1 >= n).then_some(hash)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_found_regardless_of_case_and_punctuation() {
        let mut index = Index::default();
        let long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen";
        assert!(index.add(long, (0, 0)) && index.add("Which of these is it?", (0, 1)));
        assert!(!index.add("four words are few", (0, 2)));
        let found = |text: &str| index.find(text);
        assert_eq!(found(&format!("x {}", long.replace(' ', ",\n").to_uppercase())), [(0, 0)]);
        // From the second word on there are thirteen.
        assert_eq!(found(&long["one ".len()..]), [(0, 0)]);
        assert_eq!(found(&long["one two ".len()..]), []);
        assert_eq!(found(&long.replace("seven", "7")), []);
        assert_eq!(found("and which of THESE is it, then"), [(0, 1)]);
        assert_eq!(found("which of these it is"), []);
        assert_eq!(found(&format!("which of these is it {long}")), [(0, 0), (0, 1)]);
    }
}
