//! The score of a learned classifier, as a rule. The score is measured once; changing `min_score` reruns only the verdicts.
//! `[quality]` of the recipe turns scores into buckets.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::entry::{Built, Entry, Settings};
use super::{Filter, Limit, Rule, Text};
use crate::classifier::{Newlines, Scorer};
use crate::strict_toml::{Docs, Fault, Section, documented};

/// Name of the rule.
pub const NAME: &str = "classifier";

/// Reason to drop a document with a low score, and name of the score among the measured values.
pub const REASON: &str = "classifier_score";

/// The line of the registry.
pub const ENTRY: Entry = Entry::custom::<ClassifierConfig>(
    NAME,
    "score of a learned classifier",
    super::MEASURES,
    &["min_score"],
    build,
)
.with_files(&["model"]);

documented! {
    /// Settings.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct ClassifierConfig {
        /// A model from `classifier train`, or a fastText model.
        pub model: String,
        /// fastText label whose probability is the score; empty for a model of our own.
        pub label: String,
        /// What line ends become for a fastText model.
        pub newlines: Newlines,
        /// The lowest passing score, 0 to 1; 0 computes the score without dropping anything.
        pub min_score: f64,
    }
}

impl Section for ClassifierConfig {
    fn docs() -> Docs {
        ClassifierConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if self.model.is_empty() {
            wrong.push(("model", "is missing; name a file of `moe-data classifier train`".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.min_score) {
            wrong.push(("min_score", format!("is {}; expected 0 to 1", self.min_score)));
        }
        wrong
    }
}

struct Classifier {
    scorer: Arc<Scorer>,
    min_score: f64,
}

fn build(settings: &Settings) -> Built {
    // Thresholds are not part of what decides the measurement.
    let config: ClassifierConfig =
        serde_json::from_value(Value::Object(settings.clone())).map_err(|e| e.to_string())?;
    let label = Some(config.label.as_str()).filter(|label| !label.is_empty());
    let scorer =
        Scorer::shared(Path::new(&config.model), label, config.newlines).map_err(|e| e.to_string())?;
    Ok(Rule::Filter(Box::new(Classifier { scorer, min_score: config.min_score })))
}

impl Filter for Classifier {
    fn limits(&self) -> Vec<Limit> {
        vec![Limit::least(REASON, self.min_score)]
    }

    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>) {
        values.push(self.scorer.score(text.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::Model;
    use crate::classifier::features::Features;
    use crate::classifier::model::Training;
    use crate::document::Metadata;
    use crate::filter::chain::{Chain, Measuring, Workspace};
    use crate::filter::{Action, FilterConfig, RuleFile};

    fn config(path: &Path, min_score: f64) -> FilterConfig {
        let mut config = FilterConfig::with_defaults(&ENTRY);
        config.settings.insert("model".into(), "m.moecls".into());
        config.settings.insert("min_score".into(), min_score.into());
        let blake3 = moe_shards::Hash::of(b"");
        config.files = vec![RuleFile { name: "m.moecls".into(), path: path.to_owned(), blake3 }];
        config
    }

    #[test]
    fn the_score_is_measured_and_the_threshold_judges() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.moecls");
        let features = Features { word_ngrams: 1, bucket_bits: 8 };
        let mut weights = vec![0.0; 256];
        weights[features.of("good")[0] as usize] = 2.0;
        let training = Training::default();
        Model { features, bias: 0.0, training, weights }.write(&path).unwrap();

        let (low, high) = (config(&path, 0.3), config(&path, 0.95));
        assert_eq!(Measuring::of(&low), Measuring::of(&high));
        let measuring = Chain::measuring(&[Measuring::of(&low)]).unwrap();
        let mut work = Workspace::default();
        measuring.measure("good", Metadata::default(), 4, &mut work).unwrap();
        let score = work.values()[0];
        assert!((score - 1.0 / (1.0 + (-2f64).exp())).abs() < 1e-9, "{score}");
        let dropped = |config: &FilterConfig| {
            let verdict = Chain::new([config]).unwrap().judge(work.values()).unwrap();
            verdict.dropped.map(|rejection| rejection.reason.into_owned())
        };
        assert_eq!(dropped(&low), None);
        assert_eq!(dropped(&high).as_deref(), Some(REASON));
        assert_eq!(low.action, Action::Drop);
        // A label is for fastText.
        let mut labeled = low;
        labeled.settings.insert("label".into(), "hq".into());
        assert!(Chain::new([&labeled]).err().unwrap().contains("has no label"));
    }

    #[test]
    fn a_missing_model_and_wrong_scores_are_named() {
        let keys =
            |config: &ClassifierConfig| config.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let good = ClassifierConfig { model: "m".into(), min_score: 0.5, ..ClassifierConfig::default() };
        assert_eq!(keys(&good), [""; 0]);
        assert_eq!(
            keys(&ClassifierConfig { min_score: 1.5, ..ClassifierConfig::default() }),
            ["model", "min_score"]
        );
    }
}
