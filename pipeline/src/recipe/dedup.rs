//! `[dedup]`: which documents are removed as duplicates. One table for each
//! method; a method whose table is absent is switched off.

use serde::{Deserialize, Serialize};

use crate::dedup::cuts::config::{ParagraphConfig, SubstringConfig};
use crate::dedup::minhash::signature::{Profile, SketchConfig};
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// `[dedup]`.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct DedupConfig {
        /// Whether to keep only one of several documents with equal normalized text.
        pub exact: bool,
        /// Output folders of other builds, relative to the recipe's folder: documents that they have are removed.
        pub against: Vec<String>,
        /// `[dedup.paragraph]`.
        pub paragraph: Option<ParagraphConfig>,
        /// `[dedup.substring]`.
        pub substring: Option<SubstringConfig>,
        /// Near-duplicates.
        pub minhash: Option<MinhashConfig>,
    }
}

impl Default for DedupConfig {
    fn default() -> DedupConfig {
        DedupConfig { exact: true, against: Vec::new(), minhash: None, paragraph: None, substring: None }
    }
}

impl Section for DedupConfig {
    fn docs() -> Docs {
        DedupConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        match !self.against.is_empty() && !self.exact && self.minhash.is_none() {
            true => vec![("against", AGAINST_WITHOUT_METHOD.to_owned())],
            false => Vec::new(),
        }
    }
}

/// Problem of `against` without a method that uses it.
pub const AGAINST_WITHOUT_METHOD: &str =
    "nothing would be compared: set `exact = true` or write [dedup.minhash]";

documented! {
    /// `[dedup.minhash]`: near-duplicates are proposed by MinHash and confirmed by comparing the texts.
    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct MinhashConfig {
        /// Definition of words, shingles and permutations.
        pub profile: Profile,
        /// Words of a shingle, 1 to 64.
        pub ngram: u32,
        /// Bands, 1 to 256.
        pub bands: u32,
        /// Values of a band, 1 to 64.
        pub rows: u32,
        /// Seed of the permutations.
        pub seed: u64,
        /// Test that makes a candidate a near-duplicate.
        pub verify: Verify,
        /// What happens to near-duplicates.
        pub action: Action,
        /// Which document of a cluster stays.
        pub keep: Keep,
        /// Whether to also remove a document similar to a removed one but not to the survivor.
        pub transitive: bool,
        /// Two texts of one declared family with at least this Jaccard index are reported as copies of each other and count
        /// as one variant in the ledger; 0 to 1.
        pub variant_copy: f64,
        /// The build stops if more than this share of a source's documents would be removed, 0 to 1.
        pub max_source_removed: f64,
        /// The build stops if a cluster has more documents than this.
        pub max_cluster: u64,
        /// Documents in the sample that is compared with all others by brute force, to estimate recall and precision; with 0
        /// nothing is compared.
        pub estimate: u32,
    }
}

/// Test that makes a candidate a near-duplicate of a survivor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// A Jaccard index of the sets of shingles of at least this.
    Jaccard(f64),
    /// At least this share of its own shingles is in the survivor.
    Containment(f64),
    /// None: candidates count as duplicates, transitively, as in most tools.
    Off,
}

/// What happens to the documents of a cluster other than its survivor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// They are removed.
    #[default]
    Remove,
    /// They stay, as variants of the survivor's family.
    Family,
}

/// Which document of a cluster stays; ties go to the lower document id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The one from the earlier source, then with the lower variant.
    First,
    /// The one with the most bytes of normalized text.
    Longest,
    /// The one with the greatest `date`, compared as text; a document without one is the oldest.
    Newest,
    /// The one with the greatest `score`; a document without one comes last.
    BestScore,
    /// None at all.
    None,
}

impl Default for MinhashConfig {
    fn default() -> MinhashConfig {
        MinhashConfig {
            profile: Profile::Native,
            ngram: 5,
            bands: 14,
            rows: 8,
            seed: 1,
            verify: Verify::Jaccard(0.7),
            action: Action::Remove,
            keep: Keep::First,
            transitive: false,
            variant_copy: 0.9,
            max_source_removed: 0.5,
            max_cluster: 10_000,
            estimate: 200,
        }
    }
}

impl MinhashConfig {
    /// Everything that decides the keys of a text.
    pub fn sketch(&self) -> SketchConfig {
        let MinhashConfig { profile, ngram, bands, rows, seed, .. } = *self;
        SketchConfig { profile, ngram, bands, rows, seed }
    }
}

impl Section for MinhashConfig {
    fn docs() -> Docs {
        MinhashConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong: Vec<Fault> = Vec::new();
        let sizes = [("ngram", self.ngram, 64), ("bands", self.bands, 256), ("rows", self.rows, 64)];
        for (key, value, most) in sizes {
            if !(1..=most).contains(&value) {
                wrong.push((key, format!("is {value}; expected 1 to {most}")));
            }
        }
        if self.profile != Profile::Native {
            // The permutations of these profiles are data: the 112 of seed 1.
            if u64::from(self.bands) * u64::from(self.rows) != 112 {
                let (bands, rows) = (self.bands, self.rows);
                let message = format!(
                    "{bands} bands of {rows} rows are not the 112 values of this profile; take 14 and 8, or the native profile"
                );
                wrong.push(("bands", message));
            }
            if self.seed != 1 {
                wrong.push(("seed", format!("is {}; this profile has seed 1", self.seed)));
            }
        }
        let threshold = match self.verify {
            Verify::Jaccard(threshold) | Verify::Containment(threshold) => threshold,
            Verify::Off => 1.0,
        };
        if !(threshold > 0.0 && threshold <= 1.0) {
            wrong.push(("verify", format!("is {threshold}; expected more than 0, up to 1")));
        }
        if self.verify == Verify::Off && self.transitive {
            wrong.push(("transitive", "has no effect without `verify`; leave it out".to_owned()));
        }
        if self.action == Action::Family && self.keep == Keep::None {
            let message = "`none` removes what `action = \"family\"` keeps; choose another survivor";
            wrong.push(("keep", message.to_owned()));
        }
        for (key, share) in
            [("variant_copy", self.variant_copy), ("max_source_removed", self.max_source_removed)]
        {
            if !(0.0..=1.0).contains(&share) {
                wrong.push((key, format!("is {share}; expected 0 to 1")));
            }
        }
        if self.max_cluster < 2 {
            wrong.push(("max_cluster", format!("is {}; expected at least 2", self.max_cluster)));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(config: MinhashConfig) -> Vec<&'static str> {
        config.check().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn minhash_rules() {
        let good = MinhashConfig::default();
        assert_eq!(keys(good), [""; 0]);
        assert_eq!(keys(MinhashConfig { bands: 20, rows: 5, seed: 3, ..good }), [""; 0]);
        let datatrove = MinhashConfig { profile: Profile::Datatrove, ..good };
        assert_eq!(keys(datatrove), [""; 0]);
        assert_eq!(keys(MinhashConfig { bands: 20, seed: 3, ..datatrove }), ["bands", "seed"]);
        assert_eq!(
            keys(MinhashConfig { ngram: 0, bands: 300, rows: 65, ..good }),
            ["ngram", "bands", "rows"]
        );
        assert_eq!(keys(MinhashConfig { verify: Verify::Jaccard(0.0), ..good }), ["verify"]);
        assert_eq!(keys(MinhashConfig { verify: Verify::Off, transitive: true, ..good }), ["transitive"]);
        assert_eq!(keys(MinhashConfig { action: Action::Family, keep: Keep::None, ..good }), ["keep"]);
        assert_eq!(
            keys(MinhashConfig { variant_copy: 1.5, max_cluster: 1, ..good }),
            ["variant_copy", "max_cluster"]
        );
    }
}
