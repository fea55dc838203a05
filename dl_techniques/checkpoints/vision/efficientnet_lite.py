"""EfficientNet-Lite: the table of timm's names and of EfficientNet-PyTorch's, and its numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from dl_techniques.checkpoints.vision.tables import head_rules, norm
from dl_techniques.checkpoints.weight_map import CONV, DEPTHWISE, Derive, Rule, Transform
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vision.efficientnet_lite.config import EfficientNetLiteConfig

NAME = "efficientnet_lite"
HEADS = {"timm": "classifier", "pytorch": "_fc"}
"""Words -> what the layout calls the classifier."""
TIMM_PARTS = {
    True: {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"),
           "project": ("conv_pwl", "bn3")},
    False: {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")},
}  # fmt: skip
"""Whether a stage expands -> part of a block -> timm's convolution and BatchNorm."""
PYTORCH_PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
ENDS = {
    "timm": {"stem": ("conv_stem", "bn1"), "tail": ("conv_head", "bn2")},
    "pytorch": {"stem": ("_conv_stem", "_bn0"), "tail": ("_conv_head", "_bn1")},
}


def efficientnet_lite_rules(
    config: EfficientNetLiteConfig, words: str
) -> tuple[list[Rule], Derive]:
    """The table of one network, and the fields that it computes.

    Args:
        config: its stages; one that does not expand has other names in timm, and a flat numbering
            of blocks depends on their depths.
        words: "timm", or "pytorch" for EfficientNet-PyTorch's names.
    """
    rules: list[Rule] = []
    for end, (conv, bn) in ENDS[words].items():
        rules += _part(end, conv, bn, CONV)
    for stage, expansion in enumerate(config.expansions):
        target = f"stage_{stage + 1}/block_{{b}}"
        timm = words == "timm"
        source = f"blocks.{stage}.{{b}}" if timm else f"_blocks.{{flat_{stage}}}"
        parts = TIMM_PARTS[expansion > 1] if timm else PYTORCH_PARTS
        for part, (conv, bn) in parts.items():
            kind = DEPTHWISE if part == "depthwise" else CONV
            rules += _part(f"{target}/{part}", f"{source}.{conv}", f"{source}.{bn}", kind)
    starts = [0, *itertools.accumulate(config.depths)]

    def flat(fields: dict[str, str]) -> dict[str, str]:
        if "b" not in fields:
            return {}
        return {f"flat_{i}": str(first + int(fields["b"])) for i, first in enumerate(starts)}

    return rules + head_rules(HEADS[words]), flat


def _part(target: str, conv: str, bn: str, transform: Transform) -> list[Rule]:
    """A convolution without bias and its BatchNorm, whose names stand side by side."""
    kernel = Rule(f"{target}/conv/kernel", f"{conv}.weight", transform)
    return [kernel, *norm(f"{target}/norm", bn)]


def read_efficientnet_lite(
    words: str, shapes: Mapping[str, tuple[int, ...]]
) -> EfficientNetLiteConfig:
    """What a file says about its network; strides leave no trace, and are those of the family.

    Args:
        words: "timm" or "pytorch".
        shapes: name without prefix -> shape.

    Raises:
        CheckpointError: blocks are missing.
        VariantError: the numbers are no network's.
    """
    stages = _timm_stages(shapes) if words == "timm" else _flat_stages(shapes)
    ends = [f"{conv}.weight" for conv, _ in ENDS[words].values()]
    missing = [name for name in ends if name not in shapes]
    if missing or not stages:
        raise CheckpointError(f"the tensors lack {missing or 'all blocks'}")
    first = [blocks[0] for blocks in stages]
    return EfficientNetLiteConfig(
        embed_dims=tuple(out for _, out, _ in first),
        depths=tuple(len(blocks) for blocks in stages),
        kernel_sizes=tuple(kernel for kernel, _, _ in first),
        expansions=tuple(expansion for _, _, expansion in first),
        strides=_strides(len(stages)),
        stem_dim=shapes[ends[0]][0],
        head_dim=shapes[ends[1]][0],
    )


def _strides(stages: int) -> tuple[int, ...]:
    family = EfficientNetLiteConfig().strides
    return family if stages == len(family) else (1,) * stages


Block = tuple[int, int, int]
"""Kernel, output channels, expansion."""


def _block(depthwise: tuple[int, ...], project: tuple[int, ...], expand: tuple[int, ...]) -> Block:
    return depthwise[-1], project[0], expand[0] // expand[1] if expand else 1


def _timm_stages(shapes: Mapping[str, tuple[int, ...]]) -> list[list[Block]]:
    stages: dict[int, list[Block]] = {}
    found = (re.fullmatch(r"blocks\.(\d+)\.(\d+)\.conv_dw\.weight", name) for name in shapes)
    for stage, block in sorted((int(m[1]), int(m[2])) for m in found if m):
        prefix = f"blocks.{stage}.{block}."
        last = shapes.get(f"{prefix}conv_pwl.weight")
        pointwise = shapes.get(f"{prefix}conv_pw.weight", ())
        project, expand = (last, pointwise) if last else (pointwise, ())
        if not project:
            raise CheckpointError(f"the tensors lack {prefix}conv_pw.weight")
        depthwise = shapes[f"{prefix}conv_dw.weight"]
        stages.setdefault(stage, []).append(_block(depthwise, project, expand))
    return list(stages.values())


def _flat_stages(shapes: Mapping[str, tuple[int, ...]]) -> list[list[Block]]:
    """One list of blocks; those of a stage have the same output channels."""
    found = (re.fullmatch(r"_blocks\.(\d+)\._depthwise_conv\.weight", name) for name in shapes)
    blocks = []
    for index in sorted(int(m[1]) for m in found if m):
        prefix = f"_blocks.{index}."
        if f"{prefix}_project_conv.weight" not in shapes:
            raise CheckpointError(f"the tensors lack {prefix}_project_conv.weight")
        blocks.append(
            _block(
                shapes[f"{prefix}_depthwise_conv.weight"],
                shapes[f"{prefix}_project_conv.weight"],
                shapes.get(f"{prefix}_expand_conv.weight", ()),
            )
        )
    return [list(group) for _, group in itertools.groupby(blocks, key=lambda block: block[1])]
