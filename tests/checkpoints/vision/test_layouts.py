"""Which layout a file has, from its names alone."""

from __future__ import annotations

import numpy as np
import pytest

from dl_techniques.checkpoints.vision.layouts import PREFIXES, recognise
from dl_techniques.errors import CheckpointError

TRAIN = {
    ("fast_vit", "timm"): ("stem.0.conv_kxk.0.conv.weight", "stages.0.blocks.0.mlp.fc1.weight"),
    ("fast_vit", "apple"): ("patch_embed.0.rbr_conv.0.conv.weight", "network.0.0.layer_scale"),
    ("mobile_one", "timm"): ("stem.conv_kxk.0.conv.weight", "stages.0.0.conv_scale.bn.bias"),
    ("mobile_one", "apple"): ("stage0.rbr_conv.0.conv.weight", "stage1.0.rbr_skip.bias"),
    ("efficientnet_lite", "timm"): ("conv_stem.weight", "blocks.6.0.conv_pwl.weight"),
    ("efficientnet_lite", "pytorch"): ("_conv_stem.weight", "_blocks.15._bn2.running_mean"),
}
FUSED = {
    ("fast_vit", "timm"): ("stem.0.reparam_conv.weight", "stages.3.pos_emb.reparam_conv.bias"),
    ("fast_vit", "apple"): (
        "patch_embed.0.reparam_conv.weight",
        "network.1.proj.0.lkb_reparam.bias",
    ),
    ("mobile_one", "timm"): ("stem.reparam_conv.weight", "stages.3.1.attn.fc1.weight"),
    ("mobile_one", "apple"): ("stage0.reparam_conv.weight", "stage4.1.se.reduce.weight"),
}


def store(*names: str) -> dict[str, np.ndarray]:
    """Names with some array."""
    return {name: np.zeros(1) for name in names}


@pytest.mark.parametrize("prefix", [*PREFIXES, "module.", "module.visual.trunk."])
@pytest.mark.parametrize("fused", [False, True])
def test_every_layout_under_every_prefix(prefix: str, fused: bool) -> None:
    for (network, words), names in (FUSED if fused else TRAIN).items():
        found = recognise(store(*(prefix + name for name in names), "text.weight"))
        assert (found.naming.network, found.naming.words) == (network, words)
        assert (found.prefix, found.fused) == (prefix, fused)
        assert all(found.naming.knows(name) for name in names)


def test_own_names_come_without_prefix_and_counters() -> None:
    names = store(
        "visual.trunk.stem.0.conv_kxk.0.conv.weight",
        "visual.trunk.stem.0.conv_kxk.0.bn.num_batches_tracked",
        "text.weight",
    )
    assert recognise(names).own(names) == {"stem.0.conv_kxk.0.conv.weight": (1,)}


def test_an_unknown_layout_shows_the_nearest_and_what_it_does_not_know() -> None:
    names = store(
        "stam.0.conv_kxk.0.conv.weight",
        "stages.0.blocks.0.mlp.fc1.weight",
        "stages.0.blocks.0.mlp.fc2.bias",
        *(f"decoder.{i}" for i in range(9)),
    )
    with pytest.raises(CheckpointError) as caught:
        recognise(names, "some.bin")
    message = str(caught.value)
    assert message.startswith("some.bin: no layout") and "nearest is timm FastViT" in message
    assert "knows 2 of 12 names and not stam.0.conv_kxk.0.conv.weight, decoder.0" in message
    assert message.endswith("and 5 more") and "\n" not in message


def test_a_file_without_stem_or_without_anything() -> None:
    with pytest.raises(CheckpointError, match=r"stem.*is missing"):
        recognise(store("network.0.0.layer_scale", "network.0.1.layer_scale"))
    with pytest.raises(CheckpointError, match="no weights"):
        recognise({})
