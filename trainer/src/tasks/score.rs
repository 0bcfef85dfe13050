//! How likely continuations are under a model.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use super::encode::{Request, Window};
use crate::error::Result;
use crate::model::{Input, Model};
use crate::objective::{Targets, token_losses, token_ranks};

/// A model's score of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// Sum of the logarithms of the probabilities of its tokens, in nats.
    pub log_likelihood: f64,
    /// Tokens of the continuation.
    pub n_tokens: usize,
    /// Those for which the model considers another token more likely; 0 unless requested.
    pub n_missed: usize,
}

/// How a model reads requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Maximum tokens of a window: as many as the model was trained on.
    pub longest: usize,
    /// Tokens of a forward pass, at least one window. With 1, every window is a separate pass, as needed by
    /// models in which the tokens of a pass compete.
    pub pass_tokens: usize,
    /// Whether to find out which tokens are the most likely.
    pub ranks: bool,
}

/// The scores of requests, in their order. Windows of equal length make a forward pass, longest first,
/// without padding; windows that read the same tokens are read once.
///
/// # Errors
/// When the device failed.
pub fn score(model: &Model, requests: &[Request], reading: Reading) -> Result<Vec<Score>> {
    let model = model.valid();
    let windows: Vec<(usize, Window)> = requests
        .iter()
        .enumerate()
        .flat_map(|(index, request)| {
            request.windows(reading.longest).into_iter().map(move |window| (index, window))
        })
        .collect();
    let mut order: Vec<usize> = (0..windows.len()).collect();
    let tokens = |index: usize| windows[index].1.tokens.as_slice();
    order.sort_by(|&a, &b| {
        tokens(b).len().cmp(&tokens(a).len()).then_with(|| tokens(a).cmp(tokens(b))).then(a.cmp(&b))
    });
    let rows: Vec<&[usize]> = order.chunk_by(|&a, &b| tokens(a) == tokens(b)).collect();

    let mut scores = vec![Score::default(); requests.len()];
    for rows in rows.chunk_by(|a, b| tokens(a[0]).len() == tokens(b[0]).len()) {
        let len = tokens(rows[0][0]).len();
        for rows in rows.chunks((reading.pass_tokens / len).max(1)) {
            let members: Vec<(usize, &(usize, Window))> = rows
                .iter()
                .enumerate()
                .flat_map(|(row, members)| members.iter().map(move |&member| (row, member)))
                .map(|(row, member)| (row, &windows[member]))
                .collect();
            let pass = Pass { rows: rows.iter().map(|row| tokens(row[0])).collect(), members: &members };
            pass.run(&model, reading.ranks, &mut scores)?;
        }
    }
    Ok(scores)
}

/// Rows of equal length, and the windows that read them, each with its request.
struct Pass<'a> {
    rows: Vec<&'a [u32]>,
    members: &'a [(usize, &'a (usize, Window))],
}

impl Pass<'_> {
    fn run(&self, model: &Model, ranks: bool, scores: &mut [Score]) -> Result<()> {
        let device = model.device();
        let (len, mut tokens) = (self.rows[0].len(), self.rows.concat());
        // Products with a single row have separate kernels on a GPU and in attention by tensor operations,
        // which sum in another order than the kernels for more rows. The CPU's exact products do not.
        if tokens.len() == 1 {
            tokens = tokens.repeat(2);
        }
        let n = tokens.len() / len;
        let positions: Vec<u32> = (0..n).flat_map(|_| 0..len as u32).collect();
        let input = Input::new(&tokens, &positions, &vec![0; n * len], [n, len], &device);
        let hidden = model.forward(&input, &model.eval_context(&input)).hidden;

        // The head is applied only to tokens that predict something.
        let mut places: Vec<i64> = Vec::new();
        let (mut ids, mut owners) = (Vec::new(), Vec::new());
        for (row, (request, window)) in self.members {
            let first = (row + 1) * len - window.targets.len();
            places.extend((first..(row + 1) * len).map(|place| place as i64));
            ids.extend(&window.targets);
            owners.resize(ids.len(), *request);
        }
        if places.len() == 1 {
            (places, ids) = (places.repeat(2), ids.repeat(2));
        }
        let n_targets = places.len();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [n_targets]), &device);
        let hidden = hidden.select(0, places);
        let mask = vec![true; n_targets];
        let targets = Targets { ids: &ids, mask: &mask };
        let losses = token_losses(hidden.clone(), model.head(), targets)?;
        let ranks = if ranks { token_ranks(hidden, model.head(), targets)? } else { vec![0; n_targets] };
        // Rows that were only added as padding have no owner.
        for ((owner, loss), rank) in owners.into_iter().zip(losses).zip(ranks) {
            let score = &mut scores[owner];
            score.log_likelihood -= f64::from(loss);
            score.n_tokens += 1;
            score.n_missed += usize::from(rank > 0);
        }
        Ok(())
    }
}
