"""A trained decoder gets more layers and answers as before, until it is trained on.

Usage:
    deeper = deepen(model, 5)  # from 3 layers

Each new layer stands behind a trained one and starts as its copy, but for the two products that
write to the residual stream: they start at zero, so that the layer changes nothing yet.
"""

from __future__ import annotations

import keras
import numpy as np

from dl_techniques import FastVLMBackbone, FastVLMCausalLM

__all__ = ["deepen", "with_layers"]
WRITERS = ("attention_output/kernel", "feedforward_output_dense/kernel")


def deepen(model: FastVLMCausalLM, layers: int) -> FastVLMCausalLM:
    """Returns a model of the same answers with `layers` decoder layers.

    Args:
        model: shares its encoder and preprocessor with the new model.
        layers: at least as many as there are, at most twice as many.

    Raises:
        ValueError: fewer layers than there are, or more than twice as many.
    """
    old = model.backbone.text_backbone
    count = len(old.transformer_layers)
    if not count <= layers <= 2 * count:
        raise ValueError(f"{layers} layers from {count}: expected {count} to {2 * count}")
    return with_layers(model, _sources(count, layers))


def with_layers(model: FastVLMCausalLM, sources: list[tuple[int, bool]]) -> FastVLMCausalLM:
    """Returns a model whose decoder layers are copies of the old ones.

    Args:
        model: shares its encoder and preprocessor with the new model.
        sources: for each layer the number of the old one, and whether the copy is to be silent.
    """
    old = model.backbone.text_backbone
    decoder = type(old).from_config({**old.get_config(), "num_layers": len(sources)})
    decoder.token_embedding.set_weights(old.token_embedding.get_weights())
    decoder.layer_norm.set_weights(old.layer_norm.get_weights())
    for layer, (source, is_silent) in zip(decoder.transformer_layers, sources, strict=True):
        _copy(old.transformer_layers[source], layer, is_silent)
    backbone = FastVLMBackbone(
        model.backbone.vision_encoder,
        decoder,
        projector_dim=model.backbone.projector_dim,
        dtype=model.backbone.dtype_policy,
    )
    backbone.projector.set_weights(model.backbone.projector.get_weights())
    return FastVLMCausalLM(backbone, model.preprocessor)


def _sources(count: int, layers: int) -> list[tuple[int, bool]]:
    """For each layer of the deeper decoder: the one that it comes from, and whether it is new."""
    sources: list[tuple[int, bool]] = []
    for i in range(count):
        sources.append((i, False))
        if i < layers - count:
            sources.append((i, True))
    return sources


def _copy(source: keras.layers.Layer, target: keras.layers.Layer, is_silent: bool) -> None:
    for ours, theirs in zip(target.weights, source.weights, strict=True):
        silent = is_silent and ours.path.endswith(WRITERS)
        ours.assign(np.zeros(ours.shape) if silent else theirs)
