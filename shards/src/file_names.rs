//! File names that are read from files: a manifest, a plan, a listing. They are joined to the folder that the
//! user named, for reading and for writing, so a name that leads elsewhere, on this or another system, is
//! refused when it is read.

use std::path::Path;

use crate::error::{Error, Result};

/// Longest name that file systems allow.
const MAX_BYTES: usize = 255;
/// Stems that Windows takes for devices, whatever follows after a dot.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// Whether a text is the name of one file in a folder, on every system: no separator, drive, stream, device,
/// control character, and neither `.` nor `..`.
pub fn is_plain(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let is_port = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt")).is_some_and(|port| {
        let mut port = port.chars();
        matches!(port.next(), Some('0'..='9' | '¹' | '²' | '³')) && port.next().is_none()
    });
    !name.is_empty()
        && name.len() <= MAX_BYTES
        && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | ':'))
        && !name.starts_with(' ')
        // This excludes `.` and `..`, and names that Windows would change.
        && !name.ends_with(['.', ' '])
        && !is_port
        && !DEVICES.contains(&stem.as_str())
}

/// Whether a text is a path below a folder: plain names separated by `/`.
pub fn is_below(path: &str) -> bool {
    path.split('/').all(is_plain)
}

/// Refuses a name that is not plain; `file` contains it.
///
/// # Errors
/// [`Error::Format`] with the name.
pub(crate) fn check_plain(file: &Path, what: &'static str, name: &str) -> Result<()> {
    check(is_plain(name), file, what, "the name of a file in its folder", name)
}

/// Refuses a path that is not below its folder; `file` contains it.
///
/// # Errors
/// [`Error::Format`] with the path.
pub(crate) fn check_below(file: &Path, what: &'static str, path: &str) -> Result<()> {
    check(is_below(path), file, what, "a path below the output folder", path)
}

fn check(is_good: bool, file: &Path, what: &'static str, expected: &str, name: &str) -> Result<()> {
    let expected = format!("{expected}, without `..`, drives and control characters");
    is_good.then_some(()).ok_or_else(|| Error::format(file, what, expected, format!("{name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for good in
            ["a-v0-00000", "tokenizer.json", ".moe-data", "ab@t39@long", "é x", "a..b", "console", "com10"]
        {
            assert!(is_plain(good), "{good:?}");
        }
        for bad in [
            "", ".", "..", "...", "../a", "a/b", "/a", "a\\b", "..\\a", "c:a", "c:\\a", "a:stream", "a\0b",
            "a\nb", "a.", "a ", " a", "nul", "NUL.bin", "con .x", "Com1", "lpt9.mdx", "a\u{85}b",
        ] {
            assert!(!is_plain(bad), "{bad:?}");
        }
        assert!(!is_plain(&"a".repeat(256)));
    }

    #[test]
    fn paths_are_plain_names_with_slashes() {
        for (path, expected) in [
            ("plan/ef3b784201f3/a-p000.pack", true),
            ("tokenizer.json", true),
            ("plan/../a", false),
            ("plan//a", false),
            ("/plan/a", false),
            ("plan/a/", false),
            ("plan\\a", false),
            ("", false),
        ] {
            assert_eq!(is_below(path), expected, "{path:?}");
        }
    }
}
