//! The stages together, on corpora small enough to be checked by brute force.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::config::{KeepCopy, ParagraphConfig, Split};
use super::{PartParams, anchor, apply, paragraph, segment, substring};
use crate::document::{DocumentId, Metadata, TextHash, family_of_text};
use crate::stage::inputs::PlacedDocuments;
use crate::stage::{self, Report, Task};
use crate::tables::cuts::{Cuts, Method};
use crate::tables::documents::{Document, DocumentWriter};
use crate::tables::rows::{self, CutRow, FamilyRow, KeptRow, RemovedRow};
use crate::tables::sort::range::KeyRange;
use crate::tables::{CUTS, REMOVED};
use crate::watch::Watch;

/// A document: its family, or none where it declares none, and its text.
type Text<'a> = (Option<u64>, &'a str);

/// What became of a document: the pieces that are left, or nothing where it was dropped.
type Outcome = Option<Vec<String>>;

#[derive(Clone, Copy)]
enum Asked {
    Paragraphs(ParagraphConfig),
    Substrings(u32),
}

/// Runs the stages of one method over documents dealt out to parts; the outcome is in the order of the documents.
fn run(texts: &[Text<'_>], n_parts: usize, asked: Asked, min_chars_left: u64) -> (Vec<Outcome>, Report) {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path();
    let do_all = |tasks: Vec<Task>| -> Vec<PathBuf> {
        tasks.iter().for_each(|task| drop(stage::run(task, &Watch::idle()).unwrap()));
        tasks.into_iter().map(|task| task.output).collect()
    };
    let mut places: BTreeMap<(usize, u32), usize> = BTreeMap::new();
    let no_cuts = work.join(Cuts::write(work, &[]).unwrap());
    let (mut parts, mut documents) = (Vec::new(), Vec::new());
    for part in 0..n_parts {
        let path = |name: &str| work.join(format!("{part}-{name}"));
        let mut writer = DocumentWriter::create(&path("documents")).unwrap();
        let mut kept = Vec::new();
        for (i, (family, text)) in texts.iter().enumerate().filter(|(i, _)| i % n_parts == part) {
            let row = kept.len() as u32;
            let id = format!("{i:03}");
            let document = Document {
                id: &id,
                // Ascending, so that the order of the documents is that of the list.
                document_id: DocumentId(i as u64),
                family: family.map_or_else(|| family_of_text(text), moe_shards::FamilyId),
                variant: 0,
                raw_bytes: text.len() as u32,
                text_hash: TextHash::of(text),
                metadata: Metadata::default(),
                text,
            };
            writer.append(&document).unwrap();
            kept.push(KeptRow { row, document_id: i as u64, raw_bytes: text.len() as u32 });
            places.insert((part, row), i);
        }
        writer.finish().unwrap();
        rows::write(&path("kept"), &kept).unwrap();
        rows::write::<RemovedRow>(&path("removed"), &[]).unwrap();
        documents.push(path("documents"));
        rows::write::<FamilyRow>(&path("families"), &[]).unwrap();
        parts.push(PlacedDocuments {
            documents: path("documents"),
            kept: path("kept"),
            removed: path("removed"),
            cuts: no_cuts.clone(),
            families: path("families"),
        });
    }
    let memory_bytes = 1 << 20;
    let has_families = texts.iter().any(|(family, _)| family.is_some());
    let number = |i: usize| PartParams { part: i as u32, source: 0, has_families };
    let (matches, method, min_bytes) = match asked {
        Asked::Paragraphs(config) => {
            let (split, min_chars) = (config.split, config.min_chars);
            let tasks = parts.iter().enumerate().map(|(i, part)| {
                let params = paragraph::ParagraphParams { part: number(i), split, min_chars, memory_bytes };
                Task::new(work, i, 0, params, part.clone())
            });
            let inputs = paragraph::ParagraphMatchInputs { paragraphs: do_all(tasks.collect()) };
            let (min_documents, keep) = (config.min_documents, config.keep);
            let tasks = KeyRange::all(n_parts).map(|range| {
                let params = paragraph::ParagraphMatchParams { min_documents, keep, range, memory_bytes };
                Task::new(work, range.index(), 0, params, inputs.clone())
            });
            (do_all(tasks.collect()), Method::Paragraph, None)
        }
        Asked::Substrings(min_bytes) => {
            let params = anchor::AnchorParams { min_bytes, memory_bytes };
            let tasks = parts
                .iter()
                .enumerate()
                .map(|(i, part)| Task::new(work, i, 0, anchor::Anchors(params.clone()), part.clone()));
            let anchors = do_all(tasks.collect());
            let inputs = anchor::SharedAnchorsInputs { anchors: anchors.clone() };
            let tasks = KeyRange::all(n_parts).map(|range| {
                let params = anchor::SharedAnchors { range, memory_bytes };
                Task::new(work, range.index(), 0, params, inputs.clone())
            });
            let shared = do_all(tasks.collect());
            let tasks = parts.iter().enumerate().map(|(i, part)| {
                let (anchors, shared) = (anchors[i].clone(), shared.clone());
                let inputs = segment::SegmentInputs { part: part.clone(), anchors, shared };
                Task::new(work, i, 0, segment::SegmentParams { part: number(i) }, inputs)
            });
            let segments = do_all(tasks.collect());
            let tasks = KeyRange::all(n_parts).map(|range| {
                let params = substring::SubstringParams { range, min_bytes, memory_bytes };
                let inputs = substring::SubstringInputs { segments: segments.clone() };
                Task::new(work, range.index(), 0, params, inputs)
            });
            (do_all(tasks.collect()), Method::Substring, Some(min_bytes))
        }
    };
    let sources = vec!["s".to_owned(); n_parts];
    let mut outcomes = vec![None; texts.len()];
    let mut sum = Report::default();
    let tasks = parts.iter().enumerate().map(|(i, part)| {
        let (sources, method) = (sources.clone(), method.number());
        let params = apply::ApplyParams { part: i as u32, sources, method, min_bytes, min_chars_left };
        let (matches, documents) = (matches.clone(), documents.clone());
        Task::new(work, i, 0, params, apply::ApplyInputs { part: part.clone(), matches, documents })
    });
    let folders = do_all(tasks.collect());
    for (part, folder) in folders.iter().enumerate() {
        let cuts = Cuts::of_rows(rows::read::<CutRow>(&folder.join(CUTS)).unwrap());
        let removed: Vec<RemovedRow> = rows::read(&folder.join(REMOVED)).unwrap();
        let report: Report =
            serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
        for (reason, count) in &report.dropped {
            *sum.dropped.entry(reason.clone()).or_default() += *count;
        }
        for (method, count) in &report.cut {
            *sum.cut.entry(method.clone()).or_default() += *count;
        }
        for (&(_, row), &i) in places.range((part, 0)..=(part, u32::MAX)) {
            if !removed.contains(&RemovedRow { row }) {
                let pieces = cuts.of(row).pieces(texts[i].1).unwrap();
                outcomes[i] = Some(pieces.into_iter().map(|(_, piece)| piece.to_owned()).collect());
            }
        }
    }
    (outcomes, sum)
}

fn left(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(|pieces| pieces.as_ref().map_or("-".to_owned(), |pieces| pieces.concat())).collect()
}

const NOTICE: &str = "All rights reserved by the society.\n";

fn paragraphs() -> ParagraphConfig {
    ParagraphConfig { min_chars: 10, min_documents: 2, min_chars_left: 0, ..ParagraphConfig::default() }
}

fn check_paragraphs(texts: &[Text<'_>], config: ParagraphConfig, min_chars_left: u64, expected: &[&str]) {
    for n_parts in 1..=2 {
        let (outcomes, _) = run(texts, n_parts, Asked::Paragraphs(config), min_chars_left);
        assert_eq!(left(&outcomes), expected, "{n_parts} parts");
    }
}

#[test]
fn the_first_copy_of_a_paragraph_stays() {
    let upper = NOTICE.to_uppercase();
    let (a, b, c) = (format!("one\n{NOTICE}"), format!("{upper}two"), format!("three\n{NOTICE}{NOTICE}end"));
    let texts: Vec<Text<'_>> = [&a, &b, &c].map(|text| (None, text.as_str())).to_vec();
    check_paragraphs(&texts, paragraphs(), 0, &[&a, "two", "three\nend"]);
    let none = ParagraphConfig { keep: KeepCopy::None, ..paragraphs() };
    check_paragraphs(&texts, none, 0, &["one\n", "two", "three\nend"]);
    // Three documents hold it, not four; and it has 36 characters, simplified 35.
    check_paragraphs(&texts, ParagraphConfig { min_documents: 4, ..paragraphs() }, 0, &[&a, &b, &c]);
    check_paragraphs(&texts, ParagraphConfig { min_chars: 36, ..paragraphs() }, 0, &[&a, &b, &c]);
    check_paragraphs(
        &texts,
        ParagraphConfig { min_chars: 35, ..paragraphs() },
        0,
        &[&a, "two", "three\nend"],
    );
}

#[test]
fn blocks_are_compared_whole() {
    let (a, b) = (format!("{NOTICE}x\n\none"), format!("{NOTICE}y\n\ntwo"));
    let texts: Vec<Text<'_>> = vec![(None, &a), (None, &b)];
    let blocks = ParagraphConfig { split: Split::BlankLine, ..paragraphs() };
    check_paragraphs(&texts, blocks, 0, &[&a, &b]);
    check_paragraphs(&texts, paragraphs(), 0, &[&a, "y\n\ntwo"]);
}

#[test]
fn texts_of_one_family_do_not_lose_what_they_share() {
    let texts = [("one\n", 1), ("two\n", 2), ("eka\n", 1), ("dois\n", 2)];
    let texts: Vec<(Option<u64>, String)> =
        texts.into_iter().map(|(text, family)| (Some(family), format!("{text}{NOTICE}"))).collect();
    let texts: Vec<Text<'_>> = texts.iter().map(|(family, text)| (*family, text.as_str())).collect();
    let (one, eka) = (texts[0].1, texts[2].1);
    check_paragraphs(&texts, paragraphs(), 0, &[one, "two\n", eka, "dois\n"]);
    let three = ParagraphConfig { min_documents: 3, ..paragraphs() };
    check_paragraphs(&texts, three, 0, &[one, texts[1].1, eka, texts[3].1]);
    let (outcomes, _) = run(&texts, 2, Asked::Substrings(32), 0);
    assert_eq!(left(&outcomes), [one, "two\n", eka, "dois\n"]);
}

#[test]
fn a_document_with_too_little_left_is_dropped_unless_it_holds_the_copy() {
    let other = "Another notice, longer than ten.\n";
    let (a, b) = (format!("{NOTICE}x"), format!("{NOTICE}y"));
    let c = format!("{other}{NOTICE}long enough to stay here");
    let d = format!("z\n{other}");
    let texts: Vec<Text<'_>> = [&a, &b, &c, &d].map(|text| (None, text.as_str())).to_vec();
    let asked = Asked::Paragraphs(paragraphs());
    let (outcomes, report) = run(&texts, 2, asked, 20);
    let stays = format!("{other}long enough to stay here");
    assert_eq!(left(&outcomes), [a.as_str(), "-", &stays, "-"]);
    assert_eq!(report.dropped[apply::REASON].docs, 2);
    assert_eq!(report.dropped[apply::REASON].bytes, (b.len() + d.len()) as u64);
    assert_eq!(report.cut["paragraph"].bytes, NOTICE.len() as u64);
}

#[test]
fn a_repeated_stretch_stays_once_and_words_stay_whole() {
    let shared = "the quick brown fox jumps over the lazy dog and runs away";
    // The `s` before and after makes the match longer than the words.
    let (a, b) = (format!("alphas {shared} seen"), format!("betas {shared} sung"));
    let texts: Vec<Text<'_>> = vec![(None, &a), (None, &b)];
    for n_parts in 1..=2 {
        let (outcomes, report) = run(&texts, n_parts, Asked::Substrings(40), 0);
        assert_eq!(left(&outcomes), [a.as_str(), "betas sung"]);
        assert_eq!(report.cut["substring"].bytes, shared.len() as u64 + 1);
    }
    assert_eq!(left(&run(&texts, 1, Asked::Substrings(64), 0).0), [&a, &b].map(String::clone));
}

#[test]
fn a_stretch_that_repeats_in_itself_keeps_one_length() {
    let dashes = "-".repeat(500);
    let texts: Vec<Text<'_>> = vec![(None, &dashes)];
    let (outcomes, _) = run(&texts, 1, Asked::Substrings(100), 0);
    assert_eq!(left(&outcomes), ["-".repeat(100)]);
    let block = "every good boy deserves fruit always ";
    let twice = format!("{block}{block}end");
    let (outcomes, _) = run(&[(None, &twice)], 1, Asked::Substrings(32), 0);
    assert_eq!(left(&outcomes), [format!("{block}end")]);
}

/// Pieces of texts that make many repeats of many lengths.
const BLOCKS: [&str; 8] = [
    "in the beginning was the word ",
    "and the word was with god, ",
    "été à la façon d'un œuvre ",
    "日本語の文章には空白がありません。",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "x",
    "\n",
    "one two ",
];

fn corpus() -> impl Strategy<Value = Vec<String>> {
    let text = proptest::collection::vec(0..BLOCKS.len(), 1..12);
    let text = text.prop_map(|blocks| blocks.into_iter().map(|i| BLOCKS[i]).collect::<String>());
    proptest::collection::vec(text, 1..8)
}

/// How often each window of texts stands in them, of windows that start at a character.
fn windows(texts: impl Iterator<Item = String>, n_bytes: usize) -> BTreeMap<Vec<u8>, usize> {
    let mut counts = BTreeMap::new();
    for text in texts {
        for (at, _) in text.char_indices() {
            if let Some(window) = text.as_bytes().get(at..at + n_bytes) {
                *counts.entry(window.to_vec()).or_default() += 1;
            }
        }
    }
    counts
}

fn is_subsequence(part: &str, whole: &str) -> bool {
    let mut whole = whole.bytes();
    part.bytes().all(|byte| whole.any(|other| other == byte))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn afterwards_every_long_stretch_stands_once(texts in corpus(), n_parts in 1usize..4) {
        const BYTES: usize = 32;
        let given: Vec<Text<'_>> = texts.iter().map(|text| (None, text.as_str())).collect();
        let (outcomes, report) = run(&given, n_parts, Asked::Substrings(BYTES as u32), 0);
        let pieces = outcomes.iter().flatten().flatten().cloned();
        let repeated: Vec<_> = windows(pieces, BYTES).into_iter().filter(|(_, n)| *n > 1).collect();
        prop_assert!(repeated.is_empty(), "{repeated:?}");

        // Only repeated text is cut: the rest and the repeated text make up the whole.
        let before = windows(texts.iter().cloned(), BYTES);
        let (mut n_left, mut n_dropped) = (0, 0);
        for (text, outcome) in texts.iter().zip(&outcomes) {
            let Some(pieces) = outcome else { n_dropped += text.len(); continue };
            let left = pieces.concat();
            prop_assert!(is_subsequence(&left, text));
            n_left += left.len();
            if before.values().all(|n| *n == 1) {
                prop_assert_eq!(&left, text);
            }
        }
        let cut: u64 = report.cut.values().map(|count| count.bytes).sum();
        let dropped: u64 = report.dropped.values().map(|count| count.bytes).sum();
        prop_assert_eq!(dropped, n_dropped as u64);
        prop_assert_eq!(n_left as u64 + cut + dropped, texts.iter().map(String::len).sum::<usize>() as u64);

        // Another split into parts gives the same.
        let (other, _) = run(&given, 4 - n_parts, Asked::Substrings(BYTES as u32), 0);
        prop_assert_eq!(other, outcomes);
    }

    #[test]
    fn afterwards_every_paragraph_stands_in_one_document(texts in corpus(), n_parts in 1usize..4) {
        let config = ParagraphConfig { min_chars: 2, ..paragraphs() };
        let given: Vec<Text<'_>> = texts.iter().map(|text| (None, text.as_str())).collect();
        let (outcomes, report) = run(&given, n_parts, Asked::Paragraphs(config), 0);
        // In how many documents each line stands.
        let lines = |texts: &[String]| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for text in texts {
                let lines: std::collections::BTreeSet<&str> = text.lines().map(str::trim).collect();
                lines.into_iter().filter(|line| line.len() > 1).for_each(|line| *counts.entry(line.to_owned()).or_default() += 1);
            }
            counts
        };
        let (before, after) = (lines(&texts), lines(&left(&outcomes)));
        // A cut never joins two lines, so no line is new, none is lost, and none is in two documents.
        prop_assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        prop_assert!(after.values().all(|n| *n == 1), "{after:?}");
        let n_left: usize = outcomes.iter().flatten().flatten().map(String::len).sum();
        let n_gone: u64 = report.cut.values().chain(report.dropped.values()).map(|count| count.bytes).sum();
        prop_assert_eq!(n_left as u64 + n_gone, texts.iter().map(String::len).sum::<usize>() as u64);
        let (other, _) = run(&given, 4 - n_parts, Asked::Paragraphs(config), 0);
        prop_assert_eq!(other, outcomes);
    }
}
