"""Reading and writing a network as a folder, and what damaged files get."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import PresetError
from dl_techniques.models.presets.vision_folder import CONFIG_FILE, WEIGHTS_FILE
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from tests.helpers import numbers, relative_difference
from tests.killed import contents, states_when_killed
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures


@pytest.fixture(scope="module")
def network() -> FastVLM:
    """A network that no test changes."""
    return make_smaller_network(include_top=False)


@pytest.fixture(scope="module")
def saved(network: FastVLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as `preset` and as `network.keras`."""
    folder = tmp_path_factory.mktemp("saved")
    network.save_to_preset(folder / "preset")
    network.save(folder / "network.keras")
    return folder


@pytest.fixture
def preset(saved: Path, tmp_path: Path) -> Path:
    """A preset to damage."""
    return Path(shutil.copytree(saved / "preset", tmp_path / "preset"))


@pytest.fixture
def archive(saved: Path, tmp_path: Path) -> Path:
    """A `.keras` file to damage."""
    return Path(shutil.copy(saved / "network.keras", tmp_path))


def refusal(source: Path, **overrides: Any) -> str:
    """The one line that loading gives."""
    with pytest.raises(PresetError) as caught:
        FastVLM.from_preset(source, **overrides)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def cut(path: Path, part: float) -> None:
    """Keeps the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


@pytest.mark.parametrize("fold", [None, False, True])
def test_a_folder_keeps_form_and_numbers(fold: bool | None, tmp_path: Path) -> None:
    network, x = make_smaller_network(include_top=False), pictures()
    if fold is not None:
        network.reparameterize(fold=fold)
    network.save_to_preset(str(tmp_path / "new" / "folder"))
    loaded = FastVLM.from_preset(str(tmp_path / "new" / "folder"))
    assert loaded.form_state() == network.form_state()
    np.testing.assert_array_equal(numbers(loaded(x)), numbers(network(x)))
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == sorted(
        [CONFIG_FILE, WEIGHTS_FILE]
    )


def test_a_keras_file_is_a_preset_too(network: FastVLM, archive: Path) -> None:
    loaded = FastVLM.from_preset(archive)
    np.testing.assert_array_equal(numbers(loaded(pictures())), numbers(network(pictures())))
    assert "no overrides" in refusal(archive, dtype="bfloat16")


def test_a_compiled_network_is_a_preset_too(tmp_path: Path) -> None:
    network = make_smaller_network()
    network.compile(keras.optimizers.Adam(), "mse")
    network.optimizer.build(network.trainable_variables)
    network.save_to_preset(tmp_path)
    loaded = FastVLM.from_preset(tmp_path)
    assert network.compiled and not loaded.compiled
    np.testing.assert_array_equal(numbers(loaded(pictures())), numbers(network(pictures())))


@pytest.mark.once
def test_overrides_replace_saved_arguments(network: FastVLM, preset: Path) -> None:
    loaded = FastVLM.from_preset(preset, dtype="mixed_bfloat16", name="mine")
    assert loaded.dtype_policy.name == "mixed_bfloat16" and loaded.name == "mine"
    assert relative_difference(loaded(pictures()), network(pictures())) < 0.05


def test_a_wrong_override_is_named(preset: Path) -> None:
    message = refusal(preset, num_clases=3)
    assert "'num_clases'" in message and "num_classes" in message and "cut short" not in message


def test_an_override_that_does_not_fit_the_weights_is_named(preset: Path) -> None:
    message = refusal(preset, embed_dims=[16, 16])
    assert "embed_dims" in message and "cut short" not in message


def test_nothing_there(tmp_path: Path) -> None:
    assert CONFIG_FILE in refusal(tmp_path)
    assert "nowhere" in refusal(tmp_path / "nowhere")
    assert "no such file" in refusal(tmp_path / "nowhere.keras")


def test_weights_missing(preset: Path) -> None:
    (preset / WEIGHTS_FILE).unlink()
    assert WEIGHTS_FILE in refusal(preset)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.95])
def test_a_file_cut_short(preset: Path, name: str, part: float) -> None:
    cut(preset / name, part)
    message = refusal(preset)
    assert name in message and "cut short" in message


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_an_archive_cut_short(archive: Path, part: float) -> None:
    cut(archive, part)
    message = refusal(archive)
    assert "network.keras" in message and "cut short" in message


def test_an_archive_with_a_flipped_part(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(255 - b for b in content[middle : middle + 2000])
    archive.write_bytes(content)
    assert "network.keras" in refusal(archive)


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", '"words"', '{"class_name": "FastVLM"}', "\u00ff\u0000", "{}"]
)
def test_a_config_that_is_none(preset: Path, text: str) -> None:
    (preset / CONFIG_FILE).write_bytes(text.encode("latin-1"))
    assert CONFIG_FILE in refusal(preset)


def test_a_config_with_an_unknown_argument(preset: Path) -> None:
    document = json.loads((preset / CONFIG_FILE).read_text("utf-8"))
    document["config"]["flavour"] = "lemon"
    (preset / CONFIG_FILE).write_text(json.dumps(document), "utf-8")
    assert "flavour" in refusal(preset)


@pytest.mark.once
def test_weights_of_another_network(preset: Path, tmp_path: Path) -> None:
    other = make_smaller_network(include_top=False, depths=(1, 2))
    other.save_to_preset(tmp_path / "other")
    (tmp_path / "other" / WEIGHTS_FILE).replace(preset / WEIGHTS_FILE)
    message = refusal(preset)
    assert WEIGHTS_FILE in message and "arrays for a network of" in message


def test_another_class(tmp_path: Path) -> None:
    dense = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    dense.save(tmp_path / "dense.keras")
    assert "holds a Sequential, expected a FastVLM" in refusal(tmp_path / "dense.keras")
    (tmp_path / "folder").mkdir()
    document = json.dumps(keras.saving.serialize_keras_object(dense))
    (tmp_path / "folder" / CONFIG_FILE).write_text(document, "utf-8")
    dense.save_weights(tmp_path / "folder" / WEIGHTS_FILE)
    assert "holds a Sequential, expected a FastVLM" in refusal(tmp_path / "folder")


def test_a_failed_save_leaves_the_old_files(
    network: FastVLM, preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in preset.iterdir()}

    def half_a_file(path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(network, "save_weights", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        network.save_to_preset(preset)
    assert {path.name: path.read_bytes() for path in preset.iterdir()} == before


@pytest.mark.once
def test_saving_again_replaces(preset: Path) -> None:
    network = make_smaller_network(include_top=False)
    network.reparameterize(fold=True)
    network.save_to_preset(preset)
    loaded = FastVLM.from_preset(preset)
    assert loaded.folded
    np.testing.assert_array_equal(numbers(loaded(pictures())), numbers(network(pictures())))


@pytest.mark.once
def test_killed_while_saving_both_files_are_of_one_network(preset: Path) -> None:
    network = make_smaller_network(include_top=False, depths=(1, 2))
    before = contents(preset)
    states = states_when_killed(lambda: network.save_to_preset(preset), preset.parent)
    assert len(states) > 5
    for state in states:
        found = {n: state.get(f"{preset.name}/{n}") for n in before}
        assert len({found[name] == before[name] for name in before}) == 1
        assert None not in found.values()
