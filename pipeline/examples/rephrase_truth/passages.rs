//! Passages of the size of chunks, each with a faithful rephrasing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::Value;

/// A text and a faithful rephrasing of it.
pub struct Passage {
    pub corpus: String,
    /// Names of the two versions.
    pub pair: String,
    pub name: String,
    pub source: String,
    /// The faithful text, into which faults are planted.
    pub answer: String,
}

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Verses of a passage; with 5 verses about 130 words. Every other passage is a long one.
const VERSES: [usize; 2] = [5, 12];
/// One of this many chapters is used, for each pair.
const EVERY: usize = 12;
/// Passages of a prose file.
const MOST_PROSE: usize = 400;
/// Words of a prose passage.
const PROSE_WORDS: usize = 220;

/// The divine name is a name in one version and a title in another.
pub fn aliases() -> BTreeMap<String, String> {
    let pairs =
        [("jehovah", "lord"), ("yahweh", "lord"), ("jah", "lord"), ("yah", "lord"), ("messiah", "christ")];
    pairs.map(|(from, to)| (from.to_owned(), to.to_owned())).into()
}

/// Passages of every pair of versions in a folder. Only chapters with as many verses in all versions are used.
pub fn versions(folder: &Path) -> Fallible<Vec<Passage>> {
    let mut versions: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "gz")) {
        for record in records(path)? {
            let field = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            versions.entry(field("version")).or_default().insert(field("group"), field("text"));
        }
    }
    let all: Vec<(&String, &BTreeMap<String, String>)> = versions.iter().collect();
    let mut passages = Vec::new();
    for (i, (a, chapters)) in all.iter().enumerate() {
        for (b, others) in &all[i + 1..] {
            let usable = chapters.iter().filter(|(group, text)| {
                let n = text.lines().count();
                all.iter().all(|(_, version)| version.get(*group).is_some_and(|t| t.lines().count() == n))
            });
            for (number, (group, text)) in usable.enumerate().filter(|(number, _)| number % EVERY == 0) {
                let size = VERSES[number / EVERY % VERSES.len()];
                let (mine, theirs): (Vec<&str>, Vec<&str>) =
                    (text.lines().collect(), others[group].lines().collect());
                for (start, (x, y)) in mine.chunks(size).zip(theirs.chunks(size)).enumerate() {
                    passages.push(Passage {
                        corpus: "bible".into(),
                        pair: format!("{a}-{b}"),
                        name: format!("{group}:{start}"),
                        source: x.join(" "),
                        answer: y.join(" "),
                    });
                }
            }
        }
    }
    Ok(passages)
}

/// Passages of a file of prose, each its own faithful text.
pub fn prose(path: &Path) -> Fallible<Vec<Passage>> {
    let corpus = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .split('.')
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut passages = Vec::new();
    for record in records(path)? {
        let mut passage = String::new();
        for paragraph in record["text"].as_str().unwrap_or_default().split("\n\n") {
            // Text, not tables and code.
            if paragraph.starts_with([' ', '.', '+', '=']) || paragraph.split_whitespace().count() < 12 {
                continue;
            }
            if !passage.is_empty() {
                passage.push_str("\n\n");
            }
            passage.push_str(paragraph);
            if passage.split_whitespace().count() >= PROSE_WORDS {
                let name = format!("{}:{}", record["id"].as_str().unwrap_or_default(), passages.len());
                passages.push(Passage {
                    corpus: corpus.clone(),
                    pair: "copy".into(),
                    name,
                    source: passage.clone(),
                    answer: std::mem::take(&mut passage),
                });
            }
        }
    }
    let step = passages.len().div_ceil(MOST_PROSE).max(1);
    Ok(passages.into_iter().step_by(step).collect())
}

fn records(path: &Path) -> Fallible<Vec<Value>> {
    let mut text = String::new();
    MultiGzDecoder::new(fs::File::open(path)?).read_to_string(&mut text)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
