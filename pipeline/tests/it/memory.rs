use std::fmt::Write;
use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::{Random, Scratch};

/// Peak resident memory of a process so far, in bytes; `None` once it has ended.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Short documents of which one in four is a copy, one in four a copy with a word changed, and which share paragraphs.
fn corpus(n_docs: usize) -> String {
    let mut random = Random(4);
    let mut texts: Vec<String> = Vec::new();
    let mut lines = String::new();
    for n in 0..n_docs {
        let fresh = |random: &mut Random| {
            let mut text = String::new();
            for _ in 0..5 {
                for _ in 0..12 {
                    write!(text, "w{} ", random.below(50_000)).unwrap();
                }
                text.push('\n');
            }
            // One of 2000 paragraphs, each with different words.
            let number = random.below(2000);
            (0..10).for_each(|i| write!(text, "p{number}x{i} ").unwrap());
            text.push('\n');
            text
        };
        let text = match n % 4 {
            1 => texts[random.below(texts.len() as u64) as usize].clone(),
            2 => texts[random.below(texts.len() as u64) as usize].replacen('w', "v", 1),
            _ => fresh(&mut random),
        };
        writeln!(lines, "{}", serde_json::json!({ "id": n.to_string(), "text": text })).unwrap();
        texts.push(text);
    }
    lines
}

/// Builds with a limit; returns the peaks before deduplication, and before the tokenizer.
fn peaks(scratch: &Scratch, out: &str, limit: &str) -> [u64; 2] {
    let args = ["build", "--recipe", "r.toml", "--out", out, "--threads", "2", "--memory", limit];
    let mut child = scratch.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let work = scratch.path(out).join("work");
    let mut peaks = [0; 2];
    while child.try_wait().unwrap().is_none() {
        let Some(now) = peak(&child) else { break };
        if !work.join("removed").exists() {
            peaks[0] = now;
        }
        if !work.join("train").exists() {
            peaks[1] = now;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    peaks
}

/// Memory of the stages in addition to the limit: a batch of documents for each thread, stacks, and pages of
/// the program.
const BESIDE: u64 = 12 << 20;

/// `--memory` bounds what deduplication and cuts add to the process. The band keys alone are several times the limit.
#[test]
fn deduplication_and_cuts_stay_within_the_memory_limit() {
    let scratch = Scratch::new();
    scratch.write("docs.jsonl", corpus(30_000));
    let recipe = "[[source]]\nname = \"docs\"\npaths = [\"docs.jsonl\"]\nid = \"id\"\n[tokenizer]\ntrain = { vocab_size = 300, sample_bytes = \"10kB\" }\n\
                  [limits]\nslice_bytes = \"2MB\"\n[dedup.minhash]\nestimate = 0\nbands = 128\nrows = 2\n\
                  [dedup.paragraph]\nmin_documents = 3\nmin_chars = 40\n[dedup.substring]\nmin_bytes = 100\n";
    scratch.write("r.toml", recipe);
    let [before, after] = peaks(&scratch, "small", "8MiB");
    let limit = 8 << 20;
    assert!(
        after <= before + limit + BESIDE,
        "{} MiB more than before; the limit is 8",
        (after - before) >> 20
    );
    // The limit matters: without it the stages take more.
    let [loose_before, loose_after] = peaks(&scratch, "large", "1GiB");
    assert!(loose_after > loose_before + limit + BESIDE, "{loose_before} {loose_after}");
    let removed = &scratch.ledger("small").sources["docs"].dropped;
    assert!(removed["exact_duplicate"].docs > 5_000 && removed["near_duplicate"].docs > 3_000, "{removed:?}");
    crate::support::assert_same(&scratch.results("small"), &scratch.results("large"));
}
