"""The device of torch's peers."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tools.compare_peers.gpu.settings import Settings


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
