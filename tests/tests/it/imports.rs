use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A path of modules below the root of a crate.
pub type Module = Vec<String>;

/// What a file names of its own crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Line, from 1.
    pub line: usize,
    /// Path below the root of the crate.
    pub path: Module,
}

/// The files of a crate with what they import from each other, tests left out.
pub struct Crate {
    files: BTreeMap<Module, Vec<Import>>,
    /// What a file hands on from others, by its name there.
    handed_on: BTreeMap<(Module, String), Module>,
}

impl Crate {
    pub fn read(src: &Path) -> Crate {
        let mut texts = BTreeMap::new();
        for file in super::tidy::rust_files(src) {
            let mut module: Module = (file.strip_prefix(src).unwrap().with_extension("").iter())
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            if module.last().is_some_and(|name| name == "mod") || module == ["lib"] {
                module.pop();
            }
            if module != ["main"] && module.last().is_none_or(|name| name != "tests") {
                texts.insert(module, fs::read_to_string(file).unwrap());
            }
        }
        Crate::of(texts)
    }

    fn of(texts: BTreeMap<Module, String>) -> Crate {
        let (mut files, mut handed_on) = (BTreeMap::new(), BTreeMap::new());
        for (module, text) in &texts {
            let mut imports = Vec::new();
            for Named { line, path, name, is_public } in names(&without_tests(&code(text))) {
                let child = [&module[..], &path[..1]].concat();
                let is_own = ["crate", "self", "super"].contains(&path[0].as_str());
                if !is_own && !texts.contains_key(&child) {
                    continue;
                }
                let path = absolute(module, path);
                if is_public && let Some(name) = name {
                    handed_on.insert((module.clone(), name), path.clone());
                }
                imports.push(Import { line, path });
            }
            files.insert(module.clone(), imports);
        }
        Crate { files, handed_on }
    }

    /// All files with what they import.
    pub fn files(&self) -> impl Iterator<Item = (&Module, &[Import])> {
        self.files.iter().map(|(module, imports)| (module, &imports[..]))
    }

    /// The file in which a path is defined, not one that hands it on.
    pub fn file_of(&self, path: &[String]) -> &Module {
        let mut path = path.to_vec();
        // Longer chains than this would be circles.
        for _ in 0..8 {
            let known =
                (0..=path.len()).rev().find_map(|n| Some((n, self.files.get_key_value(&path[..n])?.0)));
            let (n, file) = known.expect("the root of the crate has a file");
            let next = path.get(n).and_then(|name| self.handed_on.get(&(file.clone(), name.clone())));
            match next {
                Some(origin) => path = [&origin[..], &path[n + 1..]].concat(),
                None => return file,
            }
        }
        panic!("{} is handed on in a circle", path.join("::"));
    }

    /// The files that import each other, directly or by way of others. A file may name what the `mod.rs` of its own
    /// folders defines, which names it in turn.
    pub fn circles(&self) -> Vec<String> {
        let uses: BTreeMap<&Module, BTreeSet<&Module>> = (self.files.iter())
            .map(|(module, imports)| {
                let used = imports.iter().map(|import| self.file_of(&import.path));
                (module, used.filter(|used| !module.starts_with(used)).collect())
            })
            .collect();
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            uses.keys().map(|module| (*module, reached(&uses, module))).collect();
        let mut circles = BTreeSet::new();
        for (module, seen) in &reached {
            let circle: Vec<String> =
                seen.iter().filter(|other| reached[**other].contains(module)).map(|m| m.join("::")).collect();
            if !circle.is_empty() {
                circles.insert(circle.join(", "));
            }
        }
        circles.into_iter().collect()
    }
}

/// The files that one imports, directly or by way of others.
fn reached<'a>(uses: &BTreeMap<&'a Module, BTreeSet<&'a Module>>, from: &'a Module) -> BTreeSet<&'a Module> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(module) = left.pop() {
        left.extend(uses[module].iter().filter(|used| seen.insert(**used)));
    }
    seen
}

/// A path as it is written, with the name that it gets.
struct Named {
    line: usize,
    path: Module,
    /// Absent where the path is not imported but used.
    name: Option<String>,
    is_public: bool,
}

fn absolute(module: &[String], path: Module) -> Module {
    let mut base = match path[0].as_str() {
        "crate" => Vec::new(),
        _ => module.to_vec(),
    };
    for name in path {
        match name.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            _ => base.push(name),
        }
    }
    base
}

/// The code with comments and the insides of strings blanked out.
fn code(text: &str) -> String {
    let mut out: Vec<char> = text.chars().collect();
    let (mut at, end) = (0, out.len());
    let starts = |out: &[char], at: usize, what: &str| {
        what.chars().enumerate().all(|(i, c)| out.get(at + i) == Some(&c))
    };
    while at < end {
        // `r` at the end of a word is no sign of a raw string, `br` is.
        let is_word = at > 0 && out[at - 1] != 'b' && (out[at - 1].is_alphanumeric() || out[at - 1] == '_');
        let hashes = (at + 1..end).take_while(|&i| out[i] == '#').count();
        let stop = if starts(&out, at, "//") {
            (at..end).find(|&i| out[i] == '\n').unwrap_or(end)
        } else if starts(&out, at, "/*") {
            (at..end).find(|&i| starts(&out, i, "*/")).map_or(end, |i| i + 2)
        } else if out[at] == 'r' && !is_word && out.get(at + 1 + hashes) == Some(&'"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let inside = at + 2 + hashes;
            (inside..end).find(|&i| starts(&out, i, &close)).map_or(end, |i| i + close.len())
        } else if out[at] == '"' {
            let mut i = at + 1;
            while i < end && out[i] != '"' {
                i += 1 + usize::from(out[i] == '\\');
            }
            i + 1
        } else if out[at] == '\'' && (out.get(at + 1) == Some(&'\\') || out.get(at + 2) == Some(&'\'')) {
            let from = if out[at + 1] == '\\' { at + 3 } else { at + 2 };
            (from..end).find(|&i| out[i] == '\'').map_or(end, |i| i + 1)
        } else {
            at += 1;
            continue;
        };
        let stop = stop.min(end);
        out[at..stop].iter_mut().filter(|c| **c != '\n').for_each(|c| *c = ' ');
        at = stop;
    }
    out.into_iter().collect()
}

/// Code without the items that only tests have; what follows them stays, in its line.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some((before, item)) = rest.split_once(MARK) {
        out.push_str(before);
        let mut depth = 0;
        let end = item.char_indices().find(|(_, c)| {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(c, ';' | '}')
        });
        let (item, behind) = item.split_at(end.map_or(item.len(), |(at, _)| at + 1));
        out.extend(item.chars().filter(|c| *c == '\n'));
        rest = behind;
    }
    out + rest
}

/// Words, `::` and all other characters, each with its line.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let mut token = c.to_string();
            let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
            if is_word(&c) {
                while let Some(next) = chars.next_if(is_word) {
                    token.push(next);
                }
            } else if c == ':' && chars.next_if_eq(&':').is_some() {
                token.push(':');
            } else if c.is_whitespace() {
                continue;
            }
            tokens.push((line + 1, token));
        }
    }
    tokens
}

/// All paths of code, those in groups one by one.
fn names(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let token = |at: usize| tokens.get(at).map_or("", |(_, token)| token.as_str());
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = if at == 0 { "" } else { token(at - 1) };
        let is_word = token(at).chars().all(|c| c.is_alphanumeric() || c == '_');
        if token(at) == "use" {
            let is_public = before == "pub" || before == ")";
            let first = found.len();
            at = tree(&tokens, at + 1, &[], &mut found);
            found[first..].iter_mut().for_each(|named| named.is_public = is_public);
        } else if is_word && before != "::" && token(at + 1) == "::" {
            let first = found.len();
            at = tree(&tokens, at, &[], &mut found);
            found[first..].iter_mut().for_each(|named| named.name = None);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the tree of paths that starts at a token, and returns where it ends.
fn tree(tokens: &[(usize, String)], mut at: usize, before: &[String], found: &mut Vec<Named>) -> usize {
    let token = |at: usize| tokens.get(at).map_or("", |(_, token)| token.as_str());
    if token(at) == "{" {
        at += 1;
        while at < tokens.len() && token(at) != "}" {
            at = if token(at) == "," { at + 1 } else { tree(tokens, at, before, found) };
        }
        return at + 1;
    }
    let is_name = |token: &str| token.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    let line = tokens.get(at).map_or(0, |(line, _)| *line);
    let mut path = before.to_vec();
    if is_name(token(at)) {
        path.push(token(at).to_owned());
    }
    let next = token(at + 2);
    if token(at + 1) == "::" && (is_name(next) || next == "{" || next == "*") {
        return tree(tokens, at + 2, &path, found);
    }
    if path.is_empty() {
        return at + 1;
    }
    let is_renamed = token(at + 1) == "as";
    let name = if is_renamed { token(at + 2) } else { path[path.len() - 1].as_str() };
    found.push(Named { line, name: Some(name.to_owned()), path: path.clone(), is_public: false });
    if is_renamed { at + 3 } else { at + 1 }
}

fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let module = |path: &str| path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let root = [("", "")];
    let texts = root.iter().chain(files).map(|(path, text)| (module(path), (*text).to_owned()));
    Crate::of(texts.collect()).circles()
}

#[test]
fn circles_of_files_are_found() {
    // Through a group, behind a test, and by a path in the middle of code.
    let a = "#[cfg(test)]\nmod tests;\nuse crate::{b, c::C as D};";
    assert_eq!(circles(&[("a", a), ("b", ""), ("c", "fn f() { crate::a::g() }")]), ["a, c"]);
    // By way of a file that hands on what another one defines.
    let files = [("a", "pub use self::x::X;"), ("a::x", "use crate::b::f;"), ("b", "use crate::a::{X};")];
    assert_eq!(circles(&files), ["a::x, b"]);
    assert_eq!(
        circles(&[("a::x", "use super::y;"), ("a::y", "use super::x::{self, X};"), ("a", "")]),
        ["a::x, a::y"]
    );
}

#[test]
fn what_is_no_circle_is_none() {
    // A file and the one above it, tests, comments, texts, and other crates with the name of a module.
    assert_eq!(circles(&[("a", "mod x; use self::x::X;"), ("a::x", "use super::Y;")]), [""; 0]);
    assert_eq!(
        circles(&[("a", "use crate::b::B;"), ("b", "#[cfg(test)]\nmod tests { use crate::a::A; }")]),
        [""; 0]
    );
    let texts = "// use crate::a;\n/* crate::a::x */ const A: &str = \"crate::a\"; const B: &str = r#\"\"crate::a\"#;";
    assert_eq!(circles(&[("a", "use crate::b::B;"), ("b", texts)]), [""; 0]);
    assert_eq!(circles(&[("a", "use crate::b::B;"), ("b", "use a::A;")]), [""; 0]);
}
