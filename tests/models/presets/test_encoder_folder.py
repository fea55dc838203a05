"""The encoder of a vision-language model's preset."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from dl_techniques import EfficientNetLite
from dl_techniques.errors import PresetError, VariantError
from dl_techniques.models.presets.encoder_folder import GROUP
from dl_techniques.models.presets.shipped import find_shipped
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone, FastVLMCausalLM
from tests.helpers import numbers, random_array
from tests.models.vision.fast_vlm.small_network import SIZE, make_smaller_network
from tests.models.vlm.fast_vlm import small_model

DEMO = find_shipped("demo")
needs_demo = pytest.mark.skipif(DEMO is None, reason="the shipped model is not in this checkout")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[FastVLM, Path]:
    """An encoder, and the preset of a model with it."""
    encoder = make_smaller_network(include_top=False)
    encoder.reparameterize(fold=True)
    backbone = FastVLMBackbone(encoder, small_model.make_decoder())
    small_model.randomize(backbone.text_backbone)
    folder = tmp_path_factory.mktemp("vlm") / "preset"
    FastVLMCausalLM(backbone).save_to_preset(folder)
    return encoder, folder


@pytest.fixture
def copy(saved: tuple[FastVLM, Path], tmp_path: Path) -> Path:
    """The preset, to be damaged."""
    return Path(shutil.copytree(saved[1], tmp_path / "preset"))


def test_the_encoder_of_a_folder(saved: tuple[FastVLM, Path]) -> None:
    encoder, folder = saved
    loaded = FastVLM.from_preset(folder)
    x = random_array(2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(numbers(loaded(x)), numbers(encoder(x)))
    assert loaded.get_config() == encoder.get_config()
    open_sides = FastVLM.from_preset(folder, input_shape=(None, None, 3), name="mine")
    assert open_sides.name == "mine" and open_sides(x[:, :16]).shape[1:3] == (2, 4)


@pytest.mark.once
@needs_demo
def test_the_shipped_encoder_is_that_of_the_shipped_model() -> None:
    encoder = FastVLM.from_preset("demo")
    assert not encoder.include_top and encoder.image_shape == (64, 64, 3)
    x = random_array(2, 64, 64, 3)
    towers = FastVLMBackbone.from_preset("demo").vision_encoder
    np.testing.assert_array_equal(numbers(encoder(x)), numbers(towers.tower(FastVLM)(x)))
    second = EfficientNetLite.from_preset("demo")
    assert not second.include_top and second.image_shape == (224, 224, 3)
    x = random_array(1, 224, 224, 3)
    expected = numbers(towers.tower(EfficientNetLite)(x))
    np.testing.assert_array_equal(numbers(second(x)), expected)


@needs_demo
@pytest.mark.once
def test_it_needs_no_keras_hub(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['keras_hub'] = None\n"
        "from dl_techniques import FastVLM; print(FastVLM.from_preset('demo').count_params())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 1_000_000


@pytest.mark.once
def test_arrays_in_several_files(saved: tuple[FastVLM, Path], copy: Path) -> None:
    with h5py.File(copy / "model.weights.h5") as whole:
        for number in (0, 1):
            with h5py.File(copy / f"model_{number:05}.weights.h5", "w") as part:
                layers = part.require_group(f"{GROUP}/layers")
                for name in whole[f"{GROUP}/layers"]:
                    if (name == "convolutional_stem") is (number == 0):
                        whole.copy(f"{GROUP}/layers/{name}", layers)
    (copy / "model.weights.h5").unlink()
    x = random_array(1, SIZE, SIZE, 3)
    np.testing.assert_array_equal(numbers(FastVLM.from_preset(copy)(x)), numbers(saved[0](x)))


@pytest.mark.once
def test_refusals(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="holds a FastVLM as the encoder .*expected a MobileOne"):
        MobileOne.from_preset(copy)
    with pytest.raises(VariantError, match="num_classes"):
        FastVLM.from_preset(copy, num_classes=-1)
    with pytest.raises(PresetError, match="does not fit the network"):
        FastVLM.from_preset(copy, include_top=True)
    with h5py.File(copy / "model.weights.h5", "a") as file:
        del file[GROUP]
    with pytest.raises(PresetError, match=f"no group {GROUP}"):
        FastVLM.from_preset(copy)
    document = json.loads((copy / "config.json").read_text())
    del document["config"]["vision_encoder"]
    (copy / "config.json").write_text(json.dumps(document))
    with pytest.raises(PresetError, match=r"config\.json: cannot be read"):
        FastVLM.from_preset(copy)
    assert find_shipped("../presets/demo") is None and find_shipped("dmo") is None
