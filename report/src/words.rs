//! The words in which two texts differ.

use std::ops::Range;

use similar::{Algorithm, DiffTag, capture_diff_slices};

/// A stretch that two texts have in common, or in which they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Words of the old text; none if the new one has more here.
    pub old: Range<usize>,
    /// Words of the new text; none if it lacks what the old one has here.
    pub new: Range<usize>,
    /// Whether these words are the same.
    pub is_equal: bool,
}

/// The stretches of two lists of words, in order; together they are all words of both. The time grows with the differences (Myers, 1986).
#[must_use]
pub fn changes(old: &[&str], new: &[&str]) -> Vec<Change> {
    let ops = capture_diff_slices(Algorithm::Myers, old, new);
    let change = |(tag, old, new)| Change { old, new, is_equal: tag == DiffTag::Equal };
    ops.iter().map(|op| change(op.as_tag_tuple())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_replaced_removed_and_added() {
        let old = ["in", "the", "beginning", "God", "made"];
        let new = ["in", "a", "beginning", "made", "all"];
        let change = |old, new, is_equal| Change { old, new, is_equal };
        let expected = [
            change(0..1, 0..1, true),
            change(1..2, 1..2, false),
            change(2..3, 2..3, true),
            change(3..4, 3..3, false),
            change(4..5, 3..4, true),
            change(5..5, 4..5, false),
        ];
        assert_eq!(changes(&old, &new), expected);
        assert_eq!(changes(&[], &[]), []);
    }
}
