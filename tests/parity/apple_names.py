"""timm's names of a network's weights as Apple's repositories write them, by regular expressions.

Written from the published renaming (timm's own filter reads Apple's training form, and is asked in
a test), not from our tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FAST_VIT = (
    (r"^stem\.", "patch_embed."),
    (r"^final_conv\.se\.fc1", "final_conv.se.reduce"),
    (r"^final_conv\.se\.fc2", "final_conv.se.expand"),
    (r"^final_conv\.", "conv_exp."),
    (r"\.large_conv\.", ".lkb_origin."),
    (r"\.mlp\.", ".convffn."),
    (r"(layer_scale(_\d)?)\.gamma$", r"\1"),
    (r"^head\.fc\.", "head."),
)
BRANCHES = (
    (r"\bconv_kxk\.", "rbr_conv."),
    (r"\bconv_scale\.", "rbr_scale."),
    (r"\bidentity\.", "rbr_skip."),
)


def renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    """All substitutions, in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def apple_fast_vit(state: Mapping[str, Any]) -> dict[str, Any]:
    """A FastViT's or MCi's arrays under Apple's names, training form or fused."""
    places = flat_places(state)
    return {renamed(_flat(n, places), FAST_VIT + BRANCHES): value for n, value in state.items()}


def flat_places(state: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """(stage, kind) -> place in Apple's one list: downsample, position, blocks of each stage."""
    places: dict[tuple[str, str], int] = {}
    stages = sorted({n.split(".")[1] for n in state if n.startswith("stages.")})
    for stage in stages:
        for kind in ("downsample", "pos_emb", "blocks"):
            if any(n.startswith(f"stages.{stage}.{kind}.") for n in state):
                places[stage, kind] = len(places)
    return places


def _flat(name: str, places: Mapping[tuple[str, str], int]) -> str:
    match = re.match(r"stages\.(\d)\.(downsample|pos_emb|blocks)\.(.*)", name)
    if match is None:
        return name
    stage, kind, tail = match.groups()
    tail = re.sub(r"^proj\.0\.reparam_conv", "proj.0.lkb_reparam", tail)
    tail = re.sub(r"^pos_enc\.", "pe.", tail)
    return f"network.{places[stage, kind]}.{tail}"


def with_projection(state: Mapping[str, Any]) -> dict[str, Any]:
    """MobileCLIP's head: a matrix from features to the embedding, without bias."""
    rest = {name: value for name, value in state.items() if not name.startswith("head.")}
    return {**rest, "head.proj": state["head.weight"].T.contiguous()}


def apple_mobile_one(state: Mapping[str, Any]) -> dict[str, Any]:
    """A MobileOne's arrays under Apple's names."""
    rules = (
        (r"^stem\.", "stage0."),
        (r"\battn\.fc1\.", "se.reduce."),
        (r"\battn\.fc2\.", "se.expand."),
        (r"^head\.fc\.", "linear."),
        *BRANCHES,
    )
    found = {}
    for name, value in state.items():
        stage = re.match(r"stages\.(\d)\.", name)
        if stage is not None:
            name = f"stage{int(stage[1]) + 1}.{name[stage.end() :]}"
        found[renamed(name, rules)] = value
    return found
