"""Apple's names for timm's arrays: the same weights in our variables, under every known prefix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques import FastVLM
from dl_techniques.checkpoints.vision import COUNTERS, network_map, recognise
from dl_techniques.checkpoints.vision.tables import relative_paths
from dl_techniques.checkpoints.weight_map import check_coverage, export_weights, keras_array
from tests.helpers import numbers, values
from tests.parity.apple_names import apple_fast_vit, with_projection
from tests.parity.published import Published
from tests.parity.timm_import import timm, torch

FORMS = ("train", "fused")
TOWER = "model.vision_tower.vision_tower.model."


@pytest.fixture(scope="module", params=["fastvit_t8", "fastvit_mci0"])
def published(request: pytest.FixtureRequest, publish_once: Callable[..., Published]) -> Published:
    """Without and with positions, attention and SE in the downsamples."""
    return publish_once(request.param)


@pytest.fixture(scope="module")
def networks(published: Published) -> dict[str, FastVLM]:
    """Ours from timm's files, without classifier."""
    files = {"train": published.train, "fused": published.fused}
    return {f: FastVLM.from_preset(path, include_top=False) for f, path in files.items()}


def headless(published: Published, form: str) -> dict[str, Any]:
    """timm's arrays of the backbone."""
    state = published.train_state if form == "train" else published.fused_state
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def check_backbone(network: FastVLM, networks: dict[str, FastVLM], form: str) -> None:
    """Equal to the network from timm's file, bit for bit, a classifier aside."""
    wanted = dict(relative_paths(networks[form]))
    found = {path: v for path, v in relative_paths(network) if not path.startswith("head/")}
    assert set(found) == set(wanted)
    for path, variable in found.items():
        np.testing.assert_array_equal(numbers(variable), numbers(wanted[path]))


def write(state: dict[str, Any], path: Path) -> Path:
    """A torch pickle, as Apple publishes."""
    torch.save(state, path)
    return path


def test_the_renaming_of_these_tests_is_what_timm_undoes(published: Published) -> None:
    from timm.models.fastvit import checkpoint_filter_fn

    network = timm.create_model(published.name)
    found = checkpoint_filter_fn(apple_fast_vit(published.train_state), network)
    assert set(found) == set(published.train_state)
    assert all(torch.equal(found[name], value) for name, value in published.train_state.items())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("words", ["timm", "apple"])
def test_tables_hold_both_ways(
    words: str, form: str, published: Published, networks: dict[str, FastVLM]
) -> None:
    state = headless(published, form)
    state = apple_fast_vit(state) if words == "apple" else state
    layout = recognise(state)
    assert (layout.naming.words, layout.fused) == (words, form == "fused")
    entries = network_map(networks[form], words)
    check_coverage(state, entries, [COUNTERS])
    written = dict(export_weights(entries))
    for name, entry in entries.items():
        array = state[name].numpy()
        np.testing.assert_array_equal(keras_array(entry, array), numbers(entry.variable))
        np.testing.assert_array_equal(written[name], array)


def test_a_pickle_of_ml_fastvit(
    published: Published, networks: dict[str, FastVLM], tmp_path: Path
) -> None:
    state = apple_fast_vit(published.fused_state)
    path = write({"state_dict": state, "epoch": 3}, tmp_path / "fastvit.pth.tar")
    network = FastVLM.from_preset(path)
    check_backbone(network, networks, "fused")
    kernel = published.train_state["head.fc.weight"].numpy().T
    np.testing.assert_array_equal(values(network.head[-1])[0], kernel)


def test_a_pickle_of_ml_mobileclip(
    published: Published, networks: dict[str, FastVLM], tmp_path: Path
) -> None:
    state = with_projection(apple_fast_vit(published.train_state))
    state = {f"image_encoder.model.{k}": v for k, v in state.items()}
    state |= {"text_encoder.embedding.weight": torch.ones(3, 4), "logit_scale": torch.ones(())}
    network = FastVLM.from_preset(write(state, tmp_path / "mobileclip.pt"))
    check_backbone(network, networks, "train")
    kernel = published.train_state["head.fc.weight"].numpy().T
    np.testing.assert_array_equal(values(network.head[-1])[0], kernel)
    np.testing.assert_array_equal(values(network.head[-1])[1], np.zeros(kernel.shape[1]))


def test_a_pickle_of_open_clip(
    published: Published, networks: dict[str, FastVLM], tmp_path: Path
) -> None:
    state = {f"module.visual.trunk.{k}": v for k, v in published.train_state.items()}
    state["module.text.positional_embedding"] = torch.ones(2, 2)
    path = write({"state_dict": state}, tmp_path / "open_clip.pt")
    check_backbone(FastVLM.from_preset(path), networks, "train")


@pytest.mark.parametrize("prefix", [TOWER, "model.vision_tower.timm_model."])
def test_a_tower_inside_fastvlm(
    prefix: str, published: Published, networks: dict[str, FastVLM], tmp_path: Path
) -> None:
    state = published.fused_state
    if prefix == TOWER:
        state = with_projection(apple_fast_vit(state))
    state = {prefix + name: value for name, value in state.items()}
    state["model.embed_tokens.weight"] = torch.ones(2, 2)
    network = FastVLM.from_preset(write(state, tmp_path / "pytorch_model.bin").parent)
    assert not network.include_top
    check_backbone(network, networks, "fused")
