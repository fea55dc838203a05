"""CoreML (`.mlpackage`): an ML program for iOS 17 and macOS 14, whose input is an image.

It can be written on Linux but run on Apple's systems only: what is checked here is the structure
of the file (operators, names, shapes), not its numbers.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dl_techniques.data.preprocessing import BYTES
from dl_techniques.errors import ExportError
from dl_techniques.export.writers import torch_program
from dl_techniques.export.writers.job import Job

if TYPE_CHECKING:
    import keras

UNCHECKED = (
    "CoreML runs on Apple's systems only: the file's structure was checked here, its numbers were "
    "not; compare them on a Mac before you rely on them"
)
STORED = {"float16": "FLOAT16", "float32": "FLOAT32"}


def write(network: keras.Model, path: Path, job: Job) -> Sequence[str]:
    """Traces on PyTorch, converts, saves, and looks at what the saved file says.

    Raises:
        ExportError: the file does not say what it should.
    """
    program = torch_program.trace(network, image_names=job.outputs).run_decompositions()
    package = convert(program, network, job)
    package.input_description["image"] = job.input_words
    package.save(str(path))
    operators = check_structure(path, network, job)
    most = ", ".join(f"{count} {name}" for name, count in operators.most_common(8))
    _, height, width, _ = network.inputs[0].shape
    return (
        UNCHECKED,
        f"the input `image` is an RGB image of {width} x {height} pixels (bytes); what the network "
        "does with them is inside",
        f"ML program for iOS 17 or macOS 14: {most}",
    )


def convert(program: Any, network: keras.Model, job: Job) -> Any:
    """The `MLModel` of an exported program."""
    import coremltools as ct

    _, height, width, channels = network.inputs[0].shape
    image = ct.ImageType(
        name="image",
        shape=(1, channels, height, width),
        scale=1.0 if job.pixels == BYTES else 1 / 255,
        color_layout=ct.colorlayout.RGB,
    )
    with _quiet():
        return ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=getattr(ct.precision, STORED[job.precision]),
            inputs=[image],
            outputs=[ct.TensorType(name=name, dtype=np.float32) for name in job.outputs],
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no warnings that other packages are newer than those it knows."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield


def check_structure(path: Path, network: keras.Model, job: Job) -> Counter[str]:
    """Reads the saved package again and compares names, shapes and sizes with the network.

    Returns:
        Operator -> how often it occurs.

    Raises:
        ExportError: something is not as it should be.
    """
    import coremltools as ct

    spec = ct.models.utils.load_spec(str(path))
    (image,) = spec.description.input
    kind = image.type.imageType
    kinds = {o.name: o.type.multiArrayType for o in spec.description.output}
    shapes = {n: (tuple(k.shape), k.dataType == k.FLOAT32) for n, k in kinds.items()}
    wanted = {name: (tuple(tensor.shape), True) for name, tensor in network.output.items()}
    said = (image.name, kind.height, kind.width, shapes)
    expected = ("image", *network.inputs[0].shape[1:3], wanted)
    if said != expected:
        raise ExportError(f"the CoreML file says {said}, expected {expected}; it is not kept")
    main = spec.mlProgram.functions["main"]
    operators = Counter(o.type for o in main.block_specializations[main.opset].operations)
    del operators["const"]
    _check_weights(path, network, job)
    return operators


def _check_weights(path: Path, network: keras.Model, job: Job) -> None:
    """All weights must be there in the type that was asked for."""
    found = sum(f.stat().st_size for f in path.rglob("weight.bin"))
    least = network.count_params() * (2 if job.precision == "float16" else 4)
    # Small tensors stand in the program itself; those beside it are aligned to 64 bytes.
    if not 0.8 * least <= found <= 1.2 * least + 64 * 1024:
        raise ExportError(
            f"the CoreML file has {found} bytes of weights, expected about {least}; it is not kept"
        )


def open_file(path: Path, job: Job) -> None:
    """CoreML does not run here."""
    return None


def runtime() -> None:
    """Nothing here runs CoreML."""
    return None
