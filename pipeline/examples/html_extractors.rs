//! Compares extractors of page text with texts checked by hand, and shows how they handle pages that are deep
//! or long. Scores are those of the article extraction benchmark
//! (github.com/scrapinghub/article-extraction-benchmark): precision, recall and F1 of shingles of four words,
//! as means over the pages. Seconds are CPU time.
//!
//! ```text
//! cargo run --release -p moe-data --example html_extractors            # the committed sample
//! cargo run --release -p moe-data --example html_extractors -- hard    # pages that are deep or long
//! ```

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use dom_smoothie::{Config, Readability, TextMode};
use regex::Regex;

/// Name and function.
type Extractor = (&'static str, fn(&str) -> String);
/// Name, what makes a page of a size, sizes.
type Maker<'a> = (&'a str, &'a dyn Fn(usize) -> String, &'a [usize]);

const EXTRACTORS: [Extractor; 4] = [
    ("rs-trafilatura", |page| {
        rs_trafilatura::extract(page).map_or_else(|_| String::new(), |r| r.content_text)
    }),
    ("rs-trafilatura, recall", |page| {
        let options = rs_trafilatura::Options { favor_recall: true, ..rs_trafilatura::Options::default() };
        rs_trafilatura::extract_with_options(page, &options)
            .map_or_else(|_| String::new(), |r| r.content_text)
    }),
    ("dom_smoothie", smoothie),
    ("tags stripped", stripped),
];

fn smoothie(page: &str) -> String {
    let config = Config { text_mode: TextMode::Formatted, ..Config::default() };
    let article = Readability::new(page, None, Some(config)).and_then(|mut reader| reader.parse());
    article.map_or_else(|_| String::new(), |article| article.text_content.to_string())
}

/// Everything but tags, comments, scripts and styles.
fn stripped(page: &str) -> String {
    let hidden = Regex::new(r"(?is)<!--.*?-->|<(script|style|head)\b.*?</(script|style|head)>").unwrap();
    let tag = Regex::new(r"(?s)<[^>]*>").unwrap();
    let text = tag.replace_all(&hidden.replace_all(page, " "), " ").into_owned();
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// The bodies of the responses in a WARC file with complete records, by the last part of their address.
fn pages(warc: &Path) -> HashMap<String, String> {
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(fs::File::open(warc).unwrap()).read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let records = text.split("WARC/1.0\r\n").filter(|record| record.contains("WARC-Type: response"));
    let page = |record: &str| {
        let url = record.lines().find_map(|line| line.strip_prefix("WARC-Target-URI: ")).unwrap();
        let body = record.splitn(3, "\r\n\r\n").nth(2).unwrap();
        (url.trim().rsplit('/').next().unwrap().to_owned(), body.to_owned())
    };
    records.map(page).collect()
}

fn shingles(text: &str) -> HashMap<Vec<String>, u32> {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    let mut counts = HashMap::new();
    let n = words.len().min(4);
    if n > 0 {
        words.windows(n).for_each(|words| *counts.entry(words.to_vec()).or_default() += 1);
    }
    counts
}

/// Precision and recall.
fn score(found: &str, expected: &str) -> (f64, f64) {
    let (found, expected) = (shingles(found), shingles(expected));
    let both: u32 = found.iter().map(|(s, n)| *n.min(expected.get(s).unwrap_or(&0))).sum();
    let share = |of: &HashMap<Vec<String>, u32>| f64::from(both) / f64::from(of.values().sum::<u32>().max(1));
    (share(&found), share(&expected))
}

fn sample() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = pages(&root.join("../datasets/sqlite_docs_40.warc.gz"));
    let n_bytes: usize = pages.values().map(String::len).sum();
    let mut expected: Vec<_> =
        fs::read_dir(root.join("tests/extraction")).unwrap().map(|entry| entry.unwrap().path()).collect();
    expected.sort();
    println!(
        "{} pages with expected text; speed over {} pages, {n_bytes} bytes",
        expected.len(),
        pages.len()
    );
    println!("{:<24} precision  recall      F1    MB/s", "");
    for (name, extract) in EXTRACTORS {
        let (mut precision, mut recall) = (0.0, 0.0);
        for path in &expected {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(path).unwrap();
            let (p, r) = score(&extract(&pages[&format!("{stem}.html")]), &text);
            if std::env::args().any(|arg| arg == "-v") {
                println!("    {stem:<20} {p:9.3} {r:7.3}");
            }
            (precision, recall) = (precision + p, recall + r);
        }
        let n = expected.len() as f64;
        let (precision, recall) = (precision / n, recall / n);
        let before = busy_seconds();
        let rounds = 5;
        (0..rounds).for_each(|_| pages.values().for_each(|page| drop(extract(page))));
        let speed = f64::from(rounds) * n_bytes as f64 / 1e6 / (busy_seconds() - before);
        let f1 = 2.0 * precision * recall / (precision + recall);
        println!("{name:<24} {precision:9.3} {recall:7.3} {f1:7.3} {speed:7.1}");
    }
}

/// CPU time of this thread in nanoseconds, as counted by the system.
fn busy_seconds() -> f64 {
    let counts = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    counts.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// CPU seconds of an extractor on one page, on a thread with a stack of 256 MiB.
fn time(page: String, extract: fn(&str) -> String) -> f64 {
    let run = move || {
        let before = busy_seconds();
        drop(extract(&page));
        busy_seconds() - before
    };
    std::thread::Builder::new().stack_size(256 << 20).spawn(run).unwrap().join().unwrap_or(f64::INFINITY)
}

fn hard() {
    let nested = |n: usize| format!("<html><body>{}<p>text</p>{}", "<div>".repeat(n), "</div>".repeat(n));
    let words = "Some words of a sentence that is long enough. ".repeat(3);
    let rows =
        |n: usize| format!("<html><body><table>{}</table>", format!("<tr><td>{words}</td></tr>").repeat(n));
    let paragraphs = |n: usize| format!("<html><body>{}", format!("<p>{words}</p>").repeat(n));
    let spans = |n: usize| format!("<html><body><p>{}</p>", "<span>word </span>".repeat(n));
    let links = |n: usize| format!("<html><body><ul>{}</ul>", "<li><a href=x>link text</a></li>".repeat(n));
    let open = |n: usize| format!("<html><body>{}", "<b><p>".repeat(n));
    let makers: [Maker<'_>; 6] = [
        ("nested div", &nested, &[100, 1_000, 4_000]),
        ("rows", &rows, &[1_000, 4_000, 16_000]),
        ("paragraphs", &paragraphs, &[1_000, 4_000, 16_000]),
        ("spans", &spans, &[4_000, 16_000, 64_000]),
        ("links", &links, &[4_000, 16_000, 64_000]),
        ("unclosed b p", &open, &[100, 400, 1_600]),
    ];
    for (name, make, sizes) in makers {
        for &n in sizes {
            let page = make(n);
            print!("{name:<14} {n:>7} {:>9} bytes", page.len());
            for (extractor, extract) in [EXTRACTORS[0], EXTRACTORS[2]] {
                print!("   {extractor} {:.3} s", time(page.clone(), extract));
                std::io::Write::flush(&mut std::io::stdout()).unwrap();
            }
            println!();
        }
    }
}

fn main() {
    if std::env::args().any(|arg| arg == "hard") { hard() } else { sample() }
}
