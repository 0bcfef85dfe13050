//! The file itself: appended to, one line at a time, and cut back on resume.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// An open metrics file.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens `path` for appending, after cutting off all lines of steps after `step`, and an unfinished last
    /// line left by a kill, so that no step appears twice.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        if path.exists() {
            let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
            let kept: String = text.split_inclusive('\n').filter(|line| is_kept(line, step)).collect();
            if kept != text {
                moe_shards::atomic::write_file(path, kept.as_bytes())?;
            }
        }
        let file =
            OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path, "open"))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, record: Map<String, Value>) -> Result<()> {
        let mut line = Value::Object(record).to_string();
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path, "write"))
    }

    /// Flushes the lines to disk.
    ///
    /// # Errors
    /// When the file cannot be flushed.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path, "flush"))
    }
}

fn is_kept(line: &str, step: u64) -> bool {
    line.ends_with('\n')
        && serde_json::from_str::<Value>(line)
            .ok()
            .and_then(|record| record.get("step")?.as_u64())
            .is_some_and(|found| found <= step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_checkpoint_are_cut_off() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"st").expect("write");
        let mut file = MetricsFile::open(&path, 2).expect("open");
        let mut record = Map::new();
        record.insert("step".into(), 3.into());
        file.append(record).expect("append");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
    }
}
