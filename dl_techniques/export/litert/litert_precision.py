"""Fewer bits for LiteRT files: what the converter is told, and what is done to a finished file.

| precision | weights | activations | done by |
|---|---|---|---|
| `float32` | float32 | float32 | - |
| `float16` | float16 | float32 on a CPU, the delegate's choice on a GPU | converter |
| `int8` | int8 | float32, int8 inside the kernels ("dynamic range") | converter |
| `int8_static` | int8 | int8, ranges from calibration pictures | converter |
| `int8_weights` | int8 | float32 ("weight only") | quantizer, on a finished file |
| `int4_weights` | int4; depthwise int8 | float32 ("weight only") | quantizer, on a finished file |

`requantize` also makes `int8` and `float16` of a finished file, for files with several signatures.
The scheme of all int8 weights: symmetric, one scale for each output channel (Jacob et al.,
arXiv:1712.05877; the LiteRT 8-bit specification).

Example:
    >>> from dl_techniques.export.litert.litert_precision import converter_settings
    >>> converter_settings("float32", None)
    {}
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dl_techniques.data.files import atomic_writer
from dl_techniques.errors import CompressionError, MissingExtraError, install_hint
from dl_techniques.export.litert.litert_recipe import quantizer_recipe

if TYPE_CHECKING:
    import keras

PRECISIONS = ("float32", "float16", "int8", "int8_static", "int8_weights", "int4_weights")
BY_CONVERTER = ("float32", "float16", "int8", "int8_static")
BY_QUANTIZER = ("float16", "int8", "int8_weights", "int4_weights")
BLOCK_SIZES = (32, 64, 128, 256)


def converter_settings(precision: str, calibration: Sequence[np.ndarray] | None) -> dict[str, Any]:
    """Attributes of `tf.lite.TFLiteConverter` for a precision.

    They are also the keyword arguments of Keras' `model.export(format="litert", ...)`, except
    that `supported_types` belongs to the converter's `target_spec`; `apply_settings` knows that.

    Args:
        precision: one of `BY_CONVERTER`; the other two start from a float32 file, see `requantize`.
        calibration: for `int8_static`: inputs float32[1, H, W, 3], as the network takes them.

    Returns:
        Some of `optimizations`, `supported_types`, `representative_dataset`; nothing for float32,
        `int8_weights` and `int4_weights`.

    Raises:
        CompressionError: an unknown precision, or no or unusable calibration pictures.
    """
    check_precision(precision, PRECISIONS)
    if precision not in BY_CONVERTER or precision == "float32":
        return {}
    settings: dict[str, Any] = {}
    if precision == "int8_static":
        settings["representative_dataset"] = _representative(calibration)
    import tensorflow as tf

    if precision == "float16":
        settings["supported_types"] = [tf.float16]
    return {**settings, "optimizations": [tf.lite.Optimize.DEFAULT]}


def apply_settings(converter: keras.layers.Layer, settings: dict[str, Any]) -> None:
    """Sets what `converter_settings` gave on a `tf.lite.TFLiteConverter`."""
    for name, value in settings.items():
        setattr(converter.target_spec if name == "supported_types" else converter, name, value)


def check_precision(precision: str, known: Sequence[str] = PRECISIONS) -> None:
    """Refuses a precision that is not among `known`.

    Raises:
        CompressionError: names those that are.
    """
    if precision not in known:
        raise CompressionError(f"precision {precision!r} is not possible; use {', '.join(known)}")


def _representative(calibration: Sequence[np.ndarray] | None) -> Any:
    """The converter's form of calibration inputs: a function that yields lists of arrays."""
    if not calibration:
        raise CompressionError(
            "int8_static needs calibration pictures and got none; give some that look like those "
            "the model will see, or use int8, which needs none"
        )
    for sample in calibration:
        if sample.dtype != np.float32 or sample.ndim != 4 or len(sample) != 1:
            raise CompressionError(
                f"calibration inputs must be float32[1, H, W, 3], got {sample.dtype}"
                f"{list(sample.shape)}"
            )
        if not np.isfinite(sample).all():
            raise CompressionError("a calibration input holds values that are not finite")
    samples = list(calibration)

    def dataset() -> Iterator[list[np.ndarray]]:
        for sample in samples:
            yield [sample]

    return dataset


def float16_note(weights: Iterable[np.ndarray]) -> str:
    """What float16 does to these weights; in LiteRT the activations of a CPU stay float32.

    Args:
        weights: all arrays that will be stored.

    Returns:
        A sentence for the report.

    Raises:
        CompressionError: a weight is beyond the largest float16 number.
    """
    # numpy's maximum keeps a value that is no number, Python's may lose it.
    largest = float(np.max([0.0, *(np.abs(w).max() for w in weights if w.size)]))
    limit = float(np.finfo(np.float16).max)
    if not largest <= limit:
        raise CompressionError(
            f"the largest weight, {largest:.4g}, is beyond the largest float16 number, "
            f"{limit:.0f}; use float32, or int8, which has a scale for each channel"
        )
    return (
        f"float16 is the form in which the weights are stored (the largest is {largest:.3g}, the "
        f"limit {limit:.0f}); a CPU computes in float32, a GPU delegate may compute in float16"
    )


def requantize(
    source: Path,
    dest: Path,
    precision: str,
    *,
    block_size: int | None = None,
    skip: Sequence[str] = (),
) -> None:
    """Quantizes the weights of a float32 LiteRT file, all its signatures included.

    Args:
        source: a float32 `.tflite` file.
        dest: the file to write; may be `source`. It is replaced only when all went well.
        precision: one of `BY_QUANTIZER`.
        block_size: for `int4_weights`: so many weights share a scale, one of `BLOCK_SIZES`, instead
            of a whole output channel. Holds for dense layers and embeddings whose inner size is
            a multiple of it; their kernels then quantize activations to int8 on the fly. All
            others keep a scale for each channel.
        skip: regular expressions; weights in whose name one of them is found stay float32.

    Raises:
        CompressionError: an impossible combination, a pattern that finds no operator, or a file
            that is no float32 LiteRT file.
        MissingExtraError: ai-edge-quantizer is not installed.

    Example:
        >>> requantize(Path("a.tflite"), Path("b.tflite"), "int4_weights",
        ...            block_size=32, skip=("head",))  # doctest: +SKIP
    """
    check_precision(precision, BY_QUANTIZER)
    if block_size is not None and (precision != "int4_weights" or block_size not in BLOCK_SIZES):
        raise CompressionError(
            f"block_size is for int4_weights and one of {BLOCK_SIZES}; got {block_size} with "
            f"{precision}"
        )
    content = _read(source)
    quantizer = _quantizer(content)
    quantizer.load_quantization_recipe(quantizer_recipe(content, precision, block_size, skip))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # progress bars
        quantized = quantizer.quantize().quantized_model
    with atomic_writer(dest, binary=True) as file:
        file.write(quantized)


def _quantizer(content: bytes) -> Any:
    """ai-edge-quantizer on the contents of a file."""
    try:
        from ai_edge_quantizer.quantizer import Quantizer
    except ImportError as error:
        raise MissingExtraError(
            f"quantizing a LiteRT file needs ai-edge-quantizer: {install_hint('litert')}",
            name="ai_edge_quantizer",
        ) from error
    return Quantizer(bytearray(content))


def _read(source: Path) -> bytes:
    """The contents of a LiteRT file."""
    try:
        content = source.read_bytes()
    except OSError as error:
        raise CompressionError(f"{source} cannot be read: {error.strerror or error}") from error
    if content[4:8] != b"TFL3":
        raise CompressionError(f"{source} is no LiteRT file; give a .tflite in float32")
    return content
