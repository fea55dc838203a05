"""What the tests of the exporters share: small random sources and their pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from dl_techniques.export.subject import Subject, make_subject
from dl_techniques.export.writers.job import Job, Writer
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne
from tests.helpers import randomize
from tests.models.vision.fast_vlm.small_network import SIZE, make_network, make_smaller_network

COLOURS = {"size": SIZE, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
OWN_FORMAT = {"tensorflow": "saved_model", "torch": "torch"}
"""Backend -> a format that it writes without further packages."""


def small(**options: Any) -> FastVLM:
    """Two stages, normalizing colours."""
    return make_smaller_network(**{"preprocessing": COLOURS, **options})


def wider(**options: Any) -> FastVLM:
    """Three stages: layers large enough for LiteRT to quantize them."""
    return make_network(**{"preprocessing": COLOURS, "num_classes": 12, **options})


def small_mobile_one(**options: Any) -> MobileOne:
    """Two stages of MobileOne blocks."""
    arguments: dict[str, Any] = {
        "num_classes": 5,
        "embed_dims": (8, 16),
        "depths": (1, 1),
        "stem_dim": 8,
        "se_depths": (0, 1),
        "input_shape": (SIZE, SIZE, 3),
    }
    network = MobileOne(**{**arguments, **options})
    randomize(network)
    return network


def tiny() -> MobileOne:
    """One stage of one pair: where only the way to the file matters."""
    return small_mobile_one(embed_dims=(8,), depths=(1,), se_depths=(0,))


def photos(folder: Path, number: int = 2) -> Path:
    """A folder with pictures of different shapes, and a file that is none."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(number):
        pixels = rng.integers(0, 255, (20 + 9 * index, 41, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((50 + index, 37)).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def written(
    writer: Writer, subject: Subject, path: Path, precision: str = "float32"
) -> tuple[list[str], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Writes a subject: the notes, Keras' outputs, and the file's, on the drawn pictures."""
    inputs = subject.inputs(None, 4)
    job = Job(precision, inputs, tuple(subject.deployed.output))
    notes = list(writer.write(subject.deployed, path, job))
    run = writer.open_file(path, job)
    assert run is not None
    results = [run(image) for image in inputs]
    got = {name: np.concatenate([r[name] for r in results]) for name in results[0]}
    return notes, subject.expected(inputs), got


def subject_of(model: Any, part: str = "classifier", dynamic_batch: bool = False) -> Subject:
    """A part of a model at its own size."""
    return make_subject(model, part, None, dynamic_batch)


def backend_is(name: str) -> bool:
    """Whether this process runs a backend."""
    return bool(keras.backend.backend() == name)


def names_in(folder: Path) -> list[str]:
    """What stands in a folder, hidden things too."""
    return sorted(path.name for path in folder.iterdir())
