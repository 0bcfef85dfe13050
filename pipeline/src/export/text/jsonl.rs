//! JSON Lines: one object per document. Keys have a fixed order, and all objects of an export have the same ones, null where
//! nothing is known.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{Columns, Record, RecordWriter, TextCompression, family_name};
use crate::error::{Error, Result};
use crate::export::{Exported, HashedFile};

/// Default levels of both libraries.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

/// Starts a file that appears at `path` when it is finished.
pub(super) fn create(
    path: &Path,
    columns: Columns,
    compression: TextCompression,
) -> Result<Box<dyn RecordWriter>> {
    let file = HashedFile::create(path)?;
    let path = path.to_owned();
    Ok(match compression {
        TextCompression::Zstd => {
            let encoder = zstd::Encoder::new(file, ZSTD_LEVEL).map_err(Error::io(&path, "compress"))?;
            Box::new(JsonlFile { path, columns, encoder, finish: zstd::Encoder::finish })
        }
        TextCompression::Gzip => {
            let encoder = GzEncoder::new(file, Compression::new(GZIP_LEVEL));
            Box::new(JsonlFile { path, columns, encoder, finish: GzEncoder::finish })
        }
    })
}

struct JsonlFile<W> {
    path: PathBuf,
    columns: Columns,
    encoder: W,
    finish: fn(W) -> io::Result<HashedFile>,
}

impl<W: Write> RecordWriter for JsonlFile<W> {
    fn append(&mut self, record: &Record<'_>) -> Result<()> {
        let mut line = serde_json::to_vec(&Line { record, columns: &self.columns })
            .map_err(|e| Error::data(&self.path, format!("document `{}`: {e}", record.id)))?;
        line.push(b'\n');
        self.encoder.write_all(&line).map_err(Error::io(&self.path, "write"))
    }

    fn finish(self: Box<Self>) -> Result<Exported> {
        (self.finish)(self.encoder).map_err(Error::io(&self.path, "write"))?.commit()
    }
}

struct Line<'r> {
    record: &'r Record<'r>,
    columns: &'r Columns,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Line { record, columns } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", record.id)?;
        map.serialize_entry("text", &record.text)?;
        map.serialize_entry("source", record.source)?;
        map.serialize_entry("family", &family_name(record.family))?;
        map.serialize_entry("variant", &record.variant)?;
        if columns.quality {
            map.serialize_entry("quality", &record.quality)?;
        }
        if columns.language {
            map.serialize_entry("language", &record.language)?;
        }
        map.serialize_entry("tags", &record.tags)?;
        if columns.score {
            map.serialize_entry("score", &record.score)?;
        }
        if columns.url {
            map.serialize_entry("url", &record.url)?;
        }
        if columns.date {
            map.serialize_entry("date", &record.date)?;
        }
        for name in &columns.kept {
            map.serialize_entry(name, &record.kept.get(name))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use moe_shards::FamilyId;

    use super::*;

    #[test]
    fn lines_have_the_columns_that_any_document_has() {
        let record = Record {
            id: "a",
            text: "one\n\"two\"".into(),
            source: "s",
            family: FamilyId(0xab),
            variant: 2,
            quality: Some(7),
            language: None,
            tags: vec!["x", "y"],
            score: Some(0.5),
            url: None,
            date: Some("2024"),
            kept: [("n".to_owned(), 7.into())].into_iter().collect(),
        };
        let line = |columns: &Columns| serde_json::to_string(&Line { record: &record, columns }).unwrap();
        let start =
            r#"{"id":"a","text":"one\n\"two\"","source":"s","family":"00000000000000ab","variant":2,"#;
        assert_eq!(line(&Columns::default()), format!(r#"{start}"tags":["x","y"]}}"#));
        let all = Columns {
            quality: true,
            language: true,
            score: true,
            url: true,
            date: true,
            kept: ["m", "n"].map(str::to_owned).into(),
        };
        let rest = r#""quality":7,"language":null,"tags":["x","y"],"score":0.5,"url":null,"date":"2024","m":null,"n":7}"#;
        assert_eq!(line(&all), format!("{start}{rest}"));
    }
}
