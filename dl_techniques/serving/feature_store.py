"""Features of pictures, kept by content: the same pixels are encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


class FeatureStore:
    """The features of the pictures asked about last.

    Args:
        model: a `FastVLMCausalLM`.
        limit: most bytes that are kept.

    Attributes:
        nbytes: what is kept now.
        encoded: number of pictures that were encoded so far.
    """

    def __init__(self, model: Any, limit: int) -> None:
        self.nbytes = 0
        self.encoded = 0
        self._model = model
        self._limit = limit
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def features(
        self, digests: Sequence[bytes], pictures: Sequence[np.ndarray]
    ) -> dict[bytes, np.ndarray]:
        """Features float32[T, D] by digest; those that are not kept are encoded, all together.

        Args:
            digests: of the pictures; some may be equal.
            pictures: uint8[S, S, 3] each.
        """
        wanted = dict(zip(digests, pictures, strict=True))
        found = {digest: self._kept[digest] for digest in wanted if digest in self._kept}
        missing = [digest for digest in wanted if digest not in found]
        if missing:
            found |= self._encode(missing, [wanted[digest] for digest in missing])
        for digest in found:
            self._keep(digest, found[digest])
        return found

    def _encode(
        self, digests: Sequence[bytes], pictures: Sequence[np.ndarray]
    ) -> dict[bytes, np.ndarray]:
        converter = self._model.preprocessor.image_converter
        scaled = np.stack([converter.scale_pixels(picture) for picture in pictures])
        rows = self._model.encode_images(scaled[:, None])
        self.encoded += len(pictures)
        values = keras.ops.convert_to_numpy(keras.ops.cast(rows, "float32"))
        return {digest: np.array(row) for digest, row in zip(digests, values, strict=True)}

    def _keep(self, digest: bytes, features: np.ndarray) -> None:
        if digest not in self._kept:
            self._kept[digest] = features
            self.nbytes += features.nbytes
        self._kept.move_to_end(digest)
        while self.nbytes > self._limit and self._kept:
            self.nbytes -= self._kept.popitem(last=False)[1].nbytes
