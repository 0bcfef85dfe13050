//! Encoding with each engine. `cargo bench -p moe-data --bench encode`; text of `datasets/` with a vocabulary
//! trained on it, so the words repeat: compare the engines, not these figures with other corpora.

use std::io::Read;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moe_data::tokenizer::{Encoder, EncoderOptions, EngineChoice, train};

fn texts() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/bible_kjv_web.jsonl.gz");
    let mut lines = String::new();
    let file = std::fs::File::open(path).expect("the repository's text");
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut lines).expect("the repository's text");
    let text = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        record["text"].as_str().expect("text").to_owned()
    };
    lines.lines().map(text).collect()
}

fn encode(criterion: &mut Criterion) {
    let texts = texts();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("tokenizer.json");
    let json = train::train(texts.iter().cloned(), 4096, &[]).expect("a tokenizer");
    std::fs::write(&file, json).expect("a temporary file");
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes(texts.iter().map(|text| text.len() as u64).sum()));
    group.sample_size(10);
    for engine in [EngineChoice::Auto, EngineChoice::Reference] {
        let encoder = Encoder::load(&file, &EncoderOptions { engine, ..EncoderOptions::default() });
        let encoder = encoder.expect("a tokenizer");
        group.bench_function(encoder.verdict().engine.as_str(), |bencher| {
            let mut ids = Vec::new();
            bencher.iter(|| {
                for text in &texts {
                    ids.clear();
                    encoder.encode_into(text, &mut ids).expect("ids");
                }
                ids.len()
            });
        });
    }
    let one = texts.concat();
    let encoder = Encoder::load(&file, &EncoderOptions::default()).expect("a tokenizer");
    group.bench_function("fastokens, one long document", |bencher| {
        bencher.iter(|| encoder.encode(&one).expect("ids").len());
    });
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
