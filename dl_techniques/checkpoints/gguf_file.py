"""GGUF files: arrays under their own names, dequantized when they are read, and the metadata.

Reference: the format, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.checkpoints.tensor_store import TensorInfo, TensorStore
from dl_techniques.errors import CheckpointError, MissingExtraError, install_hint

MAGIC = b"GGUF"


class GGUFStore(TensorStore):
    """A `.gguf` file. Arrays of any stored type are read as float32.

    Args:
        path: the file.

    Attributes:
        metadata: the file's table of settings, e.g. `general.architecture`; arrays are lists.

    Raises:
        CheckpointError: no GGUF, or cut short.
        MissingExtraError: the package `gguf` is not installed.

    Example:
        >>> import tempfile, gguf, numpy as np
        >>> path = tempfile.mkdtemp() + "/tiny.gguf"
        >>> writer = gguf.GGUFWriter(path, "llama")
        >>> writer.add_tensor("token_embd.weight", np.ones((4, 2), "float16"))
        >>> writer.write_header_to_file(); writer.write_kv_data_to_file()
        >>> writer.write_tensors_to_file(); writer.close()
        >>> with GGUFStore(Path(path)) as store:
        ...     store["token_embd.weight"].shape, store.metadata["general.architecture"]
        ((4, 2), 'llama')
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        reader = _open(path)
        self.metadata: dict[str, Any] = {
            name: field.contents()
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        for name, tensor in self._tensors.items():
            shape = tuple(int(size) for size in reversed(tensor.shape))
            self._infos[name] = TensorInfo(shape, np.dtype(np.float32))

    def needed(self, name: str) -> Any:
        """A setting that no default can replace.

        Raises:
            CheckpointError: it is absent.
        """
        if name not in self.metadata:
            raise CheckpointError(f"{self.path}: the metadata has no {name!r}; convert it again")
        return self.metadata[name]

    def read(self, name: str) -> np.ndarray:
        """Reads one array as float32."""
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        values: np.ndarray = dequantize(tensor.data, tensor.tensor_type)
        # A copy: the file stays mapped only as long as the store is open.
        return np.array(values, np.float32).reshape(self[name].shape)

    def close(self) -> None:
        """Lets go of the file."""
        self._tensors = {}


def _open(path: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingExtraError(
            f"{path.name} is a GGUF file, and reading it needs gguf: {install_hint('gguf')}"
        ) from error
    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise CheckpointError(f"{path}: no GGUF file, it begins with {magic!r}")
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be read ({reason}); it may be cut short: download it again"
        ) from error
