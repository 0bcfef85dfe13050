//! How the rows and the matrices of experts are split into tasks.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::cpu::{Packed, View, rows, task_rows, unwritten};
use super::super::flex::integers;

/// Experts that have rows, with those rows, one after the other from row 0 on.
pub(super) struct Groups(Vec<(usize, Range<usize>)>);

/// Some rows of a group, and their parts of several outputs.
pub(super) struct Task<'a, const N: usize> {
    pub(super) group: usize,
    pub(super) first: usize,
    pub(super) outs: [&'a mut [f32]; N],
}

impl Groups {
    pub(super) fn new(offsets: &FlexTensor, n_rows: usize) -> Self {
        let offsets = offsets.to_contiguous();
        let offsets = integers(&offsets);
        let bound = |at: i64| usize::try_from(at).unwrap_or(0).min(n_rows);
        let bounds = offsets.windows(2).map(|pair| bound(pair[0])..bound(pair[1]));
        Self(bounds.enumerate().filter(|(_, rows)| !rows.is_empty()).collect())
    }

    /// The matrix of each group from `[experts, rows, columns]`, transposed or not.
    pub(super) fn packed(&self, w: &[f32], [n, columns]: [usize; 2], is_transposed: bool) -> Vec<Packed> {
        let matrix = |(expert, _): &(usize, Range<usize>)| {
            let view = View::rows(&w[expert * n * columns..(expert + 1) * n * columns], columns);
            if is_transposed { (view.transposed(), columns, n) } else { (view, n, columns) }
        };
        Packed::all(&self.0.iter().map(matrix).collect::<Vec<_>>())
    }

    /// Tasks for all rows, with their parts of outputs of the given numbers of columns. Rows of an output
    /// that belong to no expert become 0.
    pub(super) fn tasks<'a, const N: usize>(
        &self,
        mut outs: [(&'a mut [f32], usize); N],
    ) -> Vec<Task<'a, N>> {
        let size = task_rows(self.0.iter().map(|(_, rows)| rows.len()).sum());
        let mut tasks = Vec::new();
        for (group, (_, rows)) in self.0.iter().enumerate() {
            for first in rows.clone().step_by(size) {
                let n = size.min(rows.end - first);
                let outs = outs.each_mut().map(|(rest, columns)| {
                    let (part, behind) = std::mem::take(rest).split_at_mut(n * *columns);
                    *rest = behind;
                    part
                });
                tasks.push(Task { group, first, outs });
            }
        }
        outs.into_iter().for_each(|(rest, _)| rest.fill(0.0));
        tasks
    }
}

/// The gradient of the matrices, `[experts, width, columns]`: for each group the products of its inputs,
/// transposed, with its gradients.
pub(super) fn of_matrices(
    x: &[f32],
    grad: &[f32],
    [width, columns]: [usize; 2],
    groups: &Groups,
    n_experts: usize,
) -> Vec<f32> {
    let size = width * columns;
    let mut out = unwritten(n_experts * size);
    let grads = groups.0.iter().map(|(_, rows)| {
        (View::rows(&grad[rows.start * columns..rows.end * columns], columns), rows.len(), columns)
    });
    let packed = Packed::all(&grads.collect::<Vec<_>>());
    let n = task_rows(groups.0.len() * width);
    let mut found = groups.0.iter().zip(&packed).peekable();
    let mut tasks = Vec::new();
    for (expert, out) in out.chunks_mut(size.max(1)).enumerate() {
        let Some(((_, of), packed)) = found.next_if(|((of, _), _)| *of == expert) else {
            out.fill(0.0);
            continue;
        };
        let x = View::rows(&x[of.start * width..of.end * width], width).transposed();
        let chunks = out.chunks_mut((n * columns).max(1)).enumerate();
        tasks.extend(chunks.map(|(i, out)| (x.from_row(i * n), packed, out)));
    }
    tasks.into_par_iter().for_each(|(x, packed, out)| rows(x, packed, out, false));
    out
}
