//! `[limits]`: limits on bad input.

use serde::{Deserialize, Serialize};

use super::ByteSize;
use crate::read::Limits;
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// `[limits]`.
    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct LimitsConfig {
        /// Longest record: a line of JSONL, a text of Parquet, a page of WARC, a text file.
        pub max_doc_bytes: ByteSize,
        /// How many times its size a file may expand to, beyond 64 MiB: compressed streams, and columns
        /// of Parquet and Arrow.
        pub max_expansion: u64,
        /// How far back a zstd stream may refer, which is also the memory it takes. Files made with `--long=31` need 2GiB.
        pub max_window_bytes: ByteSize,
        /// The build fails above this share of bad records, 0 to 1.
        pub max_bad_fraction: f64,
        /// Plain JSONL and Parquet files above this size are read by several tasks; does not affect results.
        pub slice_bytes: ByteSize,
    }
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        let limits = Limits::default();
        LimitsConfig {
            max_doc_bytes: ByteSize(limits.max_doc_bytes),
            max_expansion: limits.max_expansion,
            max_window_bytes: ByteSize(limits.max_window_bytes),
            max_bad_fraction: 0.001,
            slice_bytes: ByteSize(64_000_000),
        }
    }
}

impl LimitsConfig {
    /// Those that a reader keeps.
    pub fn of_readers(&self) -> Limits {
        Limits {
            max_doc_bytes: self.max_doc_bytes.0,
            max_expansion: self.max_expansion,
            max_window_bytes: self.max_window_bytes.0,
        }
    }
}

impl Section for LimitsConfig {
    fn docs() -> Docs {
        LimitsConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        // Lengths of a document are 32 bits wide in the shard; a byte may become three in NFC.
        if !(1..=1_000_000_000).contains(&self.max_doc_bytes.0) {
            wrong.push(("max_doc_bytes", format!("is {}; expected 1 to 1000000000", self.max_doc_bytes.0)));
        }
        if self.max_expansion == 0 {
            wrong.push(("max_expansion", "is 0; expected at least 1".to_owned()));
        }
        // The bounds of the format.
        if !(1 << 10..=1 << 31).contains(&self.max_window_bytes.0) {
            let message = format!("is {}; expected 1KiB to 2GiB", self.max_window_bytes.0);
            wrong.push(("max_window_bytes", message));
        }
        if self.slice_bytes.0 < 1000 {
            wrong.push(("slice_bytes", format!("is {}; expected at least 1000", self.slice_bytes.0)));
        }
        if !(0.0..=1.0).contains(&self.max_bad_fraction) {
            wrong.push(("max_bad_fraction", format!("is {}; expected 0 to 1", self.max_bad_fraction)));
        }
        wrong
    }
}
