"""What every kind of weight file is to its readers: a table of named arrays."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np


@dataclass(frozen=True)
class TensorInfo:
    """Shape and type of a stored array.

    Args:
        shape: as stored.
        dtype: the NumPy type that reading gives (`bfloat16` comes from ml_dtypes).
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorStore(Mapping[str, TensorInfo], AbstractContextManager):
    """Named arrays of one checkpoint: a mapping from name to `TensorInfo`, and `read(name)`.

    Attributes:
        path: what was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._infos: dict[str, TensorInfo] = {}

    @abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Reads one array in its stored type."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(info.nbytes for info in self.values())

    def close(self) -> None:
        """Lets go of the files."""

    def __getitem__(self, name: str) -> TensorInfo:
        return self._infos[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
