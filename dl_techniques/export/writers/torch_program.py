"""PyTorch (`.pt2`): a program of `torch.export`, which runs without Keras."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dl_techniques.export.writers.job import Job, Runner

if TYPE_CHECKING:
    import keras

LARGEST_BATCH = 1024


def as_module(network: keras.Model, image_names: Sequence[str] = ()) -> Any:
    """A `torch.nn.Module` around a network on the torch backend: image -> dict of outputs.

    Args:
        network: keras.Model with one input.
        image_names: names of outputs. With them the module is made for images: it takes
            float32[B, 3, H, W] and gives a tuple of these outputs, in this order.
    """
    import torch

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Any) -> Any:
            if not image_names:
                return self.network(image, training=False)
            outputs = self.network(image.permute(0, 2, 3, 1), training=False)
            return tuple(outputs[name] for name in image_names)

    return Exported().eval()


def trace(network: keras.Model, free_batch: bool = False, image_names: Sequence[str] = ()) -> Any:
    """The `ExportedProgram` of a network.

    Args:
        network: keras.Model whose input has a known size.
        free_batch: leave the number of pictures open, up to `LARGEST_BATCH`.
        image_names: as `as_module`.
    """
    import torch

    _, height, width, channels = network.inputs[0].shape
    shape = (channels, height, width) if image_names else (height, width, channels)
    # A batch of 1 would be taken for a constant.
    example = torch.zeros((2 if free_batch else 1, *shape))
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # Keras' layers are no registered submodules
        return torch.export.export(
            as_module(network, image_names),
            (example,),
            dynamic_shapes={"image": {0: batch}} if free_batch else None,
            strict=False,
        )


def write(network: keras.Model, path: Path, job: Job) -> Sequence[str]:
    """Traces and saves."""
    import torch

    free_batch = network.inputs[0].shape[0] is None
    words = {"image.txt": job.input_words}
    torch.export.save(trace(network, free_batch), str(path), extra_files=words)
    call = "torch.export.load(path).module()(image)"
    return (f"{call} takes float32[B, H, W, 3] and gives a dict",)


def open_file(path: Path, job: Job) -> Runner:
    """The program, loaded anew."""
    import torch

    program = torch.export.load(str(path)).module()

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = program(torch.from_numpy(pictures))
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def runtime() -> str:
    """The version of PyTorch."""
    import torch

    return f"torch {torch.__version__}"
