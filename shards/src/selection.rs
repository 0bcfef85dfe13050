//! Which families of a source a pool takes: a condition on the record of each family's first text.

use serde::{Deserialize, Serialize};

use crate::format::DocumentMeta;
use crate::reader::Shard;

/// Conditions on a family's first text (the original); all that are given must be true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Lowest and highest quality bucket; a text of unknown quality does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<[u8; 2]>,
    /// Languages: any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// Tags: any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Selection {
    /// Whether it lets everything through.
    pub fn is_all(&self) -> bool {
        *self == Selection::default()
    }

    /// The conditions in the numbers of a shard.
    pub(crate) fn in_shard(&self, shard: &Shard) -> ShardSelection {
        let names = shard.names();
        ShardSelection {
            quality: self.quality,
            languages: (!self.languages.is_empty())
                .then(|| self.languages.iter().filter_map(|name| names.language_code(name)).collect()),
            tags: (!self.tags.is_empty())
                .then(|| self.tags.iter().filter_map(|name| names.tag_mask(name)).fold(0, |a, b| a | b)),
        }
    }
}

/// A selection in the numbers of one shard.
#[derive(Debug)]
pub(crate) struct ShardSelection {
    quality: Option<[u8; 2]>,
    languages: Option<Vec<u16>>,
    tags: Option<u8>,
}

impl ShardSelection {
    pub(crate) fn takes(&self, meta: &DocumentMeta) -> bool {
        let in_range = |[low, high]: [u8; 2]| meta.quality.is_some_and(|q| (low..=high).contains(&q));
        self.quality.is_none_or(in_range)
            && self.languages.as_ref().is_none_or(|codes| codes.contains(&meta.language))
            && self.tags.is_none_or(|mask| meta.tags & mask != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_must_hold_and_the_unknown_fits_none() {
        let meta =
            |quality, language, tags| DocumentMeta { quality, language, tags, ..DocumentMeta::default() };
        let only = |quality, languages, tags| ShardSelection { quality, languages, tags };
        let all = only(None, None, None);
        assert!(all.takes(&meta(None, 0, 0)));
        let quality = only(Some([2, 4]), None, None);
        let taken = [None, Some(1), Some(2), Some(4), Some(5)].map(|q| quality.takes(&meta(q, 0, 0)));
        assert_eq!(taken, [false, false, true, true, false]);
        let languages = only(None, Some(vec![1, 3]), None);
        assert_eq!([0, 1, 2, 3].map(|l| languages.takes(&meta(None, l, 0))), [false, true, false, true]);
        let tags = only(None, None, Some(0b101));
        assert_eq!(
            [0, 0b10, 0b100, 0b111].map(|t| tags.takes(&meta(None, 0, t))),
            [false, false, true, true]
        );
        assert!(!only(Some([0, 9]), Some(vec![1]), Some(1)).takes(&meta(Some(5), 1, 2)));
        // A shard without the language or tag has no such document.
        assert!(!only(None, Some(vec![]), None).takes(&meta(None, 0, 0)));
        assert!(!only(None, None, Some(0)).takes(&meta(None, 0, 1)));
    }
}
