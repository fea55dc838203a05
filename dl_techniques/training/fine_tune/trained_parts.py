"""Which parts of a vision-language model learn, how fast, and the model that comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from dl_techniques.compat.keras_layers import all_parts
from dl_techniques.errors import TrainingError
from dl_techniques.layers.freezing import own_variables

PARTS = ("tower", "projector", "decoder")


def part_layers(model: Any) -> dict[str, list[keras.layers.Layer]]:
    """The layers of each part of a `FastVLMCausalLM`: tower, projector, decoder."""
    backbone = model.backbone
    inside = backbone.image_embedding
    return {
        "tower": [backbone.vision_encoder],
        "projector": [inside.projector, inside.selector],
        "decoder": [backbone.text_backbone],
    }


def choose_parts(
    model: Any,
    parts: tuple[str, ...],
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
) -> list[str]:
    """Freezes what does not learn; a decoder with a rank learns by LoRA alone.

    A tower that learns is fused (not folded), and what batch norms it keeps stay as they are: its
    statistics would depend on the batch size.

    Args:
        model: a `FastVLMCausalLM`.
        parts: that learn, of `PARTS`.
        lora_rank: of the matrices beside every dense layer of the decoder but the vocabulary's,
            as Keras counts it (for queries, keys and values a head).
        lora_alpha: the matrices' product counts alpha / rank times; None for the rank.

    Returns:
        Paths of the layers with LoRA.

    Raises:
        TrainingError: no such part, nothing that learns, or LoRA on a decoder that does not learn.
    """
    for part in parts:
        if part not in PARTS:
            raise TrainingError(f"no part {part!r} of a model learns; known: {', '.join(PARTS)}")
    if not parts:
        raise TrainingError(f"nothing learns: name some of {', '.join(PARTS)} in 'train'")
    if lora_rank is not None and "decoder" not in parts:
        raise TrainingError("lora_rank changes the decoder, which is not among the parts to train")
    if "tower" in parts and model.forms and model.reparameterized:
        model.reset_reparameterization()
        model.reparameterize()
    for name, layers in part_layers(model).items():
        for layer in layers:
            for inner in all_parts(layer, include_self=True):
                inner.trainable = name in parts
                if name == "tower" and isinstance(inner, keras.layers.BatchNormalization):
                    inner.trainable = False
    if lora_rank is None:
        return []
    return _enable_lora(model.backbone.text_backbone, lora_rank, lora_alpha)


def _enable_lora(decoder: Any, rank: int, alpha: float | None) -> list[str]:
    """LoRA beside every dense layer; nothing else of the decoder learns."""
    paths = []
    for layer in all_parts(decoder, include_self=True):
        if isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense)):
            layer.enable_lora(rank, lora_alpha=alpha)
            paths.append(layer.path)
        for variable in [v for v, _ in own_variables(layer)]:
            if variable.trainable and not variable.name.startswith("lora_"):
                variable.trainable = False
    return paths


def rates_of(
    model: Any, shares: Mapping[str, float], weight_decay: float
) -> tuple[list[float], list[float]]:
    """Share of the rate, and decay, of each trainable variable in the model's order.

    Biases, gains and scales, which have one axis, are not decayed.

    Args:
        model: after `choose_parts`.
        shares: of each part; 1 where one is missing.
        weight_decay: of matrices and kernels.
    """
    part_of = {
        id(variable): name
        for name, layers in part_layers(model).items()
        for layer in layers
        for variable in layer.variables
    }
    variables = model.trainable_variables
    rates = [float(shares.get(part_of.get(id(v), ""), 1.0)) for v in variables]
    return rates, [weight_decay if len(v.shape) > 1 else 0.0 for v in variables]


def finished_model(trained: Any, fresh: Any) -> Any:
    """Gives a model as it was loaded what another one has learned; LoRA is merged.

    Args:
        trained: the model after `choose_parts` and training, in whatever type.
        fresh: the same preset anew, in the form and type to save it in.

    Raises:
        TrainingError: the two do not have the same parts.
    """
    if fresh.forms and trained.backbone.vision_encoder.trainable_variables:
        if fresh.reparameterized:
            fresh.reset_reparameterization()
            fresh.reparameterize()
    pairs = zip(all_parts(trained.backbone), all_parts(fresh.backbone), strict=True)
    for learned, plain in pairs:
        if type(learned) is not type(plain):
            raise TrainingError(f"{learned.path} learned, {plain.path} stands in its place")
        if getattr(learned, "lora_enabled", False):
            merged = as_numbers(plain.kernel) + lora_product(learned).reshape(plain.kernel.shape)
            plain.kernel.assign(merged)
            continue
        own, others = (own_variables(layer) for layer in (learned, plain))
        if any(variable.trainable for variable, _ in own):
            for (variable, _), (place, _) in zip(own, others, strict=True):
                place.assign(as_numbers(variable))
    return fresh


def lora_product(layer: Any) -> np.ndarray:
    """float32, what LoRA adds to a layer's kernel, in the kernel's shape."""
    a, b = as_numbers(layer.lora_kernel_a), as_numbers(layer.lora_kernel_b)
    return np.matmul(a, b) * np.float32(layer.lora_alpha / layer.lora_rank)


def as_numbers(variable: Any) -> np.ndarray:
    """A variable as float32."""
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")))
