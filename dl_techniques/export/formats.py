"""Which formats there are, and what each of them can.

| format | written by | run by | batch | precisions |
|---|---|---|---|---|
| `litert` | TensorFlow | ai-edge-litert | fixed or free | all of `litert_precision` |
| `onnx` | TensorFlow, tf2onnx | onnxruntime | fixed or free | float32, float16 |
| `openvino` | TensorFlow | OpenVINO | fixed or free | float32, float16 weights |
| `coreml` | PyTorch, coremltools | a Mac or an iPhone only | fixed | float16, float32 |
| `saved_model` | TensorFlow | TensorFlow | fixed or free | float32 |
| `torch` | PyTorch | PyTorch | fixed or free | float32 |
| `litertlm` | TensorFlow | LiteRT-LM | fixed | float32, int8 |

Other pairs of format and backend fail, or give wrong numbers without a word.

Example:
    >>> from dl_techniques.export.formats import format_of
    >>> format_of("onnx").backend
    'tensorflow'
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from types import MappingProxyType

from dl_techniques.errors import ExportError, MissingExtraError, install_hint

# The words of `litert_precision`; the first is the default.
PRECISIONS = ("float32", "float16", "int8", "int8_static", "int8_weights", "int4_weights")
VISION_PARTS = ("classifier", "features", "encoder")
PARTS = (*VISION_PARTS, "vlm")


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: the word that users say.
        backend: Keras backend that writes it soundly.
        extra: the extra that brings what it needs.
        modules: what must be importable, besides the backend.
        suffix: ending of the file or folder; "" where any name will do.
        parts: what can be exported, of `PARTS`.
        precisions: the first one is the default.
        free_batch: whether the number of pictures may be left open.
        options: further keywords of `export_model` that it knows.
        vlm_is_folder: the whole model is a folder of files, whose name has no suffix.
    """

    name: str
    backend: str
    extra: str
    modules: tuple[str, ...]
    suffix: str
    parts: tuple[str, ...] = VISION_PARTS
    precisions: tuple[str, ...] = ("float32",)
    free_batch: bool = True
    options: tuple[str, ...] = ()
    vlm_is_folder: bool = False


_VLM_OPTIONS = ("prefill_lengths", "cache_length", "question")
WEIGHT_OPTIONS = ("block_size", "skip")
"""How `litert_precision.requantize` groups weights, and which it leaves alone."""
_ALL = (
    Format(
        "litert",
        "tensorflow",
        "litert",
        ("ai_edge_litert", "ai_edge_quantizer"),
        ".tflite",
        PARTS,
        PRECISIONS,
        options=(*_VLM_OPTIONS, *WEIGHT_OPTIONS),
        vlm_is_folder=True,
    ),
    Format(
        "onnx",
        "tensorflow",
        "onnx",
        ("onnx", "onnxruntime", "tf2onnx"),
        ".onnx",
        precisions=("float32", "float16"),
    ),
    Format(
        "openvino",
        "tensorflow",
        "openvino",
        ("openvino",),
        ".xml",
        precisions=("float32", "float16"),
    ),
    Format(
        "coreml",
        "torch",
        "coreml",
        ("coremltools",),
        ".mlpackage",
        precisions=("float16", "float32"),
        free_batch=False,
    ),
    Format("saved_model", "tensorflow", "tensorflow", (), ""),
    Format("torch", "torch", "torch", (), ".pt2"),
    Format(
        "litertlm",
        "tensorflow",
        "litertlm",
        ("ai_edge_litert", "ai_edge_quantizer", "litert_lm", "litert_lm_builder"),
        ".litertlm",
        ("vlm",),
        ("float32", "int8"),
        free_batch=False,
        options=_VLM_OPTIONS,
    ),
)
FORMATS: Mapping[str, Format] = MappingProxyType({f.name: f for f in _ALL})


def format_of(name: str) -> Format:
    """A format by name.

    Raises:
        ExportError: unknown; the nearest and all others are named.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ExportError(f"format {name!r} is unknown: {hint}use one of {', '.join(FORMATS)}")
    return FORMATS[name]


def check_pair(form: Format, part: str, precision: str, free_batch: bool) -> None:
    """Refuses what a format cannot.

    Args:
        form: the format.
        part: one of `PARTS`, or "auto".
        precision: a word of `litert_precision`.
        free_batch: whether the number of pictures is to be left open.

    Raises:
        ExportError: says what the format can.
    """
    if part not in ("auto", *form.parts):
        raise ExportError(
            f"{form.name} has no part {part!r}; it can export {', '.join(form.parts)}"
        )
    if precision not in form.precisions:
        raise ExportError(
            f"{form.name} cannot be written in {precision!r}; it can {', '.join(form.precisions)}"
        )
    if free_batch and not form.free_batch:
        able = ", ".join(f.name for f in FORMATS.values() if f.free_batch)
        raise ExportError(
            f"{form.name} has a fixed batch of 1; leave the dynamic batch out, or use {able}"
        )


def installed(module: str) -> bool:
    """Whether a package is there, even where this process hides it from its imports."""
    return PathFinder.find_spec(module) is not None


def check_extra(form: Format) -> None:
    """Refuses a format whose packages are missing.

    Raises:
        MissingExtraError: names the package and the extra.
    """
    for module in (form.backend, *form.modules):
        if not installed(module):
            raise MissingExtraError(
                f"the format {form.name} needs {module}, which is not installed: "
                f"{install_hint(form.extra)}",
                name=module,
            )
