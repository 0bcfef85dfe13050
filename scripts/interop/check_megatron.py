"""Reads every document of a build with Megatron-Core's IndexedDataset and compares its tokens with
those that the build's own index (docs/shard-format.md) names.

Usage: check_megatron.py OUT    (after `moe-data export --megatron`)

With PyTorch installed, the package is imported as usual. Without it (about 3 GB with its CUDA
libraries), only the two modules that read an index are executed, unchanged, and the few names that
they import from PyTorch and from the rest of the package are empty stand-ins: reading needs none of them.
"""

import importlib.metadata
import importlib.util
import struct
import sys
import time
import types
from pathlib import Path

import numpy as np


def indexed_dataset():
    try:
        import torch  # noqa: F401
        from megatron.core.datasets import indexed_dataset as module
        return module, "with PyTorch"
    except ModuleNotFoundError as e:
        if e.name != "torch":
            raise
    spec = importlib.util.find_spec("megatron")
    core = Path(next(iter(spec.submodule_search_locations))) / "core"

    def module(name, **names):
        made = sys.modules[name] = types.ModuleType(name)
        made.__dict__.update(names)
        return made

    def load(name):
        path = core.joinpath(*name.split(".")[2:]).with_suffix(".py")
        spec = importlib.util.spec_from_file_location(name, path)
        made = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made

    module("torch", Tensor=object, utils=types.SimpleNamespace(data=types.SimpleNamespace(Dataset=object)))
    for name in ["megatron.core", "megatron.core.datasets"]:
        module(name, __path__=[])
    module("megatron.core.utils", log_single_rank=lambda *_, **__: None)
    load("megatron.core.msc_utils")
    load("megatron.core.datasets.object_storage_utils")
    return load("megatron.core.datasets.indexed_dataset"), "its reading modules, without PyTorch"


def ends_of(mdx):
    """Ends of the documents and bytes per token, by the specification."""
    data = mdx.read_bytes()
    assert data[:6] == b"MOEMDX", mdx
    width, n_docs = struct.unpack_from("<IQ", data, 12)
    offset, n_bytes = struct.unpack_from("<QQ", data, 144)
    assert n_bytes == 8 * n_docs, mdx
    return np.frombuffer(data, "<u8", n_docs, offset), width


def main(out):
    module, how = indexed_dataset()
    n_docs = n_tokens = 0
    seconds = 0.0
    shards = sorted(Path(out, "shards").glob("*.mdx"))
    if not shards:
        raise SystemExit(f"{out} has no shards")
    for mdx in shards:
        ends, width = ends_of(mdx)
        ours = np.fromfile(mdx.with_suffix(".bin"), {2: "<u2", 4: "<u4"}[width])
        start = time.perf_counter()
        theirs = module.IndexedDataset(str(mdx.with_suffix("")), multimodal=False, mmap=True)
        assert len(theirs) == len(ends), f"{mdx}: {len(theirs)} documents, {len(ends)} expected"
        assert list(theirs.document_indices) == list(range(len(ends) + 1)), mdx
        first = 0
        for i, end in enumerate(ends.tolist()):
            tokens = theirs[i]
            if tokens.astype(np.int64).tolist() != ours[first:end].astype(np.int64).tolist():
                raise SystemExit(f"{mdx}: document {i} differs")
            first = end
        seconds += time.perf_counter() - start
        assert first == len(ours), mdx
        n_docs, n_tokens = n_docs + len(ends), n_tokens + len(ours)
    version = importlib.metadata.version("megatron-core")
    print(f"megatron-core {version} ({how}): {len(shards)} shards, {n_docs} documents, {n_tokens} tokens: all equal, {seconds:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1])
