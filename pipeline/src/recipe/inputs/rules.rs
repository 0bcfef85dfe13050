//! Which files below a path are read: patterns as in a `.gitignore`, from a recipe, from flags, and from files `.moeignore` or
//! `.gitignore` itself.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// Name of a file of patterns for its folder.
const IGNORE_FILE: &str = ".moeignore";
/// The same of git.
const GIT_FILE: &str = ".gitignore";

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Patterns; the last match counts.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    /// The folder of the pattern, with a `/` at the end.
    base: String,
    /// With a `/` inside, the pattern matches the whole path below the folder; else a name at any depth.
    is_of_place: bool,
    is_of_folders: bool,
    takes_back: bool,
}

impl Rules {
    /// Reads patterns; `base` is their folder: empty, or with a `/` at the end.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn add<'l>(&mut self, base: &str, lines: impl IntoIterator<Item = &'l str>) -> Result<(), String> {
        for line in lines {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (takes_back, rest) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
            let rest = rest.strip_prefix('\\').unwrap_or(rest);
            let (is_of_folders, rest) = rest.strip_suffix('/').map_or((false, rest), |rest| (true, rest));
            let is_of_place = rest.contains('/');
            let pattern = Pattern::new(rest.strip_prefix('/').unwrap_or(rest))
                .map_err(|e| format!("`{line}` is not a pattern: {}", e.msg))?;
            self.rules.push(Rule { pattern, base: base.to_owned(), is_of_place, is_of_folders, takes_back });
        }
        Ok(())
    }

    /// Reads the patterns of a folder, if any; `base` is its path. Git's come first, so that ours may override what they
    /// leave out.
    pub(super) fn add_files(&mut self, folder: &Path, base: &str, with_git: bool) -> Result<(), String> {
        let of_git = if with_git { read(folder, GIT_FILE)? } else { None };
        if let Some((_, text)) = of_git {
            // Git treats an invalid pattern as one that matches nothing.
            text.lines().for_each(|line| self.add(base, [line]).unwrap_or_default());
        }
        let Some((path, text)) = read(folder, IGNORE_FILE)? else { return Ok(()) };
        self.add(base, text.lines()).map_err(|message| format!("{}: {message}", path.display()))
    }

    /// Whether there do not count.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the file at this path is covered, directly or through one of its folders.
    pub fn covers(&self, place: &str) -> bool {
        let folders = place.match_indices('/').map(|(end, _)| (&place[..end], true));
        folders.chain([(place, false)]).any(|(place, is_folder)| self.matches(place, is_folder))
    }

    fn matches(&self, place: &str, is_folder: bool) -> bool {
        let last = self.rules.iter().rev().find(|rule| {
            let Some(below) = place.strip_prefix(&rule.base) else { return false };
            let name = below.rsplit('/').next().unwrap_or(below);
            let what = if rule.is_of_place { below } else { name };
            (is_folder || !rule.is_of_folders) && rule.pattern.matches_with(what, OPTIONS)
        });
        last.is_some_and(|rule| !rule.takes_back)
    }
}

/// A file of a folder, if it is there.
fn read(folder: &Path, name: &str) -> Result<Option<(PathBuf, String)>, String> {
    let path = folder.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_a_gitignore() {
        let covers = |lines: &[&str], place: &str| {
            let mut rules = Rules::default();
            rules.add("", lines.iter().copied()).unwrap();
            rules.covers(place)
        };
        for (lines, place, expected) in [
            (&["*.tmp"][..], "a/b.tmp", true),
            (&["*.tmp"], "a/b.txt", false),
            (&["/a.txt"], "a.txt", true),
            (&["/a.txt"], "sub/a.txt", false),
            (&["sub/*.txt"], "sub/a.txt", true),
            (&["sub/*.txt"], "sub/b/a.txt", false),
            (&["**/cache/*"], "x/y/cache/a", true),
            (&["docs/**"], "docs/a/b", true),
            (&["build/"], "build/a/b.txt", true),
            (&["build/"], "x/build", false),
            (&["node_modules"], "x/node_modules/y/z.md", true),
            (&["*.log", "!keep.log"], "keep.log", false),
            (&["!keep.log", "*.log"], "keep.log", true),
            (&["# *", "", "b?"], "bc", true),
            (&["\\#a"], "#a", true),
        ] {
            assert_eq!(covers(lines, place), expected, "{lines:?} {place}");
        }
        assert!(Rules::default().add("", ["a[b"]).unwrap_err().contains("`a[b` is not a pattern"));
    }
}
