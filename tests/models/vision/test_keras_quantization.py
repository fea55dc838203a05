"""Networks that Keras' own `quantize` has changed: saved and loaded, wherever they stand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compression.channel_pruning import prune_channels
from dl_techniques.compression.quantization_aware import quantization_aware
from dl_techniques.compression.weight_only import quantize_weights
from dl_techniques.errors import CompressionError, FusionError
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone, FastVLMCausalLM
from dl_techniques.runtime.memory import older_objects_kept
from tests.helpers import check_torch_parameters, numbers, random_array, randomize
from tests.models.vision.fast_vlm.small_network import SIZE, make_smaller_network
from tests.models.vlm.fast_vlm import small_model

X = random_array(2, SIZE, SIZE, 3)
# How far each mode may move the outputs, over the largest: its steps are so wide.
STEPS = {"int8": 0.03, "int4": 0.4, "float8": 0.15}


def network(form: bool | str = False, **options: Any) -> FastVLM:
    """With attention and squeeze-and-excitation, in one of its forms."""
    made = make_smaller_network(use_se=True, **options)
    if form:
        made.reparameterize(fold=form == "folded")
    return made


def archive(model: Any, folder: Path) -> Any:
    """Through a `.keras` file."""
    model.save(folder / "m.keras")
    return keras.models.load_model(folder / "m.keras")


def preset(model: Any, folder: Path) -> Any:
    """Through a preset."""
    model.save_to_preset(folder / "preset")
    return type(model).from_preset(folder / "preset")


def config(model: Any, folder: Path) -> Any:
    """Through its config and its weights."""
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    return again


def plain(values: Any) -> Any:
    """As a file holds it: tuples are lists."""
    return json.loads(json.dumps(values))


def modes_of(model: Any) -> list[str | None]:
    """Keras' mode of every layer."""
    return [getattr(layer, "quantization_mode", None) for layer in model._flatten_layers()]


@pytest.mark.parametrize(
    ("mode", "way"),
    [
        ("int8", archive),
        ("int4", preset),
        ("float8", archive),
        pytest.param("int8", preset, marks=pytest.mark.once),
        pytest.param("int4", archive, marks=pytest.mark.once),
        pytest.param("float8", preset, marks=pytest.mark.once),
        pytest.param("int8", config, marks=pytest.mark.once),
    ],
)
def test_outputs_are_equal_after_loading(
    mode: str, way: Callable[..., Any], tmp_path: Path
) -> None:
    model = network("folded" if mode == "int8" else False)
    exact = numbers(model(X))
    model.quantize(mode)
    expected = numbers(model(X))
    assert 0 < np.abs(expected - exact).max() < STEPS[mode] * np.abs(exact).max()
    loaded = way(model, tmp_path)
    assert modes_of(loaded) == modes_of(model) and modes_of(model).count(mode) > 6
    np.testing.assert_array_equal(numbers(loaded(X)), expected)
    assert plain(loaded.get_config()) == plain(model.get_config())
    check_torch_parameters(loaded)


def test_mobile_one_is_kept_too(tmp_path: Path) -> None:
    model = MobileOne(4, (8, 16), (1, 1), 8, se_depths=(0, 1), input_shape=(SIZE, SIZE, 3))
    randomize(model)
    model.quantize("int8")
    np.testing.assert_array_equal(numbers(preset(model, tmp_path)(X)), numbers(model(X)))


@pytest.mark.once
def test_filters_and_configs_are_kept(tmp_path: Path) -> None:
    model = network()
    wanted = keras.quantizers.Int8QuantizationConfig(
        weight_quantizer=keras.quantizers.AbsMaxQuantizer(axis=0, value_range=(-63, 63))
    )
    model.quantize(config=wanted, filters=["fc1", "^head$"])
    loaded = archive(model, tmp_path)
    assert modes_of(loaded).count("int8") == 3
    np.testing.assert_array_equal(numbers(loaded(X)), numbers(model(X)))


@pytest.mark.once
def test_beside_int8_kernels_of_convolutions(tmp_path: Path) -> None:
    model = network()
    quantize_weights(model, skip=["^head$"])
    model.quantize("int8")
    assert modes_of(model).count("int8") == 1
    np.testing.assert_array_equal(numbers(archive(model, tmp_path)(X)), numbers(model(X)))


def test_inside_a_users_model(tmp_path: Path) -> None:
    picture = keras.Input((SIZE, SIZE, 3))
    outer = keras.Model(picture, keras.layers.Dense(3)(network()(picture)))
    with older_objects_kept():
        outer.quantize("int8")
    expected = numbers(outer(X))
    np.testing.assert_array_equal(numbers(archive(outer, tmp_path)(X)), expected)


def vision_language_model() -> FastVLMCausalLM:
    """With one of our own encoders."""
    preprocessor = small_model.make_preprocessor()
    encoder = network(include_top=False, embed_dims=(8, 16), downsample_activation=True)
    decoder = small_model.make_decoder(vocabulary=preprocessor.tokenizer.vocabulary_size())
    backbone = FastVLMBackbone(encoder, decoder)
    small_model.randomize(backbone)
    preprocessor.num_image_tokens = backbone.num_image_tokens
    return FastVLMCausalLM(backbone, preprocessor)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("all_of_it", [False, True])
def test_inside_a_vision_language_model(all_of_it: bool, tmp_path: Path) -> None:
    model = vision_language_model()
    model.backbone.vision_encoder.quantize("int8")
    if all_of_it:
        model.quantize("int8")
    encoder = model.backbone.vision_encoder
    expected = numbers(encoder(X))
    model.save_to_preset(tmp_path / "preset")
    loaded = FastVLMCausalLM.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(numbers(loaded.backbone.vision_encoder(X)), expected)
    question = {"prompts": "why?", "images": small_model.pictures(1)[0]}
    said = [m.generate(question, max_new_tokens=4) for m in (model, loaded)]
    assert said[0] == said[1]


@pytest.mark.once
def test_other_modes_are_refused_before_anything_changes() -> None:
    model = network()
    before = model.get_config()
    calibrated = keras.quantizers.GPTQConfig(dataset=["a text"], tokenizer=lambda text: [1])
    with pytest.raises(CompressionError, match="'gptq'.*int8, int4, float8.*quantize_weights"):
        model.quantize(config=calibrated)
    for mode in ("gptq", "int3", None):  # Keras' own refusals
        with pytest.raises(ValueError):
            model.quantize(mode)
    assert model.get_config() == before


@pytest.mark.once
def test_what_reads_kernels_as_numbers_refuses_integers(tmp_path: Path) -> None:
    model = network()
    model.quantize("int8")
    expected = numbers(model(X))
    with pytest.raises(FusionError, match="quantized by Keras.*fold the float network first"):
        model.reparameterize(fold=True)
    with pytest.raises(CompressionError, match="quantized"):
        quantization_aware(model)
    with pytest.raises(CompressionError, match="quantized"):
        quantize_weights(model)
    with pytest.raises(CompressionError, match="quantized"):
        prune_channels(model, 0.5)
    np.testing.assert_array_equal(numbers(model(X)), expected)
    model.reparameterize()  # convolutions alone: that is as exact as ever
    assert np.abs(numbers(model(X)) - expected).max() < 0.02 * np.abs(expected).max()
    model.reset_reparameterization()
    np.testing.assert_array_equal(numbers(model(X)), expected)
    folded = network("folded")
    folded.quantize("int8")
    with pytest.raises(FusionError, match="quantized by Keras"):
        folded.reset_reparameterization()


@pytest.mark.once
def test_a_config_with_layers_that_are_not_there() -> None:
    model = network()
    model.quantize("int8")
    table = {"stage_9/fc1": {"mode": "int8", "config": None}}
    with pytest.raises(CompressionError, match="no float layer 'stage_9/fc1'"):
        FastVLM.from_config({**model.get_config(), "keras_quantization": table})
