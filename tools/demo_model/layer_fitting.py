"""Least squares into a decoder's layers: what they are called with, and how products are put in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques import FastVLMCausalLM


def fitted(
    inputs: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    ridge: float = 1e-3,
    bias: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of the weighted least squares from inputs [N, D] to targets [N, C]."""
    constant = np.full((len(inputs), 1), float(bias))
    with_bias = np.concatenate([inputs, constant], -1).astype("float64")
    weighted = with_bias * weights[:, None]
    square = weighted.T @ with_bias
    square += ridge * np.trace(square) / len(square) * np.eye(len(square))
    solution = np.linalg.solve(square, weighted.T @ targets)
    return solution[:-1], solution[-1]


def put(
    layer: keras.layers.Layer,
    head: int,
    dimensions: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray,
) -> None:
    """Lets some dimensions of a head be this product."""
    kernels, biases = (np.array(value) for value in layer.get_weights())
    kernels[:, head, dimensions], biases[head, dimensions] = kernel, bias
    layer.set_weights([kernels, biases])


@contextmanager
def captured(layer: keras.layers.Layer) -> Iterator[list[np.ndarray]]:
    """What a layer is called with, while this is open."""
    seen: list[np.ndarray] = []
    call = layer.call

    def remembering(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(ops.convert_to_numpy(inputs).astype("float32"))
        return call(inputs, *args, **kwargs)

    layer.call = remembering
    try:
        yield seen
    finally:
        layer.call = call


def run_first_layer(model: FastVLMCausalLM, inputs: dict[str, Any]) -> Any:
    """float[B, T, hidden]: the residual stream behind the first layer."""
    backbone = model.backbone
    ids, places, mask = (
        ops.convert_to_tensor(inputs[key])
        for key in ("token_ids", "vision_indices", "padding_mask")
    )
    pictures = backbone.image_embedding(ops.convert_to_tensor(inputs["images"]))
    rows = backbone.image_splice(backbone.token_embedding(ids), pictures, places)
    return backbone.text_backbone.transformer_layers[0](rows, decoder_padding_mask=mask)
