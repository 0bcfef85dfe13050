from os import PathLike
from pathlib import Path
from typing import Any, SupportsIndex, final

import numpy as np
from numpy.typing import NDArray

@final
class Piece:
    """A run of tokens of one document inside a sample."""

    start: int
    len: int
    shard: str
    doc: int
    offset: int
    family: int
    variant: int

@final
class Sample:
    """One training sequence; all arrays are `seq_len` long."""

    t: int
    pool: int
    pass_: int
    bin: int
    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    segments: NDArray[np.int32]
    positions: NDArray[np.int32]
    pieces: list[Piece]
    def __len__(self) -> int: ...

@final
class ShardInfo:
    """The manifest's entry for a shard."""

    name: str
    path: Path
    source: str

@final
class Document:
    """A document of a shard."""

    doc: int
    id: str
    tokens: NDArray[np.uint16] | NDArray[np.uint32]
    family: int
    variant: int
    quality: int | None
    language: str | None
    tags: list[str]
    n_bytes: int
    trained: NDArray[np.bool_] | None
    def __len__(self) -> int: ...

@final
class DocumentIter:
    """Iterates over the documents of a shard."""

    def __iter__(self) -> DocumentIter: ...
    def __next__(self) -> Document: ...

@final
class Shard:
    """A file of tokenized documents of one source and one variant."""

    path: Path
    all_tokens: NDArray[np.uint16] | NDArray[np.uint32]
    vocab_size: int
    eod: int
    @staticmethod
    def open(path: str | PathLike[str]) -> Shard: ...
    def __len__(self) -> int: ...
    def __getitem__(self, doc: SupportsIndex, /) -> Document: ...
    def __iter__(self) -> DocumentIter: ...
    def document(self, doc: SupportsIndex) -> Document: ...
    def documents(self) -> DocumentIter: ...
    def verify(self) -> None: ...

@final
class Plan:
    """The sequence of all training samples."""

    path: Path
    id: str
    seq_len: int
    vocab_size: int
    eod: int
    pool_names: list[str]
    phases: list[tuple[int, int, int]]
    token_bytes: NDArray[np.uint16]
    shards: list[ShardInfo]
    validation_len: int
    @staticmethod
    def open(path: str | PathLike[str]) -> Plan: ...
    def __len__(self) -> int: ...
    def __getitem__(self, t: SupportsIndex, /) -> Sample: ...
    def sample(self, t: SupportsIndex) -> Sample: ...
    def batch(
        self,
        start: SupportsIndex,
        stop: SupportsIndex,
        rank: int = 0,
        world: int = 1,
        *,
        ignore_index: int | None = None,
    ) -> dict[str, NDArray[Any]]: ...
    def locate(self, t: SupportsIndex) -> tuple[int, int, int]: ...
    def explain(self, t: SupportsIndex, *, text: bool = False) -> dict[str, Any]: ...
    def validation_sample(self, i: SupportsIndex) -> Sample: ...
    def continues(self, id: str, t: int) -> bool: ...
    def verify(self) -> None: ...
