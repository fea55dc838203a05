"""Whole models in bfloat16: transformers, and ours.

Pictures start as float32 in the host's memory, words as numbers there; the first token ends there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.compare_peers import vlm_peers
from tools.compare_peers.gpu.our_runners import check_jax, choose_convolution, jax_device_name
from tools.compare_peers.gpu.settings import DTYPE, Settings
from tools.compare_peers.gpu.timing import turn


class OurRunner(vlm_peers.OurRunner):
    """Our FastVLM on the Keras backend of this process.

    Args:
        folder: of the shape.
        shifts: on JAX, depthwise convolutions as shifted sums instead of the library's.
    """

    def __init__(self, folder: Path, shifts: bool = False) -> None:
        import keras

        self.settings = Settings.read(folder)
        self.on_torch = keras.config.backend() == "torch"
        if self.on_torch:
            from tools.compare_peers.gpu.torch_device import prepare_torch

            prepare_torch(self.settings)
        else:
            check_jax(self.settings)
            choose_convolution(shifts)
        super().__init__(folder, DTYPE)
        self._become_warm()

    def _become_warm(self) -> None:
        """Compiles; on torch, encodes until the encoder is recorded, as a process that serves."""
        from dl_techniques.runtime import compile as compiling

        for _ in range(compiling.CALLS_BEFORE_RECORDING + 1 if self.on_torch else 0):
            self.model.encode_images(self.inputs["images"])
        for _ in range(2):
            super().times()

    def times(self) -> dict[str, float]:
        """Seconds to the first token, of each further one, and to that of a second question."""
        return turn(super().times, self.settings)

    def device(self) -> str:
        """The card's name."""
        if not self.on_torch:
            return jax_device_name()
        from tools.compare_peers.gpu.torch_device import device_name

        return device_name(self.settings)

    def output(self) -> np.ndarray:
        """Logits of the first new token, float32[1, vocabulary]."""
        logits: Any = super().output()
        return np.asarray(logits)
