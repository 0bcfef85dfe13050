//! Which documents are rephrased, and in which styles: a function of the seed and the documents, so that a larger choice
//! later extends a smaller one, wherever the documents are.

use std::collections::BinaryHeap;

use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::parents::{Originals, Parent, Place};
use super::style::Style;
use crate::error::Result;

/// How to choose.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The styles, sorted by name.
    pub styles: &'a [Style],
    /// Most styles of a document; Kimi K2 (arXiv 2507.20534) rephrases a corpus at most twice.
    pub per_document: usize,
    /// Most documents; all when absent.
    pub max_documents: Option<u64>,
    /// Decides the order.
    pub seed: u64,
}

/// A chosen document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chosen {
    /// Position in the order of the choice.
    pub rank: u64,
    /// Its id, which decides where ranks are equal.
    pub document_id: u64,
    /// Where it is.
    pub place: Place,
    /// Positions of its styles, ascending.
    pub styles: Vec<usize>,
}

/// The choice and its base.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The chosen documents in the order of their places.
    pub chosen: Vec<Chosen>,
    /// Originals that the build kept.
    pub originals: u64,
    /// Originals that at least one style fits.
    pub fitting: u64,
    /// Pairs of an original and a style without `max_documents`.
    pub fitting_pairs: u64,
}

impl Choice<'_> {
    /// Chooses among the originals of a build.
    ///
    /// # Errors
    /// A file of the build is missing or damaged.
    pub fn choose(&self, originals: &Originals) -> Result<Selection> {
        let mut selection = Selection::default();
        // The highest rank on top, to be replaced by a lower one.
        let mut least: BinaryHeap<Chosen> = BinaryHeap::new();
        originals.for_each(|place, parent| {
            selection.originals += 1;
            let styles = self.styles_of(&parent);
            if styles.is_empty() {
                return Ok(());
            }
            selection.fitting += 1;
            selection.fitting_pairs += styles.len() as u64;
            let id = parent.document_id.0;
            let chosen = Chosen { rank: self.number(id, "document"), document_id: id, place, styles };
            least.push(chosen);
            if self.max_documents.is_some_and(|most| least.len() as u64 > most) {
                least.pop();
            }
            Ok(())
        })?;
        selection.chosen = least.into_vec();
        selection.chosen.sort_by_key(|chosen| chosen.place);
        Ok(selection)
    }

    /// Styles for a document: the first few that fit, in an order that differs between documents.
    pub fn styles_of(&self, parent: &Parent) -> Vec<usize> {
        let n_words = parent.text.unicode_words().count() as u64;
        let fits = |style: &Style| style.uses.fits(&parent.source, parent.metadata.quality, n_words);
        let mut fitting: Vec<usize> = (0..self.styles.len()).filter(|&i| fits(&self.styles[i])).collect();
        fitting.sort_by_key(|&i| (self.number(parent.document_id.0, self.styles[i].name()), i));
        fitting.truncate(self.per_document);
        fitting.sort_unstable();
        fitting
    }

    fn number(&self, document: u64, name: &str) -> u64 {
        let mut bytes = document.to_le_bytes().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        xxh3_64_with_seed(&bytes, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use moe_shards::FamilyId;

    use super::*;
    use crate::document::{DocumentId, OwnedMetadata, TextHash};

    fn style(name: &str, uses: &str) -> Style {
        let text = format!(
            "[style]\nname = \"{name}\"\ninstruction = \"Start with X:\"\nsentinel = \"X:\"\n[use]\nmin_words = 1\n{uses}"
        );
        Style::decode(&text, Path::new("x.toml")).unwrap()
    }

    fn parent(n: u64, quality: Option<u8>) -> Parent {
        Parent {
            source: "a".into(),
            id: n.to_string(),
            document_id: DocumentId(n),
            family: FamilyId(n),
            text_hash: TextHash::of("x"),
            metadata: OwnedMetadata { quality, ..OwnedMetadata::default() },
            text: "some words".into(),
        }
    }

    #[test]
    fn styles_are_shared_out_evenly_and_by_quality() {
        let styles = [style("a", ""), style("b", ""), style("c", "min_quality = 9\n")];
        let choice = Choice { styles: &styles, per_document: 1, max_documents: None, seed: 7 };
        let mut counts = [0; 3];
        for n in 0..3000 {
            choice.styles_of(&parent(n, Some(9))).iter().for_each(|&i| counts[i] += 1);
        }
        assert!(counts.iter().all(|n| (900..1100).contains(n)), "{counts:?}");
        assert!((0..100).all(|n| choice.styles_of(&parent(n, None)) != [2]));
        let two = Choice { per_document: 2, ..choice };
        assert!((0..100).all(|n| two.styles_of(&parent(n, Some(1))) == [0, 1]));
        let other = Choice { seed: 8, ..choice };
        assert!((0..100).any(|n| other.styles_of(&parent(n, None)) != choice.styles_of(&parent(n, None))));
    }
}
