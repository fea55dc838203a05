"""Folders that we write are opened by timm, strictly, and answer what our networks answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dl_techniques import FastVLM, MobileOne
from tests.helpers import random_array, randomize, relative_difference
from tests.parity.published import SIDES
from tests.parity.timm_import import outputs, reparameterize_model, timm, torch


def opened(folder: Path) -> Any:
    """timm's network with the folder's weights."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.parametrize("name", ["fastvit_t8", pytest.param("fastvithd", marks=pytest.mark.full)])
def test_fast_vit(name: str, tmp_path: Path) -> None:
    network = FastVLM.from_variant(name, preprocessing={"size": 64, "mean": [0.1, 0.2, 0.3]})
    randomize(network)
    network.export_to_transformers(tmp_path / "timm")
    theirs = opened(tmp_path / "timm")
    assert tuple(theirs.pretrained_cfg["input_size"]) == (3, 64, 64)
    assert tuple(theirs.pretrained_cfg["mean"]) == (0.1, 0.2, 0.3)
    pictures = random_array(2, *SIDES, 3)
    error = relative_difference(network(pictures), outputs(theirs, pictures)["logits"])
    assert error < (1e-5 if name == "fastvit_t8" else 1e-4)


def test_mobile_one(tmp_path: Path) -> None:
    network = MobileOne.from_variant("mobileone_s1", num_classes=3)
    randomize(network)
    network.export_to_transformers(tmp_path / "timm")
    pictures = random_array(2, *SIDES, 3)
    logits = outputs(opened(tmp_path / "timm"), pictures)["logits"]
    assert relative_difference(network(pictures), logits) < 1e-5


def test_a_fused_mobile_one_fits_timms_fused_network(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    network = MobileOne.from_variant("mobileone_s1", include_top=False)
    network.reparameterize()
    network.export_to_transformers(tmp_path / "timm")
    theirs = reparameterize_model(timm.create_model("mobileone_s1", num_classes=0))
    theirs.load_state_dict(load_file(tmp_path / "timm" / "model.safetensors"), strict=True)
    with torch.no_grad():
        assert theirs(torch.zeros(1, 3, 32, 32)).shape == (1, 1280)


@pytest.mark.parametrize("fused", [False, True])
def test_transformers_opens_the_folder(
    fused: bool, tmp_path: Path, publish_once: Callable[..., Any]
) -> None:
    from transformers import TimmWrapperForImageClassification

    published = publish_once("fastvit_t8")
    network = FastVLM.from_preset(published.fused if fused else published.train)
    network.export_to_transformers(tmp_path / "timm")
    model, said = TimmWrapperForImageClassification.from_pretrained(
        tmp_path / "timm", output_loading_info=True
    )
    assert not said["missing_keys"] and not said["unexpected_keys"]
    x = torch.from_numpy(published.pictures.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        logits = model.eval()(x).logits.numpy()
    assert relative_difference(logits, published.answers["logits"]) < 1e-5
