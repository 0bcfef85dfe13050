//! Records of JSONL files, plain or compressed by gzip.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::definition::Where;
use super::template;
use crate::error::{Error, Result};

/// A record and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Number of its file.
    pub file: usize,
    /// Its line, from 1.
    pub line: usize,
    /// What it says.
    pub value: Value,
}

/// The records of some files whose fields have the values that are wanted.
///
/// # Errors
/// When a file cannot be read or a line is no JSON, and when no record is left.
pub fn read(files: &[PathBuf], only: &Where) -> Result<Vec<Record>> {
    let wanted = only.iter().map(|(path, wanted)| Ok((template::Path::parse(path)?, Value::from(wanted))));
    let wanted: Vec<_> =
        wanted.collect::<Result<_, String>>().map_err(|problem| Error::Config(vec![problem]))?;
    let mut records = Vec::new();
    for (file, path) in files.iter().enumerate() {
        for (index, line) in BufReader::new(open(path)?).lines().enumerate() {
            let line = line.map_err(Error::io("read", path))?;
            if line.trim().is_empty() {
                continue;
            }
            let value: Value = serde_json::from_str(&line)
                .map_err(|error| at(path, index + 1, &format!("expected a line of JSON: {error}")))?;
            let mut is_wanted = true;
            for (field, wanted) in &wanted {
                let found = field.find(&value).map_err(|problem| at(path, index + 1, &problem))?;
                is_wanted &= found == wanted;
            }
            if is_wanted {
                records.push(Record { file, line: index + 1, value });
            }
        }
    }
    if records.is_empty() {
        let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        let which = if only.is_empty() { "no record" } else { "no record has what `where` asks for" };
        return Err(Error::Data(format!("{}: {which}", names.join(", "))));
    }
    Ok(records)
}

/// An error in a line of a file.
pub fn at(path: &Path, line: usize, problem: &str) -> Error {
    Error::Data(format!("{}, line {line}: {problem}", path.display()))
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    let name = path.to_string_lossy().to_lowercase();
    if [".parquet", ".zst", ".arrow", ".csv"].iter().any(|ending| name.ends_with(ending)) {
        return Err(Error::Data(format!(
            "{}: tasks are read from JSONL, plain or compressed by gzip; write the records as such",
            path.display()
        )));
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    Ok(if name.ends_with(".gz") { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::definition::Wanted;
    use std::io::Write;

    #[test]
    fn plain_and_compressed_lines_are_records() {
        let dir = tempfile::tempdir().expect("dir");
        let text = "{\"a\": 1, \"split\": \"x\"}\n\n{\"a\": 2, \"split\": \"y\"}\n";
        let (plain, packed) = (dir.path().join("t.jsonl"), dir.path().join("t.jsonl.gz"));
        std::fs::write(&plain, text).expect("write");
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&packed).expect("file"), Default::default());
        encoder.write_all(text.as_bytes()).expect("write");
        encoder.finish().expect("write");
        let all = read(&[plain.clone(), packed], &Where::new()).expect("records");
        let found: Vec<_> = all.iter().map(|r| (r.file, r.line, r.value["a"].as_u64())).collect();
        assert_eq!(found, [(0, 1, Some(1)), (0, 3, Some(2)), (1, 1, Some(1)), (1, 3, Some(2))]);
        let only = |split: &str| Where::from([("split".to_string(), Wanted::Text(split.into()))]);
        assert_eq!(read(std::slice::from_ref(&plain), &only("y")).expect("records").len(), 1);
        let error = read(std::slice::from_ref(&plain), &only("z")).expect_err("nothing").to_string();
        assert!(error.contains("`where`"), "{error}");
        std::fs::write(&plain, "{\"a\": 1}\n{\"a\": \n").expect("write");
        let error = read(&[plain], &Where::new()).expect_err("no JSON").to_string();
        assert!(error.contains("line 2: expected a line of JSON"), "{error}");
    }
}
