"""Copies that are pruned, quantized or taught are as frozen as the network that they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from dl_techniques.compression.channel_pruning import prune_channels
from dl_techniques.compression.distillation import distiller
from dl_techniques.compression.optimization.steps import trainable_copy
from dl_techniques.compression.quantization_aware import quantization_aware
from dl_techniques.compression.static_int8 import quantize_static
from dl_techniques.compression.weight_only import quantize_weights
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from tests.layers.test_freezing import flags
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures


def frozen_network() -> FastVLM:
    """With a frozen stem and one frozen norm."""
    network = make_smaller_network()
    network.stem.trainable = False
    network.stages[0].blocks[0].token_mixer.norm.trainable = False
    return network


def trained(network: Any, part: str) -> bool:
    """Whether training moves anything in a part."""
    return any(v.trainable for v in network.get_layer(part).variables)


def test_a_pruned_network_has_the_flags_of_the_whole_one() -> None:
    network = frozen_network()
    assert flags(prune_channels(network, 0.5, targets=("hidden",))) == flags(network)


@pytest.mark.slow_on_jax
def test_a_quantization_aware_copy_does_not_train_what_was_frozen(tmp_path: Path) -> None:
    learner = quantization_aware(frozen_network())
    assert not trained(learner, "stem") and trained(learner, "stage_1")
    learner.get_layer("stage_2").trainable = False
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert flags(loaded) == flags(learner) and not trained(loaded, "stage_2")


@pytest.mark.parametrize("static", [False, True])
def test_files_of_quantized_networks_keep_what_is_frozen(static: bool, tmp_path: Path) -> None:
    network = frozen_network()
    if static:
        quantize_static(network, pictures())
    else:
        quantize_weights(network)
    assert not trained(network, "stem") and trained(network, "stage_1")
    network.save_to_preset(tmp_path)
    assert flags(FastVLM.from_preset(tmp_path)) == flags(network)


def test_a_student_stays_frozen_where_it_was() -> None:
    network = frozen_network()
    before = flags(network)
    pair = distiller(network, make_smaller_network(), features=True)
    assert flags(network) == before
    assert {id(v) for v in network.trainable_variables} <= {id(v) for v in pair.trainable_variables}
    assert not {id(v) for v in network.stem.variables} & {id(v) for v in pair.trainable_variables}


def test_a_copy_to_train_is_trainable() -> None:
    """A network that served frozen whole is what `fastvlm optimize` may be given."""
    network = frozen_network()
    assert flags(trainable_copy(network)) == flags(network)
    network.trainable = False
    assert trained(trainable_copy(network), "stem")
