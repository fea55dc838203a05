"""Where the peers of a process compute, and when they have finished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tools.compare_peers.job import Job


def check_keras(job: Job) -> None:
    """Refuses to measure another device than the one that was asked for.

    Raises:
        RuntimeError: Keras' backend computes elsewhere.
    """
    import keras

    backend = keras.config.backend()
    if backend == "torch":
        prepare_torch(job)
        return
    wanted = "cpu" if job.device == "cpu" else "gpu"
    if backend == "jax":
        import jax

        found = jax.default_backend()
    else:
        import tensorflow as tf

        found = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    if found != wanted:
        raise RuntimeError(f"{backend} computes on {found}, not on {wanted}")


def prepare_torch(job: Job) -> None:
    """Sets what all of torch's peers share: threads; on a card, float32 is full float32.

    Raises:
        RuntimeError: there is no such device.
    """
    import torch

    if job.threads:
        torch.set_num_threads(job.threads)
    if job.device == "cpu":
        return
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA device")
    torch.backends.cudnn.benchmark = True  # theirs and ours: each finds its quickest algorithms
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def waiting(job: Job) -> Callable[[], Any]:
    """What waits, in torch, until the device has nothing left to do."""
    import torch

    return torch.cuda.synchronize if job.device == "cuda" else lambda: None
