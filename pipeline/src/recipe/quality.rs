//! `[quality]`: buckets of the classifier's score, for sources whose records have no quality.

use serde::{Deserialize, Serialize};

use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// `[quality]`: exactly one of `edges` and `buckets`.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct QualityConfig {
        /// Ascending scores; a document's bucket is the number of edges at most its score.
        pub edges: Vec<f64>,
        /// Number of buckets with equal bytes of text, over all remaining documents; 20 gives Dolma 3's vigintiles.
        pub buckets: Option<u32>,
    }
}

impl Section for QualityConfig {
    fn docs() -> Docs {
        QualityConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if self.edges.is_empty() == self.buckets.is_none() {
            wrong.push(("", "give exactly one of `edges = [0.2, 0.5, 0.8]` or `buckets = 20`".to_owned()));
        }
        if self.edges.len() > usize::from(u8::MAX) || self.edges.windows(2).any(|pair| pair[0] >= pair[1]) {
            wrong.push(("edges", "expected at most 255 numbers, each above the one before".to_owned()));
        }
        if let Some(buckets) = self.buckets.filter(|buckets| !(2..=256).contains(buckets)) {
            wrong.push(("buckets", format!("is {buckets}; expected 2 to 256")));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_or_buckets() {
        let keys = |edges: &[f64], buckets| {
            let faults = QualityConfig { edges: edges.to_vec(), buckets }.check();
            faults.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&[0.1, 0.5], None), [""; 0]);
        assert_eq!(keys(&[], Some(20)), [""; 0]);
        assert_eq!(keys(&[], None), [""]);
        assert_eq!(keys(&[0.1], Some(2)), [""]);
        assert_eq!(keys(&[0.5, 0.5], None), ["edges"]);
        assert_eq!(keys(&[], Some(1)), ["buckets"]);
    }
}
