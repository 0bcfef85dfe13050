//! Helpers of the end-to-end tests: the binaries, scratch folders, and
//! processes that get killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use moe_shards::Hash;

/// The repository's root.
pub fn repo() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).unwrap_or_default()
}

/// A binary of the workspace, in the folder of the running test.
///
/// # Panics
/// It has not been built: run the tests of the whole workspace.
pub fn bin(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let dir = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
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

/// Runs a command that must succeed; returns its standard output.
///
/// # Panics
/// It fails; the message has all its output.
pub fn succeed(name: &str, dir: &Path, args: &[&str]) -> String {
    let output = run(name, dir, args);
    assert!(output.status.success(), "{name} {args:?}: {}\n{}", output.status, both(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that must fail with an exit code; returns its standard error.
///
/// # Panics
/// It succeeds, fails with another code, or panicked.
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

/// Starts a command, lets it work for a while and kills it with SIGKILL; returns whether it was still
/// running.
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
