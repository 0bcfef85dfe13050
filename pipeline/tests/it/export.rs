use std::fs;
use std::path::Path;

use moe_shards::{Manifest, Plan, Shard};
use serde_json::Value;

use crate::support::{Scratch, lines, small_recipe};

/// A build of 200 short documents and a plan of two passes.
fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", lines(0..200));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", "[shard]\ntarget_bytes = \"8KiB\"\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.ok(&["mix", "--epochs", "2", "--seq-len", "128"]);
    scratch
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Megatron-LM's reader, from its layout: the token type, and the documents as (first byte, tokens).
fn read_idx(path: &Path) -> (u8, Vec<(u64, u64)>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..9], b"MMIDIDX\0\0");
    assert_eq!(u64_at(&bytes, 9), 1);
    let (n, ends) = (u64_at(&bytes, 18) as usize, u64_at(&bytes, 26) as usize);
    assert_eq!((ends, bytes.len()), (n + 1, 34 + 12 * n + 8 * ends));
    let len = |i: usize| u64::from(u32::from_le_bytes(bytes[34 + 4 * i..38 + 4 * i].try_into().unwrap()));
    assert!((0..ends).all(|i| u64_at(&bytes, 34 + 12 * n + 8 * i) == i as u64));
    (bytes[17], (0..n).map(|i| (u64_at(&bytes, 34 + 4 * n + 8 * i), len(i))).collect())
}

/// The values of a `.npy` file after its header, which must say this type and shape.
fn read_npy(path: &Path, kind: &str, shape: &str) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes[10..4096]).trim_end().to_owned();
    assert_eq!(text, format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"));
    bytes[4096..].to_vec()
}

fn i64s(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn megatrons_index_gives_every_document() {
    let scratch = built();
    scratch.ok(&["export", "--megatron"]);
    let dir = scratch.path("out");
    let manifest = Manifest::read(&dir).unwrap();
    assert!(manifest.shards.len() > 1);
    for info in &manifest.shards {
        let mdx = Manifest::mdx_path(&dir, &info.name);
        let shard = Shard::open(&mdx).unwrap();
        let tokens = fs::read(mdx.with_extension("bin")).unwrap();
        let (code, docs) = read_idx(&mdx.with_extension("idx"));
        assert_eq!((code, docs.len()), (8, shard.n_docs() as usize));
        for (doc, (first, len)) in (0..).zip(docs) {
            let bytes = &tokens[first as usize..(first + 2 * len) as usize];
            let found: Vec<u32> =
                bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect();
            assert_eq!(found, shard.tokens(doc).unwrap().to_vec());
        }
    }
    // The build is as before: an export adds files and changes none.
    scratch.ok(&["verify", "out"]);
    assert!(scratch.ok(&["build", "--recipe", "r.toml"]).err.starts_with("nothing changed"));
}

#[test]
fn npy_files_hold_the_tokens_and_the_ends() {
    let scratch = built();
    let said = scratch.ok(&["export", "--npy", "--to", "np", "--json"]).out;
    let files: Value = serde_json::from_str(&said).unwrap();
    let dir = scratch.path("out");
    let manifest = Manifest::read(&dir).unwrap();
    assert_eq!(files["files"].as_array().unwrap().len(), 2 * manifest.shards.len());
    for info in &manifest.shards {
        let mdx = Manifest::mdx_path(&dir, &info.name);
        let path = |end: &str| scratch.path("np").join(format!("{}{end}", info.name));
        let tokens = read_npy(&path(".npy"), "<u2", &format!("({},)", info.n_tokens));
        assert_eq!(tokens, fs::read(mdx.with_extension("bin")).unwrap());
        let ends = i64s(&read_npy(&path(".ends.npy"), "<u8", &format!("({},)", info.n_docs)));
        assert_eq!(ends.last(), Some(&(info.n_tokens as i64)));
    }
}

/// What a reader in another language does, in Rust: samples from the index and the `.bin` files alone.
#[test]
fn the_exported_plan_gives_the_same_samples() {
    let scratch = built();
    let plan = Plan::open(&scratch.path("out")).unwrap();
    let n = plan.len();
    for (range, first, last) in [(None, 0, n), (Some("5..25"), 5, 25)] {
        let mut args = vec!["export", "--plan-npy", "--rows"];
        args.extend(range.iter().flat_map(|range| ["--range", range]));
        scratch.ok(&args);
        let export = scratch.path("out/export");
        let info: Value = serde_json::from_slice(&fs::read(export.join("plan.json")).unwrap()).unwrap();
        assert_eq!((&info["first_sample"], &info["n_samples"]), (&first.into(), &(last - first).into()));
        assert_eq!(info["plan"], plan.id().to_string());
        let bins: Vec<Vec<u8>> = (info["bins"].as_array().unwrap().iter())
            .map(|name| fs::read(scratch.path("out").join(name.as_str().unwrap())).unwrap())
            .collect();
        let samples = i64s(&read_npy(&export.join("samples.npy"), "<i8", &format!("({}, 5)", last - first)));
        let pieces = fs::read(export.join("pieces.npy")).unwrap();
        let pieces = i64s(&pieces[4096..]);
        let shape = format!("({}, 128)", last - first);
        let rows = read_npy(&export.join("tokens.npy"), "<u2", &shape);
        let targets = read_npy(&export.join("targets.npy"), "<i4", &shape);
        for t in first..last {
            let (sample, i) = (plan.sample(t).unwrap(), (t - first) as usize);
            let row = &samples[5 * i..5 * i + 5];
            let id = [i64::from(sample.id.pool), i64::from(sample.id.pass), sample.id.bin as i64, 128];
            assert_eq!(row[..4], id);
            let until = samples.get(5 * i + 9).copied().unwrap_or(pieces.len() as i64 / 5);
            let mut tokens = vec![info["eod"].as_u64().unwrap() as u32; 128];
            let mut wanted = vec![-100i32; 128];
            for piece in pieces[5 * row[4] as usize..5 * until as usize].chunks_exact(5) {
                let [shard, token, len, start, has_next] = piece.try_into().unwrap();
                let at = |k: i64| {
                    let b = &bins[shard as usize][2 * (token + k) as usize..];
                    u32::from(u16::from_le_bytes([b[0], b[1]]))
                };
                (0..len).for_each(|k| tokens[(start + k) as usize] = at(k));
                (1..len + has_next).for_each(|k| wanted[(start + k - 1) as usize] = at(k) as i32);
            }
            assert_eq!(tokens, sample.tokens, "sample {t}");
            let stored: Vec<u32> = (rows[256 * i..256 * (i + 1)].chunks_exact(2))
                .map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])))
                .collect();
            assert_eq!(stored, sample.tokens);
            let stored: Vec<i32> = (targets[512 * i..512 * (i + 1)].chunks_exact(4))
                .map(|b| i32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            assert_eq!(stored, wanted);
            assert_eq!(stored.iter().filter(|&&target| target >= 0).count(), sample.trained_tokens());
        }
    }
}

#[test]
fn contradictory_options_are_refused() {
    let scratch = built();
    assert!(
        scratch
            .fail(&["export", "--plan-npy", "--range", "0..999999"], 2)
            .err
            .contains("the plan has the samples 0..")
    );
    let said = scratch.run(&["export"]);
    assert!(said.code == Some(2) && said.err.contains("--megatron"), "{}", said.err);
    let said = scratch.run(&["export", "--plan-npy", "--range", "9..3"]);
    assert!(said.code == Some(2) && said.err.contains("A below B"), "{}", said.err);
}
