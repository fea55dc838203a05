"""Towers from configs and from names, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dl_techniques.checkpoints.config_files import Fields
from dl_techniques.checkpoints.fast_vlm.towers import (
    timm_arguments,
    tower_from_apple,
    tower_from_timm,
)
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig
from tests.checkpoints.fast_vlm import folders

MCI3 = FastVLMConfig.from_variant("fastvithd")


def from_timm(architecture: str = "fastvit_mci3", **arguments: Any) -> Any:
    config = {"model_type": "timm_wrapper", "architecture": architecture}
    return tower_from_timm(Fields({**config, "model_args": arguments}, "config.json: vision"))


def test_the_published_tower() -> None:
    assert from_timm(inference_mode=True) == MCI3
    assert timm_arguments(MCI3, fused=False) == {"inference_mode": False}


def test_there_and_back() -> None:
    attention = dataclasses.replace(
        folders.PLAIN_TOWER,
        embed_dims=(8, 64),
        mixers=("repmixer", "attention"),
        downsample_activation=False,
        se_stages=(1,),
        mlp_ratio=2.0,
    )
    for config in (folders.PLAIN_TOWER, attention):
        again = from_timm(**timm_arguments(config, fused=True))
        for field in ("embed_dims", "depths", "mlp_ratio", "downsample_activation"):
            assert getattr(again, field) == getattr(config, field)
        assert again.stage_mixers == config.stage_mixers
        assert not any(again.has_position(i) for i in range(2))
        assert [again.has_se(i) for i in (1,)] == [config.has_se(i) for i in (1,)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"architecture": "vit_base"}, "fastvit_mci3"),
        ({"fork_feat": True}, "fork_feat=True has no counterpart"),
        ({"mlp_ratios": [3, 4]}, "mlp_ratios"),
        ({"downsamples": [True, True]}, "downsamples"),
        ({"pos_embs": ["something"]}, "pos_embs"),
        ({"cls_ratio": 1.0}, "cls_ratio=1.0 is not supported"),
        ({"layers": [2, 2]}, "entries for"),
    ],
)
def test_what_is_unknown_is_refused(arguments: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        from_timm(**arguments)


def test_a_config_without_an_architecture() -> None:
    with pytest.raises(CheckpointError, match="vision_config has no 'architecture'"):
        tower_from_timm(Fields({}, "config.json: vision_config"))


@pytest.mark.parametrize("tower", [folders.TOWER, folders.PLAIN_TOWER])
def test_apple_s_names_tell_the_numbers(tower: Any) -> None:
    prefix = "model.vision_tower.vision_tower.model."
    arrays = folders.apple_arrays(folders.make_backbone(tower))
    shapes = {n.removeprefix(prefix): a.shape for n, a in arrays.items() if n.startswith(prefix)}
    found = tower_from_apple(shapes)
    for field in ("embed_dims", "depths", "mixers", "positional_stages", "mlp_ratio"):
        assert getattr(found, field) == getattr(tower, field), field


def test_other_towers_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"fused FastViTHD.*blocks\.0\.qkv"):
        tower_from_apple({"blocks.0.qkv": (3, 1)})
    with pytest.raises(CheckpointError, match="none"):
        tower_from_apple({})
