"""What pixels a network expects: numbers, bad numbers, and that networks keep them."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from dl_techniques import FastVLM, MobileOne
from dl_techniques.data.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from dl_techniques.errors import VariantError
from dl_techniques.models.vision.fast_vlm.model import variant_arguments as fast_vlm_arguments
from dl_techniques.models.vision.mobile_one.model import (
    variant_arguments as mobile_one_arguments,
)
from tests.models.vision.fast_vlm.small_network import make_smaller_network

OTHER = Preprocessing(96, CLIP_MEAN, CLIP_STD, 0.5, "bilinear")


def test_the_side_before_the_crop() -> None:
    assert Preprocessing().resized_side == 224
    assert OTHER.resized_side == 192


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"std": (1.0, 0.0, 1.0)},
        {"std": (1.0,)},
        {"crop_fraction": 0.0},
        {"crop_fraction": 1.5},
        {"interpolation": "nearest"},
    ],
)
def test_numbers_that_no_picture_can_be_prepared_with(values: dict[str, object]) -> None:
    with pytest.raises(VariantError, match=f"preprocessing: {next(iter(values))} is"):
        Preprocessing.from_config(values)


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(VariantError, match="'crop_frac'.*crop_fraction"):
        Preprocessing.from_config({"crop_frac": 1.0})


def test_plain_values_and_back() -> None:
    assert Preprocessing.from_config(OTHER.get_config()) == OTHER
    assert Preprocessing.from_config(OTHER) is OTHER
    assert isinstance(OTHER.get_config()["mean"], list)


def test_variants_have_their_own() -> None:
    small = {"input_shape": (32, 32, 3), "depths": (1, 1, 1, 1), "include_top": False}
    t8 = FastVLM.from_variant("fastvit_t8", **small)
    assert (t8.preprocessing.size, t8.preprocessing.crop_fraction) == (256, 0.9)
    assert t8.config.image_size == 256
    assert FastVLM.from_variant("nano").preprocessing == Preprocessing()


def test_networks_keep_them_in_both_kinds_of_files(tmp_path: Path) -> None:
    network = make_smaller_network(preprocessing=OTHER)
    network.save_to_preset(tmp_path / "preset")
    network.save(tmp_path / "network.keras")
    assert FastVLM.from_preset(tmp_path / "preset").preprocessing == OTHER
    assert keras.saving.load_model(tmp_path / "network.keras").preprocessing == OTHER
    changed = FastVLM.from_preset(tmp_path / "preset", preprocessing={"size": 32})
    assert changed.preprocessing == Preprocessing(32)


def test_a_config_from_before_means_the_variants() -> None:
    for cls, arguments, name in (
        (FastVLM, fast_vlm_arguments, "nano"),
        (MobileOne, mobile_one_arguments, "mobileone_s1"),
    ):
        config = arguments(name)
        del config["preprocessing"]
        assert cls.from_config(config).preprocessing == Preprocessing.of(cls.MODEL_VARIANTS[name])
    config = make_smaller_network().get_config()
    del config["preprocessing"]
    assert FastVLM.from_config(config).preprocessing == Preprocessing()
