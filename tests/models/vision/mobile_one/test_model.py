"""MobileOne: counts, shapes, forms, files, bad arguments."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import MobileOne
from dl_techniques.errors import FusionError, PresetError, VariantError
from dl_techniques.models.vision.mobile_one.config import MobileOneConfig
from dl_techniques.models.vision.mobile_one.model import MobileOneStage
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
from tools.variant_table import count_macs

# trained, fused, GMACs fused at 224 px, features
PUBLISHED = {
    "mobileone_s0": (5_293_272, 2_078_504, 0.275, 1024),
    "mobileone_s1": (4_825_192, 4_764_840, 0.825, 1280),
    "mobileone_s2": (7_884_648, 7_808_168, 1.298, 2048),
    "mobileone_s3": (10_170_600, 10_078_312, 1.896, 2048),
    "mobileone_s4": (14_951_248, 14_838_352, 2.979, 2048),
}
HEAVY = ("mobileone_s2", "mobileone_s3", "mobileone_s4")


def small(**options: Any) -> MobileOne:
    """Two stages, two branches, SE at the end; random."""
    arguments: dict[str, Any] = {
        "num_classes": 4,
        "embed_dims": (8, 32),
        "depths": (1, 2),
        "stem_dim": 8,
        "num_conv_branches": 2,
        "se_depths": (0, 1),
    }
    network = MobileOne(**{**arguments, **options})
    randomize(network)
    return network


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.full) if n in HEAVY else n for n in PUBLISHED]
)
def test_counts(name: str) -> None:
    branched, fused, gmacs, features = PUBLISHED[name]
    network = MobileOne.from_variant(name, input_shape=(224, 224, 3))
    assert sum(math.prod(v.shape) for v in network.trainable_variables) == branched
    network.reparameterize()
    assert sum(math.prod(v.shape) for v in network.weights) == fused
    assert count_macs(network, (224, 224, 3)) == pytest.approx(gmacs * 1e9, rel=0.01)
    assert (network.feature_dim, network.total_stride) == (features, 32)


def test_shapes_and_taps() -> None:
    network, x = small(include_top=False), random_array(2, 30, 21, 3)
    maps = network.extract_features(x)
    assert [tuple(m.shape[1:]) for m in maps] == [(15, 11, 8), (8, 6, 8), (4, 3, 32)]
    np.testing.assert_array_equal(numbers(maps[-1]), numbers(network(x)))
    assert network.total_stride == 8
    assert tuple(small(num_classes=0).output_shape) == (None, 32)
    assert [block.use_se for block in network.stages[1].blocks] == [False, False, True, True]
    np.testing.assert_allclose(
        numbers(small(classifier_activation="softmax")(x)).sum(axis=1), 1, atol=1e-6
    )


def test_fuses_and_goes_back() -> None:
    network, x = small(), random_array(2, 32, 32, 3)
    before, expected = values(network), numbers(network(x))
    for _ in range(2):
        network.reparameterize()
        assert network.reparameterized and network.get_config()["reparameterized"] is True
        assert relative_difference(network(x), expected) < 1e-5
        check_torch_parameters(network)
    network.reset_reparameterization()
    for now, then in zip(values(network), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("fused", [False, True])
def test_files_keep_form_and_numbers(fused: bool, tmp_path: Path) -> None:
    network, x = small(), random_array(2, 32, 32, 3)
    if fused:
        network.reparameterize()
    network.save_to_preset(tmp_path / "preset")
    network.save(tmp_path / "network.keras")
    for loaded in (
        MobileOne.from_preset(tmp_path / "preset"),
        keras.saving.load_model(tmp_path / "network.keras"),
    ):
        assert loaded.form_state() == network.form_state()
        assert loaded.get_config() == network.get_config()
        np.testing.assert_array_equal(numbers(loaded(x)), numbers(network(x)))


def test_trains_and_notices_a_changed_form() -> None:
    one = {"embed_dims": (8,), "depths": (1,), "se_depths": (1,), "num_conv_branches": 1}
    network, x = small(**one), random_array(2, 16, 16, 3)
    network.compile("sgd", "mse")
    network.fit(x, np.zeros((2, 4), "float32"), verbose=0)
    before = network.predict(x, verbose=0)
    network.reparameterize()
    assert relative_difference(network.predict(x, verbose=0), before) < 1e-5
    with pytest.raises(FusionError, match=r"compile\(\) again"):
        network.fit(x, np.zeros((2, 4), "float32"), verbose=0)


def test_a_stage_is_a_layer() -> None:
    check_layer(MobileOneStage(16, 2, 2, 1), (2, 9, 8, 8))
    check_forms(MobileOneStage(8, 1, 2), (2, 8, 7, 4))


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(VariantError, match="did you mean 'mobileone_s1'"):
        MobileOne.from_variant("mobileone-s1")
    with pytest.raises(VariantError, match="unknown argument 'drop'"):
        MobileOne.from_variant("mobileone_s0", drop=1)
    with pytest.raises(VariantError, match="depths has 1 entries for 4"):
        MobileOneConfig(depths=(1,))
    with pytest.raises(VariantError, match="se_depths has 1 entries"):
        MobileOneConfig(se_depths=(1,))
    with pytest.raises(VariantError, match="num_classes"):
        small(num_classes=-1)
    with pytest.raises(PresetError, match="config.json"):
        MobileOne.from_preset(tmp_path)


@pytest.mark.once
def test_overrides_reach_the_network() -> None:
    """Of a variant's own arguments and of those that every network has."""
    network = MobileOne.from_variant(
        "mobileone_s0", num_classes=7, depths=(1, 1, 1, 1), input_shape=(32, 32, 3), name="other"
    )
    assert network.name == "other" and network.output_shape == (None, 7)
    assert network.config.depths == (1, 1, 1, 1)
    plain = MobileOne.from_variant("mobileone_s0", include_top=False, input_shape=(32, 32, 3))
    assert plain.config.depths != (1, 1, 1, 1)
    assert plain.config.embed_dims == network.config.embed_dims
