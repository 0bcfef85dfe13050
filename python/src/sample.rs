//! A sample with where it comes from.

use moe_shards::{Piece, Plan, Sample, SampleId};
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::arrays::{Columns, array};

/// One training sequence. All arrays are `seq_len` long, and the caller may change them.
///
/// `tokens` (int32): input, padding is the end-of-document token. `targets` (int32): the next token of the
/// same document; if there is none, `loss_mask` (bool) is False. `segments` (int32): number of the segment,
/// -1 is padding; attention stays inside a segment, which is a piece or the texts of a stitched family.
/// `positions` (int32): position in it, from 0. `pieces`: the documents.
#[pyclass(frozen, module = "moe_shards", name = "Sample")]
pub struct SampleView {
    /// Number of the sample in the plan, or of the held-out sequence.
    #[pyo3(get)]
    t: u64,
    /// Number of the pool, as in `Plan.pool_names`.
    #[pyo3(get)]
    pool: u16,
    /// Pass over the pool, from 0.
    #[pyo3(get, name = "pass_")]
    pass: u32,
    /// Bin in the pass.
    #[pyo3(get)]
    bin: u64,
    /// Input tokens, int32.
    #[pyo3(get)]
    tokens: Py<PyArray1<i32>>,
    /// The next token of the same document, int32.
    #[pyo3(get)]
    targets: Py<PyArray1<i32>>,
    /// Whether the target counts in the loss, bool.
    #[pyo3(get)]
    loss_mask: Py<PyArray1<bool>>,
    /// Number of the segment, -1 for padding, int32.
    #[pyo3(get)]
    segments: Py<PyArray1<i32>>,
    /// Position in the segment, int32.
    #[pyo3(get)]
    positions: Py<PyArray1<i32>>,
    pieces: Vec<PieceView>,
}

/// A run of tokens of one document inside a sample.
#[pyclass(frozen, get_all, module = "moe_shards", name = "Piece")]
#[derive(Clone)]
pub struct PieceView {
    /// First position in the sample.
    start: u32,
    /// Tokens.
    len: u32,
    /// Name of the shard.
    shard: String,
    /// Number of the document in the shard.
    doc: u32,
    /// First token in the document; above 0 when the document was cut.
    offset: u32,
    /// Family of the document.
    family: u64,
    /// Which text of the family; 0 is the original.
    variant: u8,
}

impl SampleView {
    /// A sample of a plan; its numbers are moved into arrays.
    pub fn new(py: Python<'_>, plan: &Plan, t: u64, sample: Sample) -> SampleView {
        let SampleId { pool, pass, bin } = sample.id;
        let shards = &plan.manifest().shards;
        let view = |piece: &Piece| PieceView {
            start: piece.start,
            len: piece.len,
            shard: shards.get(piece.shard as usize).map(|info| info.name.clone()).unwrap_or_default(),
            doc: piece.doc,
            offset: piece.offset,
            family: piece.family.0,
            variant: piece.variant,
        };
        let pieces = sample.pieces.iter().map(view).collect();
        let columns = Columns::of(sample);
        SampleView {
            t,
            pool,
            pass,
            bin,
            tokens: array(py, columns.tokens),
            targets: array(py, columns.targets),
            loss_mask: array(py, columns.loss_mask),
            segments: array(py, columns.segments),
            positions: array(py, columns.positions),
            pieces,
        }
    }
}

#[pymethods]
impl SampleView {
    /// The documents in it, in order.
    #[getter]
    fn pieces(&self) -> Vec<PieceView> {
        self.pieces.clone()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.tokens.bind(py).len()
    }

    fn __repr__(&self) -> String {
        let SampleView { t, pool, pass, bin, pieces, .. } = self;
        format!("Sample(t={t}, pool={pool}, pass_={pass}, bin={bin}, pieces={})", pieces.len())
    }
}

#[pymethods]
impl PieceView {
    fn __repr__(&self) -> String {
        let PieceView { start, len, shard, doc, offset, family, variant } = self;
        format!(
            "Piece(start={start}, len={len}, shard='{shard}', doc={doc}, offset={offset}, family=0x{family:016x}, variant={variant})"
        )
    }
}
