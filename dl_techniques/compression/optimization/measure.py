"""How accurate and how fast a classifier is in the LiteRT runtime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.errors import CompressionError, MissingExtraError, install_hint

WARM_UP = 10
REPEATS = 100


class LiteRTClassifier:
    """A `.tflite` classifier with one input and one output, run picture by picture.

    Args:
        path: the file.
        threads: of the runtime. Defaults to 1.

    Raises:
        CompressionError: the file cannot be run, or has several inputs or outputs.
        MissingExtraError: ai-edge-litert is not installed.

    Example:
        >>> LiteRTClassifier("tiny.tflite").predict(pictures)  # doctest: +SKIP
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtraError(
                f"running a LiteRT file needs ai-edge-litert: {install_hint('litert')}",
                name="ai_edge_litert",
            ) from error
        try:
            self._interpreter: Any = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise CompressionError(f"{path} cannot be run by LiteRT: {error}") from error
        self.inputs = self._interpreter.get_input_details()
        self.outputs = self._interpreter.get_output_details()
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise CompressionError(
                f"{path} has {len(self.inputs)} inputs and {len(self.outputs)} outputs; expected "
                "a classifier with one of each"
            )

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Logits float32[C] of a picture float32[H, W, 3]."""
        self._interpreter.set_tensor(self.inputs[0]["index"], picture[None])
        self._interpreter.invoke()
        logits: np.ndarray = self._interpreter.get_tensor(self.outputs[0]["index"])[0]
        return logits

    def predict(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """Logits float32[N, C] of pictures float32[H, W, 3]."""
        return np.stack([self(picture) for picture in pictures])

    def milliseconds(self, repeats: int = REPEATS) -> float:
        """Median time of one picture, drawn at random once."""
        shape = self.inputs[0]["shape"][1:]
        picture = np.random.default_rng(0).uniform(size=shape).astype("float32")
        return median_milliseconds(lambda: self(picture), repeats)


def median_milliseconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median time of a call, after some that are not counted."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows float[N, C] whose largest score is at the label int[N].

    Raises:
        CompressionError: scores that are no numbers, which would count as class 0.

    Example:
        >>> accuracy(np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([1, 1]))
        0.5
    """
    if not np.isfinite(logits).all():
        raise CompressionError("the classifier gives scores that are no finite numbers")
    return float(np.mean(logits.argmax(-1) == labels))
