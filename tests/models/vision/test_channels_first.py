"""Everything computes on channels-last maps, whatever Keras' global setting says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compression import quantize_static
from dl_techniques.compression.channel_pruning import prune_channels
from dl_techniques.compression.distillation import distiller
from dl_techniques.compression.quantization_aware import calibrate, quantization_aware
from dl_techniques.compression.weight_only import quantize_weights
from dl_techniques.errors import VariantError
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne
from tests.helpers import Array, numbers, random_array, randomize
from tests.models.vision.fast_vlm.small_network import CLASSES, make_network
from tests.models.vlm.fast_vlm import small_model

# Not square, so that no axis passes for another.
SHAPE = (48, 32, 3)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Channels last again, after each test."""
    yield
    keras.config.set_image_data_format("channels_last")


def fast_vlm(**options: Any) -> FastVLM:
    """Squeeze-and-excitation and a tail included."""
    return make_network(input_shape=SHAPE, use_se=True, tail_expansion=2, **options)


def mobile_one(**options: Any) -> MobileOne:
    """Two stages."""
    numbers_of = {"embed_dims": (8, 16), "depths": (1, 1), "stem_dim": 8, "se_depths": (0, 1)}
    network = MobileOne(CLASSES, input_shape=SHAPE, **numbers_of, **options)
    randomize(network)
    return network


def quantized() -> Any:
    """Kernels of integers."""
    network = mobile_one()
    quantize_weights(network)
    return network


def calibrated() -> Any:
    """Inputs of integers too."""
    network = fast_vlm()
    quantize_static(network, random_array(2, *SHAPE))
    return network


def rounding() -> Any:
    """For quantization-aware training."""
    learner = quantization_aware(fast_vlm())
    calibrate(learner, random_array(2, *SHAPE))
    return learner


def pruned() -> Any:
    """Half of the hidden channels."""
    return prune_channels(fast_vlm(), 0.5, targets=("hidden",))


def taught() -> Any:
    """A student with a teacher that sees other pixels and another size."""
    teacher = make_network(num_classes=CLASSES, preprocessing={"mean": [0.5] * 3, "std": [0.2] * 3})
    student = make_network(input_shape=(16, 16, 3))
    pair = distiller(student, teacher, features=True)
    pair.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return pair


MADE = [
    fast_vlm,
    mobile_one,
    *(pytest.param(made, marks=pytest.mark.once) for made in (quantized, calibrated)),
    *(pytest.param(made, marks=pytest.mark.once) for made in (rounding, pruned)),
]


def under(setting: str, compute: Callable[[], Any]) -> Array:
    """What is computed under a setting, from the same seed."""
    keras.config.set_image_data_format(setting)
    keras.utils.set_random_seed(5)
    return numbers(compute())


def check_equal(compute: Callable[[], Any]) -> None:
    """The setting changes nothing."""
    last, first = (under(f"channels_{s}", compute) for s in ("last", "first"))
    np.testing.assert_array_equal(last, first)


@pytest.mark.parametrize("make", MADE)
def test_networks_compute_the_same(make: Callable[[], Any]) -> None:
    check_equal(lambda: make()(random_array(2, *SHAPE), training=False))


def test_the_head_sees_channels() -> None:
    keras.config.set_image_data_format("channels_first")
    assert fast_vlm().get_layer("head").kernel.shape == (64, CLASSES)
    assert mobile_one().get_layer("head").kernel.shape == (16, CLASSES)
    # Without known sides the axes that were pooled were not even numbers.
    assert FastVLM.from_variant("nano", num_classes=4).output_shape == (None, 4)


@pytest.mark.slow_on_jax
def test_a_distiller_computes_the_same() -> None:
    x, y = random_array(4, 16, 16, 3), np.arange(4) % CLASSES
    check_equal(lambda: np.array([taught().train_on_batch(x, y)]))


def test_a_vision_language_model_computes_the_same(rng: np.random.Generator) -> None:
    inputs = small_model.random_inputs(rng, [6, 9], [1, 1])
    pictures = small_model.pictures(2)

    def compute() -> Array:
        encoder = make_network(include_top=False)
        decoder = small_model.make_decoder()
        backbone = small_model.FastVLMBackbone(encoder, decoder)
        small_model.randomize(backbone)
        pixels = small_model.FastVLMImageConverter(small_model.SIZE)(pictures)
        return np.concatenate(
            [numbers(backbone.vision_encoder(pixels)).ravel(), numbers(backbone(inputs)).ravel()]
        )

    check_equal(compute)


@pytest.mark.once
@pytest.mark.parametrize("shape", [(3, 64, 64), (3, None, None), (1, 28, 28)])
def test_a_shape_with_channels_first_is_refused(shape: Any) -> None:
    for cls in (FastVLM, MobileOne):
        with pytest.raises(VariantError, match="channels first.*channels last on every backend"):
            cls(input_shape=shape)
