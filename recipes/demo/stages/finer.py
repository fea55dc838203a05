"""A trained model sees a finer map beside its encoder's last one, and answers as before at first.

Usage:
    wider = with_finer_map(model, 128, data)

Small letters are told well from the map before the last stage, and the last stage loses some of
them. So the projector is shown both (`FastVLM(multi_scale=1)`). Its hidden units read the finer
map with weights of zero, and units are added that read both with random weights and whose weights
in the second layer are zero: nothing changes until it is trained on.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from dl_techniques import FastVLM, FastVLMBackbone, FastVLMCausalLM
from recipes.demo.draw.records import DemoData
from recipes.demo.stages.pretrain import LabelledPictures, as_floats

__all__ = ["widened_like", "with_finer_map"]
PICTURES = 256  # that the random units are scaled on


def with_finer_map(model: FastVLMCausalLM, units: int, data: DemoData) -> FastVLMCausalLM:
    """Returns a model of the same answers whose projector also reads the map before the last.

    Args:
        model: its encoder gives its weights, its decoder and preprocessor are shared.
        units: added between the projector's two layers.
        data: pictures on which the units get mean 0 and variance 1.

    Raises:
        ValueError: the model has such a map already.
    """
    encoder = _finer(model)
    images = as_floats(LabelledPictures(data, PICTURES, 1, seed=6).batch(0, 0)[0])
    maps = ops.convert_to_numpy(encoder.predict_on_batch(images)).astype("float64")
    seen = maps.reshape(-1, maps.shape[-1])
    random = np.random.default_rng(0).normal(size=(seen.shape[-1], units))
    kernel = random / (seen.std(axis=0)[:, None] + 1e-3) / np.sqrt(seen.shape[-1])
    return _widened(model, encoder, kernel, -seen.mean(axis=0) @ kernel)


def widened_like(model: FastVLMCausalLM, wide: FastVLMCausalLM) -> FastVLMCausalLM:
    """Returns a model that answers as `model` does, with the shapes of one made wider from it.

    Args:
        model: returned as it is where its encoder shows as much as that of `wide`.
        wide: gives the added units what they read.
    """
    seen = [m.backbone.vision_encoder.config.multi_scale for m in (model, wide)]
    if seen[0] == seen[1]:
        return model
    kernel, bias = (np.array(value) for value in wide.backbone.projector.dense_1.get_weights())
    old = model.backbone.projector.hidden_dim
    return _widened(model, _finer(model), kernel[:, old:], bias[old:])


def _finer(model: FastVLMCausalLM) -> FastVLM:
    """The model's encoder with the map before the last beside it."""
    vision = model.backbone.vision_encoder
    if vision.config.multi_scale:
        raise ValueError(f"{vision.name} shows a finer map already")
    encoder = FastVLM.from_config({**vision.get_config(), "multi_scale": 1})
    encoder.set_weights(vision.get_weights())
    return encoder


def _widened(
    model: FastVLMCausalLM, encoder: FastVLM, kernel: np.ndarray, bias: np.ndarray
) -> FastVLMCausalLM:
    """The model with this encoder and hidden units added that read this and write nothing."""
    old = model.backbone.projector
    (first, first_bias), (second, second_bias) = (
        [np.array(value) for value in dense.get_weights()] for dense in (old.dense_1, old.dense_2)
    )
    width = old.hidden_dim + len(bias)
    backbone = FastVLMBackbone(
        encoder,
        model.backbone.text_backbone,
        projector_dim=width,
        dtype=model.backbone.dtype_policy,
    )
    unseen = np.zeros((len(kernel) - len(first), first.shape[1]))
    silent = np.zeros((len(bias), second.shape[1]))
    new = backbone.projector
    new.dense_1.set_weights(
        [np.hstack([np.vstack([first, unseen]), kernel]), np.concatenate([first_bias, bias])]
    )
    new.dense_2.set_weights([np.vstack([second, silent]), second_bias])
    return FastVLMCausalLM(backbone, model.preprocessor)
