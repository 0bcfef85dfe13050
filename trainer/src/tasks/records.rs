//! Records of JSONL files, plain or compressed by gzip.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::definition::Where;
use super::template;
use crate::error::{Error, Result};

/// A record and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Number of its file.
    pub file: usize,
    /// Its line, from 1.
    pub line: usize,
    /// Its contents.
    pub value: Value,
}

/// Maximum bytes of a line; a longer one means that the file is of another kind.
const LONGEST_LINE: u64 = 1 << 28;

/// The first records of some files whose fields have the required values, at most `limit`.
///
/// # Errors
/// When a file cannot be read or a line is not JSON, and when no record is left.
pub fn read(files: &[PathBuf], only: &Where, limit: usize) -> Result<Vec<Record>> {
    let wanted = only.iter().map(|(path, wanted)| Ok((template::Path::parse(path)?, Value::from(wanted))));
    let wanted: Vec<_> =
        wanted.collect::<Result<_, String>>().map_err(|problem| Error::Config(vec![problem]))?;
    let mut records = Vec::new();
    for (file, path) in files.iter().enumerate() {
        let mut lines = Lines::open(path)?;
        while records.len() < limit {
            let Some((line, text)) = lines.next_line()? else { break };
            let value: Value = serde_json::from_str(text)
                .map_err(|error| at(path, line, &format!("expected a line of JSON: {error}")))?;
            let mut is_wanted = true;
            for (field, wanted) in &wanted {
                let found = field.find(&value).map_err(|problem| at(path, line, &problem))?;
                is_wanted &= found == wanted;
            }
            if is_wanted {
                records.push(Record { file, line, value });
            }
        }
    }
    if records.is_empty() && limit > 0 {
        let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        let which = if only.is_empty() { "no record" } else { "no record matches `where`" };
        return Err(Error::Data(format!("{}: {which}", names.join(", "))));
    }
    Ok(records)
}

/// An error in a line of a file.
pub fn at(path: &Path, line: usize, problem: &str) -> Error {
    Error::Data(format!("{}, line {line}: {problem}", path.display()))
}

/// The lines of a file that are not blank.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<Box<dyn Read>>,
    is_compressed: bool,
    /// Lines read so far, blank ones too.
    n: usize,
    buffer: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let name = path.to_string_lossy().to_lowercase();
        if [".parquet", ".zst", ".arrow", ".csv"].iter().any(|ending| name.ends_with(ending)) {
            return Err(Error::Data(format!(
                "{}: tasks are read from JSONL, plain or compressed with gzip; convert the records to JSONL",
                path.display()
            )));
        }
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let is_compressed = name.ends_with(".gz");
        let reader: Box<dyn Read> =
            if is_compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self { path, reader: BufReader::new(reader), is_compressed, n: 0, buffer: Vec::new() })
    }

    /// The next line with its number, from 1, without a byte order mark; `None` at the end.
    fn next_line(&mut self) -> Result<Option<(usize, &str)>> {
        let Self { path, reader, is_compressed, n, buffer } = self;
        loop {
            buffer.clear();
            *n += 1;
            let read = reader.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', buffer);
            read.map_err(|error| match *is_compressed {
                true => at(path, *n, &format!("the compressed file is truncated or damaged: {error}")),
                false => Error::io(path, "read")(error),
            })?;
            if buffer.is_empty() {
                return Ok(None);
            }
            if buffer.len() as u64 > LONGEST_LINE {
                let longest = LONGEST_LINE >> 20;
                return Err(at(path, *n, &format!("expected a line of JSON, found more than {longest} MiB")));
            }
            if *n == 1 && buffer.starts_with(b"\x1f\x8b") {
                let problem = "is compressed with gzip; give it a name that ends in .gz";
                return Err(Error::Data(format!("{}: {problem}", path.display())));
            }
            if *n == 1 && buffer.starts_with(b"\xef\xbb\xbf") {
                buffer.drain(..3);
            }
            if !buffer.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        let text = std::str::from_utf8(buffer).map_err(|error| {
            at(path, *n, &format!("expected UTF-8: invalid bytes from {} on", error.valid_up_to()))
        })?;
        Ok(Some((*n, text)))
    }
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
        let all = read(&[plain.clone(), packed], &Where::new(), usize::MAX).expect("records");
        let found: Vec<_> = all.iter().map(|r| (r.file, r.line, r.value["a"].as_u64())).collect();
        assert_eq!(found, [(0, 1, Some(1)), (0, 3, Some(2)), (1, 1, Some(1)), (1, 3, Some(2))]);
        let only = |split: &str| Where::from([("split".to_string(), Wanted::Text(split.into()))]);
        assert_eq!(read(std::slice::from_ref(&plain), &only("y"), 9).expect("records").len(), 1);
        let error = read(std::slice::from_ref(&plain), &only("z"), 9).expect_err("nothing").to_string();
        assert!(error.contains("`where`"), "{error}");
        std::fs::write(&plain, "{\"a\": 1}\n{\"a\": \n").expect("write");
        let error = read(&[plain], &Where::new(), 9).expect_err("no JSON").to_string();
        assert!(error.contains("line 2: expected a line of JSON"), "{error}");
    }

    #[test]
    fn nothing_past_the_limit_is_read() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("t.jsonl");
        std::fs::write(&path, "{\"a\": 1}\n{\"a\": 2}\n{\"a\": ").expect("write");
        let files = [path];
        assert!(read(&files, &Where::new(), 3).is_err());
        assert_eq!(read(&files, &Where::new(), 2).expect("two records").len(), 2);
    }

    #[test]
    fn other_files_are_refused_with_their_line() {
        let dir = tempfile::tempdir().expect("dir");
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("write");
            let found = read(&[path], &Where::new(), usize::MAX);
            let found = found.map(|records| format!("{} records", records.len()));
            let said = found.unwrap_or_else(|error| format!("{error} ({})", error.exit_code()));
            assert!(said.contains(expected), "{name}: {said}");
        };
        let line = b"{\"a\": 1}\n".repeat(99);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(&line).expect("write");
        let packed = encoder.finish().expect("bytes");
        check("mark.jsonl", b"\xef\xbb\xbf{\"a\": 1}\n", "1 records");
        check("latin.jsonl", b"{\"a\": 1}\n{\"a\": \"\xe9\"}\n", "latin.jsonl, line 2: expected UTF-8");
        check("packed.jsonl", &packed, "a name that ends in .gz (3)");
        check("whole.jsonl.gz", &packed, "99 records");
        check("cut.jsonl.gz", &packed[..packed.len() - 9], "truncated or damaged");
        check("plain.jsonl.gz", &line, "plain.jsonl.gz, line 1: the compressed file is truncated or damaged");
        check("cut.jsonl.gz", &packed[..packed.len() - 9], "(3)");
    }
}
