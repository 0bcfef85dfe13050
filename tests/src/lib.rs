//! Helpers of the end-to-end tests: the binaries, scratch folders with real or generated data, and
//! processes that get killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use moe_shards::permute::mix64;
use moe_shards::{
    DocumentMeta, FamilyId, Hash, Manifest, ShardSpec, ShardWriter, SourceInfo, TokenId, TokenizerInfo,
};

/// The repository's root.
pub fn repo() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).unwrap_or_default()
}

/// A binary of the workspace, beside the running test.
///
/// # Panics
/// It has not been built: run the tests of the whole workspace.
pub fn bin(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let dir = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    let path = dir.join(name);
    assert!(path.exists(), "{} is missing: run `cargo test --workspace`, which builds it", path.display());
    path
}

/// A command of a binary, in a folder.
pub fn command(name: &str, dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(bin(name));
    command.args(args).current_dir(dir).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs a command that must succeed; gives its standard output.
///
/// # Panics
/// It fails; the message holds all it said.
pub fn succeed(name: &str, dir: &Path, args: &[&str]) -> String {
    let output = run(name, dir, args);
    assert!(output.status.success(), "{name} {args:?}: {}\n{}", output.status, both(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that must fail with an exit code; gives what it said on standard error.
///
/// # Panics
/// It succeeds, fails otherwise, or panicked.
pub fn fail(name: &str, dir: &Path, args: &[&str], code: i32) -> String {
    let output = run(name, dir, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{name} {args:?}\n{}", both(&output));
    assert!(!said.contains("panicked"), "{name} {args:?}\n{said}");
    said
}

fn run(name: &str, dir: &Path, args: &[&str]) -> Output {
    command(name, dir, args).output().expect("the binary starts")
}

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Starts a command, lets it work for a while and kills it with SIGKILL; says whether it was still
/// working.
///
/// # Panics
/// The process cannot be started or waited for.
pub fn kill_after(mut command: Command, delay: Duration) -> bool {
    let mut child: Child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
    std::thread::sleep(delay);
    let working = child.try_wait().expect("the process can be asked").is_none();
    child.kill().expect("the process can be killed");
    child.wait().expect("the process ends");
    working
}

/// Digest of every file below a folder, by its path there.
///
/// # Panics
/// A file cannot be read.
pub fn digests(dir: &Path) -> BTreeMap<String, Hash> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("below the folder").to_string_lossy().into_owned();
                found.insert(name, Hash::of_file(&path).expect("a readable file"));
            }
        }
    }
    found
}

/// A source of a generated build.
pub struct Source<'a> {
    /// Name.
    pub name: &'a str,
    /// For each family its texts as (variant, tokens without EOD); the family's number is its position.
    pub families: &'a [Vec<(u8, usize)>],
}

/// Writes a build as `moe-data build` would, with counted tokens instead of text: token `i` of a text is
/// a hash of (source, family, variant, i), so that a test can tell which text it sees.
///
/// # Panics
/// The disk refuses.
pub fn generated_build(out: &Path, vocab_size: u32, sources: &[Source<'_>]) -> Manifest {
    std::fs::create_dir_all(out).expect("a folder");
    let token_bytes: Vec<u8> = (0..vocab_size).flat_map(|id| if id == 0 { [0, 0] } else { [3, 0] }).collect();
    std::fs::write(out.join("token_bytes.u16"), &token_bytes).expect("a file");
    std::fs::write(out.join("tokenizer.json"), b"{}").expect("a file");
    let tokenizer = TokenizerInfo {
        file: "tokenizer.json".to_owned(),
        blake3: Hash::of(b"{}"),
        vocab_size,
        eod_id: 0,
        token_bytes_file: "token_bytes.u16".to_owned(),
        token_bytes_blake3: Hash::of(&token_bytes),
    };
    let build = Hash::of(b"generated");
    let mut shards = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let n_variants = source.families.iter().flatten().map(|text| text.0 + 1).max().unwrap_or(1);
        for variant in 0..n_variants {
            let spec = ShardSpec { vocab_size, eod: TokenId(0), tokenizer: tokenizer.blake3, build };
            let name = format!("{}-v{variant}-00000", source.name);
            let mut writer = ShardWriter::create(&out.join("shards"), &name, spec).expect("a shard");
            let mut docs: Vec<(FamilyId, usize, usize)> = Vec::new();
            for (family, texts) in source.families.iter().enumerate() {
                let text = texts.iter().find(|text| text.0 == variant);
                docs.extend(text.map(|text| (family_id(number, family), family, text.1)));
            }
            docs.sort_unstable();
            for (id, family, len) in docs {
                let meta = DocumentMeta {
                    family: id,
                    variant,
                    source: number as u16,
                    n_bytes: 3 * len as u32,
                    ..DocumentMeta::default()
                };
                let tokens: Vec<TokenId> = (0..len)
                    .map(|i| {
                        TokenId(1 + (token(number, family, variant, i) % u64::from(vocab_size - 1)) as u32)
                    })
                    .collect();
                writer.append(&format!("{family}/{variant}"), &meta, &tokens).expect("a document");
            }
            shards.push(writer.finish().expect("a shard"));
        }
    }
    let sources = sources.iter().map(|source| SourceInfo {
        name: source.name.to_owned(),
        variants: (0..4).map(|v| format!("v{v}")).collect(),
    });
    let manifest = Manifest {
        version: Manifest::VERSION,
        build,
        tokenizer,
        sources: sources.collect(),
        languages: Vec::new(),
        tags: Vec::new(),
        shards,
    };
    manifest.write(out).expect("a manifest");
    manifest
}

/// Id of a generated family.
pub fn family_id(source: usize, family: usize) -> FamilyId {
    FamilyId(mix64(mix64(source as u64 + 1) ^ family as u64))
}

fn token(source: usize, family: usize, variant: u8, i: usize) -> u64 {
    mix64(mix64(mix64(source as u64 ^ 77) ^ family as u64) ^ (u64::from(variant) << 32 | i as u64))
}
