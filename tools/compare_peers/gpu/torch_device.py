"""The device of torch's peers, and a forward pass on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tools.compare_peers.gpu.settings import Settings
from tools.compare_peers.gpu.timing import seconds_of, turn

CALLS_BEFORE = 4
"""Compiling, warming, recording a graph, replaying it."""


def prepare_torch(settings: Settings) -> None:
    """Sets what all of torch's peers share; float32 is full float32.

    Raises:
        RuntimeError: there is no such device.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA device")
    torch.backends.cudnn.benchmark = settings.cudnn_benchmark
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def waiting(settings: Settings) -> Callable[[], None]:
    """What waits until the device has nothing left to do."""
    if settings.device == "cuda":
        return torch.cuda.synchronize
    return lambda: None


def device_name(settings: Settings) -> str:
    """The card's name."""
    return torch.cuda.get_device_name() if settings.device == "cuda" else "cpu"


class TorchForward:
    """A forward pass whose pictures lie on the device; subclasses set `forward` and `images`.

    Args:
        settings: how to measure.
    """

    forward: Callable[[Any], Any]
    images: Any

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        prepare_torch(settings)
        self.wait = waiting(settings)

    def warm_up(self) -> None:
        """Computes until nothing is compiled or recorded any more."""
        for _ in range(CALLS_BEFORE):
            self.run()
        self.wait()

    def run(self) -> Any:
        """Computes once, without waiting."""
        with torch.inference_mode():
            return self.forward(self.images)

    def times(self) -> dict[str, float]:
        """Seconds of a forward pass, the median of a turn."""
        return turn(lambda: {"forward": seconds_of(self.run, self.wait)}, self.settings)

    def device(self) -> str:
        """The card's name."""
        return device_name(self.settings)
