//! Sources from flags instead of a recipe's.

use std::path::{Path, PathBuf};

use clap::Args;

use super::fields::first_field_names;
use crate::error::{Error, Result};
use crate::mix::count;
use crate::read::Limits;
use crate::recipe::{SourceConfig, inputs};

/// Settings from flags for the files and records to read.
#[derive(Clone, Debug, Default, Args)]
pub struct InputFilters {
    /// Read only the files of --input that match this pattern, as in a .gitignore; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "input")]
    pub include: Vec<String>,
    /// Skip files of --input that match this pattern, as in a .gitignore; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "input")]
    pub exclude: Vec<String>,
    /// Skip files of --input that a .gitignore in its folders covers
    #[arg(long, requires = "input")]
    pub gitignore: bool,
    /// Read at most N records of each source, such as 10K, to try out a recipe
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub limit: Option<u64>,
}

/// A count above 0.
fn parse_limit(text: &str) -> std::result::Result<u64, String> {
    match count::parse_u64(text)? {
        0 => Err("expected 1 record or more".to_owned()),
        n => Ok(n),
    }
}

/// One source for each path, named after its stem.
pub(super) fn sources_of(input: &[PathBuf], filters: &InputFilters) -> Result<Vec<SourceConfig>> {
    let mut sources: Vec<SourceConfig> = Vec::new();
    for path in input {
        let name = stem(path);
        if let Some(other) = sources.iter().find(|source| source.name == name) {
            let message = format!(
                "--input {} and {} would both be called `{name}`; rename one or write a recipe",
                other.paths[0],
                path.display()
            );
            return Err(Error::Usage(message));
        }
        let mut source = SourceConfig {
            name,
            paths: vec![path.to_string_lossy().into_owned()],
            include: filters.include.clone(),
            exclude: filters.exclude.clone(),
            gitignore: filters.gitignore,
            ..SourceConfig::default()
        };
        // The search for files reports unreadable paths better.
        let files =
            inputs::find_input(Path::new(""), &source.paths, &source.choice()).unwrap_or_default().files;
        let names = first_field_names(&source, &files, Limits::default())?;
        source.id = names.filter(|names| names.contains("id")).map(|_| "id".to_owned());
        // Other files of the folder may have none.
        source.id_optional = source.id.is_some();
        sources.push(source);
    }
    Ok(sources)
}

/// The file name up to its first dot, in the characters of a source name.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = name.trim_start_matches('.').split('.').next().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let stem: String = stem.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if stem.is_empty() { "input".to_owned() } else { stem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_stems() {
        for (path, name) in
            [("a/Web Text.jsonl.gz", "web_text"), ("x.parquet", "x"), ("..", "input"), ("é", "_")]
        {
            assert_eq!(stem(Path::new(path)), name, "{path}");
        }
    }

    #[test]
    fn two_inputs_of_one_name_are_refused() {
        let error =
            sources_of(&["a/x.txt".into(), "b/x.jsonl".into()], &InputFilters::default()).unwrap_err();
        assert!(error.to_string().contains("`x`"), "{error}");
    }
}
