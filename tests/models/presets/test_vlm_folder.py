"""Presets: found by name or folder, checked before they are loaded."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques.errors import PresetError
from dl_techniques.models.presets import vlm_folder as presets
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone, FastVLMCausalLM
from tests.models.vlm.fast_vlm.small_model import make_model, pictures

ASK = {"prompts": "Why?", "images": pictures(1, 3)}


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    model.save_to_preset(folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def answer(model):
    return model.generate(ASK, max_new_tokens=6, stop_token_ids=None)


def test_saved_and_loaded_models_agree(model, folder):
    again = FastVLMCausalLM.from_preset(str(folder))
    assert answer(again) == answer(model)
    assert again.preprocessor.get_config() == model.preprocessor.get_config()


def test_keras_hub_itself_finds_our_classes(model, folder):
    again = keras_hub.models.CausalLM.from_preset(str(folder))
    assert type(again) is FastVLMCausalLM and answer(again) == answer(model)
    assert type(keras_hub.models.Backbone.from_preset(str(folder))) is FastVLMBackbone


def test_overrides(folder):
    backbone = FastVLMBackbone.from_preset(folder, dtype="bfloat16")
    assert {str(w.dtype) for w in backbone.weights} == {"bfloat16"}
    fresh = FastVLMBackbone.from_preset(folder, load_weights=False)
    saved = FastVLMBackbone.from_preset(folder)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(fresh.get_weights(), saved.get_weights(), strict=True)
    )


def test_shipped_presets_have_names(folder, tmp_path, monkeypatch):
    root = tmp_path / "package"
    shutil.copytree(folder, root / "presets" / "demo")
    monkeypatch.setattr(presets.importlib.resources, "files", lambda name: root)
    assert list(presets.shipped_presets()) == ["demo"]
    assert presets.resolve_preset("demo") == str(root / "presets" / "demo")
    with pytest.raises(PresetError, match="did you mean 'demo'"):
        FastVLMCausalLM.from_preset("dmeo")


def test_unknown_names(tmp_path):
    with pytest.raises(PresetError, match="nothing-like-it"):
        FastVLMBackbone.from_preset("nothing-like-it")
    with pytest.raises(PresetError, match="config.json"):
        FastVLMCausalLM.from_preset(tmp_path)
    handle = "kaggle://someone/something/keras/one"
    assert presets.resolve_preset(handle) == handle


@pytest.mark.parametrize(
    "name", ["model.weights.h5", "config.json", "task.json", "preprocessor.json"]
)
@pytest.mark.parametrize("keep", [0.0, 0.6])
def test_files_cut_short(copy, name, keep):
    file = copy / name
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(PresetError, match=name) as caught:
        FastVLMCausalLM.from_preset(copy)
    assert "\n" not in str(caught.value) and "cut short" in str(caught.value)


def test_a_safetensors_file_cut_short(copy):
    header = json.dumps({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(16)
    file = copy / "model.safetensors"
    file.write_bytes(whole)
    presets.check_preset(copy)
    for length in (0, 4, 20, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(PresetError, match="model.safetensors"):
            presets.check_preset(copy)


def test_a_keras_file_cut_short(model, tmp_path):
    file = tmp_path / "m.keras"
    model.save(file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(PresetError, match="m.keras"):
        FastVLMCausalLM.from_preset(file)


def test_a_preset_of_another_class(tmp_path):
    other = keras_hub.models.QwenBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=8,
    )
    other.save_to_preset(str(tmp_path / "qwen"))
    with pytest.raises(PresetError, match="QwenBackbone"):
        FastVLMBackbone.from_preset(tmp_path / "qwen")


def test_weights_stored_as_float16(model, tmp_path):
    """Half the size on disk; the model computes in its own type, on nearly the same weights."""
    model.save_to_preset(tmp_path / "full")
    model.save_to_preset(tmp_path / "half", weights_dtype="float16")
    sizes = [(tmp_path / n / "model.weights.h5").stat().st_size for n in ("full", "half")]
    assert sizes[1] < 0.8 * sizes[0]
    assert not list((tmp_path / "half").glob("*.tmp"))
    again = FastVLMCausalLM.from_preset(tmp_path / "half")
    assert {str(w.dtype) for w in again.weights} == {"float32"}
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b.astype("float16").astype("float32"))


def test_a_weight_that_does_not_fit(tmp_path):
    with h5py.File(tmp_path / "model.weights.h5", "w") as store:
        store["layer/vars/0"] = np.array([1.0, 1e6], "float32")
    with pytest.raises(PresetError, match="float16"):
        presets.store_weights_as(tmp_path, "float16")


@pytest.mark.full
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_every_backend_reads_the_folder(model, folder, backend, tmp_path):
    """The same folder gives the same answer and the same logits elsewhere."""
    inputs = model.preprocessor.generate_preprocess(ASK)
    logits, _ = model.prefill(inputs, model.encode_images(inputs["images"]), 2)
    np.savez(tmp_path / "in.npz", **inputs)
    code = f"""
import numpy as np, keras
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
model = FastVLMCausalLM.from_preset({str(folder)!r})
inputs = dict(np.load({str(tmp_path / "in.npz")!r}))
logits, _ = model.prefill(inputs, model.encode_images(inputs["images"]), 2)
np.save({str(tmp_path / "out.npy")!r}, keras.ops.convert_to_numpy(logits))
"""
    env = {**os.environ, "KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    expected = keras.ops.convert_to_numpy(logits)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-4)
