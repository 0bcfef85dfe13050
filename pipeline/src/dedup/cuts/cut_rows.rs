//! Rows of the stages that find repeated text inside documents. Each starts with what its table is sorted by;
//! places in a text are bytes of the normalized text.

use crate::tables::rows::{Row, row};

row! {
    /// A paragraph of a document that is still kept. Of paragraphs with one key, the lowest row is the copy that stays:
    /// the earlier source, the original before its variants, the lower document id, the first in the text.
    ParagraphRow {
        /// XXH3-128 of the simplified paragraph.
        key: u128,
        /// Position of the source in the recipe.
        source: u16,
        /// Variant.
        variant: u8,
        /// Document id.
        document_id: u64,
        /// Half of the text's hash, for documents that share an id.
        text_hash: u64,
        /// Part of the document.
        part: u32,
        /// Row in the part's documents.
        row: u32,
        /// First byte.
        start: u32,
        /// Byte after the last.
        end: u32,
        /// What counts as one document: the family where one is declared, else the document's id.
        group: u64,
    }
}

row! {
    /// A stretch that is to be cut, with the place of the copy that stays.
    MarkRow {
        /// Part of the document.
        part: u32,
        /// Row in the part's documents.
        row: u32,
        /// First byte.
        start: u32,
        /// Byte after the last.
        end: u32,
        /// Part of the copy that stays.
        kept_part: u32,
        /// Its row in that part's documents.
        kept_row: u32,
        /// Its first byte.
        kept_start: u32,
    }
}

row! {
    /// A document that holds the one copy of something that is cut elsewhere.
    HolderRow {
        /// Part of the document.
        part: u32,
        /// Row in the part's documents.
        row: u32,
    }
}

row! {
    /// A segment: consecutive windows of a text with one anchor.
    AnchorRow {
        /// The anchor.
        key: u64,
        /// Row in the part's documents.
        row: u32,
        /// First byte of the first window.
        start: u32,
        /// Byte after the last window.
        end: u32,
        /// 2 where windows of the segment may equal each other, else 1.
        copies: u8,
    }
}

row! {
    /// An anchor of more than one segment.
    SharedRow {
        /// The anchor.
        key: u64,
    }
}

row! {
    /// A segment whose anchor is shared, with the place of its bytes in the part's file.
    SegmentRow {
        /// The anchor.
        key: u64,
        /// Position of the source in the recipe.
        source: u16,
        /// Variant.
        variant: u8,
        /// Document id.
        document_id: u64,
        /// Half of the text's hash, for documents that share an id.
        text_hash: u64,
        /// Part of the document.
        part: u32,
        /// Row in the part's documents.
        row: u32,
        /// First byte in the text.
        start: u32,
        /// Bytes.
        n_bytes: u32,
        /// What counts as one document: the family where one is declared, else the document's id.
        group: u64,
        /// Place of the bytes in the part's file.
        offset: u64,
    }
}
