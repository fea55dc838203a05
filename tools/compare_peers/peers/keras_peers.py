"""Our network on the Keras backend of this process, as a user calls it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tools.compare_peers.job import Job
from tools.compare_peers.peers.device import check_keras


def set_threads(number: int) -> None:
    """Limits TensorFlow's threads; JAX takes the cores that the process may use."""
    import keras

    if number and keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(number)


def choose_convolution(way: str | None) -> None:
    """Depthwise convolutions of this process.

    Args:
        way: "shifts" for JAX's shifted sums, "library" for the library's own convolution; None for
            what the table of kernels says.
    """
    from dl_techniques.kernels import jax_depthwise, reference
    from dl_techniques.kernels.table import TABLE, Kernel

    ways = {"shifts": jax_depthwise.jax_depthwise_conv, "library": reference.depthwise_conv}
    if way is not None:
        TABLE["depthwise_conv"] = Kernel(ways[way])


class KerasRunner:
    """`predict_on_batch` of the fused or folded network: float[B, S, S, 3] -> float[B, h, w, C].

    Args:
        folder: of the comparison.
        form: "folded" or "fused".
        dtype: of weights and arithmetic.
        convolution: see `choose_convolution`.
        static: whether matrix products are in static int8.
    """

    def __init__(
        self,
        folder: Path,
        form: str = "folded",
        dtype: str = "float32",
        convolution: str | None = None,
        static: bool = False,
    ) -> None:
        import keras

        from dl_techniques import FastVLM
        from dl_techniques.compression.static_int8 import quantize_static
        from dl_techniques.runtime.recording import CALLS_OF_PREDICT

        job = Job.read(folder)
        set_threads(job.threads)
        check_keras(job)
        choose_convolution(convolution)
        self.network = FastVLM.from_preset(folder / form, dtype=dtype)
        self.images = job.pictures()
        if static:
            quantize_static(self.network, job.pictures(seed=8))
        if keras.config.backend() == "torch":  # what a process gets that predicts often
            for _ in range(CALLS_OF_PREDICT + 1):
                self.network.predict_on_batch(self.images)

    def times(self) -> dict[str, float]:
        """Seconds of one prediction; it returns when the result is there."""
        start = time.perf_counter()
        self.network.predict_on_batch(self.images)
        return {"forward": time.perf_counter() - start}

    def output(self) -> np.ndarray:
        """float32[B, h, w, C]."""
        return np.asarray(self.network.predict_on_batch(self.images)).astype("float32")
