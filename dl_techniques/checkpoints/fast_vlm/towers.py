"""What the vision tower of a FastVLM is: from its config, or from the names of its tensors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dl_techniques.checkpoints.config_files import Fields
from dl_techniques.data.damage import reading, short
from dl_techniques.errors import CheckpointError, VariantError
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig

ARCHITECTURE = "fastvit_mci3"
BASE = "fastvithd"
FIXED = {"cls_ratio": 2.0, "in_chans": 3, "repmixer_kernel_size": 3}
"""Arguments of timm's network that must have the value which our network has built in."""
WITHOUT_EFFECT = (
    "drop_path_rate", "drop_rate", "proj_drop_rate", "layer_scale_init_value", "inference_mode",
)  # fmt: skip
"""Arguments that change training or the start of it, or that the tensors themselves tell."""


def tower_from_timm(vision: Fields) -> FastVLMConfig:
    """Reads the `vision_config` of a Hugging Face folder.

    Raises:
        CheckpointError: another architecture, or an argument that has no counterpart here.
    """
    vision.expect("model_type", "timm_wrapper")
    if vision.needed("architecture") != ARCHITECTURE:
        vision.expect("architecture", ARCHITECTURE)
    there = vision.values.get("model_args") is not None
    arguments = vision.part("model_args") if there else Fields({}, vision.source)
    changes: dict[str, Any] = {}
    with reading(arguments.source):
        for name, value in arguments.values.items():
            if name in FIXED:
                arguments.expect(name, FIXED[name])
            elif name not in WITHOUT_EFFECT:
                changes |= _argument(arguments, name, value)
        return dataclasses.replace(FastVLMConfig.from_variant(BASE), **changes)


def _argument(arguments: Fields, name: str, value: Any) -> dict[str, Any]:
    """One argument of timm's network as a field of ours."""
    simple = {
        "layers": "depths",
        "embed_dims": "embed_dims",
        "token_mixers": "mixers",
        "lkc_use_act": "downsample_activation",
        "stem_use_scale_branch": "stem_scale_branch",
    }
    if name in simple:
        return {simple[name]: tuple(value) if isinstance(value, list) else value}
    if name == "mlp_ratios" and len(set(value)) == 1:
        return {"mlp_ratio": float(value[0])}
    if name == "se_downsamples":
        return {"se_stages": tuple(i for i, used in enumerate(value) if used)}
    if name == "pos_embs" and not any(value):
        return {"positional_stages": ()}
    if name == "downsamples" and list(value) == [False] + [True] * (len(value) - 1):
        return {}
    raise CheckpointError(f"{arguments.source}: {name}={short(value)} has no counterpart here")


def timm_arguments(config: FastVLMConfig, fused: bool) -> dict[str, Any]:
    """`model_args` with which timm builds the same tower; the inverse of `tower_from_timm`.

    Raises:
        VariantError: timm's `fastvit_mci3` cannot be told to be this network.
    """
    base = FastVLMConfig.from_variant(BASE)
    only_training = {"num_classes": 0, "dropout_rate": 0.0, "drop_path_rate": 0.0}
    only_training |= {"layer_scale_init": base.layer_scale_init, "image_size": base.image_size}
    if _plain(config, only_training) == _plain(base, only_training):
        return {"inference_mode": fused}
    problems = {
        "a tail that does not double the channels": config.tail_expansion != 2,
        "batch norms in its attention blocks": config.attention_norm != "layer"
        and "attention" in config.stage_mixers,
        "maps of several scales": config.multi_scale > 0,
        "conditional positions": any(map(config.has_position, range(len(config.depths)))),
        "heads that are not 32 channels wide": any(
            kind == "attention" and config.heads(i) * 32 != config.embed_dims[i]
            for i, kind in enumerate(config.stage_mixers)
        ),
    }
    for problem, there in problems.items():
        if there:
            raise VariantError(
                f"a tower with {problem} cannot be written for transformers, which only builds "
                f"variations of {ARCHITECTURE}; use the variant {BASE!r}, or save_to_preset()"
            )
    return {**_all_arguments(config), "inference_mode": fused}


def _plain(config: FastVLMConfig, same: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that change the network, with defaults filled in."""
    stages = range(len(config.depths))
    return {
        **dataclasses.asdict(config),
        **same,
        "num_heads": [config.heads(i) for i in stages],
        "mixers": config.stage_mixers,
        "positional_stages": [i for i in stages if config.has_position(i)],
        "se_stages": [i for i in stages if i and config.has_se(i)],
        "use_se": None,
        **dict.fromkeys(("mean", "std", "crop_fraction", "interpolation")),
    }


def _all_arguments(config: FastVLMConfig) -> dict[str, Any]:
    stages = len(config.depths)
    return {
        "layers": list(config.depths),
        "embed_dims": list(config.embed_dims),
        "mlp_ratios": list(config.mlp_ratios),
        "token_mixers": list(config.stage_mixers),
        "pos_embs": [None] * stages,
        "downsamples": [i > 0 for i in range(stages)],
        "se_downsamples": [i > 0 and config.has_se(i) for i in range(stages)],
        "lkc_use_act": config.downsample_activation,
        "stem_use_scale_branch": config.stem_scale_branch,
    }


def tower_from_apple(shapes: Mapping[str, Sequence[int]]) -> FastVLMConfig:
    """Finds the tower's numbers from Apple's names, whose config says nothing about them.

    Args:
        shapes: name below the tower's prefix -> shape.

    Raises:
        CheckpointError: the names are not those of a fused FastViTHD of any size.
    """
    depths: dict[int, set[int]] = {}
    for name in shapes:
        if block := re.match(r"network\.(\d+)\.(\d+)\.", name):
            depths.setdefault(int(block[1]), set()).add(int(block[2]))
    if not depths or "patch_embed.0.reparam_conv.weight" not in shapes:
        first = ", ".join(list(shapes)[:3]) or "none"
        raise CheckpointError(
            "the tensors of the tower are not those of a fused FastViTHD (patch_embed.*."
            f"reparam_conv, network.*); the first are {first}"
        )
    stages = sorted(depths)
    first_block = [f"network.{i}.0." for i in stages]
    dims = [shapes[_existing(shapes, f"{block}convffn.fc1.weight")] for block in first_block]
    return dataclasses.replace(
        FastVLMConfig.from_variant(BASE),
        embed_dims=tuple(int(shape[1]) for shape in dims),
        depths=tuple(len(depths[i]) for i in stages),
        mlp_ratio=dims[0][0] / dims[0][1],
        mixers=tuple(
            "attention" if f"{block}token_mixer.qkv.weight" in shapes else "repmixer"
            for block in first_block
        ),
        positional_stages=tuple(
            number
            for number, i in enumerate(stages)
            if f"network.{i - 1}.reparam_conv.weight" in shapes
        ),
    )


def _existing(shapes: Mapping[str, Any], name: str) -> str:
    if name not in shapes:
        raise CheckpointError(f"the tensors of the tower lack {name!r}; download the file again")
    return name
