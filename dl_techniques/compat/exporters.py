"""What the writers of export need of TensorFlow and of Keras beyond their public names."""

from __future__ import annotations


def correct_tf2onnx() -> None:
    """tf2onnx 1.17 predates NumPy 2; Keras carries the two corrections that it needs."""
    from keras.src.export.tf2onnx_lib import patch_tf2onnx

    patch_tf2onnx()


def converter_error() -> type[Exception]:
    """What LiteRT's converter raises."""
    from tensorflow.lite.python.convert_phase import ConverterError

    error: type[Exception] = ConverterError
    return error
