//! Archives as folders: each file in a tar or zip archive is read as if it lay in a folder with the archive's name. Nothing is
//! unpacked to the disk, and an archive is one task.

mod tar;
mod zip;

use std::path::{Path, PathBuf};

use super::sniff::{self, Archive, Kind};
use super::stream::{FREE_EXPANSION_BYTES, Stream};
use super::{Cause, Fault, FieldPaths, Form, Limits, Reader, Record, Unit, Whole, magic, text};
use crate::error::Result;

pub(super) struct ArchiveReader {
    members: Box<dyn Members>,
    /// Name of the archive, which begins those of its files.
    name: String,
    form: Form,
    fields: FieldPaths,
    limits: Limits,
    current: Option<Box<dyn Reader>>,
    /// Name of the file under way.
    member: String,
    seen: u8,
    /// Bytes of the records so far.
    made: u64,
    is_empty: bool,
    ended: bool,
}

/// The files of an archive, one after another.
trait Members {
    fn next_member(&mut self) -> Result<Member>;

    /// Bytes of the archive that have been used.
    fn consumed_bytes(&self) -> u64;
}

/// What comes next in an archive.
enum Member {
    File {
        name: String,
        n_bytes: u64,
        stream: Box<Stream>,
    },
    /// An unreadable file: what it is and what to do.
    Skipped {
        name: String,
        n_bytes: u64,
        what: &'static str,
    },
    /// The rest of the archive is lost.
    Bad(Fault),
    End,
}

impl ArchiveReader {
    /// Opens an archive at the start of `stream`.
    pub fn open(archive: Archive, path: &Path, stream: Stream, whole: &Whole<'_>) -> Result<Box<dyn Reader>> {
        let refused =
            |what| Ok(Box::new(text::Refused::new(whole.name, whole.n_bytes, what)) as Box<dyn Reader>);
        let members: Box<dyn Members> = match archive {
            Archive::Tar => Box::new(tar::Tar::new(path, stream, whole.limits)),
            Archive::Zip if !stream.is_plain() => return refused(magic::NESTED),
            Archive::Zip => match zip::Zip::open(path, whole.limits)? {
                Ok(zip) => Box::new(zip),
                Err(what) => return refused(what),
            },
        };
        Ok(Box::new(ArchiveReader {
            members,
            name: whole.name.to_owned(),
            form: whole.form,
            fields: whole.fields.clone(),
            limits: whole.limits,
            current: None,
            member: String::new(),
            seen: 0,
            made: 0,
            is_empty: true,
            ended: false,
        }))
    }

    /// Starts the next file; a bad record if it cannot be started.
    fn next_file(&mut self) -> Result<Option<Record>> {
        match self.members.next_member()? {
            Member::End => {
                self.ended = true;
                let empty = std::mem::take(&mut self.is_empty);
                Ok(empty.then(|| Record::bad(0, 0, Fault::from(Cause::EmptyFile).at(b""))))
            }
            Member::Bad(fault) => {
                (self.ended, self.is_empty) = (true, false);
                self.member.clear();
                Ok(Some(Record::bad(self.members.consumed_bytes(), 0, fault.at(b""))))
            }
            // As in a folder.
            Member::File { name, .. } | Member::Skipped { name, .. } if is_hidden(&name) => Ok(None),
            Member::Skipped { name, n_bytes, what } => {
                let full = self.start(name);
                self.current = Some(Box::new(text::Refused::new(&full, n_bytes, what)));
                Ok(None)
            }
            Member::File { name, n_bytes, stream } => {
                let place = PathBuf::from(&name);
                let full = self.start(name);
                let sniff::Sniffed { kind, stream } = sniff::sniff(*stream, &place, self.form)?;
                let (form, fields, limits) = (self.form, &self.fields, self.limits);
                let kind = match kind {
                    Kind::Archive(_) => Kind::Refused(magic::NESTED),
                    other => other,
                };
                let whole = Whole { name: &full, n_bytes, form, fields, limits };
                self.current = Some(whole.reader(kind, stream));
                Ok(None)
            }
        }
    }

    /// Records the current file, and returns its full name.
    fn start(&mut self, name: String) -> String {
        self.is_empty = false;
        let full = format!("{}/{name}", self.name);
        self.member = name;
        full
    }
}

/// Hidden names, and files added by macOS.
fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX")
}

/// A name without parts that lead out of a folder: it is an id, never a path.
fn clean_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let parts = name.split(['/', '\\']).filter(|part| !matches!(*part, "" | "." | ".."));
    parts.collect::<Vec<_>>().join("/")
}

impl Reader for ArchiveReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        while !self.ended {
            let Some(reader) = &mut self.current else {
                if let Some(record) = self.next_file()? {
                    return Ok(Some(record));
                }
                continue;
            };
            let record = reader.next_record()?;
            self.seen |= reader.seen();
            let Some(record) = record else {
                self.current = None;
                continue;
            };
            // Compressed members, and zip members that share bytes, grow beyond what each stream sees.
            self.made = self.made.saturating_add(record.n_bytes);
            let allowed = self.members.consumed_bytes().saturating_mul(self.limits.max_expansion);
            if self.made > allowed.max(FREE_EXPANSION_BYTES) && record.content.is_ok() {
                self.ended = true;
                let bad = Fault::from(Cause::TooMuchExpansion).at(b"");
                return Ok(Some(Record::bad(record.offset, record.n_bytes, bad)));
            }
            return Ok(Some(record));
        }
        Ok(None)
    }

    fn consumed_bytes(&self) -> u64 {
        self.members.consumed_bytes()
    }

    fn unit(&self) -> Unit {
        self.current.as_ref().map_or(Unit::Byte, |reader| reader.unit())
    }

    fn member(&self) -> Option<&str> {
        Some(self.member.as_str()).filter(|name| !name.is_empty())
    }

    fn seen(&self) -> u8 {
        self.seen
    }
}

#[cfg(test)]
mod tests;
