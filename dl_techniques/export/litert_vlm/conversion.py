"""Functions of a Keras model to one LiteRT file with a signature for each of them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from dl_techniques.data.files import atomic_writer
from dl_techniques.errors import ExportError, MissingExtraError, install_hint
from dl_techniques.export.litert.litert_precision import apply_settings, converter_settings
from dl_techniques.typing import Tensor

# What a flatbuffer can address; a longer file cannot be read back.
MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Signature:
    """One entry of a LiteRT file.

    Attributes:
        function: takes the inputs by name, returns the outputs by name.
        inputs: name -> (shape, data type), all sizes known.
    """

    function: Callable[..., dict[str, Tensor]]
    inputs: Mapping[str, tuple[tuple[int, ...], str]]


def write_signatures(
    path: Path,
    layer: keras.layers.Layer,
    signatures: Mapping[str, Signature],
    precision: str = "float32",
) -> Path:
    """Converts functions to a file that holds their weights once.

    Args:
        path: the `.tflite` file, written whole or not at all.
        layer: the Keras layer or model that owns every weight the functions read.
        signatures: name -> function.
        precision: "float32", "float16" or "int8"; the others start from a float32 file.

    Returns:
        The path.

    Raises:
        ExportError: another backend than TensorFlow, or a function that LiteRT cannot compute
            with its built-in operators.
        MissingExtraError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    module = tf.Module()
    # Keras' own variables would be skipped, and every weight become 0 without a word.
    module.held = [variable.value for variable in layer.variables]
    functions = {name: _traced(tf, signature) for name, signature in signatures.items()}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saved_model.") as folder:
        with _quiet():
            tf.saved_model.save(module, folder, signatures=functions)
        content = _convert(tf, folder, list(signatures), precision, path.name)
    if len(content) > MAX_BYTES:
        raise ExportError(
            f"{path.name} would have {len(content)} bytes, and a LiteRT file at most {MAX_BYTES}; "
            "export in int8, or a smaller model"
        )
    with atomic_writer(path, binary=True) as file:
        file.write(content)
    return path


def import_tensorflow() -> Any:
    """TensorFlow, if Keras runs on it.

    Raises:
        ExportError: Keras runs on another backend.
        MissingExtraError: TensorFlow is not installed.
    """
    if keras.config.backend() != "tensorflow":
        raise ExportError(
            f"LiteRT files are made by TensorFlow, and Keras runs on {keras.config.backend()} "
            "here; set KERAS_BACKEND=tensorflow"
        )
    try:
        import tensorflow
    except ImportError as error:
        raise MissingExtraError(
            f"writing LiteRT files needs TensorFlow: {install_hint('tensorflow')}",
            name="tensorflow",
        ) from error
    return tensorflow


def _traced(tf: Any, signature: Signature) -> Any:
    """The graph of one signature."""
    specs = {
        name: tf.TensorSpec(shape, dtype, name=name)
        for name, (shape, dtype) in signature.inputs.items()
    }
    return tf.function(signature.function, autograph=False).get_concrete_function(**specs)


def _convert(tf: Any, folder: str, names: list[str], precision: str, what: str) -> bytes:
    """Runs the converter; only LiteRT's own operators are allowed."""
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=names)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    # Notes on the conversion itself, made by unpacking and packing the file in Python: for half a
    # billion weights that takes gigabytes.
    converter.exclude_conversion_metadata = True
    apply_settings(converter, converter_settings(precision, None))
    try:
        with _quiet():
            content: bytes = converter.convert()
    except Exception as error:  # the converter has an error class of its own in every version
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"{what}: TensorFlow's converter refused the network: {reason}"
        ) from error
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the C++ parts print about themselves off the user's screen."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
