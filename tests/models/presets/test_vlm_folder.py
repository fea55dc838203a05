"""Presets: found by name or folder, checked before they are loaded."""

from __future__ import annotations

import importlib.resources
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques.errors import PresetError
from dl_techniques.models.presets import vlm_folder as presets
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone, FastVLMCausalLM
from tests.killed import contents, states_when_killed
from tests.models.vlm.fast_vlm.small_model import (
    make_decoder,
    make_encoder,
    make_model,
    pictures,
)

ASK = {"prompts": "Why?", "images": pictures(1, 3)}


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    model.save_to_preset(folder)
    return folder


@pytest.fixture
def copy(folder: Any, tmp_path: Path) -> Any:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def answer(model: Any) -> Any:
    return model.generate(ASK, max_new_tokens=6, stop_token_ids=None)


def test_saved_and_loaded_models_agree(model: Any, folder: Any) -> None:
    again = FastVLMCausalLM.from_preset(str(folder))
    assert answer(again) == answer(model)
    assert again.preprocessor.get_config() == model.preprocessor.get_config()


def test_keras_hub_itself_finds_our_classes(model: Any, folder: Any) -> None:
    again = keras_hub.models.CausalLM.from_preset(str(folder))
    assert type(again) is FastVLMCausalLM and answer(again) == answer(model)
    assert type(keras_hub.models.Backbone.from_preset(str(folder))) is FastVLMBackbone


@pytest.mark.once
def test_overrides(folder: Any) -> None:
    backbone = FastVLMBackbone.from_preset(folder, dtype="bfloat16")
    assert {str(w.dtype) for w in backbone.weights} == {"bfloat16"}
    fresh = FastVLMBackbone.from_preset(folder, load_weights=False)
    saved = FastVLMBackbone.from_preset(folder)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(fresh.get_weights(), saved.get_weights(), strict=True)
    )


def test_shipped_presets_have_names(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "package"
    shutil.copytree(folder, root / "presets" / "demo")
    monkeypatch.setattr(importlib.resources, "files", lambda name: root)
    assert list(presets.shipped_presets()) == ["demo"]
    assert presets.resolve_preset("demo") == str(root / "presets" / "demo")
    with pytest.raises(PresetError, match="did you mean 'demo'"):
        FastVLMCausalLM.from_preset("dmeo")


@pytest.mark.once
def test_a_shipped_name_is_found_beside_a_folder_of_that_name(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is a preset itself stands in front of the shipped one."""
    shipped = presets.shipped_presets()["demo"]
    monkeypatch.chdir(tmp_path)
    names = ("demo", "demo/", Path("demo"))
    assert {presets.resolve_preset(name) for name in names} == {str(shipped)}
    Path("demo").mkdir()
    Path("demo", "main.py").write_text("print()")
    assert {presets.resolve_preset(name) for name in names} == {str(shipped)}
    for text in ('{"port": 80}', "[1]", "{"):
        Path("demo", "config.json").write_text(text)
        assert {presets.resolve_preset(name) for name in names} == {str(shipped)}
    with pytest.raises(PresetError, match="config.json"):
        presets.resolve_preset(Path.cwd() / "demo")
    shutil.rmtree("demo")
    Path("demo").write_text("a file")
    assert presets.resolve_preset("demo") == str(shipped)
    Path("demo").unlink()
    shutil.copytree(folder, "demo")
    assert {presets.resolve_preset(name) for name in names} == {"demo"}
    Path("demo", "config.json").write_text("{")
    with pytest.raises(PresetError, match="cut short"):
        presets.resolve_preset("demo")


def test_unknown_names(tmp_path: Path) -> None:
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
def test_files_cut_short(copy: Any, name: str, keep: float) -> None:
    file = copy / name
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(PresetError, match=name) as caught:
        FastVLMCausalLM.from_preset(copy)
    assert "\n" not in str(caught.value) and "cut short" in str(caught.value)


def test_a_safetensors_file_cut_short(copy: Any) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(16)
    file = copy / "model.safetensors"
    file.write_bytes(whole)
    presets.check_preset(copy)
    for length in (0, 4, 20, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(PresetError, match="model.safetensors"):
            presets.check_preset(copy)


def test_a_keras_file_cut_short(model: Any, tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    model.save(file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(PresetError, match="m.keras"):
        FastVLMCausalLM.from_preset(file)


@pytest.mark.once
def test_a_preset_of_another_class(tmp_path: Path) -> None:
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


def test_weights_stored_as_float16(model: Any, tmp_path: Path) -> None:
    """Half the size on disk; the model computes in its own type, on nearly the same weights."""
    model.save_to_preset(tmp_path / "full")
    model.save_to_preset(tmp_path / "half", weights_dtype="float16")
    sizes = [(tmp_path / n / "model.weights.h5").stat().st_size for n in ("full", "half")]
    assert sizes[1] < 0.8 * sizes[0]
    assert sorted(os.listdir(tmp_path / "half")) == sorted(os.listdir(tmp_path / "full"))
    again = FastVLMCausalLM.from_preset(tmp_path / "half")
    assert {str(w.dtype) for w in again.weights} == {"float32"}
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b.astype("float16").astype("float32"))


def test_a_weight_that_does_not_fit(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.weights.h5", "w") as store:
        store["layer/vars/0"] = np.array([1.0, 1e6], "float32")
    with pytest.raises(PresetError, match="float16"):
        presets.store_weights_as(tmp_path, "float16")
    assert os.listdir(tmp_path) == ["model.weights.h5"]


@pytest.mark.once
@pytest.mark.parametrize("options", [{}, {"weights_dtype": "float16"}])
def test_killed_while_saving_a_preset_is_the_old_or_the_new_one(
    model: Any, folder: Any, tmp_path: Path, options: Any
) -> None:
    work = tmp_path / "work"
    old = shutil.copytree(folder, work / "preset")
    (old / "README.md").write_text("mine")
    before = contents(old)
    backbone = FastVLMBackbone(make_encoder(), make_decoder("qwen", 300), projector_dim=28)
    other = FastVLMCausalLM(backbone, model.preprocessor, max_new_tokens=3)
    states = states_when_killed(lambda: other.save_to_preset(old, **options), work)
    assert len(states) > 20
    other.save_to_preset(old, **options)
    after = contents(old)
    changed = [n for n in before if n != "metadata.json" and before[n] != after[n]]
    assert {"config.json", "model.weights.h5", "task.json"} <= set(changed)
    for state in states:
        found = {n.removeprefix("preset/"): c for n, c in state.items() if n.startswith("preset/")}
        is_old = {found[name] == before[name] for name in changed}
        assert found.keys() == before.keys() and len(is_old) == 1
        sizes = {n: len(c) for n, c in (before if is_old == {True} else after).items()}
        assert all(len(found[name]) == sizes[name] for name in changed)
    assert after["README.md"] == b"mine" and os.listdir(work) == ["preset"]


@pytest.mark.once
def test_without_room_on_the_disk_the_old_preset_stays(folder: Any, tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does: in the middle of the weights."""
    work = shutil.copytree(folder, tmp_path / "preset")
    before, child = contents(tmp_path), os.fork()
    if child == 0:
        try:
            other = make_model()
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            other.save_to_preset(work)
        except (OSError, RuntimeError):
            os._exit(3)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert contents(tmp_path) == before


@pytest.mark.once
def test_saving_again_leaves_nothing_of_the_older_model(
    model: Any, folder: Any, tmp_path: Path
) -> None:
    """Weights in one file would be read before those in several, and an old preprocessor too."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    bare = FastVLMCausalLM(model.backbone)
    bare.save_to_preset(copy, max_shard_size=4e-5)
    assert not (copy / "model.weights.h5").exists() and (copy / "model.weights.json").is_file()
    assert not list(copy.rglob("*tokenizer*"))
    again = FastVLMCausalLM.from_preset(copy)
    assert again.preprocessor is None
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    model.preprocessor.save_to_preset(copy)
    kept = {"model.weights.json", "config.json", "task.json", "tokenizer.json"}
    assert kept <= set(contents(copy))


def test_a_file_in_the_place_of_the_folder_is_one_clear_error(model: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    parts = (model, model.backbone, model.preprocessor, model.preprocessor.tokenizer)
    for part in (*parts, model.preprocessor.image_converter, FastVLM.from_variant("nano")):
        with pytest.raises(PresetError, match="file' is a file and no folder; give the name"):
            part.save_to_preset(tmp_path / "file")
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.full
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_every_backend_reads_the_folder(
    model: Any, folder: Any, backend: str, tmp_path: Path
) -> None:
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
