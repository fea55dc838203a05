"""An encoder that was folded gets its branches and BatchNorms back, to be trained further.

Usage:
    branch(encoder, images)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques import FastVLM


def branch(encoder: FastVLM, images: np.ndarray) -> None:
    """Changes an encoder to its training form, which computes the same.

    Args:
        encoder: fused, folded or branched already.
        images: float32[N, S, S, 3], pictures of the kind that it will be trained on: the
            BatchNorms take their statistics, so that training sees the function that inference has.
    """
    encoder.reset_reparameterization()
    calibrate(encoder, images)


def calibrate(model: keras.Model, images: np.ndarray) -> None:
    """Gives every BatchNorm the statistics of these inputs, and changes its affine to match."""
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    with ExitStack() as stack:
        seen = [stack.enter_context(captured(norm)) for norm in norms]
        model(images, training=False)
    for norm, inputs in zip(norms, seen, strict=True):
        values = inputs[0].reshape(-1, inputs[0].shape[-1]).astype("float64")
        gamma, beta, mean, variance = (
            ops.convert_to_numpy(v).astype("float64")
            for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        scale = gamma / np.sqrt(variance + norm.epsilon)
        new_mean, new_variance = values.mean(0), values.var(0)
        norm.gamma.assign((scale * np.sqrt(new_variance + norm.epsilon)).astype("float32"))
        norm.beta.assign((beta + scale * (new_mean - mean)).astype("float32"))
        norm.moving_mean.assign(new_mean.astype("float32"))
        norm.moving_variance.assign(new_variance.astype("float32"))


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
