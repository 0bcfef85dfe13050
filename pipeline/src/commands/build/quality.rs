//! `[quality]` in a build: turns the classifier's scores of the remaining documents into buckets.

use super::part::Part;
use super::run::Run;
use crate::error::{Error, Result};
use crate::filter::Chain;
use crate::filter::classifier::REASON;
use crate::ledger::QualityNote;
use crate::printer::StageLine;
use crate::tables::measures::Measures;
use crate::tables::rows;
use crate::tables::scores::{self, Histogram, ScoreRow};

impl Run<'_> {
    /// Collects the scores and finds the edges of the buckets.
    pub fn quality(&mut self, parts: &mut [Part]) -> Result<()> {
        let Some(config) = &self.prepared.recipe.quality else { return Ok(()) };
        let line = StageLine::start("quality");
        let mut histogram = Histogram::default();
        let mut n_scored = 0u64;
        // Parts of a source are neighbors and have the same rules.
        let mut column: Option<(usize, Option<usize>)> = None;
        for part in parts.iter_mut() {
            if self.prepared.recipe.source[part.source].quality.is_some() {
                continue;
            }
            let known = column.filter(|(source, _)| *source == part.source);
            let (_, number) = match known {
                Some(known) => known,
                None => {
                    let chain = Chain::new(&self.filters(part)).map_err(Error::Usage)?;
                    (part.source, chain.column(REASON))
                }
            };
            column = Some((part.source, number));
            let (Some(number), Some(path)) = (number, &part.measures) else { continue };
            let mut measures = Measures::open(path)?;
            let mut found = Vec::new();
            for kept in rows::survivors(&part.kept, &part.removed)? {
                let score = measures.row(kept.row)?.get(number).copied();
                let score =
                    score.ok_or_else(|| Error::data(path, "has no score; delete its folder and rerun"))?;
                let score = scores::to_bits(score);
                histogram.add(score, u64::from(kept.raw_bytes));
                found.push(ScoreRow { row: kept.row, score });
            }
            n_scored += found.len() as u64;
            let place = self.work.join(scores::write(&self.work, &found)?);
            self.results.used.push(place.clone());
            part.scores = Some(place);
        }
        let edges = match config.buckets {
            Some(n) => histogram.edges(n),
            None => config.edges.clone(),
        };
        let buckets = histogram.buckets(&edges);
        line.done(self.printer, &format!("{n_scored} documents in {} buckets", buckets.len()));
        self.ledger.quality = Some(QualityNote { edges: edges.clone(), buckets });
        self.quality_edges = edges;
        Ok(())
    }
}
