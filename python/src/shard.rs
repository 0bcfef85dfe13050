//! A shard and its documents. Tokens are views of the mapped file.

use std::path::{Path, PathBuf};

use moe_shards::{Shard, TokenWidth};
use numpy::PyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySlice};

use crate::arrays::array;
use crate::error::{detached, exception, number, out_of_range};

/// A file of tokenized documents of one source and one variant (docs/shard-format.md).
#[pyclass(frozen, module = "moe_shards", name = "Shard")]
pub struct ShardReader {
    shard: Shard,
    path: PathBuf,
    /// All tokens, as an array over the file.
    tokens: Py<PyAny>,
}

/// A document of a shard.
#[pyclass(frozen, get_all, module = "moe_shards", name = "Document")]
pub struct DocumentView {
    /// Number in the shard.
    doc: u32,
    /// Name in its source.
    id: String,
    /// Tokens with the end-of-document token: a view of the file that cannot be written to, uint16 or uint32.
    tokens: Py<PyAny>,
    /// Family: texts of the same thing share it.
    family: u64,
    /// Which text of the family; 0 is the original.
    variant: u8,
    /// Quality bucket from 0 to 255, or None.
    quality: Option<u8>,
    /// Language code, or None.
    language: Option<String>,
    /// Tags, sorted.
    tags: Vec<String>,
    /// Bytes of the text as it was read.
    n_bytes: u32,
    /// Whether each token is trained, bool, in a shard of conversations; None if all are.
    trained: Option<Py<PyArray1<bool>>>,
}

/// Iterates over the documents of a shard.
#[pyclass(module = "moe_shards")]
pub struct DocumentIter {
    shard: Py<ShardReader>,
    next: u32,
}

impl ShardReader {
    fn view(&self, py: Python<'_>, doc: u32) -> PyResult<Py<PyAny>> {
        let (start, len) = detached(py, || {
            self.shard.checked_tokens(doc)?;
            self.shard.span(doc)
        })?;
        let place = |n: u64| isize::try_from(n).map_err(|e| PyValueError::new_err(e.to_string()));
        let slice = PySlice::new(py, place(start)?, place(start + len)?, 1);
        Ok(self.tokens.bind(py).get_item(slice)?.unbind())
    }
}

#[pymethods]
impl ShardReader {
    /// Opens NAME.mdx and the NAME.bin next to it. Costs the same for any size.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<ShardReader> {
        let shard = detached(py, || Shard::open(&path))?;
        let dtype = match TokenWidth::for_vocab(shard.vocab_size()) {
            TokenWidth::U16 => "<u2",
            TokenWidth::U32 => "<u4",
        };
        let numpy = py.import("numpy")?;
        let tokens = if shard.n_tokens() == 0 {
            // NumPy cannot map an empty file.
            numpy.call_method1("empty", (0, dtype))?
        } else {
            let options = PyDict::new(py);
            options.set_item("dtype", dtype)?;
            options.set_item("mode", "r")?;
            let map = numpy.call_method("memmap", (path.with_extension("bin"),), Some(&options))?;
            numpy.call_method1("asarray", (map,))?
        };
        Ok(ShardReader { shard, path, tokens: tokens.unbind() })
    }

    /// The index, NAME.mdx.
    #[getter]
    fn path(&self) -> &Path {
        &self.path
    }

    /// Tokens of all documents, a view of the file without a check.
    #[getter]
    fn all_tokens(&self, py: Python<'_>) -> Py<PyAny> {
        self.tokens.clone_ref(py)
    }

    /// Tokens in the vocabulary.
    #[getter]
    fn vocab_size(&self) -> u32 {
        self.shard.vocab_size()
    }

    /// The end-of-document token.
    #[getter]
    fn eod(&self) -> u32 {
        self.shard.eod().0
    }

    /// Documents.
    fn __len__(&self) -> usize {
        self.shard.n_docs() as usize
    }

    /// Document `doc`; its checksum is checked.
    fn document(&self, py: Python<'_>, doc: &Bound<'_, PyAny>) -> PyResult<DocumentView> {
        let n = u64::from(self.shard.n_docs());
        let doc = number(doc, "document", n)?;
        let doc = u32::try_from(doc).map_err(|_| out_of_range("document", doc, n))?;
        let tokens = self.view(py, doc)?;
        let shard = &self.shard;
        let of_index = || -> moe_shards::Result<_> {
            let meta = shard.meta(doc)?;
            let language = shard.language(doc)?.map(str::to_owned);
            let tags = shard.tags(doc)?.map(str::to_owned).collect();
            let trained = shard.mask(doc)?.map(|mask| mask.to_vec());
            Ok((shard.id(doc)?.to_owned(), meta, language, tags, trained))
        };
        let (id, meta, language, tags, trained) = of_index().map_err(|e| exception(&e))?;
        Ok(DocumentView {
            doc,
            id,
            tokens,
            family: meta.family.0,
            variant: meta.variant,
            quality: meta.quality,
            language,
            tags,
            n_bytes: meta.n_bytes,
            trained: trained.map(|flags| array(py, flags)),
        })
    }

    fn __getitem__(&self, py: Python<'_>, doc: &Bound<'_, PyAny>) -> PyResult<DocumentView> {
        self.document(py, doc)
    }

    /// All documents, one after the other.
    fn documents(slf: Py<Self>) -> DocumentIter {
        DocumentIter { shard: slf, next: 0 }
    }

    fn __iter__(slf: Py<Self>) -> DocumentIter {
        DocumentIter { shard: slf, next: 0 }
    }

    /// Reads everything and compares it with its checksums.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.shard.verify())
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<(Py<PyAny>, (PathBuf,))> {
        Ok((slf.getattr("open")?.unbind(), (slf.get().path.clone(),)))
    }

    fn __repr__(&self) -> String {
        let (path, n_docs, n_tokens) = (self.path.display(), self.shard.n_docs(), self.shard.n_tokens());
        format!("Shard('{path}', documents={n_docs}, tokens={n_tokens})")
    }
}

#[pymethods]
impl DocumentIter {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<DocumentView>> {
        let shard = self.shard.get();
        if self.next >= shard.shard.n_docs() {
            return Ok(None);
        }
        let document = shard.document(py, self.next.into_pyobject(py)?.as_any())?;
        self.next += 1;
        Ok(Some(document))
    }
}

#[pymethods]
impl DocumentView {
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.tokens.bind(py).len()
    }

    fn __repr__(&self) -> String {
        format!(
            "Document(doc={}, id={:?}, family=0x{:016x}, variant={})",
            self.doc, self.id, self.family, self.variant
        )
    }
}
