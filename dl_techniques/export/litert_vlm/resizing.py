"""A vision-language model for pictures of another size, its language part shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dl_techniques.export.networks import copy_of
from dl_techniques.models.vlm.fast_vlm.causal_lm import FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone

if TYPE_CHECKING:
    import keras


def at_size(model: FastVLMCausalLM, size: int) -> FastVLMCausalLM:
    """The model itself where it has that size, else one that shares its decoder.

    Args:
        model: the model; it is not changed.
        size: side of the pictures in pixels.

    Returns:
        A model whose preprocessor makes pictures of this size and as many rows as they then have.
    """
    if tuple(model.backbone.image_size) == (size, size):
        return model
    embedding = copy_of(model.backbone.image_embedding, (size, size))
    config = {
        **model.backbone.get_config(),
        "vision_encoder": embedding.vision_encoder,
        "text_backbone": model.backbone.text_backbone,
        "dtype": "float32",
    }
    backbone = FastVLMBackbone.from_config(config)
    for name in ("projector", "selector"):
        getattr(backbone.image_embedding, name).set_weights(getattr(embedding, name).get_weights())
    return FastVLMCausalLM(
        backbone, _preprocessor(model.preprocessor, size, backbone), model.max_new_tokens
    )


def _preprocessor(preprocessor: keras.layers.Layer, size: int, backbone: FastVLMBackbone) -> Any:
    """The same words, another size of pictures."""
    if preprocessor is None:
        return None
    converter = preprocessor.image_converter
    changed = {**converter.get_config(), "image_size": [size, size]}
    config = {
        **preprocessor.get_config(),
        "tokenizer": preprocessor.tokenizer,
        "image_converter": type(converter).from_config(changed),
        "num_image_tokens": backbone.num_image_tokens,
    }
    return type(preprocessor)(**config)
