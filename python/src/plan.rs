//! A plan: sample `t` for every `t`.

use std::path::{Path, PathBuf};

use moe_shards::{Hash, Manifest, PassLock, Plan, Shard};
use pyo3::exceptions::{PyImportError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::arrays::{Columns, array, rows};
use crate::error::{detached, exception, number, out_of_range};
use crate::sample::SampleView;

/// The sequence of all training samples, as `moe-data mix` made it. Sample `t` is a function only of `t`:
/// there is no state, and any number of threads may read.
#[pyclass(frozen, module = "moe_shards", name = "Plan")]
pub struct PlanReader {
    plan: Plan,
    dir: PathBuf,
}

/// The manifest's entry for a shard.
#[pyclass(frozen, get_all, module = "moe_shards", name = "ShardInfo")]
pub struct ShardInfo {
    /// Name of the file without its ending.
    name: String,
    /// Path of the index; `Shard.open` takes it.
    path: PathBuf,
    /// Name of the source.
    source: String,
}

#[pymethods]
impl PlanReader {
    /// Opens the plan in the folder of a build (`moe-data build`, `moe-data mix`). Sizes, headers and digests
    /// of indexes are checked now, the tokens of a document whenever it is read.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<PlanReader> {
        let plan = detached(py, || Plan::open(&path))?;
        Ok(PlanReader { plan, dir: path })
    }

    /// The folder.
    #[getter]
    fn path(&self) -> &Path {
        &self.dir
    }

    /// The plan's identity: 64 hexadecimal digits.
    #[getter]
    fn id(&self) -> String {
        self.plan.id().to_string()
    }

    /// Samples.
    fn __len__(&self) -> usize {
        usize::try_from(self.plan.len()).unwrap_or(usize::MAX)
    }

    /// Tokens of the longest sequence; phases may differ, see `phases`.
    #[getter]
    fn seq_len(&self) -> usize {
        self.plan.seq_len()
    }

    /// Tokens in the vocabulary.
    #[getter]
    fn vocab_size(&self) -> u32 {
        self.plan.manifest().tokenizer.vocab_size
    }

    /// The end-of-document token.
    #[getter]
    fn eod(&self) -> u32 {
        self.plan.manifest().tokenizer.eod_id
    }

    /// Names of the pools.
    #[getter]
    fn pool_names(&self) -> Vec<String> {
        self.plan.pool_names()
    }

    /// The phases: (first sample, sample after the last, tokens of a sequence).
    #[getter]
    fn phases(&self) -> Vec<(u64, u64, u32)> {
        self.plan.lock().phases.iter().map(|phase| (phase.t_start, phase.t_end(), phase.seq_len)).collect()
    }

    /// UTF-8 bytes of each token id, uint16; special tokens have 0.
    #[getter]
    fn token_bytes(&self, py: Python<'_>) -> Py<numpy::PyArray1<u16>> {
        array(py, self.plan.token_bytes().to_vec())
    }

    /// The shards of the build.
    #[getter]
    fn shards(&self) -> Vec<ShardInfo> {
        let manifest = self.plan.manifest();
        let info = |shard: &moe_shards::ShardInfo| ShardInfo {
            name: shard.name.clone(),
            path: Manifest::mdx_path(&self.dir, &shard.name),
            source: manifest
                .sources
                .get(usize::from(shard.source))
                .map(|s| s.name.clone())
                .unwrap_or_default(),
        };
        manifest.shards.iter().map(info).collect()
    }

    /// Sample `t`. Documents that were taken down are padding.
    fn sample(&self, py: Python<'_>, t: &Bound<'_, PyAny>) -> PyResult<SampleView> {
        let t = number(t, "sample", self.plan.len())?;
        let sample = detached(py, || self.plan.sample(t))?;
        Ok(SampleView::new(py, &self.plan, t, sample))
    }

    fn __getitem__(&self, py: Python<'_>, t: &Bound<'_, PyAny>) -> PyResult<SampleView> {
        self.sample(py, t)
    }

    /// The samples `start..stop`, or the part of them that rank `rank` of `world` reads: a contiguous slice,
    /// `n * rank // world` to `n * (rank + 1) // world` of the `n`. Returns arrays of shape (rows, seq_len),
    /// by name. If `ignore_index` is given, `targets` has it where nothing is to be predicted. The samples
    /// must have the same length.
    #[pyo3(signature = (start, stop, rank=0, world=1, *, ignore_index=None))]
    fn batch<'py>(
        &self,
        py: Python<'py>,
        start: &Bound<'py, PyAny>,
        stop: &Bound<'py, PyAny>,
        rank: u32,
        world: u32,
        ignore_index: Option<i32>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let n = self.plan.len();
        let (start, stop) = (number(start, "sample", n)?, number(stop, "sample", n)?);
        if stop > n {
            return Err(out_of_range("sample", stop - 1, n));
        }
        if start > stop {
            return Err(PyValueError::new_err(format!(
                "samples {start}..{stop}: the end is before the start"
            )));
        }
        if rank >= world {
            return Err(PyValueError::new_err(format!(
                "rank {rank} of {world} ranks: ranks are numbered from 0"
            )));
        }
        let len = u128::from(stop - start);
        let cut = |r: u32| start + (len * u128::from(r) / u128::from(world)) as u64;
        let (first, last) = (cut(rank), cut(rank + 1));
        let (columns, seq_len) = detached(py, || {
            let seq_len =
                self.plan.seq_len_at(if start < stop { start } else { start.min(n.saturating_sub(1)) })?;
            let mut columns = Columns::with_capacity((last - first) as usize * seq_len);
            for t in first..last {
                let sample = self.plan.sample(t)?;
                if sample.tokens.len() != seq_len {
                    let (path, len) = (self.dir.display(), sample.tokens.len());
                    let message = format!(
                        "{path}: sample {start} has {seq_len} tokens and sample {t} has {len}: a batch holds one length; PlanBatches cuts batches where it changes"
                    );
                    return Err(moe_shards::Error::Quota(message));
                }
                columns.append(&sample);
            }
            if let Some(value) = ignore_index {
                columns.ignore(value);
            }
            Ok((columns, seq_len))
        })?;
        let n = (last - first) as usize;
        let batch = PyDict::new(py);
        let samples: Vec<i64> = (first..last).map(|t| t as i64).collect();
        batch.set_item("t", array(py, samples))?;
        batch.set_item("tokens", rows(py, columns.tokens, n, seq_len)?)?;
        batch.set_item("targets", rows(py, columns.targets, n, seq_len)?)?;
        batch.set_item("loss_mask", rows(py, columns.loss_mask, n, seq_len)?)?;
        batch.set_item("segments", rows(py, columns.segments, n, seq_len)?)?;
        batch.set_item("positions", rows(py, columns.positions, n, seq_len)?)?;
        Ok(batch)
    }

    /// Which bin sample `t` is, without reading it: (pool, pass, bin).
    fn locate(&self, py: Python<'_>, t: &Bound<'_, PyAny>) -> PyResult<(u16, u32, u64)> {
        let t = number(t, "sample", self.plan.len())?;
        let id = detached(py, || self.plan.locate(t))?;
        Ok((id.pool, id.pass, id.bin))
    }

    /// Which text sample `t` is: the output of `moe-data explain T --json`. With `text`, also the text of
    /// each piece, for which the package `tokenizers` must be installed.
    #[pyo3(signature = (t, *, text=false))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        t: &Bound<'py, PyAny>,
        text: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let t = number(t, "sample", self.plan.len())?;
        let plan = &self.plan;
        let sample = detached(py, || plan.sample(t))?;
        let pool = &plan.lock().pools[usize::from(sample.id.pool)];
        let shards = plan.pools()[usize::from(sample.id.pool)].docs().shards();
        let tokenizer = if text { Some(self.tokenizer(py)?) } else { None };
        let said = PyDict::new(py);
        said.set_item("t", t)?;
        said.set_item("n_samples", plan.len())?;
        said.set_item("plan", plan.id().to_string())?;
        said.set_item("pool", &pool.name)?;
        said.set_item("pass", sample.id.pass)?;
        said.set_item("bin", sample.id.bin)?;
        said.set_item("n_bins", pool.pass(sample.id.pass).map_or(0, PassLock::n_bins))?;
        said.set_item("trained_tokens", sample.trained_tokens())?;
        let shown: usize = sample.pieces.iter().map(|piece| piece.len as usize).sum();
        said.set_item("padding", sample.tokens.len() - shown)?;
        let pieces = PyList::empty(py);
        for piece in &sample.pieces {
            let missing = || {
                exception(&moe_shards::Error::Quota(format!("shard number {} is in no pool", piece.shard)))
            };
            let info = plan.manifest().shards.get(piece.shard as usize).ok_or_else(missing)?;
            let named = |(_, lock): &(&Shard, &moe_shards::ShardRef)| lock.name == info.name;
            let (shard, _) = shards.iter().zip(&pool.shards).find(named).ok_or_else(missing)?;
            let source = plan.manifest().sources.get(usize::from(info.source));
            let variant_name = source.and_then(|source| source.variants.get(usize::from(piece.variant)));
            let of_shard = || Ok((shard.id(piece.doc)?, shard.span(piece.doc)?.1));
            let (document, document_tokens) = of_shard().map_err(|e| exception(&e))?;
            let row = PyDict::new(py);
            row.set_item("document", document)?;
            row.set_item("family", piece.family.to_string())?;
            row.set_item("segment", sample.segments[piece.start as usize])?;
            row.set_item("variant", piece.variant)?;
            row.set_item("variant_name", variant_name.map_or("", String::as_str))?;
            row.set_item("shard", &info.name)?;
            row.set_item("offset", piece.offset)?;
            row.set_item("len", piece.len)?;
            row.set_item("document_tokens", document_tokens)?;
            if let Some(tokenizer) = &tokenizer {
                let ids = sample.tokens[piece.start as usize..(piece.start + piece.len) as usize].to_vec();
                row.set_item("text", tokenizer.call_method1("decode", (ids,))?)?;
            }
            pieces.append(row)?;
        }
        said.set_item("pieces", pieces)?;
        Ok(said)
    }

    /// Held-out sequences.
    #[getter]
    fn validation_len(&self) -> u64 {
        self.plan.validation_len()
    }

    /// Held-out sequence `i`: originals of families that no training sample shows.
    fn validation_sample(&self, py: Python<'_>, i: &Bound<'_, PyAny>) -> PyResult<SampleView> {
        let i = number(i, "validation sample", self.plan.validation_len())?;
        let sample = detached(py, || self.plan.validation_sample(i))?;
        Ok(SampleView::new(py, &self.plan, i, sample))
    }

    /// Whether a run that has read samples `0..t` of the plan with this id can continue with this plan: it is
    /// the same, or this one extends it and does not differ before `t`.
    fn continues(&self, id: &str, t: u64) -> PyResult<bool> {
        let id: Hash = id.parse().map_err(|e: String| PyValueError::new_err(format!("plan id: {e}")))?;
        Ok(self.plan.lock().continues_run(id, t))
    }

    /// Compares every file of the plan and every shard with its digest.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || {
            self.plan.verify()?;
            self.plan.shards().into_iter().try_for_each(Shard::verify)
        })
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<(Py<PyAny>, (PathBuf,))> {
        Ok((slf.getattr("open")?.unbind(), (slf.get().dir.clone(),)))
    }

    fn __repr__(&self) -> String {
        let (dir, id, n) = (self.dir.display(), self.plan.id().short(), self.plan.len());
        format!("Plan('{dir}', id={id}, samples={n}, seq_len={})", self.plan.seq_len())
    }
}

impl PlanReader {
    fn tokenizer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let tokenizers = py.import("tokenizers").map_err(|e| {
            PyImportError::new_err(format!(
                "explain(text=True) needs the package `tokenizers`: pip install tokenizers ({e})"
            ))
        })?;
        let file = self.dir.join(&self.plan.manifest().tokenizer.file);
        tokenizers.getattr("Tokenizer")?.call_method1("from_file", (file,))
    }
}
