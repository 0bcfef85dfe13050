//! Files of checked lines that grow: the segment that is being written, and the poison list.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use moe_shards::atomic;

use super::line;
use crate::error::{Error, Result};

/// A file of lines. The first says what the file is, the others are checked ([`line`]).
#[derive(Debug)]
pub(crate) struct Plain {
    path: PathBuf,
    file: File,
    /// Bytes up to the last line end.
    len: u64,
}

/// The contents of a file of lines.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The file's bytes up to the last line end.
    pub(crate) bytes: Vec<u8>,
    /// Places of the lines that are as they were written, without their line ends.
    pub(crate) whole: Vec<(u32, u32)>,
    /// Bytes after the last line end: what a killed writer left unfinished.
    pub(crate) torn_bytes: u64,
    /// Lines that are not as they were written.
    pub(crate) damaged: u64,
}

impl Plain {
    /// Makes a file with its first line.
    pub(crate) fn create(path: &Path, header: &str) -> Result<Plain> {
        atomic::write_file(path, format!("{header}\n").as_bytes())?;
        Plain::open(path, header).map(|(plain, _)| plain)
    }

    /// Opens a file and reads its lines.
    ///
    /// # Errors
    /// The file cannot be read, or does not begin with `header`.
    pub(crate) fn open(path: &Path, header: &str) -> Result<(Plain, Lines)> {
        let writable = File::options().read(true).write(true).open(path);
        // A reader may have no right to write.
        let mut file = writable.or_else(|_| File::open(path)).map_err(Error::io(path, "open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
        if !bytes.starts_with(format!("{header}\n").as_bytes()) {
            let first: Vec<u8> = bytes.iter().copied().take_while(|&b| b != b'\n').take(80).collect();
            let first = String::from_utf8_lossy(&first).into_owned();
            let hint = "hint: a newer version may have written it; this one cannot read it";
            let message = format!("expected the first line {header}, found `{first}`\n  {hint}");
            return Err(Error::data(path, message));
        }
        let lines = Lines::of(bytes, header.len() + 1);
        let len = lines.bytes.len() as u64;
        Ok((Plain { path: path.to_owned(), file, len }, lines))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of whole lines.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Removes the torn tail, so that lines can be appended.
    pub(crate) fn mend(&mut self) -> Result<()> {
        self.file.set_len(self.len).map_err(Error::io(&self.path, "mend"))?;
        self.sync()
    }

    /// Appends a line with its line end, in one write, and says where it is.
    pub(crate) fn append(&mut self, line: &str) -> Result<u64> {
        let at = self.len;
        self.file.write_all_at(line.as_bytes(), at).map_err(Error::io(&self.path, "write"))?;
        self.len += line.len() as u64;
        Ok(at)
    }

    /// Makes all lines survive a power failure.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path, "flush"))
    }

    /// The line at a place, without its line end.
    pub(crate) fn line(&self, at: u64) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut block = vec![0; 8 << 10];
        loop {
            let n = self.file.read_at(&mut block, at + line.len() as u64);
            let n = n.map_err(Error::io(&self.path, "read"))?;
            let end = block[..n].iter().position(|&b| b == b'\n');
            line.extend_from_slice(&block[..end.unwrap_or(n)]);
            if end.is_some() || n == 0 {
                return Ok(line);
            }
        }
    }

    /// All whole lines, the first one too.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(Error::io(&self.path, "read"))?;
        Ok(bytes)
    }
}

impl Lines {
    /// Separates the lines from `start` on that are as they were written from the others. A killed writer
    /// leaves no line end, so a wrong line with one is damage.
    pub(crate) fn of(mut bytes: Vec<u8>, start: usize) -> Lines {
        let total = bytes.len();
        let (mut whole, mut damaged) = (Vec::new(), 0);
        let mut at = start;
        while let Some(len) = bytes[at..].iter().position(|&b| b == b'\n') {
            match line::open(&bytes[at..at + len]) {
                Some(_) => whole.push((at as u32, (at + len) as u32)),
                None => damaged += 1,
            }
            at += len + 1;
        }
        bytes.truncate(at);
        Lines { torn_bytes: (total - at) as u64, bytes, whole, damaged }
    }

    /// The bytes of the line at a place from `whole`.
    pub(crate) fn line(&self, place: (u32, u32)) -> &[u8] {
        &self.bytes[place.0 as usize..place.1 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"format":"test"}"#;

    #[test]
    fn a_cut_anywhere_loses_the_cut_line_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let mut plain = Plain::create(&path, HEADER).unwrap();
        let mut ends = vec![HEADER.len() + 1];
        for i in 0..4 {
            plain.append(&line::seal(&format!("{{\"i\":{i}}}"))).unwrap();
            ends.push(plain.len() as usize);
        }
        let bytes = std::fs::read(&path).unwrap();
        for len in HEADER.len() + 1..=bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            let (mut cut, lines) = Plain::open(&path, HEADER).unwrap();
            let n_whole = ends.iter().filter(|&&end| end <= len).count() - 1;
            assert_eq!((lines.whole.len(), lines.damaged), (n_whole, 0));
            assert_eq!(lines.torn_bytes, (len - ends[n_whole]) as u64);
            cut.mend().unwrap();
            let at = cut.append(&line::seal(r#"{"new":1}"#)).unwrap();
            assert!(cut.line(at).unwrap().ends_with(br#""new":1}"#));
            let (_, lines) = Plain::open(&path, HEADER).unwrap();
            assert_eq!((lines.whole.len(), lines.torn_bytes), (n_whole + 1, 0));
        }
    }

    #[test]
    fn damage_is_counted_and_kept_also_in_the_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let mut plain = Plain::create(&path, HEADER).unwrap();
        for i in 0..3 {
            plain.append(&line::seal(&format!("{{\"i\":{i}}}"))).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for at in [HEADER.len() + 5, whole.len() - 5] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let (mut plain, lines) = Plain::open(&path, HEADER).unwrap();
            assert_eq!((lines.whole.len(), lines.damaged, lines.torn_bytes), (2, 1, 0));
            plain.mend().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn another_kind_of_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, "{\"format\":\"other\"}\n").unwrap();
        let error = Plain::open(&path, HEADER).unwrap_err().to_string();
        assert!(error.contains("other") && error.contains("test"), "{error}");
    }
}
