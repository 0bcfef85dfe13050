//! Prints the MinHash signatures of texts, to compare them with those of another program: `signatures PROFILE
//! < docs.jsonl`. Each line of the input is an object with `text`; each line of the output has the 112 values
//! of the profile (`datatrove` or `fineweb-v1`), separated by spaces, or nothing for a text without shingles.
//! With `--bench` it prints documents per second of every profile instead.

use std::io::{BufRead, BufWriter, Write};
use std::time::Instant;

use moe_data::dedup::minhash::signature::{Profile, SketchConfig, Sketcher};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profile = std::env::args().nth(1).ok_or("name a profile, or --bench")?;
    let mut texts = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let document: serde_json::Value = serde_json::from_str(&line?)?;
        texts.push(document["text"].as_str().ok_or("a line has no text")?.to_owned());
    }
    if profile == "--bench" {
        return bench(&texts);
    }
    let profile: Profile = serde_json::from_value(profile.into())?;
    let mut sketcher = Sketcher::new(&config(profile));
    let mut out = BufWriter::new(std::io::stdout().lock());
    for text in &texts {
        let values = sketcher.datatrove_signature(text).unwrap_or_default();
        let values: Vec<String> = values.iter().map(u64::to_string).collect();
        writeln!(out, "{}", values.join(" "))?;
    }
    Ok(out.flush()?)
}

fn config(profile: Profile) -> SketchConfig {
    SketchConfig { profile, ngram: 5, bands: 14, rows: 8, seed: 1 }
}

/// On one thread; the best of five rounds.
fn bench(texts: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let n_chars: usize = texts.iter().map(|text| text.chars().count()).sum();
    let mean = n_chars as f64 / texts.len().max(1) as f64;
    println!("{} texts of {mean:.0} characters on average", texts.len());
    for profile in [Profile::Native, Profile::Datatrove, Profile::FinewebV1] {
        let mut sketcher = Sketcher::new(&config(profile));
        let mut keys = Vec::new();
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for text in texts {
                keys.clear();
                sketcher.keys(text, &mut keys);
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        let rate = texts.len() as f64 / best;
        println!("{profile:?}: {rate:.0} documents/s, {:.1} MB/s", n_chars as f64 / best / 1e6);
    }
    Ok(())
}
