//! Which keys each query sees: the only difference between causal attention, windows, documents and selected
//! blocks.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

/// The keys that each query of some samples sees, as spans in ascending order.
#[derive(Debug, Clone)]
pub struct Spans {
    /// Heads of keys with their own spans; 1 if all have the same.
    heads: usize,
    queries: usize,
    keys: usize,
    /// Where the spans of each row begin, and the end of the last; rows are `[n, heads, queries]`.
    bounds: Vec<u32>,
    spans: Vec<(u32, u32)>,
    is_causal: bool,
}

/// Score added for keys that a query must not see: after the softmax such an entry is exactly zero.
const FORBIDDEN: f32 = -1e30;

impl Spans {
    /// Each query sees the keys from its first one up to its own position; the last query is at the position
    /// of the last key.
    ///
    /// # Shapes
    /// - first: `n * queries` numbers of keys, none after its query
    pub fn causal(first: &[usize], queries: usize, keys: usize) -> Self {
        let span =
            |(row, &first): (usize, &usize)| (first as u32, (row % queries + keys - queries + 1) as u32);
        Self {
            heads: 1,
            queries,
            keys,
            bounds: (0..=first.len() as u32).collect(),
            spans: first.iter().enumerate().map(span).collect(),
            is_causal: true,
        }
    }

    /// Spans of each query, ascending and not touching; there may be none.
    ///
    /// # Shapes
    /// - rows: `n * heads * queries`
    pub fn listed(
        heads: usize,
        queries: usize,
        keys: usize,
        rows: impl IntoIterator<Item = Vec<Range<usize>>>,
    ) -> Self {
        let (mut bounds, mut spans) = (vec![0], Vec::new());
        for row in rows {
            spans.extend(row.into_iter().filter(|s| !s.is_empty()).map(|s| (s.start as u32, s.end as u32)));
            bounds.push(spans.len() as u32);
        }
        Self { heads, queries, keys, bounds, spans, is_causal: false }
    }

    /// The first key of each query where [`Spans::causal`] made them.
    pub(super) fn first(&self) -> Option<Vec<usize>> {
        self.is_causal.then(|| self.spans.iter().map(|span| span.0 as usize).collect())
    }

    fn n_rows(&self) -> usize {
        self.bounds.len() - 1
    }

    fn spans_of(&self, row: usize) -> impl Iterator<Item = Range<usize>> + Clone {
        let spans = &self.spans[self.bounds[row] as usize..self.bounds[row + 1] as usize];
        spans.iter().map(|&(start, end)| start as usize..end as usize)
    }

    /// What a query sees of `keys`, for the `head`-th of `kv_heads` heads of keys.
    pub(super) fn within(
        &self,
        [sample, head, query]: [usize; 3],
        keys: Range<usize>,
    ) -> impl Iterator<Item = Range<usize>> + Clone {
        let row = (sample * self.heads + head % self.heads) * self.queries + query;
        let clipped = move |span: Range<usize>| span.start.max(keys.start)..span.end.min(keys.end);
        self.spans_of(row).map(clipped).filter(|span| !span.is_empty())
    }

    /// For each tile of queries, the tiles of keys with a key that one of them sees; both of `size`.
    pub(super) fn tiles(&self, size: usize) -> Vec<Vec<usize>> {
        let n_tiles = self.keys.div_ceil(size);
        let mut seen = vec![vec![false; n_tiles]; self.queries.div_ceil(size)];
        for row in 0..self.n_rows() {
            let seen = &mut seen[row % self.queries / size];
            for span in self.spans_of(row) {
                seen[span.start / size..=(span.end - 1) / size].fill(true);
            }
        }
        seen.iter().map(|tiles| (0..n_tiles).filter(|&tile| tiles[tile]).collect()).collect()
    }

    /// 0 for keys that a query may see, a very negative number elsewhere, `[n, heads, 1, queries, keys]`.
    pub(super) fn mask(&self, device: &Device) -> Tensor<5> {
        let mut values = vec![FORBIDDEN; self.n_rows() * self.keys];
        for (row, scores) in values.chunks_exact_mut(self.keys).enumerate() {
            self.spans_of(row).for_each(|span| scores[span].fill(0.0));
        }
        self.tensor(values, self.keys, device)
    }

    /// 1 for queries that see anything and 0 for others, `[n, heads, 1, queries, 1]`; none if all do.
    pub(super) fn sees(&self, device: &Device) -> Option<Tensor<5>> {
        let sees: Vec<bool> = self.bounds.windows(2).map(|pair| pair[0] < pair[1]).collect();
        let values = || sees.iter().map(|&sees| f32::from(u8::from(sees))).collect();
        sees.contains(&false).then(|| self.tensor(values(), 1, device))
    }

    fn tensor(&self, values: Vec<f32>, columns: usize, device: &Device) -> Tensor<5> {
        let n = self.n_rows() / (self.heads * self.queries);
        Tensor::from_data(TensorData::new(values, [n, self.heads, 1, self.queries, columns]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_that_nobody_sees_are_skipped() {
        // Six tokens, the second half a separate document, in tiles of two.
        let spans = Spans::causal(&[0, 0, 0, 3, 3, 3], 6, 6);
        assert_eq!(spans.tiles(2), [vec![0], vec![0, 1], vec![1, 2]]);
        let within = |spans: &Spans, place, keys| -> Vec<(usize, usize)> {
            spans.within(place, keys).map(|seen| (seen.start, seen.end)).collect()
        };
        assert_eq!(within(&spans, [0, 0, 4], 2..4), [(3, 4)]);
        // Two queries at the end of four keys.
        let spans = Spans::causal(&[1, 3], 2, 4);
        let seen = |query| within(&spans, [0, 5, query], 0..4);
        assert_eq!([seen(0), seen(1)], [[(1, 3)], [(3, 4)]]);
        let one = |first, end| Vec::from([Range { start: first, end }]);
        let rows = [vec![0..1, 4..5], one(2, 3), vec![], one(3, 5)];
        // Two heads of keys; the first query of the second sees nothing.
        let spans = Spans::listed(2, 2, 5, rows);
        assert_eq!(within(&spans, [0, 0, 0], 0..5), [(0, 1), (4, 5)]);
        assert_eq!(within(&spans, [0, 1, 1], 0..4), [(3, 4)]);
        assert_eq!(spans.tiles(2), [vec![0, 1, 2]]);
        assert!(spans.sees(&Device::flex()).is_some() && spans.first().is_none());
    }
}
