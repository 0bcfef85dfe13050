//! Rows of the tables of fuzzy deduplication. All of them are kept as sorted runs ([`crate::tables::sort::run`]), so each
//! file is checked for its length, its checksums and its order whenever it is read.

use crate::tables::rows::{Row, row};

row! {
    /// A document that was sketched, in the order of its part.
    SketchRow {
        /// Row in the part's documents.
        row: u32,
        /// Variant.
        variant: u8,
        /// 1 when the document's family is declared by its record, 0 if it has no declared family.
        has_family: u8,
        /// Document id.
        document_id: u64,
        /// XXH3-128 of the normalized text.
        text_hash: u128,
        /// Bytes of the text as read.
        raw_bytes: u32,
        /// Bytes of the normalized text.
        n_bytes: u32,
        /// First 32 bytes of the date, big-endian, filled up with zeros; 0 when there is none.
        date_high: u128,
        /// The last 16 of them.
        date_low: u128,
        /// Score as a number in the same order, from 1; 0 when there is none.
        score: u64,
        /// Hash of the metadata.
        metadata_hash: u64,
    }
}

row! {
    /// A shingle or a band key of a sampled document.
    SampleRow {
        /// Number of the document.
        number: u64,
        /// Number of the band whose key the value is, or [`SampleRow::SHINGLE`].
        band: u16,
        /// Shingle or key.
        value: u64,
    }
}

impl SampleRow {
    /// The value is a shingle; there are at most 256 bands.
    pub const SHINGLE: u16 = u16::MAX;
}

row! {
    /// A document that shares shingles with a sampled one.
    PairRow {
        /// Number of the sampled document.
        sampled: u64,
        /// Number of the other one.
        other: u64,
        /// Shingles in both.
        overlap: u32,
        /// Shingles in either.
        union: u32,
        /// 1 when the two share a band key.
        is_candidate: u8,
    }
}

row! {
    /// A band key of a document, in the order of the part.
    SketchKeyRow {
        /// Position of the document's [`SketchRow`].
        index: u32,
        /// Key.
        key: u64,
    }
}

row! {
    /// A document in the order in which documents survive; its position in the sorted table is its rank.
    OrderRow {
        /// 0 for a document of another build, which survives before all of this one's; else 1.
        is_own: u8,
        /// Sort key of the recipe's `keep`; the lower survives.
        rule_high: u128,
        /// More of it.
        rule_low: u128,
        /// Document id.
        document_id: u64,
        /// XXH3-128 of the normalized text; for documents that share an id.
        text_hash: u128,
        /// Bytes of the text as read; the same.
        raw_bytes: u32,
        /// Hash of the metadata; the same.
        metadata_hash: u64,
        /// Number of the part.
        part: u32,
        /// Position of its [`SketchRow`].
        index: u32,
    }
}

row! {
    /// The rank of a document that was sketched, in the order of the part.
    RankRow {
        /// Rank.
        rank: u64,
    }
}

row! {
    /// A document that shares a band with another one, in the order of the part.
    ClusteredRow {
        /// Row in the part's documents.
        row: u32,
        /// Rank.
        rank: u64,
        /// Lowest rank among the candidates that bands connect it with.
        root: u64,
    }
}

row! {
    /// A document that shares a band with another one, with what is needed to compare and to name it. Sorted, all
    /// candidates of one connected set are adjacent, in the order in which they survive.
    CandidateRow {
        /// Lowest rank of the connected set.
        root: u64,
        /// Rank.
        rank: u64,
        /// Number of the part; 0 within the part's own file.
        part: u32,
        /// Row in the part's documents.
        row: u32,
        /// Bytes of the normalized text.
        n_bytes: u32,
        /// Bytes of the text as read.
        raw_bytes: u32,
        /// Family.
        family: u64,
        /// 1 when the family is declared by the record.
        has_family: u8,
        /// Variant.
        variant: u8,
        /// First shingle in the part's shingle file.
        shingle_start: u64,
        /// Shingles.
        n_shingles: u32,
        /// XXH3-64 of the shingles' bytes.
        shingle_hash: u64,
        /// First byte of the id in the part's id file.
        id_start: u64,
        /// Bytes of the id.
        id_bytes: u32,
    }
}

row! {
    /// What was found about a document. Sorted, the verdicts about one survivor are adjacent.
    VerdictRow {
        /// Rank of the survivor.
        kept_rank: u64,
        /// Rank of the document.
        rank: u64,
        /// A [`Verdict`] as a number.
        verdict: u8,
        /// Variant of the document.
        variant: u8,
        /// Shingles that both share.
        overlap: u32,
        /// Shingles of the document.
        n_shingles: u32,
        /// Shingles of the survivor.
        kept_n_shingles: u32,
        /// Part of the document.
        part: u32,
        /// Its row.
        row: u32,
        /// Bytes of its normalized text.
        n_bytes: u32,
        /// Bytes of its text as read.
        raw_bytes: u32,
        /// 1 when its family is declared by its record.
        has_family: u8,
        /// First byte of its id.
        id_start: u64,
        /// Bytes of its id.
        id_bytes: u32,
        /// Part of the survivor.
        kept_part: u32,
        /// Its row.
        kept_row: u32,
        /// Bytes of its normalized text.
        kept_n_bytes: u32,
        /// Bytes of its text as read.
        kept_raw_bytes: u32,
        /// Its family.
        kept_family: u64,
        /// 1 when its family is declared by its record.
        kept_has_family: u8,
        /// Its variant.
        kept_variant: u8,
        /// First byte of its id.
        kept_id_start: u64,
        /// Bytes of its id.
        kept_id_bytes: u32,
    }
}

row! {
    /// A document by its place.
    PlaceRow {
        /// Number of the part.
        part: u32,
        /// Row in the part's documents.
        row: u32,
        /// 1 if the document kept instead of it is in another build.
        in_against: u8,
    }
}

row! {
    /// A document whose id is asked for: one of the two of a pair of equal documents.
    NameRow {
        /// Number of the part.
        part: u32,
        /// Row in the part's documents.
        row: u32,
        /// Number of the pair.
        edge: u64,
        /// Which of the two it is.
        role: u8,
    }
}

impl NameRow {
    /// The document that stays.
    pub const KEPT: u8 = 0;
    /// The one that is removed for it.
    pub const REMOVED: u8 = 1;
    /// The same, where the one that stays is in another build.
    pub const IN_AGAINST: u8 = 2;
}

row! {
    /// The answer to a [`NameRow`].
    NamedRow {
        /// Number of the pair.
        edge: u64,
        /// Which of the two it is.
        role: u8,
        /// Number of the part.
        part: u32,
        /// First byte of the id.
        id_start: u64,
        /// Bytes of the id.
        id_bytes: u32,
    }
}

row! {
    /// A document that joins the family of the one that it is like.
    JoinRow {
        /// Number of the part.
        part: u32,
        /// Row in the part's documents.
        row: u32,
        /// Family.
        family: u64,
        /// Variant there.
        variant: u8,
    }
}

/// What was found about a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a near-duplicate of the survivor.
    NearDuplicate = 0,
    /// It is a copy of another variant of its family.
    VariantCopy = 1,
}

impl Verdict {
    /// The verdict after a number.
    pub fn of_number(number: u8) -> Option<Verdict> {
        [Verdict::NearDuplicate, Verdict::VariantCopy].into_iter().find(|verdict| *verdict as u8 == number)
    }
}
