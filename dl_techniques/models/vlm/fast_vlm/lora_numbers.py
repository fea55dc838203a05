"""Which layers the numbers in KerasHub's files of LoRA weights mean.

A number is a place in the list of all layers with weights, in the order in which Keras walks over
them (keras-hub 0.32). On TensorFlow and JAX the walk begins with the parts that the backbone keeps
as attributes; on PyTorch those made before the graph are not seen, and it begins with the graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from dl_techniques.errors import CheckpointError


def numbered_layers(backbone: keras.Model, numbers: set[int], path: str | Path) -> dict[str, Any]:
    """The layers with LoRA by their numbers in a file.

    Args:
        backbone: a FastVLMBackbone after `enable_lora`.
        numbers: those in the file.
        path: of the file, for the error.

    Raises:
        CheckpointError: no backend would give the layers that have LoRA these numbers.
    """
    for order in (_with_parts(backbone), _graph_layers(backbone)):
        walked = [layer for layer in _walk(order) if layer.weights]
        chosen = {i: layer for i, layer in enumerate(walked) if _has_lora(layer)}
        if set(chosen) == numbers:
            return {str(i): layer for i, layer in chosen.items()}
    raise CheckpointError(
        f"{path} names layers by numbers, and {sorted(numbers)} are not those of the layers that "
        "have LoRA in this model: load it into a model of the same form (fused or not, the same "
        "layers in enable_lora) as the one that it was saved from, and save it anew"
    )


def _has_lora(layer: keras.layers.Layer) -> bool:
    return bool(getattr(layer, "lora_enabled", False))


def _graph_layers(backbone: keras.Model) -> list[Any]:
    return [o for o in backbone.operations if isinstance(o, keras.layers.Layer)]


def _with_parts(backbone: keras.Model) -> list[Any]:
    parts = [
        backbone.vision_encoder,
        backbone.text_backbone,
        backbone.token_embedding,
        backbone.projector,
        backbone.image_embedding,
        backbone.image_splice,
    ]
    return [*parts, *_graph_layers(backbone)]


def _walk(layers: Sequence[Any]) -> list[Any]:
    """Keras' order: each layer before what is inside it, of which the last comes first."""
    waiting, seen, found = deque(layers), set(), []
    while waiting:
        layer = waiting.popleft()
        if id(layer) not in seen:
            seen.add(id(layer))
            found.append(layer)
            waiting.extendleft(layer._layers)
    return found
