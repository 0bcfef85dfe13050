//! The comparison with labels as a page.

use std::path::Path;

use maud::html;
use moe_report::{Bar, Bars, Figure, Page, Section, number};

use super::Judge;
use crate::classifier::evaluate::{self, Scored};

/// Marks the page as ours.
pub const GENERATOR: &str = "moe-data label";
/// Buckets of scores, of as many documents each.
const BUCKETS: usize = 10;

/// The page; `scored` are the classifier's scores, if there is one.
pub fn page(labels: &Path, judges: &[Judge], [n_good, n_bad]: [usize; 2], scored: &[Scored]) -> Page {
    let mut sections = vec![Section::new(
        "judges",
        "Profiles, length and classifier",
        html! { div class="grid2" {
            (share("accuracy", "Documents on which each agrees with you", judges, |judge| Some(judge.accuracy), "f0").html())
            (share("keeps-good", "Good documents that each keeps", judges, |judge| judge.keeps_good, "keep").html())
            (share("keeps-bad", "Bad documents that each keeps", judges, |judge| judge.keeps_bad, "drop").html())
        } },
    )];
    if !scored.is_empty() {
        sections.push(Section::new(
            "classifier",
            "The classifier",
            html! { div class="grid2" {
                (share("agrees", "Documents on which each agrees with the classifier", judges, |judge| judge.agrees, "f1").html())
                (good_by_score(scored).html())
            } },
        ));
    }
    let auc = |judge: &Judge| judge.auc.map(|auc| (format!("AUC, {}", judge.name), format!("{auc:.3}")));
    let mut facts = vec![
        ("good documents".to_owned(), number::count(n_good as u64)),
        ("bad documents".to_owned(), number::count(n_bad as u64)),
    ];
    facts.extend(judges.iter().filter_map(auc));
    Page {
        title: format!("Labels of {}", labels.display()),
        subtitle: "How far published profiles, length alone and a classifier agree with a person.".to_owned(),
        facts,
        sections,
        generator: GENERATOR.to_owned(),
    }
}

fn share(
    id: &str,
    title: &str,
    judges: &[Judge],
    of: fn(&Judge) -> Option<f64>,
    class: &'static str,
) -> Figure {
    let bars = judges.iter().filter_map(|judge| {
        let value = of(judge)?;
        Some(Bar {
            name: judge.name.clone(),
            start: 0.0,
            value,
            text: format!("{:.1} %", 100.0 * value),
            class,
        })
    });
    Bars {
        id: id.to_owned(),
        title: title.to_owned(),
        note: String::new(),
        unit: "share".to_owned(),
        bars: bars.collect(),
    }
    .figure()
}

fn good_by_score(scored: &[Scored]) -> Figure {
    let bars = evaluate::calibration(scored, BUCKETS).into_iter().map(|bucket| Bar {
        name: format!("{:.3} to {:.3}, {} documents", bucket.from, bucket.to, bucket.documents),
        start: 0.0,
        value: bucket.positive,
        text: format!("{:.1} %, expected {:.1} %", 100.0 * bucket.positive, 100.0 * bucket.expected),
        class: "keep",
    });
    Bars {
        id: "good-by-score".to_owned(),
        title: "Share of good documents by score".to_owned(),
        note: "Where scores are probabilities of your kind of good, both shares are near each other."
            .to_owned(),
        unit: "share of good documents".to_owned(),
        bars: bars.collect(),
    }
    .figure()
}
