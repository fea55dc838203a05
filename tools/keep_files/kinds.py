"""Every kind of file: how it is written, and how far its outputs may be off on another backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dl_techniques.compression import (
    MagnitudePruning,
    calibrate,
    distiller,
    prune_channels,
    quantization_aware,
    quantize_static,
    quantize_weights,
)
from dl_techniques.compression.distillation import relative_squared_error
from tools.keep_files import language, networks
from tools.keep_files.inputs import make_inputs

FLOAT = 1e-5
# Where inputs are rounded to integers, a last bit in float32 can move one of them by a whole step.
ROUNDED = 2e-2
LOSS = keras.losses.SparseCategoricalCrossentropy


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        make: makes the model.
        name: of the file, or of the folder where there is no suffix.
        tolerance: the largest difference over the largest value.
        base: the kind that must be loaded first, of LoRA weights.
    """

    make: Callable[[], Any]
    name: str
    tolerance: float = FLOAT
    base: str | None = None

    def save(self, model: Any, path: Path) -> None:
        """Writes the file or the folder."""
        if path.name.endswith(".lora.h5"):
            model.backbone.save_lora_weights(str(path))
        elif path.suffix == ".keras":
            model.save(path)
        else:
            model.save_to_preset(path)


def _formed(make: Callable[[], Any], fold: bool) -> Any:
    model = make()
    model.reparameterize(fold=fold)
    return model


def _int8_weights(model: Any) -> Any:
    quantize_weights(model)
    return model


def _static(model: Any) -> Any:
    quantize_static(model, make_inputs()["pictures"])
    return model


def _aware(model: Any) -> Any:
    learner = quantization_aware(model)
    calibrate(learner, make_inputs()["pictures"])
    return learner


def _batch() -> tuple[Any, Any]:
    return make_inputs()["pictures"], np.arange(2)


def _magnitude_pruned() -> Any:
    """Trained for a step, so that the file holds an optimizer with its state."""
    model = networks.fast_vlm()
    model.compile(keras.optimizers.AdamW(1e-3), LOSS(from_logits=True), metrics=["accuracy"])
    pruning = MagnitudePruning(0.5, frequency=1)
    model.fit(*_batch(), epochs=2, verbose=0, callbacks=[pruning])
    return model


def _pair() -> Any:
    student = networks.fast_vlm()
    teacher = networks.fast_vlm(embed_dims=(8, 24))
    pair = distiller(student, teacher, features=True)
    pair.compile(keras.optimizers.SGD(1e-3), LOSS(from_logits=True))
    pair.fit(*_batch(), verbose=0)
    return pair


def _distilled() -> Any:
    return _pair().student


def _own_loss() -> Any:
    model = networks.mobile_one()
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), relative_squared_error)
    model.fit(_batch()[0], np.ones((2, networks.CLASSES), "float32"), verbose=0)
    return model


def _int8_decoder() -> Any:
    model = language.causal_lm()
    model.quantize("int8")
    return model


def _all_int8() -> Any:
    """As the smallest models are made: the decoder by Keras, the encoder by this package."""
    model = _static(language.causal_lm())
    model.quantize("int8")
    return model


def _lora() -> Any:
    model = language.causal_lm()
    language.enable_lora(model)
    return model


def _compiled_vlm() -> Any:
    model = language.causal_lm()
    model.compile(keras.optimizers.AdamW(1e-3))
    return model


def _selecting() -> Any:
    return language.backbone(image_tokens=2, trained_selection=True)


def _enhanced() -> Any:
    return language.backbone(pool=(4, 4), enhance=True)


NETWORK = networks.fast_vlm
KINDS: dict[str, Kind] = {
    "branched": Kind(NETWORK, "branched.keras"),
    "fused": Kind(lambda: _formed(NETWORK, False), "fused.keras"),
    "folded": Kind(lambda: _formed(NETWORK, True), "folded.keras"),
    "preset": Kind(NETWORK, "preset"),
    "preset_int8": Kind(lambda: _int8_weights(NETWORK()), "preset_int8"),
    "int8_weights": Kind(lambda: _int8_weights(NETWORK()), "int8_weights.keras"),
    "static_int8": Kind(lambda: _static(NETWORK()), "static_int8.keras", ROUNDED),
    "aware": Kind(lambda: _aware(NETWORK()), "aware.keras", ROUNDED),
    "channel_pruned": Kind(lambda: prune_channels(NETWORK(), 0.5), "channel_pruned.keras"),
    "magnitude_pruned": Kind(_magnitude_pruned, "magnitude_pruned.keras"),
    "distilled": Kind(_distilled, "distilled.keras"),
    "pair": Kind(_pair, "pair.keras"),
    "nested": Kind(networks.nested, "nested.keras"),
    "mobile_one": Kind(networks.mobile_one, "mobile_one.keras"),
    "mobile_one_fused": Kind(lambda: _formed(networks.mobile_one, False), "mobile_one_fused"),
    "efficientnet_lite": Kind(networks.efficientnet_lite, "efficientnet_lite.keras"),
    "towers": Kind(networks.towers, "towers.keras"),
    "own_loss": Kind(_own_loss, "own_loss.keras"),
    "layers": Kind(networks.layers, "layers.keras"),
    "plain_int8": Kind(lambda: _int8_weights(networks.plain()), "plain_int8.keras"),
    "plain_aware": Kind(lambda: _aware(networks.plain()), "plain_aware.keras", ROUNDED),
    "vlm": Kind(language.causal_lm, "vlm.keras"),
    "vlm_compiled": Kind(_compiled_vlm, "vlm_compiled.keras"),
    "vlm_preset": Kind(language.causal_lm, "vlm_preset"),
    "vlm_json": Kind(lambda: language.causal_lm(True), "vlm_json"),
    "vlm_int8": Kind(_int8_decoder, "vlm_int8.keras", ROUNDED),
    "vlm_all_int8": Kind(_all_int8, "vlm_all_int8", ROUNDED),
    "lora": Kind(_lora, "lora.lora.h5", base="vlm_preset"),
    "selecting": Kind(_selecting, "selecting.keras"),
    "enhanced": Kind(_enhanced, "enhanced.keras"),
    "qwen3": Kind(lambda: language.backbone("qwen3"), "qwen3.keras"),
    "llama3": Kind(lambda: language.backbone("llama3"), "llama3.keras"),
    "gemma3": Kind(lambda: language.backbone("gemma3"), "gemma3.keras"),
}
